"""Where the rows of a run are held while it trains: on disk, in RAM or on the GPU, decided from measured sizes.

A group of arrays (the pictures, or one tap's code and scale) is held as a whole or not at all. What is not held is gathered
from the cache for each batch.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difom_cache import PICTURES, FreshView
from difom_cache.errors import SettingsError
from difom_train.data.caches import HostBatch, JointCache
from difom_train.data.pictures import SourcePictures, picture_shapes

GPU_SHARE, RAM_SHARE = 0.5, 0.5  # of the free memory: the network, its gradients and the workspace need the rest
_COPY_ROWS = 256
_ALIGNED_BYTES = 4096


class Rows:
    """Rows of the cache as batches in host buffers, whatever their pictures come from."""

    def __init__(self, cache: JointCache, source: SourcePictures | None = None) -> None:
        self.cache, self._source = cache, source
        self._keeps_valid = source is not None or cache.pads

    def gather(
        self,
        rows: NDArray[np.int64],
        groups: Sequence[str],
        out: HostBatch,
        fresh: Sequence[FreshView | None] | None = None,
    ) -> None:
        """Fill `out` with the arrays of `groups`: `pictures` and full tap names; rendered pictures show the views of `fresh`."""
        taps = [group for group in groups if group != PICTURES]
        pictures = PICTURES in groups
        stored = pictures and self._source is None
        if taps or stored:
            self.cache.gather(rows, taps, out, pictures=stored)
        if pictures and self._source is not None:
            self._source.fill(rows, out, fresh)

    def empty(self, number: int, groups: Sequence[str], *, pin: bool = False) -> dict[str, Tensor]:
        """Return buffers for `number` rows of `groups`; `valid` is among them only where not all is valid."""
        taps = [group for group in groups if group != PICTURES]
        rows: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        if PICTURES in groups:
            shapes = picture_shapes(self.cache.picture_px, valid=self._keeps_valid)
            rows |= {key: (tuple(shape), torch.uint8) for key, shape in shapes.items()}
        if taps:
            sample = self.cache.gather(np.zeros(1, np.int64) + self._first_row(taps), taps, pictures=False)
            rows |= {key: (array.shape[1:], torch.from_numpy(array).dtype) for key, array in sample.items()}
        return _allocate({key: ((number, *shape), dtype) for key, (shape, dtype) in rows.items()}, pin=pin)

    @property
    def renders_anew(self) -> bool:
        """Whether pictures are rendered while training, and so cannot be held."""
        return self._source is not None

    def _first_row(self, taps: Sequence[str]) -> int:
        return int(np.argmax(self.cache.finished_rows(taps, pictures=False)))


def _allocate(wanted: dict[str, tuple[tuple[int, ...], torch.dtype]], *, pin: bool) -> dict[str, Tensor]:
    """Return tensors that lie in one stretch of memory, which the system can then back with large pages."""
    sizes = {key: math.prod(shape) * dtype.itemsize for key, (shape, dtype) in wanted.items()}
    starts = list(accumulate((-(-size // _ALIGNED_BYTES) * _ALIGNED_BYTES for size in sizes.values()), initial=0))
    # NumPy asks for large pages where an array has 4 MB or more; torch does not.
    own = np.empty(0 if pin else starts[-1], np.uint8)
    stretch = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=True) if pin else torch.from_numpy(own)
    return {
        key: stretch[start : start + sizes[key]].view(dtype).view(shape)
        for start, (key, (shape, dtype)) in zip(starts, wanted.items(), strict=False)
    }


@dataclass
class Stage:
    """Rows, some groups of which are held in memory."""

    rows: Rows
    where: str
    place: NDArray[np.int64]
    "(R,) place of each row of the cache among the held ones, -1 where it is not held."
    held: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    "Group -> key -> (held rows, ...), on the CPU or on the GPU."
    line: str = ""
    "What was decided and why, in one line."

    def host_groups(self, groups: Sequence[str]) -> list[str]:
        """Return the groups that go through host buffers: all but those held on the GPU."""
        return [group for group in groups if not (self.where == "gpu" and group in self.held)]

    def fill(
        self,
        rows: NDArray[np.int64],
        groups: Sequence[str],
        out: HostBatch,
        fresh: Sequence[FreshView | None] | None = None,
    ) -> None:
        """Fill the first rows of host buffers with the groups that go through them."""
        groups = self.host_groups(groups)
        held = [group for group in groups if group in self.held]
        for group in held:
            for key, tensor in self.held[group].items():
                np.take(tensor.numpy(), self.place[rows], axis=0, out=out[key][: len(rows)], mode="clip")
        rest = [group for group in groups if group not in held]
        if rest:
            self.rows.gather(rows, rest, out, fresh)

    def pick(self, rows: NDArray[np.int64], groups: Sequence[str]) -> dict[str, Tensor]:
        """Return what is held of `rows` on the GPU."""
        if self.where != "gpu" or not any(group in self.held for group in groups):
            return {}
        device = next(iter(next(iter(self.held.values())).values())).device
        places = torch.from_numpy(self.place[rows]).to(device, non_blocking=True)
        return {
            key: tensor.index_select(0, places) for group in groups for key, tensor in self.held.get(group, {}).items()
        }


def choose_stage(
    wanted: str, *, rows: Rows, used: NDArray[np.int64], groups: Sequence[str], device: torch.device, processes: int = 1
) -> Stage:
    """Return the stage, filled.

    Args:
        wanted: auto, disk, ram or gpu. auto takes the GPU where everything fits into half of its free memory, else the
            disk, whose pages the system keeps in RAM as far as there is room.
        rows: of the run.
        used: (U,) numbers of the rows that the run visits.
        groups: what is read of each.
        device: where the student trains.
        processes: on this machine, which share its RAM.

    Raises:
        SettingsError: gpu was asked for without a CUDA device.
    """
    if wanted == "gpu" and device.type != "cuda":
        raise SettingsError(f"--stage gpu needs a CUDA device, but this run is on {device}; use auto, disk or ram")
    holdable = [group for group in groups if not (group == PICTURES and rows.renders_anew)]
    bytes_of = {group: len(used) * _row_bytes(rows, group) for group in holdable}
    free_bytes = {"gpu": _free_gpu_bytes(device), "ram": _free_ram_bytes() // max(1, processes)}
    all_bytes = sum(bytes_of.values())
    if wanted == "auto":
        wanted = "gpu" if device.type == "cuda" and all_bytes <= GPU_SHARE * free_bytes["gpu"] else "disk"
    if wanted == "disk":
        line = (
            f"stage: disk, {len(used)} views of {_gigabytes(all_bytes)} ({_gigabytes(free_bytes['ram'])} of RAM free)"
        )
        return Stage(rows, "disk", np.empty(0, np.int64), line=line)
    chosen = _choose_groups(bytes_of, (GPU_SHARE if wanted == "gpu" else RAM_SHARE) * free_bytes[wanted])
    held_bytes = sum(bytes_of[group] for group in chosen)
    line = (
        f"stage: {wanted}, {len(used)} views, {_gigabytes(held_bytes)} of {_gigabytes(all_bytes)} held "
        f"({_gigabytes(free_bytes[wanted])} free)"
    )
    place = np.full(len(rows.cache), -1, np.int64)
    place[used] = np.arange(len(used))
    target = device if wanted == "gpu" else torch.device("cpu")
    return Stage(rows, wanted, place, {group: _hold(rows, used, group, target) for group in chosen}, line)


def _choose_groups(bytes_of: dict[str, int], limit_bytes: float) -> list[str]:
    """Return the groups that fit together, the smallest first: taps are small and read for every distilled step."""
    chosen: list[str] = []
    for group in sorted(bytes_of, key=lambda each: bytes_of[each]):
        if bytes_of[group] + sum(bytes_of[each] for each in chosen) <= limit_bytes:
            chosen.append(group)
    return chosen


def _hold(rows: Rows, used: NDArray[np.int64], group: str, device: torch.device) -> dict[str, Tensor]:
    held = {key: torch.empty_like(one, device=device) for key, one in rows.empty(len(used), [group]).items()}
    for start in range(0, len(used), _COPY_ROWS):
        part = used[start : start + _COPY_ROWS]
        buffers = rows.empty(len(part), [group])
        rows.gather(part, [group], {key: tensor.numpy() for key, tensor in buffers.items()})
        for key, tensor in buffers.items():
            held[key][start : start + len(part)] = tensor.to(device)
    return held


def _row_bytes(rows: Rows, group: str) -> int:
    return sum(tensor.nbytes for tensor in rows.empty(1, [group]).values())


def _free_gpu_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def _free_ram_bytes() -> int:
    """Return what the system says it could give without swapping, page cache included where that is known."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _gigabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.2f} GB"
