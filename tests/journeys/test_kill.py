"""Whatever kills an extraction, and whenever: the next one goes on, and the cache becomes the one it would have been."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted_folder import paint_folder
from small_cache import Shape, SmallCache, draw_arrays, start_small_cache, teacher_identity, write_small_block

from difom_cache import extract, open_cache
from difom_cache.base.atomic import remove_stale
from difom_cache.errors import CacheError, CacheSpaceError
from difom_cache.extraction import ColumnWork, find_missing
from difom_cache.store import TeacherIdentity, fold_statistics, read_markers, shard_path

pytestmark = pytest.mark.journey
TWO_BLOCKS = Shape(records=3, block_rows=4)
Nursery = Callable[..., dict[str, Any]]
CHANGES = ("open", "write", "fsync", "close", "link", "unlink", "mkdir", "replace", "rename")
"""Calls into the file system that store/atomic.py makes, itself or through pathlib."""


def assert_kills_lost_little(answer: dict[str, Any], blocks: int) -> None:
    """Every killed run kept its marked blocks, lost at most one that was computed, and ended at the same digests."""
    reference = answer["reference"]
    for number, kill in enumerate(answer["kills"]):
        told = f"run {number}: {kill}"
        assert kill["finished"]["complete"] and kill["finished"]["digests"] == reference["digests"], told
        for folder in reference["digests"].keys() - {"cache"}:
            marked = len(kill["marked"].get(folder, []))
            assert kill["finished"]["computed"].get(folder, 0) == blocks - marked, told
        assert sum(map(len, kill["lost"].values())) <= 1, told
        assert not kill["left"], told
    for kill in answer["chain"]:
        assert sum(map(len, kill["lost"].values())) <= 1, kill
        assert not any(kill["again"].values()), kill
    if answer["chain"]:
        assert answer["chained_end"]["digests"] == reference["digests"]


@pytest.mark.parametrize(
    ("teacher", "runs"),
    [
        ("dinov2:tiny@56", 2),
        ("mask2former:tiny@64", 2),
        pytest.param("dinov2:tiny@56", 40, marks=pytest.mark.slow),
        pytest.param("mask2former:tiny@64", 40, marks=pytest.mark.slow),
    ],
)
def test_extractions_killed_at_random_moments_end_as_if_they_had_not_been(
    tmp_path: Path, nursery: Nursery, teacher: str, runs: int
) -> None:
    data = paint_folder(tmp_path / "data", frames=20)
    settings = {"teacher": teacher, "data": str(data), "input_size": 64, "views": 6}
    answer = nursery(task="kill", root=str(tmp_path), settings=settings, runs=runs, chained=runs, seed=runs)
    blocks = answer["reference"]["computed"]["pictures"]
    assert blocks >= 5
    assert_kills_lost_little(answer, blocks)
    early = [kill for kill in answer["kills"] if not kill["ended"]]
    assert len(early) >= runs // 2, "kills that come after the end show nothing"


@pytest.mark.parametrize("teachers", [("dinov2:tiny@56", "dinov2:tiny@56"), ("dinov2:tiny@56", "mask2former:tiny@64")])
def test_two_extractions_at_once_make_the_cache_that_one_after_the_other_makes(
    tmp_path: Path, nursery: Nursery, teachers: tuple[str, str]
) -> None:
    data = paint_folder(tmp_path / "data", frames=20)
    several = [{"teacher": teacher, "data": str(data), "input_size": 64, "views": 6} for teacher in teachers]
    answer = nursery(task="together", root=str(tmp_path), several=several)
    assert not answer["failed"] and not answer["left"]
    assert answer["digests"] == answer["in_turn"]
    assert len(answer["digests"]) == 2 + len(set(teachers))


def write_whole(path: Path) -> None:
    """Write what is missing of a cache of two blocks, as an extraction does."""
    arrays = draw_arrays(TWO_BLOCKS)
    for column in start_small_cache(path, TWO_BLOCKS).values():
        markers = read_markers(path, column)
        for block in range(column.blocks):
            if block not in markers:
                write_small_block(path, column, block, arrays, 6)
        if column.folder != "pictures":
            fold_statistics(path, column, read_markers(path, column))
    remove_stale(path)


def repair_whole(path: Path) -> None:
    """Withdraw what cannot be trusted, then write it again."""
    column = start_small_cache(path, TWO_BLOCKS)["teachers/one"]
    find_missing(path, ColumnWork(column, TeacherIdentity.build(**teacher_identity(TWO_BLOCKS)), None), repair=True)
    write_whole(path)


def die_at(call: int, *, torn: bool) -> Callable[[], int]:
    """Make this process end itself right before its `call`-th change to the file system.

    Args:
        call: from 1; 0 lets it live.
        torn: write half of what the last `write` was given.

    Returns:
        What gives the number of calls so far.
    """
    count = 0

    def watch(name: str) -> None:
        real = getattr(os, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                if torn and name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            # SIGKILL takes nothing from the page cache, so that waiting for the disk would show nothing.
            return None if name == "fsync" else real(*arguments, **named)

        setattr(os, name, counted)

    for name in CHANGES:
        watch(name)
    return lambda: count


def in_child(work: Callable[[Path], None], path: Path, call: int, *, torn: bool = False) -> tuple[int, int]:
    """Run `work` in a forked child that dies at `call`; return its wait status and the calls it made."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        real_write, calls = os.write, die_at(call, torn=torn)
        try:
            work(path)
            real_write(write_end, str(calls()).encode())
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    os.close(write_end)
    status = os.waitpid(child, 0)[1]
    said = os.read(read_end, 20)
    os.close(read_end)
    return status, int(said or 0)


def assert_nothing_false_is_read(path: Path, whole: SmallCache) -> None:
    """What a reader gets of a half-written cache is right, or an error of ours."""
    try:
        cache = open_cache(path)
        rows = np.flatnonzero(cache.finished_rows())
        batch = cache.gather(rows)
    except CacheError:
        return
    for key in batch.keys() & whole.arrays.keys():
        np.testing.assert_array_equal(batch[key], whole.arrays[key][rows], err_msg=key)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SmallCache:
    path = tmp_path_factory.mktemp("kill") / "whole"
    write_whole(path)
    return SmallCache(path, start_small_cache(path, TWO_BLOCKS), draw_arrays(TWO_BLOCKS))


every_call = pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.slow)])
"""At every 23rd call, or at every call."""
forks = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
"""Children run plain Python and end by os._exit, so that other threads of this process do not matter."""


@forks
@every_call
@pytest.mark.parametrize("torn", [False, True])
def test_a_run_of_two_blocks_killed_at_any_file_system_call_is_completed(
    whole: SmallCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool, step: int
) -> None:
    digests = open_cache(whole.path).content_digests()
    status, calls = in_child(write_whole, tmp_path / "none", 0)
    assert status == 0 and calls > 200
    assert open_cache(tmp_path / "none").content_digests() == digests
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for call in range(1 + 4 * torn, calls + 1, step):
        path = tmp_path / str(call)
        status, _ = in_child(write_whole, path, call, torn=torn)
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert_nothing_false_is_read(path, whole)
        write_whole(path)
        cache = open_cache(path)
        assert cache.content_digests() == digests, f"killed before call {call}"
        assert cache.stats("one/block1@2").count == 6 * 16
        assert not list(path.rglob(".tmp-*"))
        shutil.rmtree(path)


def spoil(path: Path, whole: SmallCache, harm: str) -> None:
    """Harm block 1 of the teacher in a way that an extraction repairs."""
    column = whole.columns["teachers/one"]
    shard = shard_path(path, column, column.arrays[0], 1)
    if harm == "short shard":
        os.truncate(shard, 9)
    elif harm == "unreadable marker":
        (path / "teachers/one/ticks/000001.json").write_text("{")
    else:
        shard.write_bytes(bytes(shard.stat().st_size))
        (path / "damaged.json").write_text('{"teachers/one": [1]}')


@forks
@every_call
@pytest.mark.parametrize("harm", ["short shard", "unreadable marker", "listed"])
def test_a_repair_killed_at_any_file_system_call_is_completed(
    whole: SmallCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str, step: int
) -> None:
    digests, call, status = open_cache(whole.path).content_digests(), 1, -1
    monkeypatch.setattr(os, "fsync", lambda _: None)
    while status:
        path = Path(shutil.copytree(whole.path, tmp_path / str(call)))
        spoil(path, whole, harm)
        status, _ = in_child(repair_whole, path, call)
        assert_nothing_false_is_read(path, whole)
        repair_whole(path)
        cache = open_cache(path)
        assert cache.content_digests() == digests, f"killed before call {call}"
        np.testing.assert_array_equal(cache.gather(range(8))["one/block1@2/code"], whole.arrays["one/block1@2/code"])
        shutil.rmtree(path)
        call += step
    assert call > 50, "the repair made fewer calls than it has files"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_folder(tmp_path_factory.mktemp("data"), frames=8)


SMALL = {"teacher": "dinov2:tiny@56", "weights": "random", "input_size": 64, "views": 4, "quiet": True}


def test_every_file_is_synced_published_and_its_folder_synced_before_its_marker(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace: list[tuple[str, str]] = []
    fsync, link = os.fsync, os.link

    def watch_fsync(descriptor: int) -> None:
        fsync(descriptor)
        trace.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").resolve())))

    def watch_link(source: Path, target: Path) -> None:
        trace.append(("temp", str(source)))
        link(source, target)
        trace.append(("publish", str(target)))

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "link", watch_link)
    assert extract(data=data, cache=tmp_path / "feats", **SMALL).complete
    monkeypatch.undo()
    cache, shards = open_cache(tmp_path / "feats"), 0
    for column in cache.columns():
        for block in cache.markers(column):
            marker = trace.index(("publish", str(tmp_path / f"feats/{column.folder}/ticks/{block:06d}.json")))
            for array in column.arrays:
                path = shard_path(cache.path, column, array, block)
                publish = trace.index(("publish", str(path)))
                kind, temp = trace[publish - 1]
                folder = trace.index(("fsync", str(path.parent)), publish)
                assert kind == "temp" and trace.index(("fsync", temp)) < publish < folder < marker
                shards += 1
    assert shards == sum(column.blocks * len(column.arrays) for column in cache.columns()) > 8


def test_a_disk_that_fills_up_while_extracting_ends_in_one_line_and_goes_on_after(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extract(data=data, cache=tmp_path / "roomy", **SMALL).complete
    write, room_bytes = os.write, 400_000

    def fill_up(descriptor: int, part: Any) -> int:
        nonlocal room_bytes
        if len(part) > room_bytes:
            raise OSError(errno.ENOSPC, "injected")
        room_bytes -= len(part)
        return write(descriptor, part)

    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "write", fill_up)
        with pytest.raises(CacheSpaceError, match=r"No space left on device\. What is finished is safe; make room"):
            extract(data=data, cache=tmp_path / "feats", **SMALL)
    half = open_cache(tmp_path / "feats")
    marked = {column.folder: len(half.markers(column)) for column in half.columns()}
    assert sum(marked.values()) > 0
    report = extract(data=data, cache=tmp_path / "feats", **SMALL)
    assert report.complete
    assert all(report.computed_blocks[folder] + count == half.column(folder).blocks for folder, count in marked.items())
    assert open_cache(tmp_path / "feats").content_digests() == open_cache(tmp_path / "roomy").content_digests()


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_jobs_that_start_at_once_agree_on_what_each_found_out_for_itself(
    nursery: Nursery, data: Path, tmp_path: Path, parts: bool, rounds: int
) -> None:
    chance = random.Random(parts)
    for number in range(rounds):
        root = tmp_path / str(number)
        root.mkdir()
        found = [{"batch": 2**size, "threads": chance.choice([1, 2])} for size in chance.sample(range(5), 5)]
        settings = {"data": str(data), "teacher": "dinov2:tiny@56", "input_size": 64, "views": 4}
        answer = nursery(task="at_once", root=str(root), settings=settings, found=found, parts=parts)
        told = f"round {number}: {answer}"
        assert not answer["failed"] and not answer["left"], told
        assert answer["agreed"]["batch"] in [each["batch"] for each in found], told
        assert answer["digests"] == answer["alone"], told


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB of its own; skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def command(nursery: Nursery, data: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return what runs the command into a cache, in a process whose libraries are loaded."""
    teacher = {"teacher": "dinov2:tiny@56", "input_size": 64}
    options = ["--teacher", "dinov2:tiny@56", "--weights", "random", "--input-size", "64", "--views", "4"]

    def run(cache: Path, *more: str, kill_at: str | None = None) -> dict[str, Any]:
        words = ["extract", "--data", str(data), "--cache", str(cache), *options, *more]
        return nursery(task="command", root=str(tmp_path), words=words, kill_at=kill_at, load=[teacher])

    return run


def test_the_command_on_a_full_disk_says_one_line_exits_2_and_goes_on_after(
    command: Callable[..., dict[str, Any]], small_disk: Path
) -> None:
    full = command(small_disk / "feats", "--force")
    assert full["code"] == 2
    assert full["errors"].strip().splitlines()[-1].startswith("error: ") and "Traceback" not in full["errors"]
    assert "No space left on device. What is finished is safe; make room" in full["errors"]
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    rest = command(small_disk / "feats")
    assert rest["code"] == 0, rest["errors"]
    assert open_cache(small_disk / "feats").finished_rows().all()


def test_the_command_killed_and_given_again_finishes_the_cache(
    command: Callable[..., dict[str, Any]], data: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "feats"
    assert command(cache, kill_at="feats/pictures/ticks/*.json")["code"] == -signal.SIGKILL
    again = command(cache)
    assert again["code"] == 0, again["errors"]
    assert extract(data=data, cache=tmp_path / "calm", **SMALL).complete
    assert open_cache(cache).content_digests() == open_cache(tmp_path / "calm").content_digests()


def test_a_disk_that_may_only_be_read_is_refused_in_one_line(data: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(
        CacheSpaceError, match=r"feats/identity\.json: Read-only file system\. .*can be written"
    ) as caught:
        extract(data=data, cache=small_disk / "feats", **SMALL)
    assert "\n" not in str(caught.value)
