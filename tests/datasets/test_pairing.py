"""Pictures find their masks by names as other tools give them, or the refusal says which names were looked for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difom_cache import load_records
from difom_cache.errors import DataError


def write_pair(root: Path, image: str, mask: str, *, masks: str = "masks") -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    for part in ("images", masks):
        (root / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(root / "images" / image)
    Image.fromarray(np.eye(20, 24) > 0).save(root / masks / mask)
    return root


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("x.jpg", "x.jpg.png"),
        ("x.jpg", "mask_x.tif"),
        ("x.jpg", "x_segmentation.png"),
        ("x.jpg", "x_Segmentation.PNG"),
        ("x.jpg", "x_mask.jpg.png"),
        ("M\u00fcller.png", "Mu\u0308ller.png"),
        ("Mu\u0308ller.png", "M\u00fcller_mask.png"),
        ("mask_x.jpg", "mask_x.png"),
        ("12.png", "p12.png"),
    ],
)
def test_a_mask_finds_its_picture_by_name(tmp_path: Path, image: str, mask: str) -> None:
    (record,) = load_records(write_pair(tmp_path, image, mask))
    assert (record.image.name, record.mask and record.mask.name) == (image, mask)


@pytest.mark.parametrize("mask", ["x.jpg.png", "mask_x.tif", "x_segmentation.png"])
def test_a_mask_beside_its_picture_is_told_from_it(tmp_path: Path, mask: str) -> None:
    (record,) = load_records(write_pair(tmp_path, "x.jpg", mask, masks="images"))
    assert (record.image.name, record.mask and record.mask.name) == ("x.jpg", mask)


def test_names_that_differ_in_accents_alone_find_each_their_own(tmp_path: Path) -> None:
    for name in ("M\u00fcller.png", "Mu\u0308ller.png"):
        write_pair(tmp_path, name, name)
    assert all(record.mask and record.image.name == record.mask.name for record in load_records(tmp_path))


def test_a_refusal_says_which_names_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mask_y\.tif.*looked for a picture called mask_y, y\)"):
        load_records(write_pair(tmp_path, "x.jpg", "mask_y.tif"))
