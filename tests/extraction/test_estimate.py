"""What a run will take, said before it starts: bytes, room on the disk, teacher passes saved."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_cache import write_small_cache

from difom_cache.base.text import format_bytes, format_seconds
from difom_cache.errors import CacheSpaceError
from difom_cache.extraction import estimate_run, format_passes, refuse_full_disk
from difom_cache.store import ArraySpec, Column

PICTURES = Column("pictures", (ArraySpec("image", (10, 10, 3), "uint8", ("row", "y", "x", "rgb")),), 100, 16)
TEACHER = Column(
    "teachers/one",
    (
        ArraySpec("block@16/code", (8, 5, 5), "int8", ("row", "channel", "y", "x")),
        ArraySpec("block@16/scale", (8,), "float32", ("row", "channel")),
    ),
    100,
    16,
)


def test_bytes_of_a_view_are_those_of_its_arrays() -> None:
    estimate = estimate_run([PICTURES, TEACHER], [7, 7], views=8, epochs=75, runs=1)
    assert estimate.bytes_per_view == {"pictures/image": 300, "one/block@16/code": 200, "one/block@16/scale": 32}


def test_total_bytes_are_rows_and_one_index_a_shard() -> None:
    estimate = estimate_run([TEACHER], [7], views=8, epochs=75, runs=1)
    assert estimate.total_bytes == 100 * 232 + 2 * 7 * (16 * 16 + 4)


def test_the_estimate_is_what_a_cache_then_takes(tmp_path: Path) -> None:
    small = write_small_cache(tmp_path)
    columns = list(small.columns.values())
    estimate = estimate_run(columns, [c.blocks for c in columns], views=2, epochs=1, runs=1)
    assert estimate.total_bytes == sum(
        path.stat().st_size for path in tmp_path.glob("*/**/c.*") if "rows" not in path.parts
    )


def test_finished_blocks_need_no_more_room() -> None:
    estimate = estimate_run([PICTURES, TEACHER], [0, 2], views=8, epochs=75, runs=1)
    assert estimate.missing_bytes == 2 * 16 * 232 + 2 * 2 * (16 * 16 + 4)


def test_passes_saved_are_epochs_times_runs_over_views() -> None:
    assert estimate_run([TEACHER], [7], views=8, epochs=75, runs=3).passes_saved == 75 * 3 / 8
    assert "75 epochs x 3 runs / 8 views = 28.1; the cache pays off from epoch 9" in format_passes(
        75 * 3 / 8, views=8, epochs=75, runs=3
    )


def test_a_cache_that_saves_nothing_says_so() -> None:
    said = format_passes(1.0, views=20, epochs=20, runs=1)
    assert "none (20 epochs x 1 run / 20 views = 1.0)" in said and "fewer --views" in said


def test_the_table_sums_up_features_alone() -> None:
    formatted = estimate_run([PICTURES, TEACHER], [7, 7], views=8, epochs=75, runs=1).format()
    assert re.search(r"\n  features +232 B a view\n", formatted)
    assert "100 views" in formatted
    assert "features" not in estimate_run([PICTURES], [7], views=8, epochs=75, runs=1).format()


def test_a_disk_that_is_too_small_is_refused_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = estimate_run([TEACHER], [7], views=8, epochs=75, runs=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1500, total=10**12))
    with pytest.raises(CacheSpaceError, match=r"needs 2\d\.\d kB more, but its disk has 1\.5 kB free.*--force"):
        refuse_full_disk(tmp_path / "not" / "there" / "yet", estimate)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9, total=10**12))
    refuse_full_disk(tmp_path, estimate)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0, total=0))
    refuse_full_disk(tmp_path, estimate)  # a file system that does not say is not full


@pytest.mark.parametrize(
    ("size", "said"), [(999, "999 B"), (1500, "1.5 kB"), (256_000_000, "256.0 MB"), (3.2e9, "3.2 GB"), (5e12, "5.0 TB")]
)
def test_bytes_have_decimal_units(size: float, said: str) -> None:
    assert format_bytes(size) == said


@pytest.mark.parametrize(("seconds", "said"), [(4.4, "4 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations_are_in_words(seconds: float, said: str) -> None:
    assert format_seconds(seconds) == said
