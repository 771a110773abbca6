"""How well each codec keeps what a trained network says of real frames."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from compact_basis import fit_compact
from torch import Tensor

from difom_cache import Record, Teacher, build_teacher, load_records, read_image, replay_image
from difom_cache.codecs import Fidelity, build_codec, fit_packed, measure_fidelity
from difom_cache.teachers import area_pool
from difom_cache.views import POLICIES, draw_params

pytestmark = [pytest.mark.slow, pytest.mark.weights]
FRAMES = 12


def tap_maps(teacher: Teacher, records: Sequence[Record], *, view: int) -> dict[str, Tensor]:
    """Return the map of every tap for one view of each record, (B, C, g, g) by tap name."""
    maps: dict[str, list[Tensor]] = {tap.name: [] for tap in teacher.spec.taps}
    for record in records:
        image = torch.from_numpy(np.array(read_image(record.image))).permute(2, 0, 1)
        params = draw_params(POLICIES["default"], record.width, record.height, 0, record.id, view)
        native = teacher.features(replay_image(image, params, teacher.spec.input_px)[None])
        for tap in teacher.spec.taps:
            maps[tap.name].append(area_pool(native[tap.native], tap.grid(352)))
    return {name: torch.cat(parts) for name, parts in maps.items()}


@pytest.fixture(scope="module")
def maps() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Maps to fit a basis on (view 0), and maps of other frames' augmented views to judge it by."""
    if not {"DIFOM_BENCHMARK", "DIFOM_TEACHER_ONNX"} <= set(os.environ):
        pytest.skip("DIFOM_BENCHMARK or DIFOM_TEACHER_ONNX is not set: no real frames, or no trained teacher")
    teacher = build_teacher(f"onnx:{os.environ['DIFOM_TEACHER_ONNX']}@352")
    records = load_records(Path(os.environ["DIFOM_BENCHMARK"]), splits=["test"])
    step = len(records) // FRAMES
    return tap_maps(teacher, records[::step], view=0), tap_maps(teacher, records[step // 2 :: step], view=3)


def judge(codec: str, fitted: Tensor, live: Tensor) -> Fidelity:
    fit = {"compact": fit_compact, "packed": fit_packed}.get(codec)
    stored = build_codec(codec, live.shape[1], basis=fit([fitted]) if fit else None)
    valid = torch.ones(len(live), *live.shape[2:], dtype=torch.bool)
    return measure_fidelity(live, stored.decode(*stored.encode(live)), valid)


@pytest.mark.parametrize(("codec", "least_cosine"), [("float16", 0.99999), ("int8", 0.999)])
def test_every_tap_keeps_its_cosine(maps, codec, least_cosine):
    for name, live in maps[1].items():
        fidelity = judge(codec, maps[0][name], live)
        assert fidelity.mean_cosine >= least_cosine, name
        assert fidelity.cosine_percentile(1) >= 1 - 3 * (1 - least_cosine), name


def test_packed_keeps_more_than_compact_of_frames_that_neither_was_fitted_on(maps):
    wide = [name for name, live in maps[1].items() if live.shape[1] >= 128]
    assert wide
    for name in wide:
        packed, compact = (judge(codec, maps[0][name], maps[1][name]) for codec in ("packed", "compact"))
        assert packed.mean_cosine > compact.mean_cosine, name
