"""What a batch asks of a GPU while it is rendered, normalised and encoded: few kernels, and nothing that the host waits for."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from landmarks import VIEWS
from pretend_gpu import Work, pretend_gpu

from difom_cache import ViewParams
from difom_cache.codecs import build_codec
from difom_cache.extraction import Frame, Stopwatch, TeacherBlock, ViewJob, render
from difom_cache.teachers import normalise

CUDA = torch.device("cuda")
BATCH = 8
TAPS = {"block5": 22, "block11": 22}


pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is pretended")


def render_views(*params: ViewParams) -> Work:
    """Return what rendering a batch of these views takes, each of a frame of its own."""
    with pretend_gpu() as gpu:
        frames = [Frame(torch.zeros((3, 310, 400), dtype=torch.uint8), None, 0.0) for _ in params]
        jobs = [ViewJob(None, each, True, 0) for each in params]
        assert render(jobs, frames, 224, len(params), CUDA).shape == (len(params), 3, 224, 224)
    return gpu.work


@pytest.mark.parametrize(
    ("view", "each", "together"),
    [("plain", 4, 3), ("flip_then_turn", 6, 3), ("everything", 6, 22), ("rotate_padded", 4, 40)],
)
def test_a_batch_is_rendered_in_few_kernels_and_without_waiting(view: str, each: int, together: int) -> None:
    """View by view, such a batch took 41 and 57 kernels and 8 waits upright, 393 and 513 kernels and 16 waits rotated."""
    work = render_views(*[VIEWS[view]] * BATCH)
    launches, waits, uploads = work.counts
    assert launches <= each * BATCH + together, work.launches
    assert not waits
    assert uploads <= BATCH + 2  # a frame each, and twice the numbers of all rotations


def test_a_frame_goes_to_the_device_once_for_all_of_its_views() -> None:
    frame = Frame(torch.zeros((3, 310, 400), dtype=torch.uint8), None, 0.0)
    with pretend_gpu() as gpu:
        frame = replace(frame, image=torch.zeros((3, 310, 400), dtype=torch.uint8))
        jobs = [ViewJob(None, VIEWS["flip_h"], True, number) for number in range(3)]
        render(jobs, [frame] * 3, 224, 4, CUDA)
    assert gpu.work.counts[1:] == (0, 1)


def test_constants_of_a_teacher_stay_on_the_device() -> None:
    with pretend_gpu() as gpu:
        mean, std = torch.zeros(3, device=CUDA), torch.ones(3, device=CUDA)
        pixels = torch.zeros((2, 3, 8, 8), device=CUDA)
        gpu.work = Work()
        normalise(pixels, mean, std)
    assert gpu.work.counts == (2, 0, 0)


def encode(params: ViewParams) -> Work:
    """Return what encoding a batch of two taps takes, without the teacher's own work."""
    taps = [SimpleNamespace(name=name, grid=grid) for name, grid in TAPS.items()]
    requests = tuple(SimpleNamespace(native=name) for name in TAPS)
    with pretend_gpu() as gpu:
        maps = {name: torch.zeros((BATCH, 384, grid, grid), device=CUDA) for name, grid in TAPS.items()}
        spec = SimpleNamespace(input_px=224, taps=requests)
        codecs = {name: build_codec("int8", 384) for name in TAPS}
        arrays = [
            SimpleNamespace(path=f"{name}/{part}", row_shape=shape, dtype=dtype)
            for name, grid in TAPS.items()
            for part, shape, dtype in (("code", (384, grid, grid), "int8"), ("scale", (384,), "float32"))
        ]
        encoder = SimpleNamespace(
            teacher=SimpleNamespace(spec=spec, features=lambda _: maps),
            identity=SimpleNamespace(taps=taps),
            codecs=codecs,
            device=CUDA,
            batch=BATCH,
            column=SimpleNamespace(arrays=arrays),
        )
        jobs = tuple(ViewJob(None, params, True, 0) for _ in range(BATCH))
        frames = [Frame(torch.zeros((3, 310, 400), dtype=torch.uint8), None, 0.0)] * BATCH
        block = TeacherBlock(encoder, SimpleNamespace(views=jobs * 2))
        block.add(jobs, frames, Stopwatch(torch.device("cpu")), None)
        gpu.work = Work()
        block.add(jobs, frames, Stopwatch(torch.device("cpu")), None)
    return gpu.work


@pytest.mark.parametrize(("view", "uploads", "kernels"), [("plain", 2, 192), ("rotate_padded", 5, 228)])
def test_a_batch_is_encoded_without_waiting(view: str, uploads: int, kernels: int) -> None:
    """It waited for two uploads a tap while every tap had its own; most kernels are those that measure fidelity."""
    work = encode(VIEWS[view])
    launches, waits, found = work.counts
    assert (waits, found) == (0, uploads)  # of frame, splits, rotations, valid cells
    assert work.downloads.total() == 2 * len(TAPS)  # code and scale of each
    assert launches <= kernels


def test_stages_are_timed_on_the_gpu_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[object] = []
    event = SimpleNamespace(
        record=lambda stream=None: recorded.append(stream), synchronize=lambda: None, elapsed_time=lambda _: 2000
    )
    monkeypatch.setattr(torch.cuda, "Event", lambda **_: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    watch = Stopwatch(torch.device("cuda:1"))
    with watch.on_device("teacher"):
        pass
    assert watch.read()["teacher"] == 2
    assert recorded == ["stream of cuda:1"] * 2
