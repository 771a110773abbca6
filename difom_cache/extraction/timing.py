"""Where the time of a pass goes: seconds by stage, on the CPU's clock or by events on a CUDA stream."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

STAGES = ("decode", "render", "teacher", "encode", "copy", "write", "wait")


class Stopwatch:
    """Seconds by stage. Work on a CUDA device is timed by events, so that measuring does not make the host wait."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
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
        if not self._cuda:
            with self.on_host(stage):
                yield
            return
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        yield
        stop.record()
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
