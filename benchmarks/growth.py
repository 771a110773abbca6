"""What grows with the number of records: a start of `extract` with nothing left to do, opening a cache, asking what it holds.

The records are those of a manifest whose files are small pictures, no two alike, and the cache is complete, so that nothing is
decoded and no teacher is run: what is timed is the bookkeeping.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.made_caches import write_blank_cache
from benchmarks.options import GrowthConfig
from difom_cache import Record, extract, info, load_records, open_cache, write_manifest
from difom_cache.base.errors import SettingsError
from difom_cache.base.text import format_table
from difom_cache.views import draw_plan

PICTURE_PX = 8
MOST_FILES = 100_000  # of a folder that is read file by file; a longer manifest names each of them several times


@dataclass(frozen=True)
class Growth:
    """CPU seconds of each step, one for each number of records.

    Attributes:
        records: rising numbers.
        cpu_s: by step.
        plan_digests: of each number, by which two versions can be seen to draw the same views.
    """

    records: tuple[int, ...]
    cpu_s: dict[str, tuple[float, ...]]
    plan_digests: tuple[str, ...]

    @property
    def exponents(self) -> dict[str, float]:
        """By which power of the records the seconds grow between the two largest numbers; nothing for a single number."""
        return {
            step: math.log(seconds[-1] / seconds[-2]) / math.log(held[-1] / held[-2])
            for step, seconds in self.cpu_s.items()
            if len(held := self.records[: len(seconds)]) > 1
        }

    def render(self) -> str:
        """Return one line a step."""
        rows = [["CPU seconds, records", *(f"{each:,}" for each in self.records), "exponent"]]
        for step, seconds in self.cpu_s.items():
            cells = [f"{each:.3f}" for each in seconds] + ["-"] * (len(self.records) - len(seconds))
            rows.append([step, *cells, f"{self.exponents[step]:.2f}" if step in self.exponents else "-"])
        return format_table(rows)

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        return asdict(self) | {"exponents": self.exponents}


def bench_growth(config: GrowthConfig) -> Growth:
    """Return the CPU seconds of this process for each step and number of records, each of which has one view.

    Images, manifests and caches are made in the folder, unless they are there already.

    Raises:
        SettingsError: numbers that do not rise.
    """
    folder, counts = config.folder, config.records
    if any(low >= high for low, high in pairwise(counts)):
        raise SettingsError(f"--records: expected rising numbers from 1, found {', '.join(map(str, counts))}")
    seconds: dict[str, list[float]] = {}
    digests = []
    for count in counts:
        place = folder / str(count)
        digests.append(_make_cache(place, count))
        for step, run in _list_steps(place, count).items():
            run()  # what is remembered of files is remembered from now on
            started_s = time.process_time()
            run()
            seconds.setdefault(step, []).append(time.process_time() - started_s)
    return Growth(counts, {step: tuple(each) for step, each in seconds.items()}, tuple(digests))


def _list_steps(place: Path, count: int) -> dict[str, Callable[[], object]]:
    manifest, cache = place / "records.csv", place / "feats"
    again: dict[str, Any] = {"teacher": (), "views": 1, "input_size": PICTURE_PX, "quiet": True}
    steps: dict[str, Callable[[], object]] = {
        "extract, all there": lambda: extract(data=manifest, cache=cache, **again),
        "open": lambda: open_cache(cache),
        "info": lambda: info(cache),
    }
    if count <= MOST_FILES:
        steps["folder as --data"] = lambda: load_records(place / "pictures", unlabelled=True)
    return steps


def _make_cache(place: Path, count: int) -> str:
    """Make a complete cache of `count` records at `place`, unless it is there, and return its plan's digest."""
    pictures, manifest = place / "pictures" / "images", place / "records.csv"
    if not manifest.exists():
        pictures.mkdir(parents=True, exist_ok=True)
        write_manifest(_paint(pictures, count), manifest)
    records = load_records(manifest)
    plan = draw_plan(records, views=1, seed=0)
    write_blank_cache(place / "feats", records, plan, views=1, picture_px=PICTURE_PX)
    return plan.digest()


def _paint(pictures: Path, count: int) -> list[Record]:
    """Write as many pictures as a folder is tried with, and return records of them, over and over where there are more."""
    frames = []
    for number in range(min(count, MOST_FILES)):
        path = pictures / f"{number:06d}.png"
        red, green, blue = number.to_bytes(3)
        Image.new("RGB", (PICTURE_PX, PICTURE_PX), (red, green, blue)).save(path)
        digest = sha256(path.read_bytes()).hexdigest()
        frames.append(Record("", "growth", "train", path, None, PICTURE_PX, PICTURE_PX, digest, "", ""))
    return [replace(frames[number % len(frames)], id=f"growth/{number:07d}") for number in range(count)]
