"""A cache of many views opens at once, and a batch costs what it costs in a small one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_cache import Shape, draw_arrays, start_small_cache, write_small_block

from difom_cache import open_cache
from difom_cache.store import choose_block_rows

MEASURE = """
import json, sys, time
from difom_cache.store.reader import open_cache
import numpy as np

def memory_mb(kind):
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith(kind)).split()[1]) / 1000

def open_and_read():
    started_s = time.process_time()  # the processor's time, so that a busy machine does not count; the disk is not asked
    cache = open_cache(sys.argv[1])
    cache.gather([0])
    return cache, time.process_time() - started_s

cache, open_s = open_and_read()
peak_mb = memory_mb("VmHWM")
rng, views = np.random.default_rng(0), len(cache)
batches = [rng.integers(0, views, 16) for _ in range(2000)]
for rows in batches[:500]:
    cache.gather(rows)
before_mb, seconds = memory_mb("RssAnon"), []
for rows in batches:
    started_s = time.perf_counter()
    cache.gather(rows)
    seconds.append(time.perf_counter() - started_s)
print(json.dumps({"open_s": open_s, "peak_mb": peak_mb, "grown_mb": memory_mb("RssAnon") - before_mb,
                  "gather_s": float(np.percentile(seconds, 10)), "views": views}))
"""


def write_many(path: Path, shape: Shape, monkeypatch: pytest.MonkeyPatch) -> dict[str, NDArray[Any]]:
    """Write a cache of many blocks without waiting for the disk, and return its arrays."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    arrays = draw_arrays(shape)
    for column in start_small_cache(path, shape).values():
        for block in range(column.blocks):
            write_small_block(path, column, block, arrays, 2 * shape.records)
    return arrays


def cut(views: int) -> Shape:
    """Return small pictures and maps, cut into blocks as an extraction cuts them."""
    return Shape(records=(views - 2) // 2, block_rows=choose_block_rows(views, 8 * 8 * 3, 1), channels=4, grid=2)


def measure(path: Path) -> dict[str, Any]:
    """Return what opening and reading a cache takes in a process of its own."""
    ended = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    figures: dict[str, Any] = json.loads(ended.stdout)
    return figures


@pytest.mark.parametrize("views", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_a_cache_of_many_views_opens_quickly_and_reads_as_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: int
) -> None:
    write_many(tmp_path / "many", cut(views), monkeypatch)
    write_many(tmp_path / "few", cut(500), monkeypatch)
    many, few = measure(tmp_path / "many"), measure(tmp_path / "few")
    told = f"many: {many}; few: {few}"
    print(told)
    assert many["views"] == views, told
    assert many["open_s"] < 1, told
    assert many["peak_mb"] < 200, told
    assert many["grown_mb"] < 2, told
    assert many["gather_s"] < 3 * few["gather_s"], told  # 16 rows from anywhere miss the processor's caches


def test_rows_are_found_where_they_were_written_in_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(records=999, block_rows=16, channels=4, grid=2)
    arrays = write_many(tmp_path, shape, monkeypatch)
    rows = np.random.default_rng(0).permutation(shape.rows)
    batch = open_cache(tmp_path).gather(rows)
    for key, whole in arrays.items():
        np.testing.assert_array_equal(batch[key], whole[rows], err_msg=key)
