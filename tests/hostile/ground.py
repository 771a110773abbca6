"""A place to attack commands in: each case gets copies of small, sound things, runs in a process of its own, and is judged.

A case is handled when the command ends in time with an exit code that its documentation names, says what is wrong in one
line that names the thing, prints no traceback, and changes nothing outside the place that it was told to write to.
"""

import contextlib
import hashlib
import os
import resource
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 60  # a command on a few small files that takes longer than this, waits for something
Damage = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """One hostile command line.

    Attributes:
        kind: the class it belongs to, for the table.
        name: what is done, unique within its class.
        command: program and arguments; `{ground}` stands for the case's own folder.
        damage: what is done to the case's own folder before.
        needs: the sound things that are copied into it.
        codes: exit codes that are right.
        names: what the line must name, one of them; empty: any line will do.
        writes: what may appear or change below the case's own folder; everything else must stay as it was.
        file_bytes: the largest file that the command may write, as on a full disk; None: any.
        then: a command that must succeed afterwards, without the limit; empty: none.
        check: what must hold afterwards; it returns what is wrong.
    """

    kind: str
    name: str
    command: tuple[str, ...]
    damage: Damage = lambda ground: None
    needs: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0, 2)
    names: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    file_bytes: int | None = None
    then: tuple[str, ...] = ()
    check: Callable[[Path, int], str] = lambda ground, code: ""


@dataclass
class Verdict:
    """What became of a case: exit code, what was printed, and what is wrong about it ("": handled)."""

    case: Case
    code: int
    output: str
    wrong: str
    seconds: float = field(default=0.0)


def try_case(case: Case, sound: Path, ground: Path) -> Verdict:
    """Run a case in `ground`, a folder that does not exist yet, and judge it; the folder is gone afterwards."""
    ground.mkdir(parents=True)
    try:
        for name in case.needs:
            copy_sound(sound / name, ground / name)
        case.damage(ground)
        before = take_stock(ground)
        started_s = time.monotonic()
        code, output = run_apart(case.command, ground, case.file_bytes)
        seconds = time.monotonic() - started_s
        wrong = judge(case, code, output) or compare_stock(before, take_stock(ground), case.writes)
        wrong = wrong or case.check(ground, code)
        if not wrong and code and case.then:
            after, text = run_apart(case.then, ground, None)
            wrong = "" if after == 0 else f"the correct command afterwards ends with {after}: {text[-300:]}"
        return Verdict(case, code, output, wrong, seconds)
    finally:
        clear(ground)


def copy_sound(source: Path, target: Path) -> None:
    """Copy a file or folder."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy(source, target)


def run_apart(command: tuple[str, ...], ground: Path, file_bytes: int | None) -> tuple[int, str]:
    """Run a command in a fork of this process, whose libraries are loaded, and return exit code and output."""
    words = [word.replace("{ground}", str(ground)) for word in command]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(reading)
            code = _run_here(words, ground, writing, file_bytes)
        finally:
            os._exit(code)
    os.close(writing)
    try:
        return _listen(child, reading)
    finally:
        os.close(reading)


def _run_here(words: list[str], ground: Path, writing: int, file_bytes: int | None) -> int:
    os.setsid()
    for stream in (1, 2):
        os.dup2(writing, stream)
    os.close(writing)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.chdir(ground)
    sys.argv = words
    if file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
    from difom_cache.cli import main as cache_main
    from difom_train.cli import main as train_main

    main = {"difom-cache": cache_main, "difom-train": train_main}[words[0]]
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def _listen(child: int, reading: int) -> tuple[int, str]:
    """Return exit code and output of a child; the code is 124 after `SECONDS`, and negative after a signal."""
    os.set_blocking(reading, False)
    heard = bytearray()
    ends_s = time.monotonic() + SECONDS
    code = None
    while code is None:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
        elif time.monotonic() > ends_s:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            code = 124
        with contextlib.suppress(BlockingIOError):
            while part := os.read(reading, 1 << 16):
                heard += part
        if code is None:
            time.sleep(0.005)
    return code, heard.decode(errors="replace")


def judge(case: Case, code: int, output: str) -> str:
    """Return what is wrong with how a command ended."""
    if code == 124:
        return f"waits for more than {SECONDS} s"
    if code < 0:
        return f"ended by signal {-code}"
    if "Traceback (most recent call last)" in output:
        return f"a traceback: {output.strip().splitlines()[-1][:200]}"
    if code not in case.codes:
        return f"exit code {code}, expected one of {case.codes}: {output.strip()[-200:]}"
    if code != 2:
        return ""
    lines = [line for line in output.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    if len(lines) != 1:
        return f"{len(lines)} lines of error in place of one: {output[-300:]}"
    if case.names and not any(name in lines[0] for name in case.names):
        return f"the line does not name {' or '.join(case.names)}: {lines[0][:300]}"
    return ""


def take_stock(ground: Path) -> dict[str, str]:
    """Return what lies below a folder: kind, mode and content of everything."""
    stock = {}
    for folder, folders, files in os.walk(ground):
        for name in [*folders, *files]:
            path = Path(folder, name)
            mode = path.lstat().st_mode
            told = oct(mode)
            if stat.S_ISLNK(mode):
                told += str(path.readlink())
            elif stat.S_ISREG(mode):
                told += hashlib.sha256(path.read_bytes()).hexdigest()
            stock[str(path.relative_to(ground))] = told
    return stock


def compare_stock(before: dict[str, str], after: dict[str, str], writes: tuple[str, ...]) -> str:
    """Return what changed outside of where a command may write."""
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name) and not any(name == w or name.startswith(f"{w}/") for w in writes):
            how = "lost" if name not in after else "written" if name not in before else "changed"
            return f"{name} was {how}"
    left = [name for name in after if "/.tmp-" in f"/{name}" and name not in before]
    return f"{left[0]} was left behind" if left else ""


def clear(ground: Path) -> None:
    """Remove a case's folder, whatever the case made of it."""
    shutil.rmtree(ground, ignore_errors=True)
