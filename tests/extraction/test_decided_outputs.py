"""What a network's outputs are is decided once for a column, and stands in its identity."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ended_networks import PLAIN, SIDE, paint, save

from difom_cache import extract, open_cache, verify
from difom_cache.errors import CacheFormatError, CacheIdentityError, SettingsError, TeacherError

outputs = import_module("difom_cache.extraction.frames")
SIGMOID = ("Sigmoid", "logits", "prob")
WRITTEN_OUT = [("Neg", "logits", "n"), ("Exp", "n", "e"), ("Add", "e one", "d"), ("Div", "one d", "out")]
CLIPPED = [SIGMOID, ("Clip", "prob zero one", "out")]


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """A folder with painted frames in `data`; networks and caches come beside them."""
    paint(tmp_path / "data")
    (tmp_path / "net.json").write_text(json.dumps(PLAIN))
    return tmp_path


def run(ward: Path, cache: str = "feats", **options: Any) -> Any:
    defaults = {"input_size": 2 * SIDE, "views": 1, "device": "cpu", "pictures": False, "batch_size": 2, "quiet": True}
    return extract(data=ward / "data", cache=ward / cache, teacher=f"onnx:{ward / 'net.onnx'}", **(defaults | options))


def held(ward: Path, cache: str = "feats") -> dict[str, Any]:
    return json.loads((ward / cache / "teachers" / "onnx-net" / "identity.json").read_text())["teacher"]["options"]


def logits(ward: Path, cache: str = "feats") -> np.ndarray:
    found = open_cache(ward / cache)
    (tap,) = [name for name, each in found.taps.items() if each.kind == "logits"]
    return found.decode(tap, found.gather(np.arange(len(found)), [tap], pictures=False)[f"{tap}/code"])


def begin_as_before(ward: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Begin a column as it was begun before outputs were told."""
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "read_outputs", lambda request, frames: ())
        run(ward, **options)
    assert "outputs" not in held(ward)


def lose_a_block(ward: Path) -> None:
    sorted((ward / "feats" / "teachers" / "onnx-net" / "ticks").glob("*.json"))[0].unlink()


def test_the_first_decision_stands_in_the_identity(ward: Path) -> None:
    save(ward / "net.onnx", WRITTEN_OUT, ["out"])
    run(ward)
    options = held(ward)
    assert options["tensors"] == {"out": "out"}
    least, most = options["outputs"]["out"].pop("span")
    assert options["outputs"]["out"] == {"values": "prob", "channel": None, "by": "frames", "frames": 4}
    # The sigmoid of -5 (the black border) and of 12 * 130 / 255 - 5 (a polyp), by hand.
    assert (least, most) == pytest.approx((0.0066929, 0.753905), abs=1e-3)


def test_what_the_graph_says_needs_no_frames(ward: Path) -> None:
    save(ward / "net.onnx", CLIPPED, ["out"])
    run(ward)
    assert held(ward)["outputs"] == {
        "out": {"values": "prob", "channel": None, "by": "graph", "span": None, "frames": 0}
    }


def test_a_file_beside_decides_without_frames(ward: Path) -> None:
    save(ward / "net.onnx", WRITTEN_OUT, ["out"])
    (ward / "net.json").write_text(json.dumps(PLAIN | {"values": "prob"}))
    run(ward)
    assert held(ward)["outputs"]["out"] == {
        "values": "prob",
        "channel": None,
        "by": "FILE.json",
        "span": None,
        "frames": 0,
    }
    (ward / "net.json").write_text(json.dumps(PLAIN | {"values": "prob255"}))
    with pytest.raises(SettingsError, match=r"net\.json: values is 'prob255', but these features were begun with prob"):
        run(ward)


def test_others_follow_the_decision_and_look_at_nothing(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(ward / "net.onnx", WRITTEN_OUT, ["out"])
    run(ward, part="1/2")
    monkeypatch.setattr(outputs, "read_outputs", None)
    assert run(ward, part="2/2").complete and run(ward).complete
    again = verify(ward / "feats", recompute=4, data=ward / "data", device="cpu")
    assert next(iter(again.recomputed.values()))["max_error"] < 0.01  # float16 of logits up to 5
    extract(data=ward / "data", cache=ward / "like", like=ward / "feats", device="cpu", quiet=True)
    assert held(ward, "like") == held(ward)


def test_a_worker_stops_where_a_map_leaves_the_range(ward: Path) -> None:
    save(ward / "net.onnx", [("Mul", "logits half", "h"), ("Add", "h three", "out")], ["out"])  # from 0.5 to 3.6
    (ward / "net.json").write_text(json.dumps(PLAIN | {"values": "prob"}))
    with pytest.raises(
        TeacherError, match=r"'out' was read as probabilities, but gives values from 0\.5 to 3\.56 here"
    ):
        run(ward)
    assert not list((ward / "feats").rglob("ticks/*.json"))


def test_what_cannot_be_told_leaves_no_cache(ward: Path) -> None:
    save(ward / "net.onnx", [("Mul", "logits three", "m"), ("Relu", "m", "out")], ["out"])
    with pytest.raises(TeacherError, match=r'from 0 to 3\.35 on 4 frames.*"values"'):
        run(ward)
    assert not (ward / "feats").exists()


def test_an_old_column_of_logits_goes_on_as_it_was_begun(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(ward / "net.onnx", [], ["logits"])
    begin_as_before(ward, monkeypatch)
    before, identity = logits(ward), (ward / "feats/teachers/onnx-net/identity.json").read_bytes()
    lose_a_block(ward)
    assert run(ward).complete
    np.testing.assert_array_equal(logits(ward), before)
    assert (ward / "feats/teachers/onnx-net/identity.json").read_bytes() == identity


def test_an_old_column_that_took_probabilities_for_logits_is_not_gone_on_with(
    ward: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(ward / "net.onnx", CLIPPED, ["out"])
    begin_as_before(ward, monkeypatch)
    assert logits(ward).min() >= 0  # probabilities, as they once lay in caches
    assert run(ward).complete  # a finished one is left as it is
    lose_a_block(ward)
    with pytest.raises(
        CacheIdentityError, match=r"taken for logits.*now output 'out' gives probabilities.*difom-cache drop"
    ):
        run(ward)


def test_the_answer_alone_is_kept_unless_others_are_named(ward: Path) -> None:
    ends = [SIGMOID, ("Conv", "logits blur", "wide", {"pads": [4, 4, 4, 4]}), ("Sigmoid", "wide", "soft")]
    save(ward / "net.onnx", ends, ["soft", "prob"])
    run(ward)
    assert list(open_cache(ward / "feats").taps) == ["onnx-net/prob@2"]
    assert run(ward).complete
    run(ward, "both", taps=("soft@2", "prob@2"))
    assert {name: tap.kind for name, tap in open_cache(ward / "both").taps.items()} == {
        "onnx-net/soft@2": "logits",
        "onnx-net/prob@2": "logits",
    }


@pytest.mark.parametrize("value", [3, {"out": 3}, {"out": {"values": "x"}}, {"out": {"values": "prob", "channel": -1}}])
def test_an_identity_that_cannot_be_is_named(ward: Path, value: Any) -> None:
    save(ward / "net.onnx", CLIPPED, ["out"])
    run(ward)
    path = ward / "feats" / "teachers" / "onnx-net" / "identity.json"
    text = json.loads(path.read_text())
    text["teacher"]["options"]["outputs"] = value
    path.write_text(json.dumps(text))
    with pytest.raises(CacheFormatError, match=r"identity\.json: teacher\.options\.outputs"):
        run(ward)
