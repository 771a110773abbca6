"""The table of rows: which view lies where, mapped from disk and refused when a part is not there."""

from pathlib import Path

import numpy as np
import pytest
from small_cache import NO_MASK_ROW, PARAM_NAMES, start_small_cache

from difom_cache import open_cache
from difom_cache.errors import CacheIncompleteError
from difom_cache.store import Table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table")
    start_small_cache(path)
    return path


def test_rows_lie_record_after_record_and_view_after_view(folder: Path) -> None:
    table = open_cache(folder).table
    assert table.record.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7]
    assert table.view.tolist() == [0, 1] * 6 + [0, 0]
    assert table.split.tolist() == [0] * 12 + [1, 1]
    assert len(table) == 14
    assert table.ids == [f"set/{number}" for number in range(8)]


def test_rows_are_chosen_by_split_view_and_mask(folder: Path) -> None:
    cache = open_cache(folder)
    assert cache.rows_of("val").tolist() == [12, 13]
    assert cache.rows_of("train", view=1).tolist() == [1, 3, 5, 7, 9, 11]
    assert cache.rows_of(labelled=False).tolist() == [NO_MASK_ROW, NO_MASK_ROW + 1]
    assert cache.rows_of("test").tolist() == []
    assert len(cache.rows_of()) == 14


def test_params_are_the_integers_that_were_written(folder: Path) -> None:
    table = open_cache(folder).table
    assert table.params.dtype == np.int32
    assert table.params[2, :4].tolist() == [0, 0, 8, 8]  # view 0: the whole frame
    assert table.as_rows().params.shape == (14, len(PARAM_NAMES))


@pytest.mark.parametrize("name", ["rows/view/c.0", "rows/params/c.0.0"])
def test_a_cache_that_was_copied_by_half_is_refused_by_the_missing_file(tmp_path: Path, name: str) -> None:
    start_small_cache(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CacheIncompleteError, match=rf"{name} cannot be read.*not written or copied whole"):
        open_cache(tmp_path)


def test_a_table_cut_short_is_refused(tmp_path: Path) -> None:
    start_small_cache(tmp_path)
    with (tmp_path / "rows/record/c.0").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(CacheIncompleteError, match=r"rows/record/c\.0 cannot be read"):
        Table(tmp_path, 14, len(PARAM_NAMES))


def test_a_cache_without_its_records_opens_and_says_so_when_they_are_asked_for(tmp_path: Path) -> None:
    start_small_cache(tmp_path)
    (tmp_path / "records.csv").unlink()
    table = open_cache(tmp_path).table
    with pytest.raises(CacheIncompleteError, match=r"records\.csv cannot be read"):
        _ = table.ids
