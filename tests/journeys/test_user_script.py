"""A user's script is seen in full by type checkers: right calls pass mypy --strict, wrong arguments do not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.journey

ROOT = Path(__file__).parents[2]

RIGHT = """
from pathlib import Path

import torch

from difom_cache import open_cache
from torch import Tensor, nn
from torch.utils.data import DataLoader

from difom_train import (
    CacheDataset,
    CacheLoader,
    Student,
    StudentOutput,
    TrainConfig,
    build_distiller,
    compare,
    evaluate,
    export,
    load_student,
    read_recipe,
    save_student,
    segmentation_loss,
    train,
    wrap_student,
)

cache = open_cache("feats")
shape: tuple[int, ...] = cache.gather([0, 1, 2])["image"].shape

runs: list[Path] = train("unet", cache="feats", recipe="difom", epochs=3, labels=0.1, seeds=[0, 1], stage="ram")
config: TrainConfig = read_recipe("difom-multiscale")
runs += train(config)
rate: float = config.optimizer.lr

dice: float = evaluate(runs[0], "data/TestDataset", limit=10).means()["Kvasir"]["fixed/dice"]
compare(runs, out="report")

logits: torch.Tensor = load_student(runs[0])(torch.zeros(1, 3, 352, 352))

network = nn.Conv2d(3, 1, 1)
student: Student = wrap_student(network, levels={"layer2": 8, "layer4": 16}, neck=None)
runs += train(student, cache=["feats"], epochs=3)
evaluate(runs[-1], "data", student=network)
export(runs[-1], out="mine.onnx", student="my_package.students:build")
distiller = build_distiller(read_recipe("difom-multiscale"), cache, student)
items: DataLoader[dict[str, Tensor]] = DataLoader(CacheDataset(cache, split="val", taps=distiller.taps), num_workers=2)
for batch in CacheLoader("feats", taps=distiller.taps, batch_size=8):
    levels: StudentOutput = student.forward_train(batch["image"])
    masks: Tensor = segmentation_loss("dice_bce", levels.logits, batch["mask"])
    terms: dict[str, Tensor] = distiller(levels, batch)
save_student(student, "runs/mine", {"input_px": 352})
"""
WRONG = """
from difom_cache import open_cache
from difom_train import CacheDataset, CacheLoader, build_distiller, evaluate, load_student, read_recipe, train, wrap_student

open_cache(3)
train("unet", epochs="three")
train("unet", precision="float64")
train("unet", epoch=3)
train(3)
read_recipe("difom").optimizer.learning_rate
evaluate("run", 3)
load_student(3)
load_student("run", student=3)
wrap_student("unet", {"layer2": 8})
wrap_student(load_student("run"), {"layer2": "8"})
CacheDataset("feats", split=3)
CacheLoader("feats", batch_size="8")
build_distiller("difom", "feats", "unet")
"""


def test_a_users_script_is_typed_and_its_mistakes_are_found(tmp_path: Path):
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", "", "--no-pretty"]
    kept = ["--cache-dir", str(ROOT / ".mypy_cache" / "user")]  # the first run takes 20 s, later ones two
    scripts = [str(tmp_path / "right.py"), str(tmp_path / "wrong.py")]
    done = subprocess.run([*command, *kept, *scripts], capture_output=True, text=True, cwd=ROOT)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    found = sorted({int(re.search(r"wrong\.py:(\d+)", line)[1]) for line in errors if "wrong.py" in line})
    assert [line for line in errors if "right.py" in line] == []
    assert found == list(range(5, 1 + len(WRONG.splitlines())))
