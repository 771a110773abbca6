"""Networks from elsewhere are scored by what their outputs are, which no option of a command changes."""

import json
from pathlib import Path

import pytest
from ended_networks import FRAMES, PLAIN, paint, save

from difom_train import evaluate

WRITTEN_OUT = [("Neg", "logits", "n"), ("Exp", "n", "e"), ("Add", "e one", "d"), ("Div", "one d", "out")]


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    paint(tmp_path / "data")
    (tmp_path / "net.json").write_text(json.dumps(PLAIN))
    save(tmp_path / "net.onnx", WRITTEN_OUT, ["out"])
    return tmp_path


def run(ward: Path, **options: object) -> dict:
    evaluate(f"teacher:onnx:{ward / 'net.onnx'}", ward / "data", out=ward / "eval", workers=0, device="cpu", **options)
    return json.loads((ward / "eval" / "summary.json").read_text())


def test_the_frames_that_tell_are_the_same_whatever_is_scored(ward: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for limit in (1, None):
        frames = run(ward, limit=limit)["sets"]["data"]["frames"]
        said += [line for line in capsys.readouterr().err.splitlines() if "output 'out' gives" in line]
        assert frames == (limit or FRAMES)
    assert said[0] == said[1] and said[0].endswith("gives probabilities (from 0.00669 to 0.754 on 4 frames)")


def test_scores_are_not_reused_where_the_output_is_read_otherwise(ward: Path) -> None:
    first = run(ward)
    assert first["identity"]["reading"] == ["out", "prob", None]
    assert first["sets"]["data"]["scores"]["fixed/dice"] == 1
    assert run(ward, reuse=True) == first
    (ward / "net.json").write_text(json.dumps({"mean": [0.5, 0.5, 0.5], "std": [1, 1, 1], "values": "prob"}))
    other = run(ward, reuse=True)
    assert other["identity"] != first["identity"]
