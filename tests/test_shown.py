"""What functions return shows itself: a line in a console, a small table in a notebook; signatures have every option."""

import inspect
import math
import pickle
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from painted_frames import paint_benchmark, save_small_student
from small_cache import write_small_cache

import difom_cache
import difom_train
from difom_cache import open_cache, verify
from difom_cache.base.text import Shown
from difom_cache.extraction import ExtractReport, estimate_run
from difom_train import compare, evaluate
from difom_train.training import Progress, Runs


class Cells(HTMLParser):
    """The cells of a table, row by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1] += data


def cells_of(shown: Shown) -> list[list[str]]:
    return Cells(shown._repr_html_()).rows


def test_a_cache_shows_what_it_holds_and_its_bytes_are_those_of_its_files(tmp_path: Path) -> None:
    path = write_small_cache(tmp_path / "feats").path
    cache = open_cache(path)
    # 6 training records of two views, 2 of one
    assert repr(cache) == f"<Cache {path}: 8 records, 14 views of 8 px; teachers: one>"
    assert repr(pickle.loads(pickle.dumps(cache))) == repr(cache)
    shards = {
        kind: [p for p in path.rglob("c.*") if kind in str(p.relative_to(path))] for kind in ("block1@2", "logits@2")
    }
    shards["images, masks"] = list((path / "pictures").rglob("c.*"))
    held = {name: sum(each.stat().st_size for each in files) for name, files in shards.items()}
    head, pictures, block, logits, total = cells_of(cache)
    assert head == ["tap", "kind", "channels", "cells", "stride, px", "codec", "a view", "on disk"]
    assert block[:6] == ["one/block1@2", "feature", "3", "4 x 4", "2", "int8"]
    assert logits[:6] == ["one/logits@2", "logits", "1", "4 x 4", "2", "float16"]
    for row, name in ((pictures, "images, masks"), (block, "block1@2"), (logits, "logits@2")):
        assert row[-1] == (f"{held[name] / 1000:.1f} kB" if held[name] >= 1000 else f"{held[name]} B")
    assert total[0] == "in all" and total[-1] == f"{sum(held.values()) / 1000:.1f} kB"


def test_taps_show_strides_and_channels_and_stay_a_dictionary(tmp_path: Path) -> None:
    taps = open_cache(write_small_cache(tmp_path / "feats").path).taps
    assert repr(taps) == "<Taps one/block1@2, one/logits@2>"
    assert [row[2:5] for row in cells_of(taps)] == [
        ["channels", "cells", "stride, px"],
        *[[n, "4 x 4", "2"] for n in "31"],
    ]
    assert dict(taps) == taps and isinstance(taps, dict)


def test_reports_of_a_cache_show_columns_and_blocks(tmp_path: Path) -> None:
    small = write_small_cache(tmp_path / "feats", leave_out=(1,))  # 14 rows in blocks of 4
    report = verify(small.path)
    assert repr(report).endswith("files checked, sound>")
    assert cells_of(report) == [["column", "damaged blocks", "missing blocks"], ["teachers/one", "[]", "[1]"]]
    columns = list(small.columns.values())
    found = ExtractReport(small.path, estimate_run(columns, [0, 1], views=2, epochs=1, runs=1))
    found.missing_blocks = {"pictures": 0, "teachers/one": 1}
    found.computed_blocks["teachers/one"] = 3
    assert re.fullmatch(rf"<ExtractReport {small.path}: 1 block missing; 14 views, \d\.\d kB>", repr(found))
    # 8 x 8 cells of three colours and a mask; codes of 3 and 1 channels of 4 x 4 in one and two bytes, three scales of four
    assert cells_of(found)[1:] == [["pictures", "256 B", "0", "0"], ["one", f"{48 + 32 + 12} B", "3", "1"]]


def test_what_is_shown_cannot_be_markup() -> None:
    class Odd(Shown):
        def _line(self) -> str:
            return "<b>"

        def _table(self) -> list[list[object]]:
            return [["<i>"], [math.pi]]

    assert (
        Odd()._repr_html_()
        == "<p>&lt;b&gt;</p><table><tr><th>&lt;i&gt;</th></tr><tr><td>3.141592653589793</td></tr></table>"
    )


def test_signatures_list_every_option_with_the_default_of_its_command() -> None:
    found = inspect.signature(difom_cache.extract)
    assert list(found.parameters)[:2] == ["config", "quiet"] and "options" not in found.parameters
    assert found.parameters["views"].default == 8 and found.parameters["views"].annotation is int
    train = inspect.signature(difom_train.train).parameters
    assert {"lr", "labels", "seeds", "cache", "changes"} <= set(train) and train[
        "epochs"
    ].kind is inspect.Parameter.KEYWORD_ONLY
    named = [getattr(package, name) for package in (difom_cache, difom_train) for name in package.__all__]
    functions = [each for each in named if inspect.isfunction(each)]
    assert len(functions) > 25
    assert not [each.__name__ for each in functions if "Unpack" in str(inspect.signature(each))]


def test_runs_are_a_list_of_folders_that_shows_how_each_went() -> None:
    folders = [Path("runs/a"), Path("runs/b")]
    runs = Runs(folders)
    runs.progress = {
        folders[0]: Progress(epochs_done=4, best_dice=0.75, best_epoch=2),
        folders[1]: Progress(epochs_done=1),
    }
    assert runs == folders and repr(runs) == "<Runs runs/a, runs/b>"
    shown = [
        ["run", "epochs", "kept epoch", "validation Dice"],
        ["runs/a", "4", "3", "0.750"],
        ["runs/b", "1", "0", "-"],
    ]
    assert cells_of(runs) == cells_of(pickle.loads(pickle.dumps(runs))) == shown


def test_scores_show_dice_set_by_set(tmp_path: Path) -> None:
    data = paint_benchmark(tmp_path / "data", frames=2)
    runs = [save_small_student(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    scores = [evaluate(run, data, workers=0) for run in runs]
    shown = cells_of(scores[0])
    assert shown[0] == ["test set", "frames", "Dice at 0.5", "mDice as PraNet"]
    means = scores[0].as_json()["scores"]
    assert [row[0] for row in shown[1:]] == list(means)
    assert [row[2] for row in shown[1:]] == [f"{each['fixed/dice']:.3f}" for each in means.values()]
    assert repr(scores[0]).startswith("<Evaluation run0: Dice at 0.5 0.")
    found = compare(runs, out=tmp_path / "out", cost=False, published=True, resamples=10, seed=1)
    head, first, second = cells_of(found)
    assert head[0] == "network" and first[1:-1] == [row[2] for row in shown[1:]] and first[-1] == "-"
    assert float(second[-1].split()[0]) == pytest.approx(100 * (float(second[-2]) - float(first[-2])), abs=0.11)
