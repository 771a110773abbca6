"""Files of unknown origin: opened only where they are plain files, and read whole."""

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from difom_cache.base import disk
from difom_cache.base.disk import explain
from difom_cache.base.errors import DifomError

_LARGEST_TEXT_BYTES = 1 << 30
_SHOWN_CHARACTERS = 160  # of what a library says
_WORTH_LISTING = 64  # files of one folder from which on its list comes sooner than an answer for each; not tuned


def open_plain(path: Path) -> int:
    """Return a descriptor of the plain file at `path`, open for reading; the caller closes it.

    A FIFO would wait for a writer for ever, and a device never ends, so neither is opened.

    Raises:
        OSError: there is no such file, it cannot be read, or it is no plain file.
        StorageError: the file system cannot say.
    """
    return disk.ask(path, lambda: open_once(path))[0]


def open_once(path: Path) -> tuple[int, os.stat_result]:
    """Open as `open_plain` does, for who asks again by himself; return the descriptor and what is known of the file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = 0
    try:
        found = os.fstat(descriptor)
        mode = found.st_mode
        if stat.S_ISREG(mode):
            return descriptor, found
    finally:
        if not stat.S_ISREG(mode):
            os.close(descriptor)
    kind = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device"}.get(
        stat.S_IFMT(mode), "special"
    )
    raise OSError(0, f"it is {kind}, no plain file", str(path))


def read_plain(path: Path, *, most_bytes: int = _LARGEST_TEXT_BYTES) -> bytes:
    """Return the bytes of the plain file at `path`.

    Raises:
        OSError: as `open_plain`; or the file has more than `most_bytes`.
        StorageError: the file system cannot say.
    """
    return disk.ask(path, lambda: _read(path, most_bytes))


def _read(path: Path, most_bytes: int) -> bytes:
    descriptor, found = open_once(path)
    with os.fdopen(descriptor, "rb") as file:
        if found.st_size > most_bytes:
            raise OSError(0, f"it has {found.st_size} bytes, more than such a file ever has", str(path))
        content = file.read()
    disk.check_whole(len(content), found.st_size)
    return content


def read_held(path: Path, error: type[DifomError], hint: str) -> bytes:
    """Return the bytes of the plain file at `path`, which should be there.

    Args:
        path: the file.
        error: what to raise.
        hint: how the user mends it, at the end of the one line.

    Raises:
        DifomError: an `error`, because the file cannot be read.
    """
    try:
        return read_plain(path)
    except OSError as problem:
        raise error(f"{path} cannot be read ({explain(problem)}); {hint}") from problem


def read_object(path: Path, error: type[DifomError], hint: str) -> dict[str, Any]:
    """Return the JSON object that the plain file at `path` holds.

    Args:
        path: the file.
        error: what to raise.
        hint: how the user mends it, at the end of the one line.

    Raises:
        DifomError: an `error`, because the file cannot be read, or holds something else.
    """
    content = read_held(path, error, hint)
    try:
        held = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} is damaged ({problem}); {hint}") from problem
    if not isinstance(held, dict):
        raise error(f"{path} is damaged (expected a JSON object, found {type(held).__name__}); {hint}")
    return held


@contextmanager
def guard_decoder(path: Path, error: type[DifomError], expected: str, hint: str = "") -> Iterator[None]:
    """Let a library open the plain file at `path` by its name; whatever a garbled file makes it raise becomes one line.

    Args:
        path: the file.
        error: what to raise.
        expected: what it should be, such as "a video".
        hint: how the user mends it, at the end of the line.

    Raises:
        DifomError: an `error`, or whichever was raised inside.
        MemoryError: there is not enough memory for it.
    """
    try:
        os.close(open_plain(path))
        yield
    except (DifomError, MemoryError):
        raise
    except Exception as problem:  # decoders raise whatever a garbled file leads them to
        said = explain(problem) if isinstance(problem, OSError) else str(problem)
        told = (
            re.sub(" ?<[^<>]* object at 0x[^<>]*>", "", " ".join(said.split()))[:_SHOWN_CHARACTERS]
            or type(problem).__name__
        )
        raise error(
            f"{path}: expected {expected}, but it cannot be read ({told}){f'; {hint}' if hint else ''}"
        ) from problem


def refuse_special(path: Path) -> Path:
    """Return `path`, for a library that opens it by name.

    Raises:
        OSError: as `open_plain`.
    """
    os.close(open_plain(path))
    return path


def find_absent(paths: Sequence[Path]) -> list[Path]:
    """Return those of some paths at which nothing lies, in their order.

    Folders of many of them are listed: a network file system answers for a hundred names at once, and else for each.
    """
    places = [os.path.split(path) for path in paths]
    counts = Counter(folder for folder, _ in places)
    listed = {folder: _list_names(folder) for folder, count in counts.items() if count >= _WORTH_LISTING}
    return [
        path
        for path, (folder, name) in zip(paths, places, strict=True)
        if name not in listed.get(folder, ()) and not disk.is_there(path)
    ]


def _list_names(folder: str) -> frozenset[str]:
    """Return the names in a folder, but not those of links, which may lead nowhere; none where it cannot be listed."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            return frozenset(entry.name for entry in entries if not entry.is_symlink())
    except OSError:
        return frozenset()
