"""The training loops of the docs run as they stand there, over a cache that was extracted, and what they save is a student."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from painted_folder import paint_folder
from safetensors.torch import load_file

from difom_cache import extract
from difom_train import build_student, load_student

pytestmark = pytest.mark.journey

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ./data and ./feats, as a user's own."""
    home = tmp_path_factory.mktemp("home")
    data = paint_folder(home / "data", frames=30, width=80, height=72, unlabelled=4)
    quiet = {"device": "cpu", "quiet": True, "unlabelled": True}
    extract(
        teacher="dinov2:tiny@56", weights="random", data=data, cache=home / "feats", views=2, input_size=64, **quiet
    )
    return home


def run_script(name: str, folder: Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(DOCS / name)], cwd=folder, capture_output=True, text=True, timeout=900, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_plain_loop_learns_and_saves_a_wrapped_student(folder: Path):
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", run_script("own_loop.py", folder))]
    assert len(losses) == 4 and losses[-1] < 0.9 * losses[0]
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=1)
    student = load_student(folder / "runs/own-loop", student=network)
    assert student.meta == {"input_px": 64} and list(student.levels) == ["backbone.4", "bottleneck"]


def test_the_lightning_loop_learns_and_saves_a_student(folder: Path):
    pytest.importorskip("pytorch_lightning")
    shown = run_script("own_loop_lightning.py", folder)
    losses = [float(loss) for loss in re.findall(r"val_loss\D+(\d[\d.]*)", shown)]
    assert losses[-1] < losses[0]
    saved = load_file(folder / "runs/lightning/student.safetensors")
    first = build_student("unet", width=8, seed=0).state_dict()
    assert all((saved[name] != value).any() for name, value in first.items() if name.endswith("weight"))
    assert load_student(folder / "runs/lightning").name == "unet"


def test_the_loops_are_short():
    """Twenty lines of one's own, beside imports and blank ones, are what the page promises of the plain one."""
    lines = [line for line in (DOCS / "own_loop.py").read_text().splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(("import", "from", '"""'))]
    assert len(own) <= 20, len(own)
