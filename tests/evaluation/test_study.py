"""A study: every cell is trained and scored once, with one line for each recipe and share of the masks."""

import csv
import json
import shutil
import sys
from statistics import mean, stdev

import pytest
import torch
from painted_frames import paint_benchmark
from PIL import Image
from safetensors.torch import load_file, save_file

from difom_cache import TapSpec
from difom_cache.errors import DeviceError, RunError, SettingsError
from difom_train.evaluation.study import format_study, study

TAPS = {"wide/block@16": TapSpec("wide/block@16", "feature", 6, 2, 16, "float16")}
TINY = {"width": 4, "input_size": 32, "batch_size": 8, "epochs": 1, "device": "cpu", "changes": ["machine.logger=none"]}


@pytest.fixture
def run(make_cache, monkeypatch, tmp_path):
    """Return a study of a cache in memory on painted test sets."""
    cache = make_cache(records=20, views=2, picture_px=32, taps=TAPS)
    monkeypatch.setattr(sys.modules["difom_train.training.run"], "open_cache", lambda path: cache)
    data = paint_benchmark(tmp_path / "data")

    def run(**options):
        return study("memory", data, tmp_path / "study", **(TINY | options))

    return run


def test_a_line_is_the_mean_over_seeds_and_leaves_cvc300_out_of_the_mean(run, tmp_path):
    lines = run(recipes=["baseline", "difom-multiscale"], labels=[0.25, 1.0], seeds=[0, 1])
    assert [(line["recipe"], line["labels"], line["runs"]) for line in lines] == [
        ("baseline", 0.25, 2),
        ("difom-multiscale", 0.25, 2),
        ("baseline", 1.0, 2),
        ("difom-multiscale", 1.0, 2),
    ]
    scores = [
        json.loads((tmp_path / "study" / f"baseline-labels1-seed{seed}" / "eval" / "summary.json").read_text())["sets"]
        for seed in (0, 1)
    ]
    means = [mean(of["scores"]["fixed/dice"] for name, of in each.items() if name != "CVC-300") for each in scores]
    assert lines[2]["mean"] == pytest.approx(mean(means)) and lines[2]["std"] == pytest.approx(stdev(means))
    with (tmp_path / "study" / "study.csv").open() as file:
        assert [float(line["mean"]) for line in csv.DictReader(file)] == [line["mean"] for line in lines]
    assert len(format_study(lines).splitlines()) == 5
    chart = (tmp_path / "study" / "study.svg").read_text()
    assert chart.count("<!-- difom-multiscale, 2 seeds -->") == 2 and "25 % of the masks" in chart


def test_what_is_finished_is_not_trained_or_scored_again(run, tmp_path):
    first = run(recipes=["baseline"], labels=[1.0], seeds=[0])
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "study" / "baseline-labels1-seed0").rglob("*")}
    more = run(recipes=["baseline"], labels=[1.0], seeds=[0], also=[str(tmp_path / "study" / "baseline-labels1-seed0")])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert more[0] == first[0]
    assert more[1]["mean"] == pytest.approx(first[0]["mean"])


def test_changes_reach_every_run(run, tmp_path):
    run(recipes=["baseline"], labels=[1.0], seeds=[0], changes=["machine.logger=none", "optimizer.lr=0.0123"])
    facts = json.loads((tmp_path / "study" / "baseline-labels1-seed0" / "run.json").read_text())
    assert facts["settings"]["optimizer"]["lr"] == 0.0123


def test_scores_are_taken_again_only_for_the_same_weights_frames_and_masks(run, tmp_path):
    cell = {"recipes": ["baseline"], "labels": [1.0], "seeds": [0]}
    summary = tmp_path / "study" / "baseline-labels1-seed0" / "eval" / "summary.json"
    run(**cell, limit=2)
    frames = {name: of["frames"] for name, of in json.loads(summary.read_text())["sets"].items()}
    assert set(frames.values()) == {2}
    run(**cell)  # more frames
    assert all(of["frames"] > 2 for of in json.loads(summary.read_text())["sets"].values())
    weights = tmp_path / "study" / "baseline-labels1-seed0" / "student.safetensors"
    tensors = load_file(weights)
    last_bias = [name for name, tensor in tensors.items() if tensor.shape == (1,)][-1]
    save_file(tensors | {last_bias: torch.tensor([50.0])}, weights)
    assert run(**cell)[0]["mean"] > 0.05  # other weights, which call everything polyp
    mask = next((tmp_path / "data" / "TestDataset" / "Kvasir" / "masks").iterdir())
    with Image.open(mask) as picture:
        empty = Image.new("L", picture.size)
    empty.save(mask)  # another truth
    scored = run(**cell)[0]
    assert scored["Kvasir"] < min(scored[name] for name in ("CVC-300", "CVC-ColonDB"))


def test_a_later_run_may_have_other_test_sets(run, tmp_path):
    first = run(recipes=["baseline"], labels=[1.0], seeds=[0])
    shutil.rmtree(tmp_path / "data" / "TestDataset" / "CVC-300")
    second = run(recipes=["baseline"], labels=[1.0], seeds=[0, 1])
    assert set(first[0]) - set(second[0]) == {"CVC-300"}
    assert second[0]["runs"] == 2


def test_the_device_reaches_training_and_scoring(run):
    with pytest.raises(DeviceError, match="cuda"):
        run(recipes=["baseline"], labels=[1.0], seeds=[0], device="cuda")
    run(recipes=["baseline"], labels=[1.0], seeds=[0])
    with pytest.raises(DeviceError, match="cuda"):  # nothing is left to train
        run(recipes=["baseline"], labels=[1.0], seeds=[0], device="cuda")


def test_a_study_of_another_budget_and_runs_that_share_a_folder_are_refused(run, tmp_path):
    run(recipes=["baseline"], labels=[1.0], seeds=[0])
    with pytest.raises(RunError, match=r"epochs 1 there, 2 here; choose another --out"):
        run(recipes=["baseline"], labels=[1.0], seeds=[0], epochs=2)
    with pytest.raises(SettingsError, match="share baseline-labels1-seed0"):
        run(recipes=["baseline"], labels=[1.0], seeds=[0, 0])
    (tmp_path / "study" / "study.json").write_text("[]")
    with pytest.raises(RunError, match=r"study\.json is damaged"):
        run(recipes=["baseline"], labels=[1.0], seeds=[0])
