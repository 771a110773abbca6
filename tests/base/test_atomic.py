"""Files appear whole or not at all, once, and in an order that a power cut cannot turn around."""

import errno
import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difom_cache.base import disk
from difom_cache.base.atomic import (
    FileDigest,
    append_synced,
    build_folder,
    digest_file,
    draft_of,
    publish_once,
    remove,
    remove_stale,
    rename,
    write_atomic,
    write_once,
)
from difom_cache.errors import CacheSpaceError, StorageError


def digest_of(content: bytes) -> FileDigest:
    return FileDigest(file_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def test_a_written_file_holds_its_parts_and_its_digest_is_theirs(tmp_path: Path) -> None:
    digest = write_once(tmp_path / "new" / "file", [b"ab", memoryview(b"cd")])
    assert (tmp_path / "new" / "file").read_bytes() == b"abcd"
    assert digest == digest_of(b"abcd") == digest_file(tmp_path / "new" / "file")


def test_nothing_but_the_file_is_left_in_its_folder(tmp_path: Path) -> None:
    write_once(tmp_path / "file", [b"x"])
    write_once(tmp_path / "file", [b"y"])
    write_atomic(tmp_path / "file", [b"z"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_second_writer_changes_nothing_and_learns_the_first_ones_digest(tmp_path: Path) -> None:
    write_once(tmp_path / "file", [b"first"])
    assert write_once(tmp_path / "file", [b"second"]) == digest_of(b"first")
    assert (tmp_path / "file").read_bytes() == b"first"


def test_a_first_writers_file_that_is_gone_already_had_the_second_ones_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("difom_cache.base.atomic._publish", lambda temp, path: False)  # there was one, and is no more
    assert write_once(tmp_path / "moments", [b"equal"]) == digest_of(b"equal")


def test_an_atomic_write_changes_what_lay_there(tmp_path: Path) -> None:
    write_once(tmp_path / "file", [b"old"])
    assert write_atomic(tmp_path / "file", b"new") == digest_of(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_draft_becomes_the_file_when_its_block_ends_well(tmp_path: Path) -> None:
    with draft_of(tmp_path / "deep" / "file.png") as draft:
        assert draft.suffix == ".png"
        draft.write_bytes(b"x")
        assert not (tmp_path / "deep" / "file.png").exists()
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "deep").iterdir()] == [("file.png", b"x")]


def test_a_draft_whose_block_fails_leaves_what_lay_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(ValueError, match="no"), draft_of(tmp_path / "file") as draft:
        draft.write_bytes(b"half")
        raise ValueError("no")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_a_full_disk_inside_a_draft_is_one_line_and_another_file_that_is_missing_is_not(tmp_path: Path) -> None:
    with pytest.raises(CacheSpaceError, match=r"cannot write .*file: No space"), draft_of(tmp_path / "file") as draft:
        raise OSError(errno.ENOSPC, "injected", str(draft))
    with pytest.raises(FileNotFoundError), draft_of(tmp_path / "file"):
        (tmp_path / "picture.png").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_that_the_disk_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".png")
    write_atomic(path, b"x")
    with draft_of(path) as draft:
        draft.write_bytes(b"y")
    assert path.read_bytes() == b"y"


def test_a_path_below_a_file_or_on_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for path in (tmp_path / "file" / "below", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(CacheSpaceError, match="cannot write"):
            write_atomic(path, b"y")
        with pytest.raises(CacheSpaceError, match="cannot write"), draft_of(path) as draft:
            draft.write_bytes(b"y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_system_without_links_publishes_by_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert write_once(tmp_path / "file", [b"x"]) == digest_of(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, part: whole_write(descriptor, part[:3]))
    assert write_once(tmp_path / "file", [b"0123456789"]) == digest_of(b"0123456789")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("call", ["write", "fsync", "open", "link"])
def test_a_disk_without_room_is_one_clear_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "injected")

    with monkeypatch.context() as injected:
        injected.setattr(os, call, refuse)
        with pytest.raises(CacheSpaceError, match=f"cannot write .*file: {os.strerror(code)}") as caught:
            write_once(tmp_path / "file", [b"x"])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "injected")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(CacheSpaceError, match=r"locked/file: Permission denied.*folder that can be written"):
        write_once(tmp_path / "locked" / "file", [b"x"])


def test_an_error_of_the_device_itself_is_not_called_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(disk, "WAITS_S", (0.0,))
    with pytest.raises(StorageError, match=r"cannot write .*file now: Input/output error\. What is finished is safe"):
        write_once(tmp_path / "file", [b"x"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["open", "write", "fsync", "link"])
def test_an_error_that_passes_costs_a_line_and_the_file_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], call: str
) -> None:
    real, failed = getattr(os, call), []

    def fail_once(*rest: Any, **more: Any) -> Any:
        if not failed:
            failed.append(rest)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*rest, **more)

    monkeypatch.setattr(os, call, fail_once)
    monkeypatch.setattr(disk, "WAITS_S", (0.0,))
    assert publish_once(tmp_path / "file", iter([b"ab", b"cd"])) == (digest_of(b"abcd"), True)
    assert failed and f"{tmp_path / 'file'}: input/output error; asking again" in capsys.readouterr().err
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"abcd")]


def make_draft(path: Path) -> None:
    with draft_of(path) as draft:
        draft.write_bytes(b"new")


def make_folder(path: Path) -> None:
    path.unlink()
    with build_folder(path) as draft:
        (draft / "file").write_bytes(b"new")


def move_there(path: Path) -> None:
    (path.parent / "other").write_bytes(b"new")
    rename(path.parent / "other", path)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO])
@pytest.mark.parametrize("write", [lambda path: write_atomic(path, b"new"), make_draft, make_folder, move_there])
def test_a_rename_that_was_done_and_whose_answer_was_lost_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object], number: int
) -> None:
    real, lost = os.replace, []

    def lose_answer(source: Path, to: Path) -> None:
        real(source, to)
        if not lost:
            lost.append(to)
            raise OSError(number, os.strerror(number))

    (path := tmp_path / "path").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", lose_answer)
    monkeypatch.setattr(disk, "WAITS_S", (0.0,))
    write(path)
    assert lost == [path] and list(tmp_path.iterdir()) == [path]
    assert (path / "file" if path.is_dir() else path).read_bytes() == b"new"


def test_a_file_that_is_gone_before_its_rename_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "path").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", lambda source, to: source.with_name("gone").rename(to))
    with pytest.raises(CacheSpaceError):
        write_atomic(path, b"new")
    with pytest.raises(FileNotFoundError):
        move_there(path)
    assert path.read_bytes() == b"old"


def test_a_line_that_was_half_written_is_in_a_log_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_synced(tmp_path / "log", "one\n")
    real, failed = os.write, []

    def fail_once(descriptor: int, part: memoryview) -> int:
        if failed:
            return real(descriptor, part)
        failed.append(real(descriptor, part[:2]))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "write", fail_once)
    monkeypatch.setattr(disk, "WAITS_S", (0.0,))
    append_synced(tmp_path / "log", "two\n")
    assert failed and (tmp_path / "log").read_text() == "one\ntwo\n"


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    write_once(tmp_path / "file", [b"x"])
    remove(tmp_path / "file")
    remove(tmp_path / "file")
    remove(tmp_path / "nowhere" / "file")
    assert list(tmp_path.iterdir()) == []


def temp_of(folder: Path, host: str, pid: int) -> Path:
    path = folder / f".tmp-{host}~{pid}~0a1b2c3d~c.0.0"
    path.write_bytes(b"half")
    return path


def dead_pid() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def test_temporary_files_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    host = socket.gethostname()
    dead, alive = temp_of(tmp_path, host, dead_pid()), temp_of(tmp_path, host, os.getpid())
    assert remove_stale(tmp_path) == [dead]
    assert alive.exists() and not dead.exists()


def test_temporary_files_of_another_host_go_after_a_day(tmp_path: Path) -> None:
    fresh, old = temp_of(tmp_path, "elsewhere", 1), temp_of(tmp_path, "far.away", 1)
    day_ago = fresh.stat().st_mtime - 24 * 3600 - 60
    os.utime(old, (day_ago, day_ago))
    assert remove_stale(tmp_path) == [old]
    assert fresh.exists()


def test_the_file_is_synced_before_its_name_and_the_name_before_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace: list[str] = []
    fsync, link = os.fsync, os.link

    def watch_fsync(descriptor: int) -> None:
        kind = "folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "file"
        trace.append(f"fsync {kind}")
        fsync(descriptor)

    def watch_link(source: Path, target: Path) -> None:
        trace.append("publish")
        link(source, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "link", watch_link)
    write_once(tmp_path / "file", [b"x"])
    assert trace == ["fsync file", "publish", "fsync folder"]


def test_a_new_folder_is_known_to_the_folder_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def watch_fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    write_once(tmp_path / "a" / "b" / "file", [b"x"])
    assert [path for path in synced if path.is_dir()] == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
