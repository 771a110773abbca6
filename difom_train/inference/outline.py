"""Masks made visible: a line around each polyp, and the list of polyps in a mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects, label

LINE_SHARE = 1 / 300  # of the picture's shorter side; at least 1 px
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)
DARK = (16, 20, 24)
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Polyp:
    """One connected area of a mask (8 neighbours)."""

    area_px: int
    box: tuple[int, int, int, int]  # top, left, height, width in px
    mean_prob: float


def list_polyps(mask: NDArray[np.bool_], prob: NDArray[np.float32]) -> list[Polyp]:
    """Return the connected areas of `mask` (H, W), the largest first."""
    labels, _ = label(mask, structure=EIGHT_NEIGHBOURS)
    polyps = []
    for number, (rows, columns) in enumerate(find_objects(labels), start=1):
        area = labels[rows, columns] == number
        polyps.append(
            Polyp(
                area_px=int(np.count_nonzero(area)),
                box=(rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start),
                mean_prob=float(prob[rows, columns][area].mean(dtype=np.float64)),
            )
        )
    return sorted(polyps, key=lambda polyp: (-polyp.area_px, polyp.box))


def draw_outline(picture: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Colour) -> NDArray[np.uint8]:
    """Return the picture with a line just outside the mask, dark on its outer side so that it shows on any ground.

    Args:
        picture: (H, W, 3) uint8 RGB.
        mask: (H, W).
        colour: RGB.
    """
    drawn = picture.copy()
    if not mask.any():
        return drawn
    line_px = max(1, round(min(mask.shape) * LINE_SHARE))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    reach = 2 * line_px
    window = (
        slice(max(0, rows[0] - reach), rows[-1] + 1 + reach),
        slice(max(0, columns[0] - reach), columns[-1] + 1 + reach),
    )
    inside = mask[window]
    line = binary_dilation(inside, EIGHT_NEIGHBOURS, iterations=line_px)
    halo = binary_dilation(line, EIGHT_NEIGHBOURS, iterations=line_px)
    drawn[window][halo & ~line] = DARK
    drawn[window][line & ~inside] = colour
    return drawn
