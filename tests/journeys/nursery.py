"""A process that forks extractions after its imports, so that a kill meets work and not the loading of libraries.

It runs no network itself and keeps torch to one thread, so that its children may be forked safely. As a script it reads
one question a line, {"task": "kill", "together", "at_once", "beside" or "command", ...}, and answers each with one line of JSON.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from difom_cache import cli, drop, extract, info, open_cache, verify
from difom_cache import finish as finish_cache
from difom_cache.errors import DifomError
from difom_cache.extraction import blocks, load_teacher, missing, teacher_column
from difom_cache.teachers import parse_teacher
from difom_train import train

Settings = dict[str, Any]


def load(settings: Settings) -> None:
    """Build the teacher here, so that every child inherits it."""
    request = replace(parse_teacher(settings["teacher"]), weights="random", picture_px=settings["input_size"])
    load_teacher(request)


def fork(work: Callable[[], None]) -> int:
    """Return the process number of a child that does `work` and ends."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    finally:
        sys.stdout.flush()
    os._exit(0)


def start(cache: Path, settings: Settings, log: Path) -> int:
    """Start an extraction that notes in `log` each block that it has computed, and when."""

    def work() -> None:
        for kind in (blocks.PictureBlock, blocks.TeacherBlock):
            note_blocks(kind, log)
        report = extract(cache=cache, weights="random", quiet=True, **settings)
        log.with_suffix(".json").write_text(
            json.dumps({"complete": report.complete, "computed": dict(report.computed_blocks)})
        )

    return fork(work)


def at_once(root: Path, settings: Settings, found: list[dict[str, int]], parts: bool) -> dict[str, Any]:
    """Run extractions into one empty cache at once, each of which finds out another batch and thread count.

    None goes on from probing before all have come there, so that none has seen another's identity.

    Returns:
        How those that failed ended, the digests, those of one run that found what all agreed on, and what is left over.
    """
    meeting = root / "meeting"
    meeting.mkdir()

    def start_one(number: int) -> int:
        part = {"part": f"{number + 1}/{len(found)}"} if parts else {}

        def wait_for_all() -> None:
            (meeting / str(number)).touch()
            until_s = time.monotonic() + 60
            while len(list(meeting.iterdir())) < len(found) and time.monotonic() < until_s:
                time.sleep(0.001)

        return fork(lambda: find_and_extract(root / "at-once", settings | part, found[number], wait_for_all))

    children = [start_one(number) for number in range(len(found))]
    failed = [ended for child in children if (ended := os.waitpid(child, 0)[1])]
    opened = open_cache(root / "at-once")
    [identity] = opened.teachers.values()
    agreed = {name: getattr(identity, name) for name in ("batch", "threads")}
    os.waitpid(fork(lambda: find_and_extract(root / "alone", settings, agreed, lambda: None)), 0)
    return {
        "failed": failed,
        "agreed": agreed,
        "digests": opened.content_digests(),
        "alone": open_cache(root / "alone").content_digests(),
        "left": leftovers(root / "at-once"),
    }


def find_and_extract(cache: Path, settings: Settings, found: dict[str, int], before: Callable[[], None]) -> None:
    def probe(teacher: Any, device: str) -> int:
        before()
        return found["batch"]

    teacher_column.probe_batch = probe
    torch.set_num_threads(found["threads"])
    extract(cache=cache, weights="random", quiet=True, **settings)


def note_blocks(kind: Any, log: Path) -> None:
    publish = kind.publish

    def noted(block: Any) -> None:
        with log.open("a") as file:
            file.write(f"{block.job.folder} {block.job.block} {time.monotonic()}\n")
        publish(block)

    kind.publish = noted


def finish(cache: Path, settings: Settings, log: Path) -> dict[str, Any]:
    """Run an extraction to its end and return what it did."""
    child = start(cache, settings, log)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"an extraction into {cache} failed")
    done: dict[str, Any] = json.loads(log.with_suffix(".json").read_text())
    return done | {"digests": open_cache(cache).content_digests()}


def marked(cache: Path) -> dict[str, list[int]]:
    """Return the blocks that are marked, by column folder."""
    found: dict[str, list[int]] = {}
    for marker in sorted(cache.glob("**/ticks/[0-9]*.json")):
        found.setdefault(str(marker.parent.parent.relative_to(cache)), []).append(int(marker.stem))
    return found


def computed(log: Path) -> dict[str, list[int]]:
    """Return the blocks that were computed, by column folder."""
    found: dict[str, list[int]] = {}
    for line in log.read_text().splitlines() if log.exists() else []:
        folder, block, _ = line.split()
        found.setdefault(folder, []).append(int(block))
    return found


def moments(log: Path) -> list[float]:
    """Return when each block was computed, in seconds of the machine's monotonic clock."""
    return [float(line.split()[-1]) for line in log.read_text().splitlines()] if log.exists() else []


def kill_once(cache: Path, settings: Settings, blocks: int, after_s: float) -> dict[str, Any]:
    """Kill an extraction a while after it has computed so many blocks, unless it ends before.

    Counted in blocks, the kill meets the same work on a busy machine as on a calm one.

    Returns:
        What it had computed and marked.
    """
    log = cache.with_name(f"{cache.name}-{time.monotonic_ns()}")
    before = marked(cache)
    child = start(cache, settings, log)
    ended = False
    while len(moments(log)) < blocks and not ended:
        time.sleep(0.001)
        ended = os.waitpid(child, os.WNOHANG)[0] != 0
    if not ended:
        time.sleep(after_s)
        ended = os.waitpid(child, os.WNOHANG)[0] != 0
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    after = marked(cache)
    lost = {f: sorted(set(b) - set(after.get(f, []))) for f, b in computed(log).items()}
    again = {f: sorted(set(b) & set(before.get(f, []))) for f, b in computed(log).items()}
    return {"ended": ended, "marked": after, "lost": lost, "again": again}


def kill(root: Path, settings: Settings, runs: int, chained: int, seed: int) -> dict[str, Any]:
    """Kill `runs` extractions once each, and one up to `chained` times, always resumed; compare with one left in peace.

    The `runs` moments lie one in each of as many equal parts of the life of the one left in peace.
    """
    chance = random.Random(seed)
    finish(root / "warm", settings, root / "warm-log")
    started_s = time.monotonic()
    reference = finish(root / "reference", settings, root / "reference-log")
    life_s = time.monotonic() - started_s
    reached_s = [0.0, *(at - started_s for at in moments(root / "reference-log"))]

    def kill_at(cache: Path, share: float) -> dict[str, Any]:
        blocks = sum(at <= share * life_s for at in reached_s) - 1
        return kill_once(cache, settings, blocks, share * life_s - reached_s[blocks])

    kills = []
    for number in range(runs):
        cache = root / f"run{number}"
        killed = kill_at(cache, (number + chance.random()) / runs)
        kills.append(
            killed | {"finished": finish(cache, settings, root / f"run{number}-log"), "left": leftovers(cache)}
        )
        shutil.rmtree(cache)
    chain = []
    while chained and len(chain) < chained and not (chain and chain[-1]["ended"]):
        chain.append(kill_at(root / "chain", chance.uniform(0.2, 0.8)))
    chained_end = finish(root / "chain", settings, root / "chain-log") if chained else None
    return {"life_s": life_s, "reference": reference, "kills": kills, "chain": chain, "chained_end": chained_end}


def leftovers(cache: Path) -> list[str]:
    """Return the temporary files that are still there."""
    return [str(path) for path in cache.rglob(".tmp-*")]


def together(root: Path, several: list[Settings]) -> dict[str, Any]:
    """Run extractions into one cache at once, and into another one after the other; return what became of both."""
    logs = [root / f"together-log{number}" for number in range(len(several))]
    children = [start(root / "together", settings, log) for settings, log in zip(several, logs, strict=True)]
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    for number, settings in enumerate(several):
        calm = finish(root / "in-turn", settings, root / f"in-turn-log{number}")
    digests = open_cache(root / "together").content_digests()
    return {"failed": len(failed), "digests": digests, "in_turn": calm["digests"], "left": leftovers(root / "together")}


def beside(root: Path, cache: str, works: list[dict[str, Any]]) -> dict[str, Any]:
    """Do several things with one cache at once, each in a child of its own that begins `after_s` seconds late.

    Args:
        root: for what is written beside the cache.
        cache: its folder.
        works: each `{"do": a name in WORKS, "after_s": seconds, ...}`, the rest what it takes.

    Returns:
        For each work `{"said": what it returned}` or `{"error": class, "line": message}`; and what is left over.
    """

    def work(number: int, do: str, after_s: float = 0, **options: Any) -> None:
        time.sleep(after_s)
        try:
            said = {"said": WORKS[do](Path(cache), **options)}
        except DifomError as error:
            said = {"error": type(error).__name__, "line": str(error)}
        (root / f"work{number}.json").write_text(json.dumps(said))

    children = [fork(partial(work, number, **each)) for number, each in enumerate(works)]
    for child in children:
        os.waitpid(child, 0)
    told = [root / f"work{number}.json" for number in range(len(works))]
    said = [json.loads(path.read_text()) if path.exists() else {"error": "a traceback, on stderr"} for path in told]
    for path in told:
        path.unlink(missing_ok=True)
    return {"works": said, "left": leftovers(Path(cache))}


def command(root: Path, words: list[str], kill_at: str | None) -> dict[str, Any]:
    """Run `difom-cache` as its entry point does, in a child; kill it once a file of the pattern `kill_at` is below `root`.

    Returns:
        Its exit code, negative where a signal ended it, and what it wrote to the standard error.
    """
    errors = root / "errors.txt"

    def work() -> None:
        with errors.open("w") as file, Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = ["difom-cache", *words]
        try:
            cli.main()
        except SystemExit as ended:
            sys.stderr.flush()
            os._exit(int(ended.code or 0))

    child = fork(work)
    ended = status = 0
    while kill_at and not ended and not list(root.glob(kill_at)):
        time.sleep(0.005)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        if kill_at:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    return {"code": os.waitstatus_to_exitcode(status), "errors": errors.read_text()}


def work_extract(cache: Path, summed: bool = True, **settings: Any) -> bool:
    """Extract and return whether all is there; without `summed`, as a run that ends before it sums up statistics."""
    if not summed:
        missing.fold_statistics = lambda *_: False
    return extract(cache=cache, weights="random", quiet=True, **settings).complete


def work_train(cache: Path, out: str, **options: Any) -> str:
    """Train, and return the digest of the student's weights."""
    train("unet", cache=cache, out=out, width=4, input_size=32, batch_size=4, device="cpu", logger="none", **options)
    return hashlib.sha256(Path(out, "student.safetensors").read_bytes()).hexdigest()


def work_info(cache: Path) -> dict[str, Any]:
    """Return the finished blocks of each column, read again and again for a while."""
    for _ in range(20):
        facts = info(cache)
        time.sleep(0.02)
    return {folder: column["finished_blocks"] for folder, column in facts["columns"].items()}


WORKS: dict[str, Callable[..., Any]] = {
    "extract": work_extract,
    "train": work_train,
    "info": work_info,
    "verify": lambda cache: verify(cache).problems,
    "drop": lambda cache, teacher: drop(cache, teacher),
    "finish": lambda cache: finish_cache(cache),
}


def main() -> None:
    """Answer every line of the standard input."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        ask = json.loads(line)
        root = Path(ask.pop("root"))
        for settings in ask.pop("load") if "load" in ask else ask.get("several", [ask.get("settings")]):
            load(settings)
        task = {"kill": kill, "together": together, "at_once": at_once, "beside": beside, "command": command}[
            ask.pop("task")
        ]
        print(json.dumps(task(root, **ask)), flush=True)


if __name__ == "__main__":
    main()
