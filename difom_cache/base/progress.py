"""What a command is at, for who waits: a bar on a terminal or in a notebook, elsewhere a plain line now and then."""

import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self, TypeVar

from tqdm import tqdm

from difom_cache.base.text import format_seconds

# Until the first plain line, as ten silent seconds look like a program that hangs; between others.
FIRST_S, THEN_S = 8.0, 60.0
Item = TypeVar("Item")


class ProgressBar:
    """How much of some work is done; tqdm's bar on a terminal or in a notebook, else a line after eight seconds and each minute.

    Args:
        total: how much there is to do; None where nobody knows.
        title: what is done.
        unit: of what is counted, such as "frame".
        done: how much was done before.
        quiet: say nothing at all.
        leave: whether the bar stays when it is over.
    """

    def __init__(
        self, total: int | None, title: str, unit: str, *, done: int = 0, quiet: bool = False, leave: bool = True
    ) -> None:
        disable = True if quiet else None
        self._bar = _find_bar()(total=total, desc=title, unit=unit, initial=done, disable=disable, leave=leave)
        self.title, self._total, self._unit, self._before, self._done = title, total, unit, done, done
        self._note, self._since = "", time.perf_counter()
        self._over = Event()
        if self._bar.disable and not quiet:
            Thread(target=self._report, name="progress", daemon=True).start()

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal or a notebook that shows the bar."""
        return not self._bar.disable

    def update(self, count: int = 1) -> None:
        """Count what was done."""
        self._done += count
        self._bar.update(count)

    def tell(self, note: str, *, title: str | None = None) -> None:
        """Put words behind the bar, and perhaps others before it."""
        self._note, self.title = note, title or self.title
        if self.is_shown:
            self._bar.set_description_str(self.title, refresh=False)
            self._bar.set_postfix_str(note)

    def describe(self) -> str:
        """Return the state as one line, such as "verify pictures: 40 of 256 blocks, 2 min 10 s left"."""
        total = "" if self._total is None else f" of {self._total}"
        line = f"{self.title}: {self._done}{total} {self._unit}s"
        fresh = self._done - self._before
        if fresh and self._total is not None:
            left_s = (time.perf_counter() - self._since) / fresh * (self._total - self._done)
            line += f", {format_seconds(left_s)} left"
        return f"{line}, {self._note}" if self._note else line

    def close(self) -> None:
        """Stop counting; the bar stays as it is, or goes where it was not to be left."""
        self._over.set()
        self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _report(self) -> None:
        wait_s = FIRST_S
        while not self._over.wait(wait_s):
            say(self.describe())
            wait_s = THEN_S


def _find_bar() -> Any:
    """Return tqdm's class of bars: for a notebook where one runs this and has ipywidgets, else for a terminal."""
    if "ipykernel" not in sys.modules:
        return tqdm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets there are plain lines, as in a log file
        from tqdm.auto import tqdm as chosen
    return chosen


def track(
    items: Iterable[Item], title: str, unit: str, *, total: int | None = None, quiet: bool = False
) -> Iterator[Item]:
    """Yield the items and show how many have been used.

    Args:
        items: to go through.
        title: what is done.
        unit: of what is counted.
        total: number of items; None takes their length where they have one.
        quiet: say nothing at all.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with ProgressBar(total, title, unit, quiet=quiet) as bar:
        for item in items:
            yield item
            bar.update()


@contextmanager
def explain_wait(what: str, *, quiet: bool = False) -> Iterator[None]:
    """Say on stderr what the program is at, where that takes longer than eight seconds; say nothing where it does not.

    Args:
        what: it is at, such as "loading sam".
        quiet: say nothing however long it takes.
    """
    if quiet:
        yield
        return
    over = Event()

    def explain() -> None:
        if not over.wait(FIRST_S):
            say(f"{what} ...")

    Thread(target=explain, name="explain", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def say(line: str) -> None:
    """Print a line on stderr, above any bar."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
