"""The scaling model, against numbers worked by hand."""

from typing import Any

import pytest
from in_process import invoke

from difom_cache.commands import ScaleConfig
from difom_cache.extraction import format_prediction, most_useful_workers, predict

FREE: dict[str, Any] = {"read_mb_s": 1e9, "write_mb_s": 1e9, "start_s": 0}
"""A file system that is never the limit, and workers that are ready at once."""


def load(**options: Any) -> ScaleConfig:
    """Return 8000 views of half a megabyte, in 80 blocks where a block has 100."""
    return ScaleConfig(frames=1000, views=8, view_bytes=500_000, frame_bytes=100_000, **FREE | options)


def ask(workers: int = 1, **options: Any):
    return predict(load(**options), workers, block_views=100)


def test_one_worker_takes_all_views_at_its_rate() -> None:
    found = ask(rate=10, start_s=20)
    assert (found.wall_s, found.limit) == (820, "the workers")
    assert found.cache_bytes == 4e9
    assert found.worker_hours == pytest.approx(820 / 3600)


def test_workers_take_whole_blocks_so_a_last_round_may_be_half_empty() -> None:
    assert ask(3, rate=10).wall_s == 27 * 10  # 80 blocks in 27 rounds of 10 s


def test_more_workers_than_blocks_are_of_no_use() -> None:
    assert [ask(workers, rate=10).wall_s for workers in (80, 800)] == [10, 10]


def test_file_system_that_writes_slower_than_workers_compute_is_the_limit() -> None:
    found = ask(8, rate=100, write_mb_s=100)
    assert (found.wall_s, found.limit) == (40, "writing")


def test_file_system_that_reads_slowly_is_the_limit() -> None:
    found = ask(80, rate=100, read_mb_s=1)
    assert (found.wall_s, found.limit) == (100, "reading")


def test_workers_stop_paying_off_where_the_file_system_is_full() -> None:
    assert most_useful_workers(load(rate=100, write_mb_s=1000), block_views=100) == 20  # 2000 views a second fill it
    assert most_useful_workers(load(rate=100), block_views=100) == 80  # as many as there are blocks
    assert most_useful_workers(load(rate=1e9, write_mb_s=1e-6), block_views=100) == 1


def test_price_counts_every_worker_for_as_long_as_the_pass_takes() -> None:
    assert ask(2, rate=10, price=9).price == pytest.approx(2.0)


def test_line_of_the_table_names_time_and_limit() -> None:
    line = format_prediction(8, ask(8, rate=100, write_mb_s=100))
    assert "40 s" in line and "4.0 GB" in line and line.endswith("limit: writing")


def test_command_compares_numbers_of_workers() -> None:
    asked = ["scale", "--frames", "10000", "--rate", "50", "--workers", "1,4", "--price", "2", "--write-mb-s", "120"]
    first, second, last = invoke(*asked).splitlines()
    assert (
        "27 min 10 s" in first and "7 min 14 s" in second
    )  # 80000 views, or 79 rounds of 256, at 50 a second; 30 s to start
    assert last == "more than 4 workers of this rate do not pay off on this file system"
