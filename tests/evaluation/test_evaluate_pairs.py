"""Any pair of folders is scored, and frames of one group are known for such."""

from pathlib import Path

import pytest
from painted_frames import paint_benchmark, save_small_student

from difom_cache.errors import SettingsError
from difom_train import compare, evaluate


def test_a_pair_of_folders_is_scored_as_the_layout_that_it_comes_from(tmp_path: Path) -> None:
    folder = paint_benchmark(tmp_path) / "TestDataset" / "Kvasir"
    run = save_small_student(tmp_path / "run")
    whole = evaluate(run, folder, workers=0, out=tmp_path / "a")
    pair = {"images": folder / "images", "masks": folder / "masks"}
    named = evaluate(run, **pair, group_by=r"[12]|3", workers=0, out=tmp_path / "b")
    ours, theirs = (each.sets["Kvasir"] for each in (whole, named))
    assert [frame.id for frame in ours.frames] == [frame.id for frame in theirs.frames]
    assert (ours.columns["fixed/dice"] == theirs.columns["fixed/dice"]).all()
    assert [frame.group for frame in ours.frames] == ["", "", ""]
    assert [frame.group for frame in theirs.frames] == ["Kvasir/1", "Kvasir/2", "Kvasir/3"]
    with pytest.raises(SettingsError, match=r"--data .*Kvasir and --images .*images: give one of them"):
        evaluate(run, folder, **pair)


def test_a_report_says_where_groups_are_unknown(tmp_path: Path) -> None:
    folder = paint_benchmark(tmp_path) / "TestDataset" / "Kvasir"
    for name, rule in (("plain", None), ("grouped", r"\d")):
        run = save_small_student(tmp_path / name)
        evaluate(run, folder, group_by=rule, workers=0)
        compare([run], out=tmp_path / f"report-{name}", cost=False, published=False, resamples=10)
        page = (tmp_path / f"report-{name}" / "report.html").read_text()
        assert ("groups unknown: every frame its own" in page) is (rule is None), name
