"""Storage that fails: the k-th call that reading code makes through its one door, with any error, once or from then on."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from difom_cache.base import disk


@dataclass
class Faults:
    """Which call fails.

    Attributes:
        first: number of the first call that fails, from 0; -1 where none does.
        times: how many calls in a row fail.
        number: the error.
        calls: made so far.
    """

    first: int = -1
    times: int = 1
    number: int = errno.EIO
    calls: int = 0


@contextmanager
def failing(first: int = -1, times: int = 1, number: int = errno.EIO) -> Iterator[Faults]:
    """Let calls fail while inside; nothing is waited for between tries."""
    faults = Faults(first, times, number)

    def attempt(question: Callable[[], object]) -> object:
        place, faults.calls = faults.calls, faults.calls + 1
        if 0 <= place - faults.first < faults.times and faults.first >= 0:
            raise OSError(faults.number, os.strerror(faults.number))
        return question()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "attempt", attempt)
        patch.setattr(disk, "WAITS_S", (0.0,) * len(disk.WAITS_S))
        yield faults


def photograph(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its way from there, temporary ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
