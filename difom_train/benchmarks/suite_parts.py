"""What `bench all` runs: the commands of one benchmark of everything, in their order.

Each part is a command line that a user could type, so that every figure names how it was made and no part can take another
one's memory or time.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from difom_cache import cpu_capabilities, describe_teachers, has_openvino
from difom_train.training.run_folder import read_log

PROGRAMS = {
    "difom-cache": (sys.executable, "-c", "from difom_cache.cli import main; main()"),
    "difom-train": (sys.executable, "-c", "from difom_train.cli import main; main()"),
    "pytest": (sys.executable, "-m", "pytest"),
}
"What stands for the first word of a command: this interpreter's own, wherever scripts were installed."
PAPER_TEACHERS = ("sam", "oneformer", "dinov2", "mask2former")  # arXiv:2512.09307, as its notebook names them
EPOCHS = 3
_EPOCH_KEYS = ("epoch", "train_s", "data_wait_frac", "loss", "val_dice")

Answer = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One command of the suite.

    Attributes:
        name: unique; a kind, and after a slash what it is about.
        command: as a user would type it.
        read: makes the answer of what the command printed.
        skip: why it cannot be run here; empty where it can.
        needs: parts that must have ended well before.
    """

    name: str
    command: tuple[str, ...]
    read: Callable[[str], Answer]
    skip: str = ""
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """How much the suite does."""

    frames: int
    side_px: int
    teacher: str
    "Spelled with the name of a teacher in it."
    bench_views: int
    repeats: int
    picture_px: int
    student: tuple[str, ...]
    "Options of the student, of the step and of the run alike."
    batch_size: int
    steps: int
    reading_gb: float
    reading_s: float
    records: str
    "Numbers of records, joined by commas."


_UNET = ("--student", "unet")
# 1450 frames of 352 px: the paper's.
FULL = Scale(1450, 512, "{}", 64, 3, 352, _UNET, 16, 20, 2.0, 5.0, "1000,10000,100000")
SMALL = Scale(24, 96, "{}:tiny", 2, 1, 64, (*_UNET, "--width", "4"), 8, 2, 0.01, 0.1, "10,100")


def list_parts(out: Path, scale: Scale, *, data: Path | None, device: torch.device, tests: Path) -> list[Part]:
    """Return the parts in the order in which they are run.

    Args:
        out: folder of everything that they write.
        scale: how much they do.
        data: pictures; None paints some.
        device: where networks run.
        tests: folder of the tests, for those that need a GPU.
    """
    pictures = data or out / "data"
    paint = ("sample", str(pictures), "--train", str(scale.frames), "--test", "1", "--side", str(scale.side_px))
    painted: tuple[str, ...] = () if data else ("paint",)
    parts = [_test_part(out, device, tests)]
    parts += [] if data else [Part("paint", ("difom-cache", *paint), _nothing)]
    names = [each["teacher"].split(":")[0] for each in describe_teachers() if each["default"]]
    parts += [_teacher_part(name, scale, pictures, device, painted) for name in names]
    reading = ("--folder", str(out / "reading"), "--size-gb", str(scale.reading_gb), "--seconds", str(scale.reading_s))
    parts.append(Part("reading", ("difom-train", "bench", "loader", *reading, "--json"), json.loads))
    parts += [_extract_part(name, out, scale, pictures, device, painted) for name in PAPER_TEACHERS]
    growth = ("--folder", str(out / "growth"), "--records", scale.records, "--json")
    parts.append(Part("growth", ("difom-train", "bench", "growth", *growth), json.loads))
    extracted = tuple(f"extract/{name}" for name in PAPER_TEACHERS)
    return [*parts, _step_part(out, scale, device, extracted), _run_part(out, scale, device, extracted)]


def _test_part(out: Path, device: torch.device, tests: Path) -> Part:
    report = out / "gpu-tests.xml"
    command = ("pytest", "-q", "-m", "gpu", f"--junitxml={report}", str(tests))
    why = "" if device.type == "cuda" else "no CUDA device"
    if not why and not (tests.is_dir() and find_spec("pytest")):
        why = f"needs pytest and the project's tests, and {tests} is no folder of them; name it with --tests"
    return Part("gpu-tests", command, lambda _: count_tests(report), why)


def count_tests(report: Path) -> Answer:
    """Return how many tests a JUnit file speaks of, and how many of them failed or were skipped."""
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    return {key: sum(int(each.get(key, "0")) for each in suites) for key in ("tests", "failures", "errors", "skipped")}


def _teacher_part(name: str, scale: Scale, pictures: Path, device: torch.device, needs: tuple[str, ...]) -> Part:
    how_much = ("--views", str(scale.bench_views), "--repeats", str(scale.repeats), "--device", str(device))
    kinds = _list_kinds() if device.type == "cpu" and has_openvino() else ()
    command = ("bench", "--teacher", scale.teacher.format(name), "--data", str(pictures), *how_much, *kinds, "--json")
    return Part(f"teacher/{name}", ("difom-cache", *command), json.loads, needs=needs)


def _list_kinds() -> tuple[str, ...]:
    """Return the options by which a CPU shows all that it can do."""
    precision = ("float32", "bfloat16") if "BF16" in cpu_capabilities() else ("float32",)
    return ("--backend", "torch,openvino", "--precision", ",".join(precision))


def _extract_part(
    name: str, out: Path, scale: Scale, pictures: Path, device: torch.device, needs: tuple[str, ...]
) -> Part:
    command = ("extract", "--teacher", scale.teacher.format(name), "--weights", "random", "--data", str(pictures))
    size = ("--views", "2", "--input-size", str(scale.picture_px), "--device", str(device))
    return Part(f"extract/{name}", ("difom-cache", *command, "--cache", str(out / "feats"), *size), _nothing, "", needs)


def _step_part(out: Path, scale: Scale, device: torch.device, needs: tuple[str, ...]) -> Part:
    size = ("--input-size", str(scale.picture_px), "--batch-size", str(scale.batch_size), "--steps", str(scale.steps))
    where = ("--cache", str(out / "feats"), "--device", str(device), "--stage", _stage(device))
    command = ("difom-train", "bench", "step", *scale.student, "--recipe", "difom-multiscale", *size, *where, "--json")
    return Part("step", command, json.loads, needs=needs)


def _run_part(out: Path, scale: Scale, device: torch.device, needs: tuple[str, ...]) -> Part:
    size = ("--input-size", str(scale.picture_px), "--batch-size", str(scale.batch_size), "--epochs", str(EPOCHS))
    where = ("--cache", str(out / "feats"), "--device", str(device), "--stage", _stage(device))
    command = ("difom-train", *scale.student, *size, *where, "--out", str(out / "run"), "--resume")
    return Part("run", command, lambda _: _read_epochs(out / "run"), needs=needs)


def _stage(device: torch.device) -> str:
    return "gpu" if device.type == "cuda" else "ram"


def _read_epochs(run: Path) -> Answer:
    return {"epochs": [{key: line[key] for key in _EPOCH_KEYS if key in line} for line in read_log(run)]}


def _nothing(_: str) -> Answer:
    return {}
