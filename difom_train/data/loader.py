"""Batches for the student, gathered one ahead by a thread into buffers that are used again and again."""

import queue
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difom_train.data.stage import Stage

_DEPTH = 2  # batches gathered ahead
_STOP_POLL_S = 0.1


@dataclass
class Batch:
    """What is stored of some rows, on the student's device.

    `tensors` holds `image` (B, H, W, 3), `mask` and `valid` (B, H, W) as uint8, and `<tap>/code`, `<tap>/scale`. They are
    buffers: on the CPU they change once the next batch is asked for.
    """

    rows: NDArray[np.int64]
    tensors: dict[str, Tensor]


@dataclass
class _Slot:
    """One set of host buffers, and the moment from which they may be written again."""

    buffers: dict[str, Tensor]
    copied: Any = None


@dataclass
class DataTimer:
    """How long a consumer stood still for data, in seconds."""

    wait_s: float = 0.0
    since: float = field(default_factory=time.perf_counter)

    @property
    def frac(self) -> float:
        """Share of the time since the start that was spent waiting."""
        return self.wait_s / max(time.perf_counter() - self.since, 1e-9)


class Loader:
    """Turns rows into batches on one device.

    Args:
        stage: where the rows are held.
        batch_rows: most rows in a batch.
        device: where batches go.
    """

    def __init__(self, stage: Stage, batch_rows: int, device: torch.device) -> None:
        self.stage, self._batch_rows, self._device = stage, batch_rows, device
        self._slots: dict[tuple[str, ...], list[_Slot]] = {}

    def batches(
        self,
        table: NDArray[np.int64] | Sequence[NDArray[np.int64]],
        groups: Sequence[str],
        timer: DataTimer | None = None,
    ) -> Generator[Batch, None, None]:
        """Yield one batch for each line of `table` (batches, rows), with the arrays of `groups`.

        The thread that gathers ends with the iterator, and what it raises is raised here.
        """
        timer = timer or DataTimer()
        slots = self._slots_for(tuple(self.stage.host_groups(groups)))
        free: queue.Queue[_Slot] = queue.Queue()
        ready: queue.Queue[tuple[NDArray[np.int64], _Slot] | BaseException | None] = queue.Queue()
        for slot in slots:
            free.put(slot)
        stop = threading.Event()
        thread = threading.Thread(
            target=self._gather, args=(table, groups, free, ready, stop), name="gather", daemon=True
        )
        thread.start()
        try:
            while True:
                asked = time.perf_counter()
                item = ready.get()
                timer.wait_s += time.perf_counter() - asked
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                rows, slot = item
                yield self._bring(rows, slot, groups)
                free.put(slot)
        finally:
            stop.set()
            thread.join()

    def _gather(
        self,
        table: Sequence[NDArray[np.int64]],
        groups: Sequence[str],
        free: "queue.Queue[_Slot]",
        ready: "queue.Queue[Any]",
        stop: threading.Event,
    ) -> None:
        try:
            for rows in table:
                slot = _next_slot(free, stop)
                if slot is None:
                    return
                if slot.copied is not None:
                    slot.copied.synchronize()
                self.stage.fill(rows, groups, {key: each[: len(rows)].numpy() for key, each in slot.buffers.items()})
                ready.put((rows, slot))
            ready.put(None)
        except BaseException as error:  # carried to the consumer, who raises it
            ready.put(error)

    def _bring(self, rows: NDArray[np.int64], slot: _Slot, groups: Sequence[str]) -> Batch:
        """Return the batch on the device: the buffers themselves on the CPU, copies on a GPU."""
        tensors = {key: each[: len(rows)] for key, each in slot.buffers.items()}
        if self._device.type == "cuda":
            tensors = {key: each.to(self._device, non_blocking=True) for key, each in tensors.items()}
            slot.copied = torch.cuda.Event()
            slot.copied.record()
        return Batch(rows, tensors | self.stage.pick(rows, groups))

    def _slots_for(self, groups: tuple[str, ...]) -> list[_Slot]:
        if groups not in self._slots:
            pin = self._device.type == "cuda"
            rows = self.stage.rows
            self._slots[groups] = [_Slot(rows.empty(self._batch_rows, groups, pin=pin)) for _ in range(_DEPTH + 1)]
        return self._slots[groups]


def _next_slot(free: "queue.Queue[_Slot]", stop: threading.Event) -> _Slot | None:
    """Return a free slot, or None once nobody wants batches any more."""
    while not stop.is_set():
        try:
            return free.get(timeout=_STOP_POLL_S)
        except queue.Empty:
            continue
    return None
