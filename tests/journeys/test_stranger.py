"""A stranger's network, in an empty environment with nothing but the wheel: trained, scored, exported and compared, both ways.

The environment borrows the libraries of this one; of this project it has what the wheel holds, and of the stranger a wheel too.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.journey]

ROOT = Path(__file__).parents[2]
STRANGER = """
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from difom_train import StudentSettings, WrappedStudent, wrap_student

LEVELS = {"backbone.4": 8, "backbone.16": 16}


def build(settings: StudentSettings) -> WrappedStudent:
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=1)
    return wrap_student(network, LEVELS, neck=settings.neck)
"""
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "stranger"
version = "1.0"
[project.entry-points."difom.students"]
lraspp = "stranger:build"
[tool.setuptools]
py-modules = ["stranger"]
"""
WRAPPED = '''
"""Point 6 in Python: any module, handed in and handed in again."""
import torch
from torchvision.models.segmentation import fcn_resnet50

from difom_train import evaluate, export, predict, train, wrap_student

torch.manual_seed(0)
network = fcn_resnet50(weights=None, weights_backbone=None, num_classes=1)
student = wrap_student(network, levels={"backbone.layer2": 8, "backbone.layer4": 8}, name="fcn")
options = dict(cache="feats", input_size=64, batch_size=8, device="cpu", changes=["machine.logger=none"])
(run,) = train(student, out="runs/fcn", epochs=1, **options)
print(evaluate(run, "data/TestDataset", student=network, device="cpu").means()["Painted-Same"]["fixed/dice"])
print(export(run, out="fcn.pt2", format="torch", student=network, frames=2).parity.prob_difference)
print(predict(run, "data/TestDataset/Painted-Same/images", out="marked", student=network, device="cpu").frames)
'''


class Environment:
    """An empty virtual environment and a folder in which its user works."""

    def __init__(self, home: Path) -> None:
        self.home, self.python = home, home / "env/bin/python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "env")], check=True)
        (packages,) = (home / "env/lib").glob("python*/site-packages")
        borrowed = [path for path in sys.path if path.endswith("site-packages")]
        (packages / "zz_borrowed.pth").write_text("\n".join(borrowed) + "\n")

    def install(self, source: Path, name: str) -> None:
        """Build a wheel of `source` and install it without what it needs, which is borrowed."""
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        wheels = self.home / "wheels" / name
        build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
        subprocess.run([*pip, *build], check=True, cwd=self.home)
        (wheel,) = wheels.glob("*.whl")
        into = ["--python", str(self.python), "install", "--no-deps", "--no-index", "--ignore-installed", str(wheel)]
        subprocess.run([*pip, *into], check=True, cwd=self.home)

    def run(self, *command: object, fails: bool = False) -> str:
        """Run a command of the environment in the user's folder, and return what it printed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {
            "OMP_NUM_THREADS": "1",
            "DIFOM_BACKEND": "torch",
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
        }
        words = [str(word) for word in command]
        done = subprocess.run(words, cwd=self.home, capture_output=True, text=True, timeout=1200, env=environment)
        assert done.returncode == (2 if fails else 0), f"{' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Return the environment, with the wheels installed, painted data and a cache of a tiny teacher."""
    home = tmp_path_factory.mktemp("stranger")
    made = Environment(home)
    source = home / "source"
    for name in ("difom_cache", "difom_train", "data_manifests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    made.install(source, "difom")
    (home / "code").mkdir()
    (home / "code/stranger.py").write_text(STRANGER)
    (home / "code/pyproject.toml").write_text(PROJECT)
    made.install(home / "code", "stranger")
    shutil.rmtree(source)
    shutil.rmtree(home / "code")
    made.run("difom-cache", "sample", "data", "--train", 24, "--test", 2, "--side", 96)
    extract = ["--teacher", "dinov2:tiny@56", "--weights", "random", "--data", "data", "--cache", "feats", "--views", 2]
    made.run("difom-cache", "extract", *extract, "--input-size", 64, "--device", "cpu")
    return made


TINY = ["--cache", "feats", "--input-size", 64, "--batch-size", 8, "--device", "cpu", "--set", "machine.logger=none"]
SCORED = ["--data", "data/TestDataset", "--device", "cpu"]


def read_losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_the_environment_has_the_wheel_and_not_the_source_tree(env: Environment):
    where = "import difom_cache, difom_train, stranger; print(difom_train.__file__, difom_cache.__file__, stranger.__file__)"
    assert all(path.startswith(str(env.home / "env")) for path in env.run("python", "-c", where).split())


def test_an_installed_student_goes_through_every_command_by_its_name(env: Environment):
    env.run(
        "difom-train",
        "--student",
        "lraspp",
        "--recipe",
        "difom-multiscale",
        "--epochs",
        4,
        "--out",
        "runs/installed",
        *TINY,
    )
    losses = read_losses(env.home / "runs/installed")
    assert len(losses) == 4 and losses[-1] < losses[0]
    env.run("difom-train", "evaluate", "runs/installed", *SCORED)
    shown = env.run("difom-train", "export", "runs/installed", "--out", "lraspp.onnx", "--check", "data", "--frames", 4)
    assert "parity over 4 real frames" in shown
    assert "frames" in env.run(
        "difom-train", "predict", "runs/installed", "data/TestDataset/Painted-Same/images", "--out", "seen"
    )
    teacher = [
        "--teacher",
        "student:runs/installed",
        "--data",
        "data",
        "--cache",
        "taught",
        "--views",
        1,
        "--input-size",
        64,
    ]
    env.run("difom-cache", "extract", *teacher, "--device", "cpu")
    assert "student-installed" in env.run("difom-cache", "info", "taught")


def test_code_is_given_again_and_never_taken_from_the_run(env: Environment):
    code = ["--student", "stranger:build"]
    env.run("difom-train", *code, "--recipe", "difom", "--epochs", 1, "--out", "runs/code", *TINY)
    env.run("difom-train", "evaluate", "runs/code", *SCORED, *code)
    env.run("difom-train", "export", "runs/code", "--out", "code.onnx", "--frames", 2, *code)
    for command in (
        ["evaluate", "runs/code", *SCORED],
        ["export", "runs/code", "--out", "more.onnx"],
        ["predict", "runs/code", "data/TestDataset/Painted-Same/images", "--out", "more"],
        ["--resume", "--out", "runs/code"],
    ):
        said = env.run("difom-train", *command, fails=True)
        (line,) = [line for line in said.splitlines() if line.startswith("error:")]
        assert "--student stranger:build" in line
    taught = ["--data", "data", "--cache", "taught-2", "--views", 1, "--input-size", 64, "--device", "cpu"]
    assert "student:runs/code#package" in env.run(
        "difom-cache", "extract", "--teacher", "student:runs/code", *taught, fails=True
    )
    env.run("difom-cache", "extract", "--teacher", "student:runs/code#stranger:build", *taught)


def test_a_module_is_handed_in_and_handed_in_again(env: Environment):
    (env.home / "wrapped.py").write_text(WRAPPED)
    dice, difference, frames = re.findall(r"^([\d.e-]+)$", env.run("python", "wrapped.py"), re.M)
    assert 0 <= float(dice) <= 1 and float(difference) < 1e-4 and int(frames) == 2


def test_a_loop_of_its_own_trains_it_too(env: Environment):
    shutil.copy(ROOT / "docs/own_loop.py", env.home / "loop.py")
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", env.run("python", "loop.py"))]
    assert losses[-1] < losses[0]
    env.run("difom-train", "evaluate", "runs/own-loop", *SCORED, "--student", "stranger:build")
    env.run("difom-train", "export", "runs/own-loop", "--out", "own.onnx", "--frames", 2, "--student", "stranger:build")


def test_all_of_them_are_compared_with_a_built_in_one(env: Environment):
    env.run(
        "difom-train",
        "--student",
        "unet",
        "--width",
        4,
        "--recipe",
        "baseline",
        "--epochs",
        1,
        "--out",
        "runs/unet",
        *TINY,
    )
    env.run("difom-train", "evaluate", "runs/unet", *SCORED)
    runs = [f"runs/{name}" for name in ("unet", "installed", "code", "own-loop")]
    env.run("difom-train", "compare", *runs, "--out", "report", "--resamples", 100, "--student", "stranger:build")
    table = json.loads((env.home / "report/table.json").read_text())
    assert set(table["costs"]) == {"unet", "installed", "code", "own-loop"}
    assert (env.home / "report/report.html").is_file()
    compared = "from difom_train import compare; from torchvision.models.segmentation import fcn_resnet50 as fcn; "
    compared += "found = compare(['runs/unet', 'runs/fcn'], out='both', resamples=100, "
    compared += "student=fcn(weights=None, weights_backbone=None, num_classes=1)); print(sorted(found.costs))"
    assert "['fcn', 'unet']" in env.run("python", "-c", compared)
