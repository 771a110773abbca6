"""`probe:CACHE/LABEL` wherever a network is taken: scored, compared, used, and not exported."""

from pathlib import Path

import numpy as np
import pytest
from painted_folder import paint_folder
from PIL import Image

from difom_cache import extract, open_cache, probe, read_mask
from difom_cache.errors import CacheFormatError, RunError, SettingsError
from difom_train import compare, evaluate, export, predict
from difom_train.evaluation import measure_cost, read_summary, score_fixed
from difom_train.inference import prob_at_size


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = paint_folder(tmp_path_factory.mktemp("data") / "frames", frames=16)
    extract(
        teacher="dinov2:tiny@56", weights="random", input_size=64, views=1, data=root, cache=root / "feats", quiet=True
    )
    probe(root / "feats", teachers="dinov2", head="linear", name="p", folds=2, quiet=True)
    return root


def predict_by_hand(root: Path) -> dict[str, np.ndarray]:
    """Return the probability, at its image's size, that the cache's own logits give each frame in no fold."""
    cache = open_cache(root / "feats")
    rows = np.flatnonzero(cache.table.split == 1)
    tap = next(tap for tap in cache.taps if tap.startswith("p/"))
    logits = cache.gather(rows, [tap], pictures=False)[f"{tap}/code"].astype(np.float32)
    lines = [cache.table.records[cache.table.record[row]] for row in rows]
    return {
        line["id"]: prob_at_size(each[0], int(line["height"]), int(line["width"]))
        for line, each in zip(lines, logits, strict=True)
    }


def test_its_scores_are_those_of_the_cached_logits(painted: Path, tmp_path: Path) -> None:
    found = evaluate(f"probe:{painted / 'feats'}/p", painted, out=tmp_path / "scores", workers=0)
    (scores,) = found.sets.values()
    by_hand, checked = predict_by_hand(painted), 0
    for frame, dice in zip(scores.frames, scores.columns["fixed/dice"], strict=True):
        if frame.id in by_hand:
            truth = read_mask(Path(frame.mask)).astype(bool)
            assert dice == pytest.approx(score_fixed(by_hand[frame.id], truth).dice, abs=0.02)
            checked += 1
    assert checked == len(by_hand) > 0
    assert found.cpu_s_per_frame > 0 and f"{found.cpu_s_per_frame:.3g} CPU s a frame" in found.render()
    assert found.random_teachers == ("p",)  # of random weights, which the scores are said to be of
    again = evaluate(f"probe:{painted / 'feats'}/p", painted, out=tmp_path / "scores", workers=0, reuse=True)
    assert again.cpu_s_per_frame == found.cpu_s_per_frame
    assert read_summary(tmp_path / "scores")["identity"]["source"] == "probe"


def test_it_marks_frames_as_its_logits_say(painted: Path, tmp_path: Path) -> None:
    by_hand = predict_by_hand(painted)
    images = {path.stem: path for path in (painted / "images").iterdir()}
    name = next(iter(by_hand))
    stem = name.rpartition("/")[2]
    predict(f"probe:{painted / 'feats'}/p", images[stem], out=tmp_path / "out")
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{stem}.png"))
    assert (mask != (by_hand[name] >= 0.5)).mean() < 0.01


def test_it_stands_in_a_comparison_under_its_own_name(painted: Path, tmp_path: Path) -> None:
    network = f"probe:{painted / 'feats'}/p"
    with pytest.raises(RunError, match=r"probe:.*/p has no scores yet; name the test sets with --data"):
        compare([network], out=tmp_path / "out", cost=False)
    evaluate(network, painted, out=tmp_path / "other", workers=0)
    with pytest.raises(RunError, match="holds no test records"):
        compare([tmp_path / "other", network], data=painted, out=tmp_path / "out", cost=False)


def test_it_is_not_exported_and_what_names_none_is_refused(painted: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="only students are exported: give the run of one that learnt from it"):
        export(f"probe:{painted / 'feats'}/p", out=tmp_path / "file.onnx")
    with pytest.raises(SettingsError, match="expected probe:CACHE/LABEL"):
        evaluate("probe:p", painted, out=tmp_path / "scores")
    with pytest.raises(CacheFormatError, match="did you mean 'p'"):
        evaluate(f"probe:{painted / 'feats'}/pp", painted, out=tmp_path / "scores")


def test_its_cost_is_that_of_its_teachers_and_heads(painted: Path) -> None:
    cost = measure_cost(f"probe:{painted / 'feats'}/p", device="cpu", passes=2)
    assert (cost.name, cost.kind, cost.input_px) == ("p", "teacher", 56) and cost.latency_p50_ms > 0
