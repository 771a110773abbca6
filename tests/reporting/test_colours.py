"""Colours that lie on images are told apart by readers with each kind of colour blindness."""

from itertools import combinations

import numpy as np
import pytest

from difom_train import demo
from difom_train.inference import OUTLINE_COLOUR
from difom_train.reporting import html

# Linear RGB as seen without red, green or blue cones: Machado et al. 2009, severity 1.
VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
TISSUE = (190, 95, 75), (230, 150, 120)
APART = 25.0
"""Distance in CIELAB; two colours beside each other differ plainly from about 10 on."""


def to_lab(colour, vision):
    value = np.array(colour) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    part = XYZ @ np.clip(vision @ linear, 0, 1) / XYZ.sum(1)
    root = np.where(part > 0.008856, np.cbrt(part), 7.787 * part + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def blend(colour):
    """Return a colour of the demo as it lies on tissue."""
    return tuple(0.55 * np.array(TISSUE[0]) + 0.45 * np.array(colour))


SETS = {
    "demo": [blend(each) for each in (demo.AGREE, demo.MISSED, demo.FALSE_ALARM)],
    "report": [html.TRUTH_COLOUR, *(bright for _, bright in html.COLOURS[:3])],
    **{f"outline {number}": [OUTLINE_COLOUR, tissue] for number, tissue in enumerate(TISSUE)},
}


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("name", SETS)
def test_colours_on_images_are_told_apart(name, vision):
    labs = [to_lab(colour, VISIONS[vision]) for colour in SETS[name]]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(labs, 2)) > APART


def test_the_measure_is_that_of_cielab():
    np.testing.assert_allclose(to_lab((255, 255, 255), np.eye(3)), [100, 0, 0], atol=0.02)
    np.testing.assert_allclose(to_lab((255, 0, 0), np.eye(3)), [53.24, 80.09, 67.20], atol=0.2)  # sRGB red, D65
