"""Batches for the student, gathered ahead by threads into buffers that are used again and again."""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difom_cache.views import FreshView, Warps
from difom_train.data.stage import Stage, allocate

NOTES, _NOTE_BYTES, _ALIGNED_BYTES = "notes", 128, 16  # the first is for each row and some more
_AHEAD = 2  # batches gathered at once while one is used, a thread each: one core does not fill a machine's memory bus


@dataclass
class Batch:
    """What is stored of some rows, on the student's device.

    `tensors` holds `image` (B, H, W, 3), `mask` and `valid` (B, H, W) as uint8, and `<tap>/code`, `<tap>/scale`. They are
    buffers: on the CPU they change once the next batch is asked for. Where all is valid, `valid` is one byte seen as many.
    """

    rows: NDArray[np.int64]
    tensors: dict[str, Tensor]
    fresh: list[FreshView | None] | None = None
    "Where views are drawn anew: what each picture shows in place of view 0, whose maps are in `tensors`; None = a stored view."

    @property
    def warps(self) -> Warps | None:
        """The same views on the device."""
        names = ("places", "matrices", "stored")
        return None if self.fresh is None else Warps(*(self.tensors[name] for name in names))


@dataclass
class _Slot:
    """One set of host buffers, and the moment from which they may be written again."""

    stretch: Tensor
    buffers: dict[str, Tensor]
    copied: Any = None

    def __post_init__(self) -> None:
        self.arrays = {key: tensor.numpy() for key, tensor in self.buffers.items()}


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
        self._all_valid = torch.ones((), dtype=torch.uint8, device=device)

    def batches(
        self,
        table: NDArray[np.int64] | Sequence[NDArray[np.int64]],
        groups: Sequence[str],
        timer: DataTimer | None = None,
        fresh: Iterable[list[FreshView | None]] | None = None,
        notes: Iterable[dict[str, Tensor]] | None = None,
    ) -> Generator[Batch, None, None]:
        """Yield one batch for each line of `table` (batches, rows), with the arrays of `groups`, and its line of `fresh`.

        Its line of `notes` is among its tensors; all that goes to a GPU goes there in one copy. The threads that gather end with
        the iterator, and what they raise is raised here.
        """
        timer = timer or DataTimer()
        lines = zip(table, repeat(None) if fresh is None else fresh, strict=False)
        own_notes: Iterator[dict[str, Tensor]] = repeat({}) if notes is None else iter(notes)
        free = deque(self._slots_for(tuple(self.stage.host_groups(groups))))
        ahead: deque[tuple[NDArray[np.int64], list[FreshView | None] | None, _Slot, Future[None]]] = deque()
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="gather") as pool:
            try:
                while True:
                    while free and (line := next(lines, None)) is not None:
                        slot = free.popleft()
                        ahead.append((*line, slot, pool.submit(self._fill, *line, groups, slot)))
                    if not ahead:
                        return
                    rows, views, slot, filled = ahead.popleft()
                    asked = time.perf_counter()
                    filled.result()
                    timer.wait_s += time.perf_counter() - asked
                    yield self._bring(rows, views, slot, groups, next(own_notes))
                    free.append(slot)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _fill(
        self, rows: NDArray[np.int64], fresh: list[FreshView | None] | None, groups: Sequence[str], slot: _Slot
    ) -> None:
        if slot.copied is not None:
            slot.copied.synchronize()
        self.stage.fill(rows, groups, slot.arrays, fresh)

    def _bring(
        self,
        rows: NDArray[np.int64],
        fresh: list[FreshView | None] | None,
        slot: _Slot,
        groups: Sequence[str],
        notes: dict[str, Tensor],
    ) -> Batch:
        """Return the batch on the device: the buffers themselves on the CPU, copies on a GPU."""
        tensors = {key: each[: len(rows)] for key, each in slot.buffers.items() if key != NOTES} | notes
        if self._device.type == "cuda":
            if self.stage.where == "gpu":
                notes = notes | {"held": torch.from_numpy(self.stage.places(rows))}
            tensors |= _write_notes(notes, slot.buffers[NOTES])
            there = slot.stretch.to(self._device, non_blocking=True)
            slot.copied = torch.cuda.Event()
            slot.copied.record(torch.cuda.current_stream(self._device))
            tensors = {key: _same_place(each, slot.stretch, there) for key, each in tensors.items()}
            if self.stage.where == "gpu":
                tensors |= self.stage.pick(tensors.pop("held"), groups)
        if "mask" in tensors and "valid" not in tensors:
            tensors["valid"] = self._all_valid.expand_as(tensors["mask"])
        return Batch(rows, tensors, fresh)

    def _slots_for(self, groups: tuple[str, ...]) -> list[_Slot]:
        if groups not in self._slots:
            pin = self._device.type == "cuda"
            notes = {NOTES: ((_NOTE_BYTES * (self._batch_rows + 1),), torch.uint8)}
            shapes = self.stage.shapes(self._batch_rows, groups) | notes
            self._slots[groups] = [_Slot(*allocate(shapes, pin=pin)) for _ in range(_AHEAD + 1)]
        return self._slots[groups]


def _write_notes(notes: dict[str, Tensor], into: Tensor) -> dict[str, Tensor]:
    """Copy tensors into a buffer of bytes, one behind the other, and return them as they lie there."""
    written, start = {}, 0
    for key, each in notes.items():
        place = into[start : start + each.nbytes].view(each.dtype).view(each.shape)
        written[key] = place.copy_(each)
        start += -(-each.nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
    return written


def _same_place(part: Tensor, stretch: Tensor, there: Tensor) -> Tensor:
    """Return of `there`, a copy of `stretch`, what `part` is of `stretch`."""
    start = part.data_ptr() - stretch.data_ptr() if part.nbytes else 0
    return there[start : start + part.nbytes].view(part.dtype).view(part.shape)
