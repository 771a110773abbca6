"""A GPU that is too small for a batch gets half of it, and one that is too small for an image ends the command in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from painted_folder import paint_folder
from pretend_gpu import pretend_gpu

from difom_cache.errors import DeviceError
from difom_train import build_student, evaluate, save_student
from difom_train.inference import load_segmenter, segment

SIDE = 32
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is pretended")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_student(build_student("unet", width=2, weights="random", seed=1), tmp_path / "run", {"input_px": SIDE})
    return tmp_path / "run"


def test_a_batch_that_does_not_fit_is_halved_and_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = list(np.random.default_rng(0).integers(0, 255, (6, 40, 50, 3), np.uint8))
    here = segment(load_segmenter(run, device="cpu"), pictures)
    with pretend_gpu() as gpu:
        segmenter = load_segmenter(run, device="cuda")
        gpu.most_numbers = 2 * 4 * SIDE * SIDE  # the widest map of two images
        there = segment(segmenter, pictures)
        said = capsys.readouterr().err
        again = segment(segmenter, pictures)
    assert "too little memory for 6 images at a time: now 3" in said and "for 3 images at a time: now 1" in said
    assert segmenter.fits == 1 and not capsys.readouterr().err
    np.testing.assert_allclose(there, here, atol=1e-4)
    assert np.array_equal(there, again)


def test_an_image_that_does_not_fit_is_one_line(run: Path, tmp_path: Path) -> None:
    data = paint_folder(tmp_path / "data", frames=2)
    with pretend_gpu() as gpu, pytest.raises(DeviceError, match="the GPU ran out of memory"):
        gpu.most_numbers = 3 * SIDE * SIDE
        evaluate(run, data, device="cuda", workers=0)
