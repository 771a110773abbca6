"""What a file system is asked: there, not there, or it cannot say, as while a server is away; that is never taken for a fault.

Reading code asks through here, so that what cannot be said is asked again for some seconds, and then raises an error that
no code takes for damage or absence: nothing is withdrawn, listed as damaged or advised away because of it.
"""

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from difom_cache.base.errors import StorageError
from difom_cache.base.progress import say

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
UNANSWERED = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ENXIO", "ENODEV", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        *("ENETUNREACH", "ENETRESET", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "ESHUTDOWN", "EREMOTEIO"),
        *("EAGAIN", "EBUSY", "ENFILE", "ENOLCK", "EPROTO", "ECOMM"),
    )
    if hasattr(errno, name)  # those of the platform
)
WAITS_S = (
    0.1,
    0.4,
    1.0,
    2.0,
)  # between tries: a server that restarts takes longer, and is what the same command again is for

T = TypeVar("T")


def ask(path: Path | str, question: Callable[[], T], *, writes: bool = False) -> T:
    """Return what `question` returns, asked again for some seconds while the file system cannot say.

    Args:
        path: what is asked about.
        question: system calls that may be made again.
        writes: whether they write; the caller then says what an error means.

    Raises:
        StorageError: the file system still cannot say, or the user may not know.
        OSError: any other, as `question` raised it; any that is left where it `writes`.
    """
    for number, wait_s in enumerate((*WAITS_S, None)):
        try:
            return attempt(question)
        except OSError as error:
            if wait_s is None or error.errno not in UNANSWERED:
                if not writes:
                    pass_on(error, path)
                raise
            if number == 0:
                say(f"{path}: {explain(error)}; asking again for {sum(WAITS_S):.0f} s")
            time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def attempt(question: Callable[[], T]) -> T:
    """Return what `question` returns: the one place where tests let calls fail."""
    return question()


def pass_on(error: OSError, path: Path | str) -> None:
    """Return if an error says something about `path`; raise StorageError if the file system could not say.

    Raises:
        StorageError: nothing is known about the file.
    """
    if error.errno in FORBIDDEN:
        raise StorageError(f"{path} cannot be read: {explain(error)}; nothing was changed") from error
    if error.errno == errno.EMFILE:
        raise StorageError(
            f"{path} cannot be opened: {explain(error)} in this process; raise its limit (ulimit -n)"
        ) from error
    if error.errno in UNANSWERED:
        refuse(error, path)


def check_whole(read_bytes: int, size_bytes: int) -> None:
    """Raise what is asked again where a read ended before the file does: sshfs has no more of a file as its server goes."""
    if read_bytes < size_bytes:
        raise OSError(errno.EIO, f"it ended after {read_bytes} of {size_bytes} bytes")


def refuse(error: OSError, path: Path | str) -> NoReturn:
    """Raise StorageError: the file system could not say."""
    raise StorageError(
        f"{path} cannot be read now: {explain(error)}; nothing was changed. {say_way_on(error)}"
    ) from error


def say_way_on(error: OSError) -> str:
    """Return a sentence on what the user can do about an error of the file system; "" where its words say enough."""
    if error.errno == errno.ESTALE:
        return (
            "It was dropped or made anew on another machine, or its server started again: look whether it is there, and run "
            "the same command again"
        )
    if error.errno in UNANSWERED:
        return "Run the same command again once its file system answers"
    return "Make room and run the same command again" if error.errno in FULL else ""


def find(path: Path) -> os.stat_result | None:
    """Return what lies at `path`, links followed; None where nothing does.

    Raises:
        StorageError: the file system cannot say.
    """
    try:
        return ask(path, path.stat)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise


def is_there(path: Path) -> bool:
    """Whether anything lies at `path`; StorageError where the file system cannot say."""
    return find(path) is not None


def is_folder(path: Path) -> bool:
    """Whether a folder lies at `path`; StorageError where the file system cannot say."""
    found = find(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def is_file(path: Path) -> bool:
    """Whether a plain file lies at `path`; StorageError where the file system cannot say."""
    found = find(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def list_names(folder: Path) -> list[str]:
    """Return the names in a folder, in order; none where there is no folder.

    Raises:
        StorageError: the file system cannot say.
    """
    try:
        return sorted(ask(folder, lambda: [path.name for path in folder.iterdir()]))
    except OSError as error:
        if error.errno in ABSENT:
            return []
        raise


def list_sizes(folder: Path) -> dict[str, int]:
    """Return the plain files in a folder, links followed, and their sizes in bytes; none where there is no folder.

    Raises:
        StorageError: the file system cannot say.
    """

    def look() -> dict[str, int]:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}

    try:
        return ask(folder, look)
    except OSError as error:
        if error.errno in ABSENT:
            return {}
        raise


def explain(error: OSError) -> str:
    """Return what went wrong, without the file's name, such as "no such file or directory"."""
    text = error.strerror or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
