"""SIGTERM, which schedulers send before they kill, ends a command in order; what follows is as if it had not come."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from painted_folder import paint_folder
from safetensors.torch import load_file

from difom_cache import extract, open_cache, verify

pytestmark = pytest.mark.journey

CACHE = [sys.executable, "-c", "from difom_cache.cli import main; main()"]
TRAIN = [sys.executable, "-c", "from difom_train.cli import main; main()"]
MOMENTS = [1, pytest.param(20, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_folder(tmp_path_factory.mktemp("data"), frames=40, width=200, height=160)


@pytest.fixture(scope="module")
def cache(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("caches") / "feats"
    extract(
        data=data,
        cache=path,
        teacher="dinov2:tiny@56",
        weights="random",
        input_size=64,
        views=4,
        device="cpu",
        quiet=True,
    )
    return path


def start(command: list[str], *words: object) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def end_when(process: subprocess.Popen[str], seen: Path, more_s: float) -> tuple[int, str]:
    """Send SIGTERM a while after a file has appeared and return exit code and error output."""
    while process.poll() is None and not seen.exists():
        time.sleep(0.01)
    time.sleep(more_s)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


@pytest.mark.parametrize("moments", MOMENTS)
def test_an_extraction_that_was_ended_goes_on_to_the_same_digests(
    moments: int, data: Path, cache: Path, tmp_path: Path
):
    draw, ended = random.Random(moments), 0
    for number in range(moments):
        path = tmp_path / f"feats{number}"
        words = ("extract", "--data", data, "--cache", path, "--teacher", "dinov2:tiny@56", "--weights", "random")
        words += ("--input-size", 64, "--views", 4, "--device", "cpu")
        code, err = end_when(start(CACHE, *words), path / "identity.json", draw.uniform(0, 1.5))
        ended += code == 143
        assert code in (0, 143) and "Traceback" not in err, err
        if code == 143:
            assert err.strip().splitlines()[-1].startswith("ended by SIGTERM: interrupted; what is finished is safe")
        again = start(CACHE, *words)
        again.communicate(timeout=240)
        assert again.returncode == 0
        assert open_cache(path).content_digests() == open_cache(cache).content_digests()
        assert verify(path).sound and not list(path.rglob(".tmp-*"))
    assert ended


@pytest.mark.slow
@pytest.mark.parametrize("moments", [1, 20])
def test_a_training_that_was_ended_resumes_to_the_same_weights(moments: int, cache: Path, tmp_path: Path):
    options = (
        "--student",
        "unet",
        "--width",
        4,
        "--input-size",
        32,
        "--batch-size",
        4,
        "--device",
        "cpu",
        "--epochs",
        8,
    )
    options += ("--cache", cache, "--recipe", "difom", "--set", "machine.logger=none")
    whole = start(TRAIN, *options, "--out", tmp_path / "whole")
    _, err = whole.communicate(timeout=240)
    assert whole.returncode == 0, err
    meant, draw, ended = load_file(tmp_path / "whole" / "student.safetensors"), random.Random(moments), 0
    for number in range(moments):
        run = tmp_path / f"run{number}"
        code, err = end_when(start(TRAIN, *options, "--out", run), run / "last.ckpt", draw.uniform(0, 0.5))
        ended += code == 143
        assert code in (0, 143) and "Traceback" not in err, err
        if code == 143:
            again = start(TRAIN, *options, "--out", run, "--resume")
            _, err = again.communicate(timeout=240)
            assert again.returncode == 0, err
        found = load_file(run / "student.safetensors")
        assert found.keys() == meant.keys() and all(torch.equal(found[name], meant[name]) for name in meant)
    assert ended


@pytest.mark.slow
def test_workers_of_an_evaluation_end_with_it(cache: Path, data: Path, tmp_path: Path):
    options = (
        "--student",
        "unet",
        "--width",
        4,
        "--input-size",
        32,
        "--batch-size",
        4,
        "--device",
        "cpu",
        "--epochs",
        1,
    )
    trained = start(TRAIN, *options, "--cache", cache, "--recipe", "baseline", "--out", tmp_path / "run")
    trained.communicate(timeout=240)
    process = start(TRAIN, "evaluate", tmp_path / "run", "--data", data, "--workers", 2, "--device", "cpu")
    children: list[int] = []
    while process.poll() is None and not children:
        children = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143 and "Traceback" not in err, err
    ends_s = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < ends_s:
        time.sleep(0.05)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
