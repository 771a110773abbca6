"""What `all` runs: the commands of one benchmark of everything, the ones that are worth most first.

Each part is a command line that a user could type, so that every figure names how it was made and no part can take another
one's memory or time.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from benchmarks.growth import Growth
from benchmarks.library_teachers import PLAIN
from benchmarks.loader import LoaderSpeeds
from benchmarks.step import StepTimes
from benchmarks.teachers import TeacherSpeeds
from difom_cache.base.text import format_table
from difom_cache.teachers import cpu_capabilities, has_openvino
from difom_train.training import read_log

PROGRAMS = {
    "difom-cache": (sys.executable, "-c", "from difom_cache.cli import main; main()"),
    "difom-train": (sys.executable, "-c", "from difom_train.cli import main; main()"),
    "python": (sys.executable,),
}
"What stands for the first word of a command: this interpreter's own, wherever scripts were installed."
FIRST, THEN = ("sam", "dinov2"), ("oneformer", "mask2former")  # of arXiv:2512.09307, as its notebook names them
EPOCHS = 3
_EPOCH_KEYS = ("epoch", "train_s", "data_wait_frac", "loss", "val_dice")

Answer = dict[str, Any]


def _say_nothing(answer: Answer) -> str:
    return ""


@dataclass(frozen=True)
class Part:
    """One command of the suite.

    Attributes:
        name: unique; a kind, and after a slash what it is about.
        command: as a user would type it.
        read: makes the answer of what the command printed.
        show: makes text of the answer.
        skip: why it cannot be run here; empty where it can.
        needs: parts that must have ended well before.
        makes: files and folders that other parts read; where one is gone, the part runs again.
    """

    name: str
    command: tuple[str, ...]
    read: Callable[[str], Answer] = field(default=lambda printed: {})
    show: Callable[[Answer], str] = _say_nothing
    skip: str = ""
    needs: tuple[str, ...] = ()
    makes: tuple[Path, ...] = ()


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
    width: tuple[str, ...]
    "Option of the students, of the step and of the run alike."
    batch_size: int
    steps: int
    reading_gb: float
    reading_s: float
    records: str
    "Numbers of records, joined by commas."


# 352 px is the paper's. 512 views: so many that reading, network and writing overlap.
FULL = Scale(256, 384, "{}", 512, 3, 352, (), 16, 20, 2.0, 5.0, "1000,10000,100000")
SMALL = Scale(24, 96, "{}:tiny", 2, 1, 64, ("--width", "4"), 8, 2, 0.01, 0.1, "10,100")


def list_parts(out: Path, scale: Scale, *, data: Path | None, device: torch.device, tests: Path) -> list[Part]:
    """Return the parts in the order in which they are run.

    Args:
        out: folder of everything that they write.
        scale: how much they do.
        data: images; None paints some.
        device: where networks run.
        tests: folder of the tests, for those that need a GPU.
    """
    images, where = data or out / "data", ("--device", str(device))
    painted = () if data else ("paint",)
    paint = ("sample", str(images), "--train", str(scale.frames), "--test", "1", "--side", str(scale.side_px))

    def extract(name: str, cache: str) -> Part:
        what = ("--teacher", scale.teacher.format(name), "--weights", "random", "--data", str(images), "--views", "2")
        size = ("--input-size", str(scale.picture_px), "--cache", str(out / cache))
        command = ("difom-cache", "extract", *what, *size, *where)
        return Part(f"extract/{name}", command, needs=painted, makes=(out / cache,))

    def bench(name: str, what: str, *options: str, show: type, needs: tuple[str, ...] = ()) -> Part:
        command = ("python", "-m", "benchmarks", what, *options, "--json")
        return Part(name, command, json.loads, lambda answer: _restore(show, answer).render(), needs=needs)

    def teacher(name: str) -> Part:
        what = ("--teacher", scale.teacher.format(name), "--data", str(images))
        how_much = ("--views", str(scale.bench_views), "--repeats", str(scale.repeats), *where, *_list_kinds(device))
        return bench(f"teacher/{name}", "teacher", *what, *how_much, show=TeacherSpeeds, needs=painted)

    extracted = tuple(f"extract/{name}" for name in FIRST)
    size = ("--input-size", str(scale.picture_px), "--batch-size", str(scale.batch_size), "--cache", str(out / "feats"))

    def step(name: str, student: str, *options: str, stage: str = "gpu" if device.type == "cuda" else "ram") -> Part:
        what = ("--student", student, *scale.width, "--recipe", "difom-multiscale", "--steps", str(scale.steps))
        return bench(name, "step", *what, *size, *where, "--stage", stage, *options, show=StepTimes, needs=extracted)

    run = (
        "--student",
        "unet",
        *scale.width,
        *size,
        *where,
        "--epochs",
        str(EPOCHS),
        "--out",
        str(out / "run"),
        "--resume",
    )
    reading = ("--folder", str(out / "reading"), "--size-gb", str(scale.reading_gb), "--seconds", str(scale.reading_s))
    return [
        _test_part(out, device, tests),
        *([] if data else [Part("paint", ("difom-cache", *paint), makes=(images,))]),
        *(extract(name, "feats") for name in FIRST),
        step("step", "unet"),
        Part("run", ("difom-train", *run), lambda _: _read_epochs(out / "run"), _show_epochs, needs=extracted),
        *(teacher(name) for name in FIRST),
        step("step/pranet", "pranet"),
        step("step/compile", "unet", "--compile"),
        step("step/disk", "unet", stage="disk"),
        bench("reading", "loader", *reading, show=LoaderSpeeds),
        *(teacher(name) for name in PLAIN if name not in FIRST),
        *(extract(name, "feats-more") for name in THEN),
        bench("growth", "growth", "--folder", str(out / "growth"), "--records", scale.records, show=Growth),
    ]


def _restore(kind: type, answer: Answer) -> Any:
    """Return the result that a benchmark printed as JSON."""
    if kind is TeacherSpeeds:
        return TeacherSpeeds({key: value for key, value in answer.items() if key != "ways"}, answer["ways"])
    return kind(**{each.name: answer[each.name] for each in fields(kind)})


def _list_kinds(device: torch.device) -> tuple[str, ...]:
    """Return the options by which a CPU shows all that it can do."""
    if device.type != "cpu" or not has_openvino():
        return ()
    precision = ("float32", "bfloat16") if "BF16" in cpu_capabilities() else ("float32",)
    return ("--backend", "torch,openvino", "--precision", ",".join(precision))


def _test_part(out: Path, device: torch.device, tests: Path) -> Part:
    report = out / "gpu-tests.xml"
    command = ("python", "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={report}", str(tests))
    why = "" if device.type == "cuda" else "no CUDA device"
    if not why and not (tests.is_dir() and find_spec("pytest")):
        why = f"needs pytest and the project's tests, and {tests} is no folder of them; name it with --tests"
    return Part("gpu-tests", command, lambda _: count_tests(report), str, why)


def count_tests(report: Path) -> Answer:
    """Return how many tests a JUnit file speaks of, and how many of them failed or were skipped."""
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    return {key: sum(int(each.get(key, "0")) for each in suites) for key in ("tests", "failures", "errors", "skipped")}


def _read_epochs(run: Path) -> Answer:
    return {"epochs": [{key: line[key] for key in _EPOCH_KEYS if key in line} for line in read_log(run)]}


def _show_epochs(answer: Answer) -> str:
    rows = [["epoch", "seconds", "waiting for data", "loss", "validation Dice"]]
    for line in answer["epochs"]:
        dice = "-" if line.get("val_dice") is None else f"{line['val_dice']:.3f}"
        wait = f"{line['data_wait_frac']:.1%}"
        rows.append([str(line["epoch"] + 1), f"{line['train_s']:.2f}", wait, f"{line['loss']:.3f}", dice])
    return format_table(rows)
