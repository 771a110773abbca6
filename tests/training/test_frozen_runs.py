"""Runs of an earlier version are evaluated, compared, used and exported; they are resumed, or refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from frozen_vectors import thaw
from PIL import Image

from difom_cache import read_mask
from difom_train import compare, evaluate, export, load_student, predict, train
from difom_train.training import read_checkpoint, read_run

RUNS = ("multiscale", "baseline")


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frozen")
    thaw("caches", folder)
    return thaw("runs", folder)


@pytest.fixture
def tests_of_four(frozen: Path, tmp_path: Path) -> Path:
    """Four of the painted frames, as a test set in PraNet's layout."""
    for kind in ("images", "masks"):
        (folder := tmp_path / "TestDataset" / "Kvasir" / kind).mkdir(parents=True)
        for stem in range(4):
            (folder / f"{stem}.png").write_bytes((frozen / "painted" / kind / f"{stem:03d}.png").read_bytes())
    return tmp_path / "TestDataset"


@pytest.mark.parametrize("name", RUNS)
def test_the_student_is_the_one_of_the_last_checkpoint(frozen: Path, name: str) -> None:
    progress, states = read_checkpoint(frozen / name)
    assert progress.epochs_done == 1 and read_run(frozen / name)["status"] == "finished"
    learnt = {key.removeprefix("student."): value for key, value in states["learner"].items() if "student." in key}
    for key, value in load_student(frozen / name).state_dict().items():
        assert torch.equal(value, learnt[key]), key


def test_both_runs_are_evaluated_and_compared(frozen: Path, tests_of_four: Path, tmp_path: Path) -> None:
    """Three steps taught either student to call everything a polyp, so its Dice can be counted from the masks alone."""
    masks = [read_mask(tests_of_four / "Kvasir" / "masks" / f"{stem}.png") for stem in range(4)]
    all_polyp = np.mean([2 * (mask > 0).sum() / ((mask > 0).sum() + mask.size) for mask in masks])
    for name in RUNS:
        scored = evaluate(frozen / name, tests_of_four, out=tmp_path / name)
        assert scored.means()["Kvasir"]["fixed/dice"] == pytest.approx(all_polyp, abs=1e-6)
    found = compare([tmp_path / name for name in RUNS], out=tmp_path / "report", cost=False, resamples=10)
    assert len(found.table.rows) == 2


def test_images_are_marked_and_the_student_is_exported(frozen: Path, tmp_path: Path) -> None:
    found = predict(frozen / "multiscale", frozen / "painted" / "images", out=tmp_path / "masks")
    assert found.frames == 12 and not found.problems
    assert np.asarray(Image.open(next((tmp_path / "masks").rglob("000*.png")))).all()
    assert export(frozen / "multiscale", out=tmp_path / "student.pt2").path.is_file()


def test_a_finished_baseline_is_resumed_and_stays_as_it_is(frozen: Path) -> None:
    before = (frozen / "baseline" / "student.safetensors").read_bytes()
    train(out=frozen / "baseline", resume=True, cache=frozen / "whole")
    assert (frozen / "baseline" / "student.safetensors").read_bytes() == before
