"""What a run did, and where its time went: seconds by stage, on the CPU's clock or by events on a CUDA stream."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from difom_cache.base.text import format_seconds
from difom_cache.extraction.estimate import Estimate

STAGES = ("decode", "render", "teacher", "encode", "copy", "write", "wait")


@dataclass
class ExtractReport:
    """What a run did: the estimate it began with, seconds by column and stage, blocks computed, missing, and missing
    of this run's own part (`left_blocks`), which is a failure."""

    cache: Path
    estimate: Estimate
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    wall_s: dict[str, float] = field(default_factory=dict)
    views: Counter[str] = field(default_factory=Counter)
    computed_blocks: Counter[str] = field(default_factory=Counter)
    missing_blocks: dict[str, int] = field(default_factory=dict)
    left_blocks: dict[str, list[int]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every block of every column of this run is finished."""
        return not any(self.missing_blocks.values())


def format_rates(report: ExtractReport) -> str:
    """Return one table of seconds by stage, and what each column was limited by."""
    lines = []
    for folder, seconds in report.seconds.items():
        views = report.views[folder]
        missing = report.missing_blocks.get(folder, 0)
        state = f"{missing} blocks missing" if missing else "complete"
        if not views:
            lines.append(f"{folder}: {state}, nothing to compute")
            continue
        wall_s = report.wall_s[folder]
        lines.append(f"{folder}: {state}; {views} views in {format_seconds(wall_s)}, {views / wall_s:.1f} views/s")
        lines.append("  " + "  ".join(f"{stage} {seconds[stage]:.1f} s" for stage in STAGES))
        lines.append(f"  limited by {name_limit(seconds)}")
    return "\n".join(lines)


def name_limit(seconds: dict[str, Any]) -> str:
    """Return the stage that the pass waited for longest, in words."""
    if seconds["wait"] > seconds["teacher"] + seconds["render"] + seconds["encode"] + seconds["copy"]:
        return "reading and decoding pictures" if seconds["decode"] > seconds["write"] else "writing to the disk"
    stage = max(("render", "teacher", "encode", "copy"), key=lambda name: seconds[name])
    return {"render": "rendering views", "teacher": "the teacher", "encode": "pooling and encoding"}.get(
        stage, "copying codes"
    )


class Stopwatch:
    """Seconds by stage. Work on a CUDA device is timed by events, so that measuring does not make the host wait."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def on_host(self, stage: str) -> Iterator[None]:
        """Count what the block takes on the host's clock."""
        started_s = time.perf_counter()
        yield
        self._seconds[stage] += time.perf_counter() - started_s

    @contextmanager
    def on_device(self, stage: str) -> Iterator[None]:
        """Count what the block takes on the device."""
        if self._device.type != "cuda":
            with self.on_host(stage):
                yield
            return
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        stream = torch.cuda.current_stream(self._device)
        start.record(stream)
        yield
        stop.record(stream)
        self._events.append((stage, start, stop))

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds that another thread measured."""
        self._seconds[stage] += seconds

    def read(self) -> dict[str, float]:
        """Return the seconds since the last reading, by stage, and start from zero."""
        for stage, start, stop in self._events:
            stop.synchronize()
            self._seconds[stage] += start.elapsed_time(stop) / 1000
        seconds = {stage: self._seconds.get(stage, 0.0) for stage in STAGES}
        self._seconds, self._events = defaultdict(float), []
        return seconds
