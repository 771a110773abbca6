"""The real DINOv2 ViT-S/14 on real frames, against transformers' own model, alone and through a whole cache."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import check_parity
from torch import Tensor
from torch.nn import functional
from transformers import Dinov2Model

from difom_cache import build_teacher, extract, load_records, read_image, verify
from difom_cache.teachers import quiet

SIZES = [224, pytest.param(518, marks=pytest.mark.slow), pytest.param(616, marks=pytest.mark.slow)]
"""224 px: the smallest the authors use; 518 px: the positions as they were trained; 616 px: our default."""


@pytest.fixture(scope="module")
def folder() -> str:
    if "DIFOM_DINOV2" not in os.environ:
        pytest.skip("DIFOM_DINOV2 is not set: it names a folder with the real DINOv2 ViT-S/14")
    return os.environ["DIFOM_DINOV2"]


@pytest.fixture(scope="module")
def frames() -> Path:
    if "DIFOM_BENCHMARK" not in os.environ:
        pytest.skip("DIFOM_BENCHMARK is not set: no real frames to look at")
    return Path(os.environ["DIFOM_BENCHMARK"]) / "TestDataset" / "Kvasir"


def picture_px(input_px: int) -> int:
    """Return the side of the stored pictures: at 224 px the teacher's own, as its grid is too coarse for the usual."""
    return min(input_px, 352)


def read_pixels(frames: Path, px: int, count: int, mode: str = "bilinear") -> Tensor:
    """Return real frames as a teacher sees them, float32 (B, 3, px, px) in [0, 1]."""
    images = [read_image(record.image) for record in load_records(frames, splits=["test"], limit=count)]
    pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] for image in images]
    return torch.cat([functional.interpolate(x, (px, px), mode=mode, antialias=True) for x in pixels]) / 255


def read_library(model: Dinov2Model, pixels: Tensor) -> dict[str, Tensor]:
    """Return every block's patch tokens after the last norm, as the authors' `get_intermediate_layers` gives them."""
    states = model(pixels, output_hidden_states=True).hidden_states[1:]
    side = pixels.shape[-1] // 14
    return {f"block{i}": model.layernorm(s)[:, 1:].mT.unflatten(2, (side, side)) for i, s in enumerate(states)}


@pytest.mark.parametrize("px", SIZES)
def test_every_default_tap_equals_the_librarys_own_model(px, folder, frames):
    with quiet():
        library = Dinov2Model.from_pretrained(folder, dtype=torch.float32)
    teacher = build_teacher(f"dinov2:small@{px}", weights=folder, picture_px=picture_px(px))
    assert [tap.native for tap in teacher.spec.taps] == ["block5", "block11"]
    check_parity(teacher, library, read_library, pixels=read_pixels(frames, px, 2 if px == 224 else 1))


@pytest.mark.parametrize("px", SIZES)
def test_a_cache_of_it_is_what_the_live_teacher_gives(px, folder, frames, tmp_path):
    arguments = {"teacher": f"dinov2:small@{px}", "weights": folder, "data": frames, "split": ("test",), "limit": 2}
    assert extract(**arguments, cache=tmp_path / "feats", input_size=picture_px(px), quiet=True).complete
    report = verify(tmp_path / "feats", recompute=2, data=frames, weights=folder)
    label = "dinov2-small" if px == 616 else f"dinov2-small-{px}px"
    assert report.sound and set(report.recomputed) == {f"{label}/block5@16", f"{label}/block11@32"}
    for name, figures in report.recomputed.items():
        assert figures["cosine_percentile_1"] > 0.999, name  # what int8 keeps


@pytest.mark.slow
@pytest.mark.parametrize("px", [224, 616])
def test_bicubic_resizing_as_the_authors_have_it_would_change_little(px, folder, frames):
    # docs/measurements.md has more frames, and what a linear probe makes of the difference
    teacher = build_teacher(f"dinov2:small@{px}", weights=folder, picture_px=picture_px(px))
    ours, theirs = (teacher.features(read_pixels(frames, px, 4, mode)) for mode in ("bilinear", "bicubic"))
    for tap, feature in ours.items():
        assert 0.999 < functional.cosine_similarity(feature, theirs[tap], dim=1).mean() < 0.99999, tap
