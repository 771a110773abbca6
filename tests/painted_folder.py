"""A folder of small painted pictures with masks, in the plainest layout, for tests that extract."""

from pathlib import Path

import numpy as np
from PIL import Image


def paint_folder(
    root: Path, frames: int = 6, *, width: int = 40, height: int = 32, empty: int = 0, unlabelled: int = 0
) -> Path:
    """Write images/ and masks/ below `root` and return `root`.

    Args:
        root: made if needed.
        frames: pictures, named 000.png, 001.png...
        width, height: of each, px.
        empty: so many of the first have a mask without a polyp.
        unlabelled: so many of the last have no mask.
    """
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "masks").mkdir(exist_ok=True)
    y, x = np.mgrid[:height, :width]
    for number in range(frames):
        rng = np.random.default_rng(number)
        centre = rng.uniform(0.3, 0.7, 2) * (height, width)
        mask = np.hypot(y - centre[0], x - centre[1]) < 0.25 * height
        picture = np.array([150, 80, 70]) + 60 * mask[..., None] + rng.normal(0, 12, (height, width, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{number:03d}.png")
        if number < frames - unlabelled:
            Image.fromarray(mask & (number >= empty)).save(root / "masks" / f"{number:03d}.png")
    return root
