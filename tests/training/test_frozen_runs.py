"""Runs of an earlier version are evaluated, compared, used and exported; they are resumed, or refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from frozen_vectors import thaw
from PIL import Image

from difom_cache import read_mask
from difom_cache.errors import RunError
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
    found = compare(
        [tmp_path / name for name in RUNS], out=tmp_path / "report", cost=False, published=False, resamples=10
    )
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


def test_a_run_that_was_taught_otherwise_is_not_resumed(frozen: Path) -> None:
    """Of that version, taps met levels by their strides alone: all four taught the bottleneck."""
    assert "revision" not in read_run(frozen / "multiscale")
    with pytest.raises(
        RunError, match=r"'multiscale' teaches otherwise \(revision 1 there, 4 here\).*choose another --out"
    ):
        train(out=frozen / "multiscale", resume=True, cache=frozen / "whole")


def test_the_same_cache_teaches_levels_in_order_of_depth_now(frozen: Path, tmp_path: Path) -> None:
    before = read_run(frozen / "multiscale")["distillation"]["about"]
    assert [line.split(",")[0].split()[-1] for line in before[1:]] == 4 * ["bottleneck"]
    tiny = {
        "width": 1,
        "epochs": 1,
        "batch_size": 8,
        "input_size": 64,
        "device": "cpu",
        "changes": ["machine.logger=none"],
    }
    (folder,) = train("unet", cache=frozen / "whole", recipe="difom-multiscale", out=tmp_path / "now", **tiny)
    facts = read_run(folder)
    pairs = {(pair["tap"], pair["level"]) for pair in facts["distillation"]["pairs"]}
    deep, shallow = (
        ("dinov2-tiny-random/block3@16", "sam-tiny-random/neck@16"),
        ("dinov2-tiny-random/block1@32", "sam-tiny-random/block2@32"),
    )
    assert pairs == {(tap, "bottleneck") for tap in deep} | {
        (tap, level) for tap in shallow for level in ("encoder4", "decoder1")
    }
    said = (folder / "train.log").read_text()
    assert all(f"{tap} -> {level}" in said for tap, level in pairs)
    assert facts["revision"] == 4
    train(out=folder, resume=True)
