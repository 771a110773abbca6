"""On a real GPU: what a pretended one can only count. Everywhere else these are skipped.

`DIFOM_PRETEND_GPU=1 pytest -m gpu tests/device` runs on a pretended one those that can be, so that they are known to run.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painted_folder import paint_folder
from paths import RECIPES, STUDENTS, TEACHERS, build, draw, train_small
from pretend_gpu import pretend_gpu
from small_cache import write_small_cache
from small_networks import save_onnx

from difom_cache import build_teacher
from difom_cache.errors import DeviceError
from difom_train import CacheLoader, build_student, evaluate, export, load_student, predict, save_student
from difom_train.training import read_log

PRETENDED = bool(os.environ.get("DIFOM_PRETEND_GPU")) and not torch.cuda.is_available()
real = pytest.mark.skipif(PRETENDED, reason="a pretended GPU cannot do this")
pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("gpu")]
ERRORS = {"float32": 1e-4, "bfloat16": 0.05}
"""Precision to the most that the norm of a map's error may be of the norm of the map."""


@pytest.fixture
def gpu() -> Iterator[None]:
    if torch.cuda.is_available():
        yield
    elif PRETENDED:
        with pretend_gpu():
            yield
    else:
        pytest.skip("needs a CUDA device")


def compare(here: dict[str, Any], there: dict[str, Any], most: float) -> None:
    for name, each in here.items():
        assert there[name].device.type == "cuda" and there[name].dtype == torch.float32
        assert (there[name].cpu() - each).norm() <= most * each.norm(), name


@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("spec", [*TEACHERS, "hf"])
def test_a_teacher_gives_what_it_gives_on_the_cpu(spec: str, precision: Any, tmp_path: Path) -> None:
    here = build(spec, tmp_path, device="cpu", precision="float32").features(draw(spec))
    teacher = build(spec, tmp_path, device="cuda", precision=precision)
    compare(here, teacher.features(draw(spec).to("cuda")), ERRORS[precision])


@real
def test_an_onnx_teacher_gives_what_it_gives_on_the_cpu(tmp_path: Path) -> None:
    spec, pixels = f"onnx:{save_onnx(tmp_path / 'small.onnx')}@128", torch.rand(2, 3, 128, 128)
    here = build_teacher(spec, picture_px=128).features(pixels)
    teacher: Any = build_teacher(spec, device="auto", picture_px=128)
    for name, each in teacher.features(pixels.to(teacher.device)).items():
        torch.testing.assert_close(each.cpu(), here[name], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("recipe", "student"),
    [*((recipe, "unet") for recipe in RECIPES), *(("difom-multiscale", each) for each in STUDENTS)],
)
def test_a_run_learns_what_it_learns_on_the_cpu(recipe: str, student: str, tmp_path: Path) -> None:
    losses = []
    for device in ("cpu", "cuda"):
        train_small(tmp_path / device, student=student, recipe=recipe, device=device, precision="float32", epochs=1)
        losses.append(read_log(tmp_path / device)[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_a_run_in_bfloat16_learns_nearly_what_it_learns_on_the_cpu(tmp_path: Path) -> None:
    for device, precision in (("cpu", "float32"), ("cuda", "bfloat16")):
        train_small(tmp_path / device, recipe="difom-multiscale", device=device, precision=precision, epochs=1)
    here, there = (read_log(tmp_path / device)[0]["loss"] for device in ("cpu", "cuda"))
    assert there == pytest.approx(here, rel=0.1)


@real
def test_a_compiled_run_learns_what_a_plain_one_does(tmp_path: Path) -> None:
    for name in ("plain", "compiled"):
        train_small(
            tmp_path / name, recipe="difom-multiscale", device="cuda", precision="float32", compile=name == "compiled"
        )
    plain, compiled = (read_log(tmp_path / name)[0]["loss"] for name in ("plain", "compiled"))
    assert compiled == pytest.approx(plain, rel=1e-2)


@real
def test_gradients_through_ddp_are_those_without_it() -> None:
    """One process and one GPU: its own average."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("nccl", store=store, rank=0, world_size=1)
    try:
        student = build_student("unet", width=2, weights="random", seed=1).to("cuda")
        pixels = torch.rand(2, 3, 64, 64, device="cuda")
        wrapped = torch.nn.parallel.DistributedDataParallel(student, [0], find_unused_parameters=True)
        found = []
        for network in (student, wrapped):
            network(pixels).square().mean().backward()
            found.append([each.grad.clone() for each in student.parameters() if each.grad is not None])
            student.zero_grad()
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    finally:
        torch.distributed.destroy_process_group()


@real
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_second_gpu_gets_whole_batches(tmp_path: Path) -> None:
    cache = write_small_cache(tmp_path / "feats").path
    for stage in ("disk", "gpu"):
        there = CacheLoader(cache, split="train", batch_size=4, device="cuda:1", stage=stage)
        here = CacheLoader(cache, split="train", batch_size=4, device="cpu")
        for _ in range(5):
            for batch, other in zip(there, here, strict=True):
                assert batch["image"].device == torch.device("cuda", 1)
                assert all(torch.equal(batch[key].cpu(), other[key]) for key in other)


@real
def test_a_full_gpu_is_one_line(tmp_path: Path) -> None:
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(DeviceError, match="ran out of memory"):
            train_small(tmp_path / "run", recipe="baseline", device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_evaluation_prediction_and_export_agree_with_the_cpu(tmp_path: Path) -> None:
    data = paint_folder(tmp_path / "data", frames=5, width=80, height=64)
    student = build_student("unet", width=2, weights="random", seed=1)
    save_student(student, tmp_path / "run", {"input_px": 64})
    dices = []
    for device in ("cpu", "cuda"):
        found = evaluate(tmp_path / "run", data, device=device, workers=0, out=tmp_path / f"eval-{device}")
        dices += [np.concatenate([each.columns["fixed/dice"] for each in found.sets.values()])]
        predict(tmp_path / "run", data / "images", device=device, out=tmp_path / f"masks-{device}")
    np.testing.assert_allclose(dices[0], dices[1], atol=0.02)
    masks = [sorted((tmp_path / f"masks-{device}" / "masks").glob("*.png")) for device in ("cpu", "cuda")]
    assert len(masks[0]) == len(masks[1]) == 5
    moved = load_student(tmp_path / "run", "cuda")
    save_student(moved, tmp_path / "moved", {"input_px": 64})
    assert (tmp_path / "moved" / "student.safetensors").read_bytes() == (
        tmp_path / "run" / "student.safetensors"
    ).read_bytes()
    assert export(tmp_path / "moved", out=tmp_path / "moved.onnx").path.is_file()
