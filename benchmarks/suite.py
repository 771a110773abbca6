"""TOP FILE of `python -m benchmarks all`: every benchmark, part by part, into one JSON file and one page.

A part that has ended well under the same command, versions and hardware is kept while what it made is there, so that the same
command resumes where it was stopped, or where its minutes ended.
"""

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import describe_gpus
from benchmarks.options import ROOT, AllConfig
from benchmarks.parts import FULL, PROGRAMS, SMALL, Part, list_parts
from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import RunError, SettingsError, name_nearest
from difom_cache.base.files import read_object
from difom_cache.base.hardware import resolve_device
from difom_cache.base.outputs import check_out_folder
from difom_cache.base.progress import say
from difom_cache.base.text import format_seconds, format_table
from difom_train.training.run_folder import describe_hardware, describe_versions

DONE, FAILED, TIMED_OUT, SKIPPED = "done", "failed", "timed out", "skipped"
JSON_FILE, TABLE_FILE = "bench.json", "bench.md"
_NOT_RUN: dict[str, Any] = {"command": [], "outcome": SKIPPED, "seconds": 0.0, "why": [], "answer": {}, "shown": ""}
_LINES_KEPT = 100  # of what a part that failed said last: a traceback, whole


@dataclass(frozen=True)
class Suite:
    """What became of every part, by name, and on which machine; both files lie in `out`."""

    parts: dict[str, dict[str, Any]]
    about: dict[str, Any]
    out: Path

    def render(self) -> str:
        """Return the page, and where it lies."""
        return f"{format_page(self.as_json())}\n{self.out / JSON_FILE} and {self.out / TABLE_FILE}"

    def as_json(self) -> dict[str, Any]:
        """Return all of it for a program."""
        return {"about": self.about, "parts": self.parts}


def bench_all(options: AllConfig) -> Suite:
    """Return what every benchmark found; written after each part, so that what is known survives whatever comes next.

    Raises:
        SettingsError: a part that does not exist, or a folder that cannot be written.
    """
    started_s = time.perf_counter()
    check_out_folder(options.out)
    device = resolve_device(options.device)
    small = options.size == "small" or (options.size == "auto" and device.type != "cuda")
    out, data = options.out.absolute(), options.data and options.data.absolute()
    parts = list_parts(out, SMALL if small else FULL, data=data, device=device, tests=options.tests.absolute())
    unknown = [name for name in options.only if name not in {part.name for part in parts}]
    if unknown:
        raise SettingsError(name_nearest("part", unknown[0], [part.name for part in parts]))
    about = {
        "size": "small" if small else "full",
        "commit": find_commit(),
        "versions": describe_versions(),
        "hardware": describe_hardware(device, 1),
    }
    suite = Suite(_read_parts(out / JSON_FILE, about), about | {"nvidia_smi": describe_gpus()}, out)
    for number, part in enumerate(parts, start=1):
        kept = suite.parts.get(part.name, {})
        if options.only and part.name not in options.only:
            continue
        whole = kept.get("outcome") == DONE and all(path.exists() for path in part.makes)
        if whole and kept["command"] == list(part.command):
            say(f"{number}/{len(parts)} {part.name}: kept")
            continue
        left_s = options.minutes * 60 - (time.perf_counter() - started_s) if options.minutes else options.part_s
        suite.parts[part.name] = found = _run_part(part, suite, min(options.part_s, left_s))
        for known in [each.name for each in parts if each.name in suite.parts]:  # in order, whatever ran first
            suite.parts[known] = suite.parts.pop(known)
        why = f": {found['why'][-1]}" if found["why"] else ""
        say(f"{number}/{len(parts)} {part.name}: {found['outcome']}, {found['seconds']:.0f} s{why}")
        _write(suite)
    _write(suite)
    return suite


def find_commit() -> str:
    """Return the commit of this checkout, "-dirty" behind it where files were changed since; "unknown" without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _read_parts(path: Path, about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the parts of an earlier call; none where there is none.

    Raises:
        SettingsError: it ran at another size or commit, on another machine or in other versions.
        RunError: its file is damaged.
    """
    if not path.exists():
        return {}
    before = read_object(path, RunError, "remove it, or choose another --out")
    there = before.get("about")
    same = isinstance(there, dict) and all(there.get(key) == about[key] for key in about)
    if not same:
        raise SettingsError(
            f"{path} was measured at another size or commit, with other versions or on another machine; choose another --out"
        )
    parts = before.get("parts")
    if not isinstance(parts, dict) or not all(
        isinstance(part, dict) and part.keys() == _NOT_RUN.keys() for part in parts.values()
    ):
        raise RunError(f"{path} is damaged: it has no list of parts; remove it, or choose another --out")
    return parts


def _run_part(part: Part, suite: Suite, limit_s: float) -> dict[str, Any]:
    """Run one part to its end or its limit, and return what became of it, ready for JSON."""
    found = _NOT_RUN | {"command": list(part.command)}
    missing = [name for name in part.needs if suite.parts.get(name, {}).get("outcome") != DONE]
    late = "" if limit_s > 0 else "the minutes are over; the same command resumes here"
    if why := part.skip or late or (f"needs {', '.join(missing)}" if missing else ""):
        return found | {"why": [why]}
    started_s = time.perf_counter()
    outcome, out, err = _call(part.command, limit_s)
    found |= {"outcome": outcome, "seconds": time.perf_counter() - started_s}
    if outcome == DONE:
        try:
            answer = part.read(out)
            return found | {"answer": answer, "shown": part.show(answer)}
        except (OSError, ValueError, SyntaxError, LookupError) as error:  # what it printed is not what it should
            return found | {"outcome": FAILED, "why": [f"its answer cannot be read: {error}"]}
    said = [line for line in f"{out}\n{err}".splitlines() if line.strip()][-_LINES_KEPT:]
    said += [f"more than {limit_s:.1f} s"] if outcome == TIMED_OUT else []
    return found | {"why": said or ["it said nothing"]}


def _call(command: tuple[str, ...], limit_s: float) -> tuple[str, str, str]:
    """Return how a command ended and what it printed; its whole session ends with it."""
    process = subprocess.Popen(
        (*PROGRAMS[command[0]], *command[1:]),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    outcome = FAILED
    try:
        out, err = process.communicate(timeout=limit_s)
        outcome = DONE if process.returncode == 0 else FAILED
    except subprocess.TimeoutExpired:
        _kill(process)
        outcome, (out, err) = TIMED_OUT, process.communicate()
    except BaseException:
        _kill(process)
        raise
    return outcome, out, err


def _kill(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _write(suite: Suite) -> None:
    suite.out.mkdir(parents=True, exist_ok=True)
    facts = suite.as_json()
    write_atomic(suite.out / JSON_FILE, f"{json.dumps(facts, indent=1, default=str)}\n".encode())
    write_atomic(suite.out / TABLE_FILE, format_page(facts).encode())


def format_page(facts: dict[str, Any]) -> str:
    """Return as Markdown what `bench_all` found, part by part, and then what became of each part."""
    parts, about = facts["parts"], facts["about"]
    hardware, versions = about["hardware"], about["versions"]
    machine = hardware.get("gpu") or f"{hardware['cpu']}, {hardware['cpu_cores']} cores"
    lines = [f"# Benchmarks, {about['size']} size", ""]
    lines += [f"{machine}; difom {versions['difom']} ({about['commit']}), torch {versions['torch']}; random weights."]
    lines += [", ".join(f"{key}: {value}" for key, value in gpu.items()) for gpu in about.get("nvidia_smi", ())]
    if about["size"] == "small":
        lines += ["", "Small: this shows that everything runs. Starting outweighs the work: the figures are no speeds."]
    for name, part in parts.items():
        if part["shown"]:
            lines += ["", f"## {name}", "", "```", " ".join(part["command"]), "", part["shown"], "```"]
    rows = [["part", "outcome", "took", "why"]]
    rows += [[name, p["outcome"], format_seconds(p["seconds"]), " ".join(p["why"][-1:])] for name, p in parts.items()]
    return "\n".join([*lines, "", "## Parts", "", "```", format_table(rows, left=2), "```", ""])
