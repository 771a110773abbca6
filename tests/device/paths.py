"""Every path that a GPU takes through this project, walked on a pretended one; as a program it prints the table.

    PYTHONPATH=tests python tests/device/paths.py [NAME ...]

A path gives the work of its units: steps, batches or whole commands. The first units make things ready; what counts is the
dearest of the others.
"""

import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from memory_cache import MemoryCache
from painted_folder import paint_folder
from pretend_gpu import PretendGpu, Work, pretend_gpu
from small_networks import save_vit

from difom_cache import build_teacher, extract, probe
from difom_cache.extraction import TeacherBlock
from difom_cache.store import TapSpec
from difom_train import build_student, evaluate, predict, save_student, train
from difom_train.training import Trainer

TEACHERS = ("sam:tiny@64", "dinov2:tiny@56", "dinov2_reg:tiny@56", "dinov3:tiny@64", "dinov3_convnext:tiny@64")
TEACHERS += (
    "sam2:tiny@128",
    "sam3:tiny@56",
    "radio:tiny@64",
    "clip:tiny@64",
    "oneformer:tiny@64",
    "mask2former:tiny@64",
)
RECIPES = ("baseline", "mean-teacher", "difom", "difom-paper", "difom-published", "difom-multiscale", "pseudo-masks")
STUDENTS = ("unet++", "pranet", "smp:unet/resnet18")
Walk = Callable[[PretendGpu, Path], list[Work]]


def take_work(gpu: PretendGpu) -> Work:
    """Return what was counted since the last time."""
    work, gpu.work = gpu.work, Work()
    return work


@contextmanager
def watch(gpu: PretendGpu, owner: type, method: str) -> Iterator[list[Work]]:
    """Yield a list that holds, after the block, the work from each call of a method to the next one."""
    works: list[Work] = []
    call = getattr(owner, method)

    def noted(*args: Any) -> Any:
        works.append(take_work(gpu))
        return call(*args)

    with patch.object(owner, method, noted):
        yield works
    del works[:1]  # what came before the first call


def build(spec: str, folder: Path, **options: Any) -> Any:
    """Return a small teacher; hf is a small ViT, saved in the folder."""
    spec = f"hf:{save_vit(folder / 'vit')}@64" if spec == "hf" else spec
    return build_teacher(spec, weights="random", picture_px=64, **options)


def draw(spec: str) -> torch.Tensor:
    """Return two pictures of noise for a small teacher."""
    side = int(spec.rpartition("@")[2]) if "@" in spec else 64
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def run_teacher(gpu: PretendGpu, folder: Path, spec: str, precision: str) -> list[Work]:
    """Two batches of a teacher alone."""
    teacher, works = build(spec, folder, device="cuda", precision=precision), []
    there = draw(spec).to("cuda")
    for _ in range(2):
        take_work(gpu)
        teacher.features(there)
        works.append(take_work(gpu))
    return works[1:]


def run_extract(gpu: PretendGpu, folder: Path, spec: str) -> list[Work]:
    """Batches of an extraction, with what stands between them: reading, rendering, coding, the end of each block."""
    options: dict[str, Any] = {"weights": "random", "views": 5, "input_size": 64, "batch_size": 4, "quiet": True}
    data = paint_folder(folder / "data", frames=12, width=80, height=64)
    with watch(gpu, TeacherBlock, "add") as works:
        extract(teacher=spec, data=data, cache=folder / "feats", device="cuda", plan="pad", **options)
    return works[1:]


def train_small(out: Path, *, student: str = "unet", teachers: int = 1, masks: bool = True, **options: Any) -> None:
    """Train a small student for an epoch or two on a cache in memory; the first teacher may give masks as well."""
    taps = {}
    for number in range(teachers):
        logits = [("mask", "logits", 8)] if masks and number == 0 else []
        for name, kind, grid in (("deep", "feature", 2), ("middle", "feature", 4), *logits):
            tap = f"t{number}/{name}@{64 // grid}"
            taps[tap] = TapSpec(tap, kind, 8 if kind == "feature" else 1, grid, 64 // grid, "float16")
    cache = MemoryCache(records=20, views=2, picture_px=64, taps=taps, unlabelled=4)
    options = {"epochs": 2, "batch_size": 4, "channels": 6, "input_size": 64, "student_weights": "random"} | options
    options |= {"width": 2} if student.startswith("unet") else {}
    with patch.object(sys.modules[train.__module__], "open_cache", lambda path, **_: cache):
        train(student, cache="memory", out=out, logger="none", **options)


def run_steps(gpu: PretendGpu, folder: Path, **options: Any) -> list[Work]:
    """Steps of a training run, with what stands between them."""
    with watch(gpu, Trainer, "train_step") as works:
        train_small(folder / "run", device="auto", **options)
    return works[1:3]  # the first of an epoch looks at gradients, the last is followed by a validation


def run_scores(gpu: PretendGpu, folder: Path, *, network: str) -> list[Work]:
    """Evaluation and prediction of a few frames, each as a whole."""
    data = paint_folder(folder / "data", frames=6, width=80, height=64)
    if network == "student":
        model, options = build_student("unet", width=2, weights="random", seed=1), {"input_px": 64}
        save_student(model, folder / "run", options)
        network = str(folder / "run")
    else:
        options = {"weights": "random", "views": 1, "input_size": 64, "quiet": True}
        extract(teacher="dinov2:tiny@56", data=data, cache=folder / "feats", device="cpu", **options)
        network = (
            f"probe:{folder / 'feats'}/{probe(folder / 'feats', teachers=('dinov2-tiny-random',), quiet=True).label}"
        )
    works = []
    for call in (partial(evaluate, workers=0, out=folder / "eval"), partial(predict, out=folder / "masks")):
        take_work(gpu)
        call(network, data if call.func is evaluate else data / "images", device="cuda")
        works.append(take_work(gpu))
    return works


MANY = {"recipe": "difom-multiscale", "teachers": 4}
PATHS: dict[str, Walk] = {
    **{f"teacher {spec.partition(':')[0]}": partial(run_teacher, spec=spec, precision="float32") for spec in TEACHERS},
    "teacher hf": partial(run_teacher, spec="hf", precision="float32"),
    **{
        f"{spec.partition(':')[0]} in bfloat16": partial(run_teacher, spec=spec, precision="bfloat16")
        for spec in TEACHERS
    },
    **{f"extract {spec.partition(':')[0]}": partial(run_extract, spec=spec) for spec in TEACHERS},
    **{f"step {recipe}": partial(run_steps, recipe=recipe) for recipe in RECIPES},
    **{f"step {student}": partial(run_steps, recipe="difom-multiscale", student=student) for student in STUDENTS},
    "step, four teachers": partial(run_steps, **MANY),
    "step, four teachers of features": partial(run_steps, **MANY, masks=False),
    "step, four teachers from disk": partial(run_steps, **MANY, stage="disk"),
    "step, several sizes": partial(run_steps, **MANY, scales=(0.5, 1.0)),
    "step, stored views": partial(run_steps, **MANY, fresh_views=False),
    "scores of a student": partial(run_scores, network="student"),
    "scores of a probe": partial(run_scores, network="probe"),
}


def walk(name: str) -> tuple[int, int, int]:
    """Walk a path; return the launches, waits and uploads of its dearest unit, each by itself."""
    with tempfile.TemporaryDirectory() as folder, pretend_gpu() as gpu:
        works = PATHS[name](gpu, Path(folder))
    return tuple(max(each) for each in zip(*(work.counts for work in works), strict=True))  # type: ignore[return-value]


if __name__ == "__main__":
    print("| path | ran | launches | waits | uploads |\n| --- | --- | --- | --- | --- |")
    for path in sys.argv[1:] or PATHS:
        try:
            print(f"| {path} | yes |", " | ".join(map(str, walk(path))), "|", flush=True)
        except Exception as error:
            print(f"| {path} | no: {type(error).__name__}: {str(error).splitlines()[0]} | | | |", flush=True)
            traceback.print_exc()
