"""A file system that cannot say what it holds, as while a server is away, is never taken for a cache that is damaged."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import failing, photograph
from painted_folder import paint_folder
from small_cache import write_small_cache

from difom_cache import copy, extract, finish, open_cache, probe, verify
from difom_cache.base import disk
from difom_cache.base.atomic import FileDigest, digest_file
from difom_cache.base.files import read_plain
from difom_cache.errors import CacheDamagedError, StorageError
from difom_cache.store import access, marker_path, read_damaged
from difom_train import train

SMALL = {"teacher": "dinov2:tiny@56", "weights": "random", "input_size": 64, "views": 2, "quiet": True}
AWAY = [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ENXIO, errno.EHOSTDOWN]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_folder(tmp_path_factory.mktemp("data"), frames=12)


@pytest.fixture(scope="module")
def complete(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("extracted") / "feats"
    assert extract(data=data, cache=cache, **SMALL).complete
    return cache


@pytest.mark.parametrize("number", AWAY)
def test_what_cannot_be_said_is_asked_again_with_a_line(tmp_path: Path, number: int, capsys):
    path = tmp_path / "file"
    path.write_bytes(b"here")
    with failing(0, times=2, number=number) as faults:
        assert disk.ask(path, path.read_bytes) == b"here"
    assert faults.calls == 3
    told = capsys.readouterr().err
    assert told.count("asking again for") == 1 and str(path) in told and os.strerror(number)[1:] in told


@pytest.mark.parametrize("number", AWAY)
def test_what_is_never_said_is_one_error_that_names_file_and_cause(tmp_path: Path, number: int):
    path = tmp_path / "file"
    with failing(0, times=99, number=number), pytest.raises(StorageError) as raised:
        disk.is_there(path)
    told = str(raised.value)
    assert str(path) in told and os.strerror(number)[1:] in told and "nothing was changed" in told
    assert "remove" not in told and "restore" not in told


def test_absence_is_an_answer_and_no_permission_is_none(tmp_path: Path):
    assert not disk.is_there(tmp_path / "nothing" / "below") and disk.list_names(tmp_path / "nothing") == []
    with failing(0, number=errno.EACCES) as faults, pytest.raises(StorageError, match="permission denied"):
        disk.is_there(tmp_path)
    assert faults.calls == 1, "asking again would not help"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_no_call_of_a_cache_that_fails_makes_anything_be_withdrawn_or_listed(tmp_path: Path, number: int):
    """Every call that opening, reading, verifying and finishing a cache make fails once, and then for good."""
    cache = tmp_path / "feats"
    write_small_cache(cache, leave_out=())
    rows = np.arange(5)

    def use() -> tuple[dict[str, bytes], bool]:
        batch = open_cache(cache, access="read").gather(rows)
        finish(cache)
        return {key: values.tobytes() for key, values in batch.items()}, verify(cache).sound

    due, before = use(), photograph(cache)
    with failing() as faults:
        use()
    clear = 0
    for place in range(0, faults.calls, 4 if number == errno.EIO else 15):
        with failing(place, number=number):
            assert use() == due
        with failing(place, times=10**6, number=number), pytest.raises(StorageError, match="cannot be read now"):
            use()
        clear += 1
        assert photograph(cache) == before, f"call {place}"
    assert clear > 10 and read_damaged(cache) == {}


def test_an_extraction_that_cannot_read_a_finished_block_takes_nothing_of_it_away(
    complete: Path, data: Path, tmp_path: Path
):
    """A marker or a file that is not readable for a moment once cost a finished block."""
    cache = Path(shutil.copytree(complete, tmp_path / "feats"))
    before = photograph(cache)
    for _ in range(2):  # the first one asks more: it opens libraries
        with failing() as faults:
            assert extract(data=data, cache=cache, **SMALL).complete
    tried = 0
    for place in range(0, faults.calls, max(1, faults.calls // 12)):
        with failing(place):
            report = extract(data=data, cache=cache, **SMALL)
        assert report.complete and not report.views, "nothing is computed anew"
        with failing(place, times=10**6) as later:
            try:
                extract(data=data, cache=cache, **SMALL)
            except StorageError:
                tried += 1
            else:
                assert later.calls <= place, "this run asked less often: nothing failed in it"
        assert photograph(cache) == before, f"call {place}"
    assert tried >= 10


def test_a_block_that_no_try_can_write_is_computed_again(
    complete: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """As Dask does by itself; here there is no engine, and one process."""
    real, failed = os.link, []

    def refuse(source: Path, target: Path) -> None:
        if "teachers" in str(target) and "/c." in str(target) and len(failed) <= len(disk.WAITS_S):
            failed.append(target)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(disk, "WAITS_S", (0.0,) * len(disk.WAITS_S))
    assert extract(data=data, cache=tmp_path / "feats", **SMALL).complete
    told = capsys.readouterr().err
    assert "cannot write" in told and "trying again" in told and str(failed[0]) in told
    assert open_cache(tmp_path / "feats").content_digests() == open_cache(complete).content_digests()


def test_bytes_that_are_wrong_are_damage_also_where_reads_fail_first(tmp_path: Path):
    cache = tmp_path / "feats"
    small = write_small_cache(cache, leave_out=())
    shard = next((cache / "teachers").rglob("code/c.0.*"))
    content = bytearray(shard.read_bytes())
    content[-10] ^= 0xFF
    shard.write_bytes(content)
    with failing(3), pytest.raises(CacheDamagedError, match="fails its checksum"):
        open_cache(small.path, access="read").gather([0])


def test_a_marker_that_a_server_lists_late_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = tmp_path / "feats"
    column = write_small_cache(cache, leave_out=()).columns["teachers/one"]
    marker = marker_path(cache, column, 1)
    marker.rename(tmp_path / "late")
    looks: list[float] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            (tmp_path / "late").rename(marker)

    monkeypatch.setattr(time, "sleep", wait)
    assert not any(finish(cache).values()) and len(looks) == 1
    marker.unlink()
    assert finish(cache)["teachers/one"] == [1], "what is missing is missing at the second look too"


def test_a_process_that_may_open_no_more_files_says_so_and_blames_no_cache(tmp_path: Path) -> None:
    write_small_cache(tmp_path)
    with (
        failing(0, times=10**6, number=errno.EMFILE),
        pytest.raises(StorageError, match=r"too many open files.*ulimit"),
    ):
        open_cache(tmp_path)


@pytest.mark.parametrize(
    ("kind", "maps"),
    [
        *((kind, True) for kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay")),
        *((kind, False) for kind in ("fuse", "fuse.ceph-fuse", "nfs4", "lustre", "somethingnew", "")),
    ],
)
def test_only_known_local_disks_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, maps: bool):
    monkeypatch.setattr(access, "file_system_of", lambda _: kind)
    assert (access.choose_access(tmp_path) == "map") == maps
    write_small_cache(tmp_path, leave_out=())
    table = open_cache(tmp_path).table
    assert all(isinstance(values, np.memmap) == maps for values in (table.record, table.params))


@pytest.mark.parametrize("how", ["map", "read"])
def test_the_way_that_is_asked_for_is_the_one_that_rows_are_read_by(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
):
    opened: list[str] = []
    kept = access.open_access

    def note(asked: str, *rest: Any) -> Any:
        opened.append(asked)
        return kept(asked, *rest)

    monkeypatch.setattr("difom_cache.store.reader.open_access", note)
    monkeypatch.setattr(access, "file_system_of", lambda _: "" if how == "map" else "ext4")
    small = {"student": "unet", "width": 2, "input_size": 32, "epochs": 1, "batch_size": 4, "logger": "none"}
    commands: list[Callable[[], object]] = [
        lambda: copy(complete, tmp_path / "copy", access=how),
        lambda: probe(
            complete, into=tmp_path / "probe", teachers=["dinov2-tiny-random"], folds=2, access=how, quiet=True
        ),
        lambda: train(cache=(complete,), out=tmp_path / "run", recipe="baseline", stage="disk", access=how, **small),
    ]
    for command in commands:
        opened.clear()
        command()
        assert set(opened) == {how}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("file", "by_folder"), [("ticks/000000.json", False), ("block*/code/c.0.*", True)])
def test_an_injected_error_of_the_kernel_costs_a_line_and_nothing_else(
    complete: Path, data: Path, tmp_path: Path, file: str, by_folder: bool
):
    """A marker is read by itself; shards are listed by folder, which is what is asked for again."""
    cache = Path(shutil.copytree(complete, tmp_path / "feats"))
    before = photograph(cache)
    path = next((cache / "teachers").glob(f"*/{file}"))
    program = [
        str(Path(sys.executable).with_name("difom-cache")),
        "extract",
        "--teacher",
        "dinov2:tiny@56",
        "--weights",
        "random",
    ]
    options = ["--data", str(data), "--cache", str(cache), "--input-size", "64", "--views", "2"]
    inject = ["-e", "trace=openat,newfstatat,stat", "-e", "inject=openat,newfstatat,stat:error=EIO:when=1"]
    trace = ["strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-P", str(path), *inject]
    done = subprocess.run([*trace, *program, *options], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "INJECTED" in (tmp_path / "trace").read_text()
    assert f"{path.parent if by_folder else path}: input/output error; asking again" in done.stderr
    assert photograph(cache) == before


def end_early(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Let files that are opened from now on have no bytes, so many times; return what was opened."""
    real, opened = os.fdopen, []

    def fdopen(descriptor: int, *rest: Any) -> Any:
        opened.append(descriptor)
        if len(opened) <= times:
            empty = os.open("/dev/null", os.O_RDONLY)
            os.dup2(empty, descriptor)
            os.close(empty)
        return real(descriptor, *rest)

    monkeypatch.setattr(os, "fdopen", fdopen)
    return opened


@pytest.mark.parametrize(
    ("read", "due"),
    [
        (read_plain, b"here"),
        (digest_file, FileDigest(file_bytes=4, sha256=hashlib.sha256(b"here").hexdigest())),
    ],
)
def test_a_file_that_ends_before_its_size_is_read_again(
    tmp_path: Path, read: Callable[[Path], object], due: object, monkeypatch: pytest.MonkeyPatch
):
    """As on sshfs, where a server that goes leaves reads with nothing: a marker would be damaged, and a shard another one."""
    monkeypatch.setattr(disk, "WAITS_S", (0.0,) * 2)
    path = tmp_path / "file"
    path.write_bytes(b"here")
    opened = end_early(monkeypatch, 2)
    assert read(path) == due and len(opened) == 3
    opened.clear()
    end_early(monkeypatch, 3)
    with pytest.raises(
        StorageError, match=r"file cannot be read now: it ended after 0 of 4 bytes; nothing was changed"
    ):
        read(path)


def test_a_server_that_goes_under_verify_and_extract_costs_no_block(
    complete: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(disk, "WAITS_S", (0.0,) * 2)
    cache = Path(shutil.copytree(complete, tmp_path / "feats"))
    before = photograph(cache)
    opened = end_early(monkeypatch, 2)
    assert verify(cache).sound and len(opened) > 2
    opened.clear()
    assert not extract(data=data, cache=cache, **SMALL).views and len(opened) > 2
    assert photograph(cache) == before


def kill_descriptors(path: Path, dead: Path) -> int:
    """Let every descriptor of a file that this process holds lead to another file; return how many there were."""
    held = [int(link.name) for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link) == str(path.resolve())]
    for descriptor in held:
        other = os.open(dead, os.O_RDONLY)
        os.dup2(other, descriptor)
        os.close(other)
    return len(held)


@pytest.mark.parametrize("says", ["nothing", "an error"])
def test_a_shard_whose_descriptor_is_dead_is_read_through_a_new_one(
    tmp_path: Path, says: str, monkeypatch: pytest.MonkeyPatch
):
    """As on sshfs, where no descriptor of before a server's restart ever answers again, though the name does at once."""
    monkeypatch.setattr(disk, "WAITS_S", (0.0,) * 2)
    small, dead, real = write_small_cache(tmp_path / "feats"), tmp_path / "dead", os.preadv
    dead.write_bytes(b"")

    def preadv(descriptor: int, *rest: Any) -> int:
        if says == "an error" and os.path.realpath(f"/proc/self/fd/{descriptor}") == str(dead.resolve()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, *rest)

    monkeypatch.setattr(os, "preadv", preadv)
    cache, keys = open_cache(small.path, access="read"), ["one/block1@2"]
    rows = np.arange(len(cache))
    due = cache.gather(rows, keys, pictures=False)["one/block1@2/code"]
    shard = small.path / "teachers/one/block1@2/code/c.1.0.0.0"
    assert kill_descriptors(shard, dead) == 1
    np.testing.assert_array_equal(cache.gather(rows, keys, pictures=False)["one/block1@2/code"], due)
    assert kill_descriptors(shard, dead) == 1
    shard.write_bytes(shard.read_bytes())  # as long, and of another time: perhaps another teacher's
    os.utime(shard, ns=(1, 1))
    with pytest.raises(StorageError, match=r"c\.1\.0\.0\.0 cannot be read now"):
        cache.gather(rows, keys, pictures=False)
