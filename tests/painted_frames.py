"""Painted test sets in PraNet's layout, and small students, for the tests of scores, pictures and exports."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from difom_train import build_student
from difom_train.inference import render_picture
from difom_train.students import save_student

SIZES = {"Kvasir": (70, 58), "CVC-ColonDB": (64, 48), "CVC-300": (64, 48)}
"""Test set to (width, height) of its frames."""


def paint_frame(seed: int, width: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a pink frame (height, width, 3) with one brighter round polyp, and the polyp's mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    centre = rng.uniform(0.3, 0.7, 2) * (height, width)
    mask = np.hypot(y - centre[0], x - centre[1]) < rng.uniform(0.12, 0.28) * min(height, width)
    picture = np.array([150, 80, 70]) + 60 * mask[..., None] + rng.normal(0, 6, (height, width, 3))
    return picture.clip(0, 255).astype(np.uint8), mask


def paint_benchmark(root: Path, *, frames: int = 3) -> Path:
    """Write TestDataset/<set>/{images,masks} below `root` and return `root`; frame stems are 1, 2, 3..."""
    for number, (dataset, (width, height)) in enumerate(SIZES.items()):
        folder = root / "TestDataset" / dataset
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True)
        for stem in range(1, frames + 1):
            picture, mask = paint_frame(100 * number + stem, width, height)
            Image.fromarray(picture).save(folder / "images" / f"{stem}.png")
            Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
    return root


def save_small_student(run: Path, *, seed: int = 0, name: str = "unet", input_px: int = 32) -> Path:
    """Write an untrained student of width 4 as a finished run, and return its folder.

    Its last bias is moved so that about half of a painted frame counts as polyp: masks are neither empty nor full.
    """
    student = build_student(name, width=4, weights="random", seed=seed).eval()
    last_bias = [value for value in student.parameters() if value.shape == (1,)][-1]
    with torch.no_grad():
        pixels = render_picture(paint_frame(0, 64, 48)[0], input_px)
        last_bias -= student(pixels[None]).median()
    save_student(student, run, {"input_px": input_px})
    return run
