"""A disk below Python that fails: the k-th call on watched folders, in any function of the system, or the process dies there.

What the project asks through its own door can be failed by `faults.py`; this one sees every call that Python makes, whoever makes
it. Calls that libraries make in C (h5py, sqlite, mmap) are not seen.
"""

import builtins
import errno
import io
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from difom_cache.base import disk

BY_NAME = (
    *(
        "open",
        "stat",
        "lstat",
        "listdir",
        "scandir",
        "access",
        "mkdir",
        "rmdir",
        "unlink",
        "remove",
        "rename",
        "replace",
    ),
    *("link", "chmod", "utime", "truncate", "readlink"),
)
BY_DESCRIPTOR = ("write", "read", "pread", "preadv", "fsync", "fstat", "ftruncate", "fdatasync")
WRITING = frozenset({"create", "write", "fsync", "ftruncate", "mkdir", "link", "rename", "replace"})
"Calls that a disk without room can refuse; to create is to open for writing."
ANSWER_LOST = 0
DONE_ALREADY = {
    **dict.fromkeys(("rename", "replace", "unlink", "remove", "rmdir"), errno.ENOENT),
    **dict.fromkeys(("link", "mkdir"), errno.EEXIST),
}
"What a server says to a call that it has done already, and whose answer was lost on the way."
REAL = {name: getattr(os, name) for name in (*BY_NAME, *BY_DESCRIPTOR)}


class Died(BaseException):
    """The process is gone: nothing that it does from here on reaches the disk."""


class Disk:
    """What is asked of some folders, and what of them a power cut would leave.

    Args:
        home: the folder that is watched; what lies in it is on the disk.
        place: number of the first call that fails, from 0; -1 where none does.
        number: its error, of calls that write where the disk has no room; None means that the process dies, ANSWER_LOST that
            the call is done and made again.
        times: how many calls in a row fail.

    Attributes:
        calls: what was asked, one after the other.
        sites: where in the code each of them was made, and on which type of file.
    """

    def __init__(self, home: Path, place: int = -1, number: int | None = None, times: int = 1) -> None:
        self.home, self.place, self.number, self.times = home.resolve(), place, number, times
        self.calls: list[str] = []
        self.sites: list[str] = []
        self.failed = ""
        self.dead = False
        self._lock = threading.RLock()
        self._held: list[int] = []  # open, so that no number of a file is given to another one
        self._data: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        for path in (self.home, *self.home.rglob("*")):
            self._keep(str(path))

    def call(self, name: str, target: Any, act: Callable[[], Any]) -> Any:
        """Make a call, or let it fail."""
        path = path_in(self.home, target)
        if path is None:
            return act()
        with self._lock:
            if self.dead:
                raise Died
            if self.number in disk.FULL and name not in WRITING:
                return act()
            if self.number == ANSWER_LOST and name not in DONE_ALREADY:
                return act()
            place = len(self.calls)
            self.calls.append(f"{name} {path}")
            self.sites.append(find_site(name, path))
            if 0 <= self.place <= place < self.place + self.times:
                self.failed = self.failed or self.calls[-1]
                if self.number is None:
                    self.dead = True
                    raise Died
                number = self.number
                if number == ANSWER_LOST:
                    act()
                    number = DONE_ALREADY[name]
                raise OSError(number, os.strerror(number), *([] if name in BY_DESCRIPTOR else [path]))
            if name == "fsync":
                self._keep(f"/proc/self/fd/{target}")
                return None
        return act()

    def cut_power(self, *, names: bool) -> None:
        """Leave what is on the disk: all bytes that were synced and, unless `names`, only names that were synced."""
        kept = self.home.with_name(f"{self.home.name}-kept")
        self._rebuild(self.home, self._number(self.home), kept, names)
        shutil.rmtree(self.home)
        kept.rename(self.home)

    def close(self) -> None:
        """Let go of all files."""
        for descriptor in self._held:
            os.close(descriptor)

    def _number(self, path: Path | str) -> int:
        return REAL["stat"](path).st_ino

    def _keep(self, path: str) -> None:
        descriptor = REAL["open"](path, os.O_RDONLY)
        found = REAL["fstat"](descriptor)
        number = found.st_ino
        if number in self._data or number in self._names:
            os.close(descriptor)
        else:
            self._held.append(descriptor)
        if stat.S_ISDIR(found.st_mode):
            with REAL["scandir"](path) as entries:
                self._names[number] = {entry.name: entry.inode() for entry in entries}
        else:
            with FILE(path, "rb") as file:
                self._data[number] = file.read()

    def _rebuild(self, folder: Path | None, number: int, to: Path, names: bool) -> None:
        to.mkdir()
        there = {}
        if folder is not None:
            with REAL["scandir"](folder) as entries:
                there = {entry.name: entry.inode() for entry in entries}
        for name, inode in (there if names else self._names.get(number, {})).items():
            here = folder / name if folder is not None and there.get(name) == inode else None
            if inode in self._names or (here is not None and here.is_dir()):
                self._rebuild(here, inode, to / name, names)
            else:
                (to / name).write_bytes(self._data.get(inode, b""))


FILE = io.open


def find_site(name: str, path: str) -> str:
    """Return a call, the ending of its file's name, and the lines of the project that led to it."""
    lines, frame = [], sys._getframe(2)
    while frame is not None:
        if "/difom_" in frame.f_code.co_filename:
            lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    return " ".join((name, Path(path).suffix, *lines))


def path_in(home: Path, target: Any) -> str | None:
    """Return what a call is about, a path or an open file, where that lies in a folder."""
    try:
        if isinstance(target, int):
            path = REAL["readlink"](f"/proc/self/fd/{target}")
        else:
            path = str(Path(os.fsdecode(target)).absolute())
    except (OSError, TypeError):
        return None
    return path if path.startswith(str(home)) else None


@contextmanager
def watched(home: Path, place: int = -1, number: int | None = None, times: int = 1) -> Iterator[Disk]:
    """Watch a folder while inside; nothing is waited for between tries of one call."""
    below = Disk(home, place, number, times)
    with patched(below.call) as patch:
        patch.setattr(disk, "WAITS_S", (0.0,) * len(disk.WAITS_S))
        yield below


@contextmanager
def patched(through: Callable[[str, Any, Callable[[], Any]], Any]) -> Iterator[pytest.MonkeyPatch]:
    """Let every call go through a function while inside: what it is, on which path or open file, and what makes it."""

    def wrap(name: str) -> Callable[..., Any]:
        def call(*rest: Any, **more: Any) -> Any:
            target = more.get("dir_fd", more.get("src_dir_fd")) if more.get("dir_fd", more.get("src_dir_fd")) else None
            first = rest[0] if rest else more.get("path", ".")
            creates = name == "open" and rest[1] & (os.O_WRONLY | os.O_RDWR)
            said = "create" if creates else name
            return through(said, first if target is None else target, lambda: REAL[name](*rest, **more))

        return call

    def open_file(file: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(file, int):
            return FILE(file, *rest, **more)
        reads = not set("wax+") & set(rest[0] if rest else more.get("mode", "r"))
        return through("open" if reads else "create", file, lambda: FILE(file, *rest, **more))

    with pytest.MonkeyPatch.context() as patch:
        for name in REAL:
            patch.setattr(os, name, wrap(name))
        patch.setattr(builtins, "open", open_file)
        patch.setattr(io, "open", open_file)
        yield patch
