"""What ends a command names the file, what went wrong and the way on, in one line."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import failing
from small_cache import write_small_cache

from difom_cache import copy, finish, open_cache, verify
from difom_cache.base.console import run_app
from difom_cache.base.errors import CacheIncompleteError, StorageError

RESUMES = "interrupted; the same command with --resume goes on"


@pytest.fixture
def end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return what ends a command and gives its one line."""

    def run(problem: Callable[[], object], interrupted: str = "") -> str:
        monkeypatch.setattr(sys, "argv", ["difom-cache"])
        with pytest.raises(SystemExit) as ended:
            run_app(problem, interrupted=interrupted)
        told = capsys.readouterr().err
        assert ended.value.code == 2 and told.startswith("error: ") and told.count("\n") == 1
        return told

    return run


def test_an_error_of_an_open_file_names_the_path_that_was_at_work(tmp_path: Path, end: Callable[..., str]):
    def write(path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.close(descriptor)
        os.ftruncate(descriptor, 0)  # it is closed: the system knows no name

    told = end(lambda: write(tmp_path / "file"))
    assert str(tmp_path / "file") in told and os.strerror(errno.EBADF) in told


@pytest.mark.parametrize(
    ("number", "way_on"),
    [
        (errno.EIO, "Run the same command again once its file system answers"),
        (errno.ESTALE, "It was dropped or made anew on another machine"),
        (errno.ENOSPC, "Make room and run the same command again"),
    ],
)
def test_an_error_of_the_file_system_says_how_to_go_on(end: Callable[..., str], number: int, way_on: str):
    def fail() -> None:
        raise OSError(number, os.strerror(number), "/shared/file")

    told = end(fail)
    assert "/shared/file" in told and os.strerror(number) in told and way_on in told


def test_training_is_told_to_go_on_with_resume(tmp_path: Path, end: Callable[..., str]):
    def fail() -> None:
        raise StorageError("cannot write run/last.ckpt now: input/output error. Run the same command again")

    assert "Run the same command again with --resume" in end(fail, RESUMES)


def test_a_copy_of_a_cache_whose_sums_are_missing_says_who_makes_them(tmp_path: Path):
    write_small_cache(tmp_path / "feats", leave_out=())
    with pytest.raises(CacheIncompleteError, match=r"statistics\.safetensors is missing; `difom-cache finish"):
        copy(tmp_path / "feats", tmp_path / "copy")


def test_statistics_that_a_late_server_still_lists_are_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As sshfs does for twenty seconds after another machine has summed them up."""
    cache = tmp_path / "feats"
    write_small_cache(cache, leave_out=())
    moments = [str(path) for path in (cache / "teachers/one/moments").iterdir()]
    finish(cache)
    real = os.stat

    def stat(path: object, *rest: object, **more: object) -> os.stat_result:
        return real(cache / "identity.json") if str(path) in moments else real(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    assert moments and verify(cache).sound


def test_a_shard_that_went_stale_says_that_its_teacher_was_dropped_or_made_anew(tmp_path: Path):
    write_small_cache(tmp_path, leave_out=())
    cache = open_cache(tmp_path, access="read")
    cache.gather([0])
    with failing(0, times=10**6, number=errno.ESTALE), pytest.raises(StorageError) as raised:
        cache.gather([0])
    told = str(raised.value)
    assert "/c." in told and "dropped or made anew on another machine" in told
