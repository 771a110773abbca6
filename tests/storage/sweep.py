"""Storage calls of every command fail once, fail from then on, lose their answer, or are the last of a process without power.

`PYTHONPATH=tests python tests/storage/sweep.py [COMMAND ...] [--every N] [--all]` prints, for each command and kind of failure,
how many calls it makes, from how many places in the code, how many of them were tried (of each place the first, or `--all`), how
many tries the command got over by itself and how many ended it in one line; and what must be 0: finished work that is gone
(lost), bytes that are taken for right and are not (wrong), and lines that lack a file, a cause or a way on.
"""

import argparse
import contextlib
import errno
import io
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from kernel import ANSWER_LOST, Died, watched
from painted_folder import paint_folder
from small_cache import write_small_cache

from difom_cache import copy, drop, export_hdf5, extract, finish, import_hdf5, open_cache, probe, verify
from difom_cache.base.console import describe_os_error
from difom_cache.base.errors import DifomError

FAILURES: dict[str, tuple[int | None, int]] = {
    "EIO": (errno.EIO, 1),
    "ESTALE": (errno.ESTALE, 1),
    "ENOSPC": (errno.ENOSPC, 1),
    "answer lost": (ANSWER_LOST, 1),
    "EIO for good": (errno.EIO, 10**9),
    "dies": (None, 1),
    "dies, names stay": (None, 1),
}
"Error, and how often; without one the process dies, and of what was not synced nothing is left, or the names alone."
SMALL = {
    "teacher": "dinov2:tiny@28",
    "weights": "random",
    "backend": "torch",
    "input_size": 32,
    "views": 2,
    "quiet": True,
}
STUDENT = {
    "student": "unet",
    "width": 2,
    "input_size": 32,
    "batch_size": 4,
    "epochs": 3,
    "stage": "disk",
    "logger": "csv",
}
WAY_ON = ("again", "choose", "restore", "remove", "run ", "make room", "copy it")


@dataclass(frozen=True)
class Swept:
    """A command, and what shows that its work is whole.

    `prepare` fills a folder, `run` is the command there, `state` is equal for equal results, `work` names what is finished.
    """

    prepare: Callable[[Path], object]
    run: Callable[[Path], object]
    state: Callable[[Path], object]
    work: Callable[[Path], frozenset[str]] = lambda home: frozenset()


@dataclass
class Row:
    """One line of the table."""

    calls: int = 0
    places: int = 0
    tries: int = 0
    got_over: int = 0
    ended: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)


def digests(name: str) -> Callable[[Path], object]:
    return lambda home: open_cache(home / name, access="read").content_digests()


def markers(name: str) -> Callable[[Path], frozenset[str]]:
    return lambda home: frozenset(str(path.relative_to(home)) for path in (home / name).rglob("ticks/*.json"))


def train_there(home: Path) -> None:
    from matplotlib.figure import Figure

    from difom_train import train

    with pytest.MonkeyPatch.context() as patch:  # drawing takes longer than all else
        patch.setattr(Figure, "savefig", lambda figure, to, **_: to.write(b"curves"))
        train(cache=(home / "feats",), out=home / "run", recipe="baseline", resume=True, **STUDENT)


def weights(home: Path) -> object:
    from difom_train.training import read_checkpoint, read_log

    progress, states = read_checkpoint(home / "run")
    kept = {name: values.numpy().tobytes() for name, values in states["learner"].items()}
    return progress.epochs_done, kept, [line["loss"] for line in read_log(home / "run")]


def epochs(home: Path) -> frozenset[str]:
    from difom_train.training import read_checkpoint

    done = read_checkpoint(home / "run")[0].epochs_done if (home / "run/last.ckpt").is_file() else 0
    return frozenset(f"epoch {number}" for number in range(done))


def small(home: Path) -> None:
    write_small_cache(home / "feats", leave_out=())


def painted(home: Path) -> None:
    paint_folder(home.parent / "data", frames=6)


def extracted(home: Path) -> None:
    painted(home)
    extract_there(home)


def extract_there(home: Path) -> None:
    extract(data=home.parent / "data", cache=home / "feats", **SMALL)


def probe_there(home: Path) -> None:
    probe(home / "feats", teachers=["dinov2-tiny-random"], folds=2, head="linear", quiet=True)


def verified(home: Path) -> object:
    report = verify(home / "feats")
    if not report.sound:
        raise AssertionError(f"a sound cache is called damaged: {report.problems}")
    return report.sound


def export_there(home: Path) -> None:
    (home / "feats.h5").unlink(missing_ok=True)
    export_hdf5(home / "feats", home / "feats.h5")


def import_there(home: Path) -> None:
    if not (home / "back").exists():
        import_hdf5(home / "feats.h5", home / "back")


def exported(home: Path) -> object:
    import h5py

    with h5py.File(home / "feats.h5") as book:
        found: dict[str, bytes] = {}
        book.visititems(lambda name, held: found.update({name: held[()].tobytes()}) if hasattr(held, "dtype") else None)
        return found


COMMANDS = {
    "finish": Swept(small, lambda home: finish(home / "feats"), digests("feats"), markers("feats")),
    "verify": Swept(small, verified, digests("feats"), markers("feats")),
    "copy": Swept(small, lambda home: copy(home / "feats", home / "copy"), digests("copy"), markers("")),
    "drop": Swept(
        small,
        lambda home: (
            drop(home / "feats", "one") if "one" in open_cache(home / "feats").teachers else finish(home / "feats")
        ),
        lambda home: (digests("feats")(home), sorted(path.name for path in (home / "feats/teachers").iterdir())),
        lambda home: frozenset(
            name for name in markers("feats")(home) if "/one/" not in name and ".dropped" not in name
        ),
    ),
    "export": Swept(small, export_there, exported, markers("feats")),
    "import": Swept(lambda home: (small(home), export_there(home)), import_there, digests("back"), markers("feats")),
    "extract": Swept(
        lambda home: paint_folder(home.parent / "data", frames=4),
        extract_there,
        digests("feats"),
        markers("feats"),
    ),
    "extract again": Swept(extracted, extract_there, digests("feats"), markers("feats")),
    "probe": Swept(extracted, probe_there, digests("feats"), markers("feats")),
    "train": Swept(extracted, train_there, weights, epochs),
}


def read_all(home: Path) -> dict[str, dict[str, bytes]]:
    """Return the bytes of every row that can be read in every cache of a folder."""
    held = {}
    for name in ("feats", "copy", "back"):
        with contextlib.suppress(DifomError, OSError):
            cache = open_cache(home / name, access="read")
            for tap in (None, *cache.taps):
                with contextlib.suppress(DifomError, OSError):
                    taps, pictures = ([] if tap is None else [tap]), tap is None
                    rows = np.flatnonzero(cache.finished_rows(taps, pictures=pictures))
                    batch = cache.gather(rows, taps, pictures=pictures)
                    for key, values in batch.items():
                        held |= {f"{name} {key} {row}": values[at].tobytes() for at, row in enumerate(rows.tolist())}
    return held


def describe_end(error: BaseException) -> str:
    """Return the line that a command would end with; "" where it would be a traceback."""
    return (
        str(error) if isinstance(error, DifomError) else describe_os_error(error) if isinstance(error, OSError) else ""
    )


def is_clear(line: str, home: Path, number: int | None) -> bool:
    """Whether a line names a file, what went wrong and a way on."""
    cause = os.strerror(number or 0).lower() in line.lower()
    return str(home) in line and cause and any(word in line.lower() for word in WAY_ON)


def sweep(name: str, failure: str, folder: Path, *, every: int = 1, whole: bool = False) -> Row:
    """Return what becomes of a command whose calls fail, one after the other: the first of each place in the code, or all."""
    swept, (number, times) = COMMANDS[name], FAILURES[failure]
    start, home = folder / "start", folder / "home"
    start.mkdir(parents=True)
    swept.prepare(start)
    if (start / "feats").exists():  # statistics and metadata of what is finished
        finish(start / "feats")

    def begin() -> None:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(start, home)

    row = Row()
    for _ in range(2):  # the first one asks more: it opens libraries
        begin()
        with watched(home, -1, number) as below:
            swept.run(home)
        below.close()
    due, row.calls = swept.state(home), len(below.calls)
    first = sorted({site: place for place, site in reversed([*enumerate(below.sites)])}.values())
    row.places = len(first)
    rows = read_all(start) | read_all(home)
    for place in (range(row.calls) if whole else first)[every // 2 :: every]:
        begin()
        before, ended = swept.work(home), None
        with watched(home, place, number, times) as below:
            try:
                swept.run(home)
            except (Exception, Died) as error:  # of any kind: what it says is looked at
                ended = error
        if below.failed:
            row.tries += 1
            what = f"call {place} ({below.failed.replace(str(folder), '')})"
            if number is None:
                below.cut_power(names="names" in failure)
            elif ended is None:
                row.got_over += 1
            else:
                row.ended.append(f"{what}: {describe_end(ended)}")
                if not is_clear(line := describe_end(ended), home, number):
                    row.unclear.append(f"{what}: {line or repr(ended)}")
            held = read_all(home)
            if any(rows.get(key) != value for key, value in held.items()):
                row.wrong.append(what)
            if not before <= swept.work(home):
                row.lost.append(f"{what}: finished work is gone")
            try:
                swept.run(home)
            except Exception as error:
                row.lost.append(f"{what}: the same command again fails: {error!r}")
            else:
                if swept.state(home) != due:
                    row.wrong.append(f"{what}: the end is another one")
        below.close()
    return row


def print_row(name: str, failure: str, row: Row) -> None:
    """Print one line of the table, and what is wrong below."""
    counts = (
        row.calls,
        row.places,
        row.tries,
        row.got_over,
        len(row.ended),
        len(row.lost),
        len(row.wrong),
        len(row.unclear),
    )
    print(f"{name:14} {failure:16} {' '.join(f'{count:8}' for count in counts)}", flush=True)
    for kind in ("lost", "wrong", "unclear"):
        for problem in getattr(row, kind)[:8]:
            print(f"    {kind}: {problem}")


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("commands", nargs="*", choices=[*COMMANDS, []], default=[])
    parser.add_argument("--failure", choices=FAILURES, action="append")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--all", action="store_true", help="try every call, also those that are made from one place")
    parser.add_argument("--lines", action="store_true", help="print every line that ended a command")
    asked = parser.parse_args(words)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    heads = ("calls", "places", "tries", "got over", "one line", "lost", "wrong", "unclear")
    print(f"{'command':14} {'failure':16} {' '.join(f'{head:>8}' for head in heads)}")
    for name in asked.commands or COMMANDS:
        for failure in asked.failure or FAILURES:
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
                row = sweep(name, failure, Path(folder).resolve(), every=asked.every, whole=asked.all)
            print_row(name, failure, row)
            for line in row.ended if asked.lines else ():
                print(f"    {line}")


if __name__ == "__main__":
    main(sys.argv[1:])
