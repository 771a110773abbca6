"""Where the rows of a run are held while it trains: on disk, in RAM or on the GPU, decided from measured sizes.

A group of arrays (the pictures, or one tap's code and scale) is held as a whole or not at all. What is not held is gathered
from the cache for each batch.
"""

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, repeat
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difom_cache import Record, ViewParams, load_records, read_image, read_mask, replay_image, replay_mask
from difom_cache.base.errors import DataError, ManifestError, SettingsError
from difom_cache.data import DataSource, refuse_other_reading
from difom_cache.store import NO_MASK, PICTURES
from difom_cache.views import FreshView, replay_valid
from difom_train.data.caches import HostBatch, JointCache

GPU_SHARE, RAM_SHARE = 0.5, 0.5  # of the free memory: the network, its gradients and the workspace need the rest
_COPY_ROWS = 256
_ALIGNED_BYTES = 4096
_SHOWN_IDS = 3
Shapes = dict[str, tuple[tuple[int, ...], torch.dtype]]


class SourcePictures:
    """The picture files behind the rows of a cache, rendered row by row on a few threads.

    Args:
        cache: whose rows are rendered.
        data: the pictures that the cache was made from.
        threads: that render.
    """

    def __init__(self, cache: JointCache, data: DataSource, *, threads: int = 4) -> None:
        self._cache = cache
        records = load_records(data, unlabelled=True)
        self._records = {record.id: record for record in records}
        self._by_content = {_digests(record): record for record in records}
        self._refuse_others(data.place)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="render")

    def fill(self, rows: NDArray[np.int64], out: HostBatch, fresh: Sequence[FreshView | None] | None = None) -> None:
        """Render `rows` into `image` (B, S, S, 3), `mask` and `valid` (B, S, S) of `out`, all uint8.

        Args:
            rows: of the cache.
            out: buffers.
            fresh: (B,) the view that each shows in place of the one that the cache recorded; None where it shows that one.
        """
        records = [self._find(line) for line in self._cache.records_of(rows)]
        views = [ViewParams.from_row(numbers) for numbers in self._cache.params(rows)]
        if fresh is not None:
            views = [new[0] if new else own for new, own in zip(fresh, views, strict=True)]
        list(self._pool.map(self._fill_one, range(len(rows)), records, views, repeat(out)))

    def _find(self, line: Mapping[str, str]) -> Record:
        """Return the record of a cache's line: of its name, or, where another image has that name here, of its content."""
        named = self._records.get(line["id"])
        return named if named and _digests(named) == _digests(line) else self._by_content[_digests(line)]

    def _fill_one(self, place: int, record: Record, params: ViewParams, out: HostBatch) -> None:
        side_px = out["image"].shape[1]
        # As extraction lays it out: another memory layout resamples to other last bits.
        picture = np.ascontiguousarray(read_image(record.image, max_pixels=None).transpose(2, 0, 1))  # -> (3, H, W)
        view = replay_image(torch.from_numpy(picture), params, side_px)
        out["image"][place] = (view * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        out["valid"][place] = replay_valid(params, side_px).numpy()
        mask = None if record.mask is None else torch.from_numpy(read_mask(record.mask, max_pixels=None))
        out["mask"][place] = NO_MASK if mask is None else replay_mask(mask, params, side_px).numpy()

    def _refuse_others(self, data: Path) -> None:
        """Raise unless `data` holds every record of the cache, unchanged."""
        lines = [line for part in self._cache.parts for line in part.table.records]
        others = [line["id"] for line in lines if _digests(line) not in self._by_content]
        absent = [record_id for record_id in others if record_id not in self._records]
        if absent:
            raise DataError(
                f"{data} lacks {len(absent)} of the {len(lines)} records of the cache, such as "
                f"{', '.join(absent[:_SHOWN_IDS])}; give the data that the cache was extracted from"
            )
        if others:
            raise ManifestError(
                f"{len(others)} pictures or masks in {data} changed since the cache was made, such as "
                f"{', '.join(others[:_SHOWN_IDS])}; restore them, or extract a new cache"
            )
        for part in self._cache.parts:
            own = [self._records[str(line["id"])] for line in part.table.records]
            refuse_other_reading(part.identity.reading, own, part.path)


def _digests(of: Record | Mapping[str, str]) -> tuple[str, str]:
    """Return the digests of image and mask of a record, or of a cache's line."""
    line = vars(of) if isinstance(of, Record) else of
    return line["image_sha256"], line["mask_sha256"]


class Stage:
    """Rows of a cache as batches in host buffers, whatever their pictures come from; groups of arrays may be held in memory.

    Attributes:
        held: group -> key -> (held rows, ...), on the CPU or on the GPU.
        where: "disk", "ram" or "gpu".
        line: what was decided and why, in one line.
        renders_anew: whether pictures are rendered while training, and so cannot be held.
    """

    def __init__(self, cache: JointCache, source: SourcePictures | None = None) -> None:
        self._cache, self._source = cache, source
        self._place = np.full(len(cache), -1)  # of each row among the held ones
        self.held: dict[str, dict[str, Tensor]] = {}
        self.where, self.line, self.renders_anew = "disk", "", source is not None

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
        """Fill the first rows of host buffers with the groups that go through them.

        Args:
            rows: of the cache.
            groups: `pictures` and full names of taps.
            out: buffers.
            fresh: views that rendered pictures show in place of their own.
        """
        rest = self.host_groups(groups)
        for group in [each for each in rest if each in self.held]:
            rest.remove(group)
            for key, tensor in self.held[group].items():
                np.take(tensor.numpy(), self._place[rows], axis=0, out=out[key][: len(rows)], mode="clip")
        taps = [group for group in rest if group != PICTURES]
        stored = PICTURES in rest and self._source is None
        if taps or stored:
            self._cache.gather(rows, taps, out, pictures=stored)
        if PICTURES in rest and self._source is not None:
            self._source.fill(rows, out, fresh)

    def shapes(self, number: int, groups: Sequence[str]) -> Shapes:
        """Return what `number` rows of `groups` take; `valid` is among them only where not all is valid."""
        taps = [group for group in groups if group != PICTURES]
        wanted: Shapes = {}
        if PICTURES in groups:
            plane = (number, self._cache.picture_px, self._cache.picture_px)
            wanted |= {"image": ((*plane, 3), torch.uint8), "mask": (plane, torch.uint8)}
            if self.renders_anew or self._cache.pads:
                wanted["valid"] = plane, torch.uint8
        if taps:
            first = int(np.argmax(self._cache.finished_rows(taps, pictures=False)))
            sample = self._cache.gather(np.array([first]), taps, pictures=False)
            wanted |= {key: ((number, *each.shape[1:]), torch.from_numpy(each).dtype) for key, each in sample.items()}
        return wanted

    def row_bytes(self, group: str) -> int:
        """Return the bytes of one row of a group."""
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self.shapes(1, [group]).values())

    def hold(self, used: NDArray[np.int64], groups: Sequence[str], device: torch.device) -> None:
        """Hold some rows of some groups."""
        for group in groups:
            shapes = self.shapes(len(used), [group])
            held = {key: torch.empty(shape, dtype=dtype, device=device) for key, (shape, dtype) in shapes.items()}
            for start in range(0, len(used), _COPY_ROWS):
                part = used[start : start + _COPY_ROWS]
                _, buffers = allocate(self.shapes(len(part), [group]))
                self.fill(part, [group], {key: tensor.numpy() for key, tensor in buffers.items()})
                for key, tensor in buffers.items():
                    held[key][start : start + len(part)] = tensor.to(device)
            self.held[group] = held
        self._place[used] = np.arange(len(used))

    def places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where `rows` lie among those that are held."""
        return self._place[rows]

    def pick(self, places: Tensor, groups: Sequence[str]) -> dict[str, Tensor]:
        """Return what the GPU holds of the rows at `places` (B,), which lie on it."""
        held = [tensors for group, tensors in self.held.items() if group in groups]
        return {key: tensor.index_select(0, places) for tensors in held for key, tensor in tensors.items()}


def allocate(wanted: Shapes, *, pin: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Return one stretch of bytes, which the system can then back with large pages, and the tensors that lie in it."""
    sizes = {key: math.prod(shape) * dtype.itemsize for key, (shape, dtype) in wanted.items()}
    starts = list(accumulate((-(-size // _ALIGNED_BYTES) * _ALIGNED_BYTES for size in sizes.values()), initial=0))
    # NumPy asks for large pages where an array has 4 MB or more; torch does not.
    own = np.empty(0 if pin else starts[-1], np.uint8)
    stretch = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=True) if pin else torch.from_numpy(own)
    return stretch, {
        key: stretch[start : start + sizes[key]].view(dtype).view(shape)
        for start, (key, (shape, dtype)) in zip(starts, wanted.items(), strict=False)
    }


def choose_stage(
    wanted: str,
    cache: JointCache,
    *,
    used: NDArray[np.int64],
    groups: Sequence[str],
    device: torch.device,
    source: SourcePictures | None = None,
    processes: int = 1,
) -> Stage:
    """Return the stage, filled.

    Args:
        wanted: auto, disk, ram or gpu. auto takes the GPU where everything fits into half of its free memory, else the
            disk, whose pages the system keeps in RAM as far as there is room.
        cache: of the run.
        used: (U,) numbers of the rows that the run visits.
        groups: what is read of each.
        device: where the student trains.
        source: the pictures' files, where they are rendered while training.
        processes: on this machine, which share its RAM.

    Raises:
        SettingsError: gpu was asked for without a CUDA device.
    """
    if wanted == "gpu" and device.type != "cuda":
        raise SettingsError(f"--stage gpu needs a CUDA device, but this run is on {device}; use auto, disk or ram")
    stage = Stage(cache, source)
    holdable = [group for group in groups if not (group == PICTURES and stage.renders_anew)]
    bytes_of = {group: len(used) * stage.row_bytes(group) for group in holdable}
    free_gpu_bytes = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    free_bytes = {"gpu": free_gpu_bytes, "ram": _free_ram_bytes() // max(1, processes)}
    all_bytes = sum(bytes_of.values())
    if wanted == "auto":
        wanted = "gpu" if device.type == "cuda" and all_bytes <= GPU_SHARE * free_bytes["gpu"] else "disk"
    if wanted == "disk":
        ram = _gigabytes(free_bytes["ram"])
        stage.line = f"stage: disk, {len(used)} views of {_gigabytes(all_bytes)} ({ram} of RAM free)"
        return stage
    chosen = _choose_groups(bytes_of, (GPU_SHARE if wanted == "gpu" else RAM_SHARE) * free_bytes[wanted])
    stage.hold(used, chosen, device if wanted == "gpu" else torch.device("cpu"))
    stage.where = wanted
    held = _gigabytes(sum(bytes_of[group] for group in chosen))
    free = _gigabytes(free_bytes[wanted])
    stage.line = f"stage: {wanted}, {len(used)} views, {held} of {_gigabytes(all_bytes)} held ({free} free)"
    return stage


def _choose_groups(bytes_of: dict[str, int], limit_bytes: float) -> list[str]:
    """Return the groups that fit together, the smallest first: taps are small and read for every distilled step."""
    chosen: list[str] = []
    for group in sorted(bytes_of, key=lambda each: bytes_of[each]):
        if bytes_of[group] + sum(bytes_of[each] for each in chosen) <= limit_bytes:
            chosen.append(group)
    return chosen


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
