"""Several networks are scored by one command; one that is not finished is scored, and said to be none."""

import json
from pathlib import Path

import pytest
from painted_frames import paint_benchmark, save_small_student

from difom_cache.base.options import build
from difom_cache.errors import SettingsError
from difom_train import evaluate
from difom_train.commands import EvaluateConfig
from difom_train.evaluation import Evaluations, evaluate_runs


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_benchmark(tmp_path_factory.mktemp("data"), frames=2)


def score(runs: list[Path], data: Path, **options: object) -> Evaluations:
    return evaluate_runs(build(EvaluateConfig, {"runs": runs, "data": data, **options}))


def test_several_runs_are_scored_each_as_alone(benchmark: Path, tmp_path: Path) -> None:
    runs = [save_small_student(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    found = score(runs, benchmark, workers=0, out=tmp_path / "scores", maps=tmp_path / "maps")
    assert [one.folder for one in found.each] == [tmp_path / "scores/run0", tmp_path / "scores/run1"]
    assert [line["run"] for line in found.as_json()] == ["run0", "run1"]
    for run, one in zip(runs, found.each, strict=True):
        assert one.means() == evaluate(run, benchmark, workers=0).means()
        assert one.render() in found.render()
        assert len(list((tmp_path / "maps" / run.name).rglob("*.png"))) == 6  # two frames of three sets


def test_one_run_answers_a_program_as_it_always_did(benchmark: Path, tmp_path: Path) -> None:
    run = save_small_student(tmp_path / "run")
    found = score([run], benchmark, workers=0, out=tmp_path / "scores")
    assert found.as_json()["folder"] == str(tmp_path / "scores")


def test_an_unfinished_run_is_said_to_be_none(
    benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_small_student(tmp_path / "run")
    facts = {"status": "running", "settings": {"optimizer": {"epochs": 30}}}
    (run / "run.json").write_text(json.dumps(facts))
    (run / "log.jsonl").write_text("".join(json.dumps({"epoch": n, "loss": 1.0}) + "\n" for n in range(4)))
    score([run], benchmark, workers=0)
    said = capsys.readouterr().err
    assert f"NOTE: {run} is not finished (4 of 30 epochs): its student is of the one kept so far" in said
    (run / "run.json").write_text(json.dumps(facts | {"status": "finished"}))
    score([run], benchmark, workers=0)
    assert "NOTE" not in capsys.readouterr().err


def test_two_runs_of_one_name_do_not_share_a_folder(benchmark: Path, tmp_path: Path) -> None:
    runs = [save_small_student(tmp_path / place / "run") for place in "ab"]
    with pytest.raises(SettingsError, match="two runs are called run"):
        score(runs, benchmark, out=tmp_path / "scores")
