"""The scaling model, against numbers worked by hand."""

import math

import pytest
from typer.testing import CliRunner

from difom_cache.cli import app
from difom_cache.errors import SettingsError
from difom_cache.extraction import Cluster, Workload, format_prediction, most_useful_workers, predict

LOAD = Workload(frames=1000, views=8, view_bytes=500_000, frame_bytes=100_000, block_views=100)


def test_one_worker_takes_all_views_at_its_rate() -> None:
    found = predict(LOAD, Cluster(rate=10, start_s=20))
    assert (found.wall_s, found.limit) == (820, "the workers")
    assert found.cache_bytes == 4e9
    assert found.worker_hours == pytest.approx(820 / 3600)


def test_workers_take_whole_blocks_so_a_last_round_may_be_half_empty() -> None:
    assert predict(LOAD, Cluster(rate=10, workers=3, start_s=0)).wall_s == 27 * 10  # 80 blocks in 27 rounds of 10 s


def test_more_workers_than_blocks_are_of_no_use() -> None:
    found = [predict(LOAD, Cluster(rate=10, workers=workers, start_s=0)).wall_s for workers in (80, 800)]
    assert found == [10, 10]


def test_file_system_that_writes_slower_than_workers_compute_is_the_limit() -> None:
    found = predict(LOAD, Cluster(rate=100, workers=8, start_s=0, write_bytes_s=100e6))
    assert (found.wall_s, found.limit) == (40, "writing")


def test_workers_that_share_a_machine_share_its_cores() -> None:
    found = predict(LOAD, Cluster(rate=10, workers=4, start_s=0, cpu_s=0.15, cores=2))
    assert (found.wall_s, found.limit) == (600, "the processor")


def test_file_system_that_reads_slowly_is_the_limit() -> None:
    found = predict(LOAD, Cluster(rate=100, workers=80, start_s=0, read_bytes_s=1e6))
    assert (found.wall_s, found.limit) == (100, "reading")


def test_workers_stop_paying_off_where_the_file_system_is_full() -> None:
    cluster = Cluster(rate=100, write_bytes_s=1e9)  # 2000 views a second fill it
    assert most_useful_workers(LOAD, cluster) == 20
    assert most_useful_workers(LOAD, Cluster(rate=100)) == 80  # as many as there are blocks
    assert most_useful_workers(LOAD, Cluster(rate=1e9, write_bytes_s=1)) == 1


def test_price_counts_every_worker_for_as_long_as_the_pass_takes() -> None:
    assert predict(LOAD, Cluster(rate=10, workers=2, start_s=0, price_per_hour=9)).price == pytest.approx(2.0)


def test_line_of_the_table_names_time_and_limit() -> None:
    line = format_prediction(8, predict(LOAD, Cluster(rate=100, workers=8, start_s=0, write_bytes_s=100e6)))
    assert "40 s" in line and "4.0 GB" in line and line.endswith("limit: writing")


def test_command_compares_numbers_of_workers() -> None:
    asked = ["scale", "--frames", "10000", "--rate", "50", "--workers", "1,4", "--price", "2", "--write-mb-s", "120"]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 0, found.output
    first, second, last = found.output.splitlines()
    assert (
        "27 min 10 s" in first and "7 min 14 s" in second
    )  # 80000 views, or 79 rounds of 256, at 50 a second; 30 s to start
    assert last == "more than 4 workers of this rate do not pay off on this file system"


def test_nonsense_is_refused() -> None:
    with pytest.raises(SettingsError):
        predict(LOAD, Cluster(rate=0))
    assert math.isinf(Cluster(rate=1).write_bytes_s)
