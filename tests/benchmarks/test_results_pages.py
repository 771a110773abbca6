"""Tables of README and of the page of results are what `python -m benchmarks results` makes of the studies' files."""

import json
from pathlib import Path

import pytest

from benchmarks.options import ResultsConfig
from benchmarks.results import MARK, fill_page, write_tables
from difom_cache.base.errors import RunError, SettingsError

PAGE = """Before.

<!-- table of one.json: recipe | seeds | mean | gain in points, 95 % interval -->
what stood there
<!-- end of table -->

After.
"""


def write_study(folder: Path, name: str = "one.json") -> Path:
    """Write the results of four runs and a network beside them, with Dice that can be averaged by hand."""

    def run(recipe: str, seed: int, dice: list[float]) -> dict[str, object]:
        cell = {"student": "unet", "recipe": recipe, "teachers": [], "labels": 0.5, "labels_seed": seed, "seed": seed}
        made = {"revision": 4, "cpu": "a processor", "torch": "2.15.0"}
        settings = {"data": {"input_px": 96}, "optimizer": {"epochs": 3}}
        return beside(dice) | {"cell": cell, "made": made, "settings": settings}

    def beside(dice: list[float]) -> dict[str, object]:
        cost = {"train_cpu_s": None, "frame_cpu_ms": None, "parameters": None}
        rest = {"val_dice": None, "mark": "", "cost": cost, "made": {}, "cell": None, "settings": None}
        return rest | {"dice": {"Kvasir": dice}}

    runs = {
        "b0": run("pretrained-encoder", 0, [0.2, 0.4]),
        "b1": run("pretrained-encoder", 1, [0.3, 0.5]),
        "d0": run("difom-multiscale", 0, [0.6, 0.6]),
        "d1": run("difom-multiscale", 1, [0.7, 0.7]),
    }
    held = {"budget": {}, "groups": {"Kvasir": ["a", "b"]}, "runs": runs, "beside": {"other": beside([0.1, 0.3])}}
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(held))
    return folder


def test_a_table_stands_between_its_marks_with_the_columns_that_were_asked_for(tmp_path: Path) -> None:
    filled = fill_page(PAGE, write_study(tmp_path / "results"))
    lines = filled.splitlines()
    assert lines[:3] == PAGE.splitlines()[:3] and lines[-3:] == PAGE.splitlines()[-3:]
    assert lines[4:6] == ["| recipe | seeds | mean | gain in points, 95 % interval |", "| --- | --- | --- | --- |"]
    first, second, third = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[6:9])
    assert first == ["pretrained-encoder", "2", "0.350", "-"]
    assert second[:3] == ["difom-multiscale", "2", "0.650"] and second[3].startswith("+30.0")
    assert third[:3] == ["other", "1", "0.200"]
    assert lines[10] == "4 runs: on a processor, torch 2.15.0, revision 4, input_px 96, epochs 3."
    assert fill_page(filled, tmp_path / "results") == filled


def test_a_page_may_call_rows_by_other_words(tmp_path: Path) -> None:
    named = PAGE.replace(
        "95 % interval -->", "95 % interval; pretrained-encoder = alone; difom-multiscale = taught -->"
    )
    filled = fill_page(named, write_study(tmp_path / "results"))
    assert [line.split(" | ")[0] for line in filled.splitlines()[6:9]] == ["| alone", "| taught", "| other"]
    assert fill_page(filled, tmp_path / "results") == filled


def test_a_file_that_is_missing_leaves_the_page_as_it_is_and_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    told = write_tables(ResultsConfig(folder=tmp_path / "results", pages=(page,)))
    assert page.read_text() == PAGE
    assert told == [f"{page}: one.json is not there: what stands in its place is kept"]
    told = write_tables(ResultsConfig(folder=write_study(tmp_path / "results"), pages=(page,)))
    assert told == [f"{page}: one.json"] and "what stood" not in page.read_text()


def test_a_column_or_page_that_does_not_exist_is_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "results")
    with pytest.raises(SettingsError, match=r"one\.json: there is no column 'seed'; did you mean 'seeds'"):
        fill_page(PAGE.replace("seeds", "seed"), folder)
    with pytest.raises(RunError, match=r"nowhere\.md does not exist"):
        write_tables(ResultsConfig(folder=folder, pages=(tmp_path / "nowhere.md",)))


def test_pages_hold_what_the_command_writes() -> None:
    config = ResultsConfig()
    for page in config.pages:
        text = page.read_text(encoding="utf-8")
        assert MARK.search(text), f"{page} has no place for a table"
        assert fill_page(text, config.folder) == text, f"run `python -m benchmarks results` for {page}"
