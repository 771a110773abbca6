"""A study: every cell is trained and scored once, with one line for each recipe and share of the masks."""

import csv
import json
import sys
from statistics import mean, stdev

import numpy as np
import pytest
from painted_frames import paint_benchmark

from difom_cache.store.layout import TapSpec
from difom_train.evaluation.study import dice_of, format_table, study

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
        json.loads((tmp_path / "study" / f"baseline-labels1-seed{seed}" / "study-dice.json").read_text())["dice"]
        for seed in (0, 1)
    ]
    means = [mean(dice for name, dice in each.items() if name != "CVC-300") for each in scores]
    assert lines[2]["mean"] == pytest.approx(mean(means)) and lines[2]["std"] == pytest.approx(stdev(means))
    with (tmp_path / "study" / "study.csv").open() as file:
        assert [float(line["mean"]) for line in csv.DictReader(file)] == [line["mean"] for line in lines]
    assert len(format_table(lines).splitlines()) == 5


def test_what_is_finished_is_not_trained_or_scored_again(run, tmp_path):
    first = run(recipes=["baseline"], labels=[1.0], seeds=[0])
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "study" / "baseline-labels1-seed0").iterdir()}
    more = run(recipes=["baseline"], labels=[1.0], seeds=[0], also=[str(tmp_path / "study" / "baseline-labels1-seed0")])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert more[0] == first[0]
    assert more[1]["mean"] == pytest.approx(first[0]["mean"])


def test_changes_reach_every_run(run, tmp_path):
    run(recipes=["baseline"], labels=[1.0], seeds=[0], changes=["machine.logger=none", "optimiser.lr=0.0123"])
    facts = json.loads((tmp_path / "study" / "baseline-labels1-seed0" / "run.json").read_text())
    assert facts["settings"]["optimiser"]["lr"] == 0.0123


def test_two_empty_masks_agree():
    assert dice_of(np.array([False, True]), np.array([True, True])) == pytest.approx(2 / 3)
    assert dice_of(np.array([False]), np.array([False])) == 1.0
