"""Map, read and zarr give the same bytes, and refuse the same shards."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_cache import Shape, SmallCache, write_small_cache

from difom_cache import open_cache
from difom_cache.base import disk
from difom_cache.errors import CacheDamagedError
from difom_cache.store import access, choose_access, file_system_of, open_access, shard_path

WAYS = ("map", "read", "zarr")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallCache:
    return write_small_cache(tmp_path_factory.mktemp("access"), Shape(pads=True))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> SmallCache:
    return write_small_cache(tmp_path_factory.mktemp("packed"), Shape(pads=True, compression="zstd"))


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("rows", [[0], [13, 0, 5, 5, 4], list(range(14)), list(range(13, -1, -1)), []])
def test_every_way_gives_the_bytes_that_were_written(small: SmallCache, how: str, rows: list[int]) -> None:
    batch = open_cache(small.path, access=how).gather(np.array(rows, dtype=np.int64))
    assert set(batch) == set(small.arrays)
    for key, whole in small.arrays.items():
        np.testing.assert_array_equal(batch[key], whole[rows], err_msg=key)
        assert batch[key].dtype == whole.dtype and batch[key].flags.c_contiguous


def test_a_compressed_column_reads_the_same(small: SmallCache, packed: SmallCache) -> None:
    rows = [13, 2, 2, 7, 6]
    plain, unpacked = open_cache(small.path).gather(rows), open_cache(packed.path).gather(rows)
    for key in small.arrays:
        np.testing.assert_array_equal(unpacked[key], plain[key], err_msg=key)


def test_compressed_shards_are_not_mapped(small: SmallCache, packed: SmallCache) -> None:
    assert choose_access(packed.path, "zstd") == "zarr"
    assert choose_access(small.path, "none") == "map"
    column = packed.columns["teachers/one"]
    with pytest.raises(CacheDamagedError):
        open_access("map", packed.path, column, column.arrays[0], [0])


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "gpfs", "cifs", "fuse.sshfs", "ceph"])
def test_network_file_systems_are_read_and_not_mapped(
    small: SmallCache, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(access, "file_system_of", lambda _: kind)
    assert choose_access(small.path, "none") == "read"


def test_the_file_system_is_that_of_the_nearest_mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounts = (
        "21 1 8:1 / / rw - ext4 /dev/sda rw\n"
        "22 21 0:5 / /data rw,relatime shared:1 - nfs4 server:/x rw\n"
        "23 22 0:6 / /data/my\\040disk rw - xfs /dev/sdb rw\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts)
    assert file_system_of(Path("/data/feats")) == "nfs4"
    assert file_system_of(Path("/data/my disk/feats")) == "xfs"
    assert file_system_of(Path("/database")) == "ext4"


@pytest.mark.parametrize("how", WAYS)
def test_blocks_that_are_not_open_do_not_disturb_the_others(tmp_path: Path, how: str) -> None:
    small = write_small_cache(tmp_path, leave_out=(0, 2))
    batch = open_cache(tmp_path, access=how).gather([13, 4], ["one/block1@2"], pictures=False)
    np.testing.assert_array_equal(batch["one/block1@2/code"], small.arrays["one/block1@2/code"][[13, 4]])


def test_rows_that_fill_no_whole_page_are_mapped_right(tmp_path: Path) -> None:
    shape = Shape(records=40, block_rows=7, picture_px=9, channels=5, grid=3)
    small = write_small_cache(tmp_path, shape)
    rows = np.random.default_rng(0).permutation(shape.rows)
    batch = open_cache(tmp_path).gather(rows)
    for key, whole in small.arrays.items():
        np.testing.assert_array_equal(batch[key], whole[rows], err_msg=key)


def spoil(path: Path, how: str) -> None:
    if how == "gone":
        path.unlink()
    elif how == "short":
        os.truncate(path, path.stat().st_size - 5)
    else:
        content = bytearray(path.read_bytes())
        content[-10] ^= 0xFF
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["map", "read"])
@pytest.mark.parametrize(
    ("harm", "said"),
    [("gone", "is missing although"), ("short", "bytes and should have"), ("index", "fails its checksum")],
)
def test_a_shard_that_cannot_be_trusted_is_named_before_anything_is_read(
    tmp_path: Path, how: str, harm: str, said: str
) -> None:
    column = write_small_cache(tmp_path).columns["teachers/one"]
    spoil(shard_path(tmp_path, column, column.arrays[0], 1), harm)
    with pytest.raises(CacheDamagedError, match=rf"block1@2/code/c\.1\.0\.0\.0.*{said}"):
        open_cache(tmp_path, access=how).gather([0], ["one/block1@2"], pictures=False)


def test_a_missing_shard_is_an_error_with_zarr_too_and_never_zeros(tmp_path: Path) -> None:
    column = write_small_cache(tmp_path).columns["teachers/one"]
    spoil(shard_path(tmp_path, column, column.arrays[0], 1), "gone")
    with pytest.raises(CacheDamagedError, match=r"c\.1\.0\.0\.0 is missing"):
        open_cache(tmp_path, access="zarr").gather([4], ["one/block1@2"], pictures=False)


def test_a_shard_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "WAITS_S", (0.0,))
    column = write_small_cache(tmp_path).columns["teachers/one"]
    cache = open_cache(tmp_path, access="read")
    cache.gather([0], ["one/block1@2"], pictures=False)
    os.truncate(shard_path(tmp_path, column, column.arrays[0], 1), 3)
    with pytest.raises(CacheDamagedError, match=r"c\.1\.\S+ became shorter"):
        cache.gather([7], ["one/block1@2"], pictures=False)


SHRINKS = """
import os, sys
from difom_cache import open_cache
from difom_cache.base.console import run_app

cache, shard = sys.argv[1:]
opened = open_cache(cache, access="map")
opened.gather([4], ["one/block1@2"], pictures=False)
os.truncate(shard, 0)
run_app(lambda: opened.gather([0, 7], ["one/block1@2"], pictures=False), interrupted="")
"""


def test_a_mapped_shard_that_shrinks_is_one_line_and_not_a_dead_process(tmp_path: Path) -> None:
    shape = Shape(channels=300, grid=8)  # of several pages
    column = write_small_cache(tmp_path, shape).columns["teachers/one"]
    shard = shard_path(tmp_path, column, column.arrays[0], 1)
    command = [sys.executable, "-c", SHRINKS, str(tmp_path), str(shard)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {shard} became shorter") and done.stderr.count("\n") == 1


def test_reads_overlap_so_that_a_slow_server_is_asked_for_many_rows_at_once(
    small: SmallCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, most, lock, real = 0, 0, threading.Lock(), os.preadv

    def slow(*asked: Any) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.02)
        with lock:
            under_way -= 1
        return real(*asked)

    cache = open_cache(small.path, access="read")
    monkeypatch.setattr(access, "_READ_BYTES", 1)
    monkeypatch.setattr(os, "preadv", slow)
    batch = cache.gather(np.arange(14))
    assert most > 4
    np.testing.assert_array_equal(batch["image"], small.arrays["image"])


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_process_that_inherits_a_cache_by_fork_reads_with_threads_of_its_own(small: SmallCache) -> None:
    cache = open_cache(small.path, access="read")
    cache.gather([0])
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if np.array_equal(cache.gather([13])["image"][0], small.arrays["image"][13]) else 1)
    assert os.waitpid(child, 0)[1] == 0


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def mapped_shards(folder: Path) -> int:
    return Path("/proc/self/maps").read_text().count(f"{folder}/")


@pytest.mark.parametrize("how", ["map", "read"])
def test_a_cache_that_is_let_go_gives_back_its_maps_and_files(small: SmallCache, how: str) -> None:
    gc.collect()
    before: tuple[Any, Any] = open_descriptors(), mapped_shards(small.path)
    cache = open_cache(small.path, access=how)
    cache.gather([0, 13])
    held = open_descriptors() if how == "read" else mapped_shards(small.path)
    assert held > before[0 if how == "read" else 1]
    del cache
    gc.collect()
    assert (open_descriptors(), mapped_shards(small.path)) == before
