"""One block from pictures to published shards: decode, render, teacher, encode, copy, write.

A block is computed by one process, whole; the same block computed anywhere under the same identity has the same bytes.
Pictures are decoded ahead in threads and a block is written while the next one is computed.
"""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from difom_cache.codecs.base import UncodableFeatureError
from difom_cache.codecs.fidelity import Fidelity
from difom_cache.codecs.measure import measure_fidelity
from difom_cache.data.images import read_image, read_mask
from difom_cache.data.manifest import check_unchanged
from difom_cache.data.record import Record
from difom_cache.errors import CodecError, DeviceError
from difom_cache.extraction.teachers import TeacherRequest, assert_same_teacher, load_teacher, name_worker
from difom_cache.extraction.timing import Stopwatch
from difom_cache.hardware import torch_threads, upload
from difom_cache.store.columns import open_codec, pictures_column, teacher_column
from difom_cache.store.identity import Identity, read_identity
from difom_cache.store.layout import NO_MASK, Column
from difom_cache.store.ledger import is_done
from difom_cache.store.stats import Moments
from difom_cache.store.writer import write_block
from difom_cache.teachers.base import Teacher
from difom_cache.teachers.pooling import area_pool
from difom_cache.views.params import ViewParams
from difom_cache.views.replay import replay_image, replay_mask, replay_valid
from difom_cache.views.replay_many import replay_images

VALID_FRAC = 0.5  # a cell counts in statistics where at least half of it shows the frame
READ_AHEAD_BATCHES = 3


@dataclass(frozen=True)
class ViewJob:
    """One view to compute: its record, its numbers, whether it counts in the statistics, and its number."""

    record: Record
    params: ViewParams
    train: bool
    view: int


@dataclass(frozen=True)
class BlockJob:
    """One block to compute; it can be sent to another process or machine that sees the cache and the data.

    `request` is None for the pictures; `rows` is the number of rows of the cache.
    """

    cache: Path
    folder: str
    block: int
    rows: int
    views: tuple[ViewJob, ...]
    request: TeacherRequest | None


@dataclass(frozen=True)
class BlockReport:
    """What became of a block: where it was computed, how many views, seconds by stage; `skipped` if it was there."""

    folder: str
    block: int
    views: int
    seconds: dict[str, float]
    worker: str
    skipped: bool = False


def compute_block(job: BlockJob) -> BlockReport:
    """Compute one block and return its report: what an engine sends to its workers."""
    return next(iter(compute_blocks([job])))


def compute_blocks(jobs: Sequence[BlockJob]) -> Iterator[BlockReport]:
    """Compute blocks of one column, one after the other, and yield a report when each is safe on the disk.

    Raises:
        CodecError: a feature cannot be coded; record, view and tap are named.
        DeviceError: the device has too little memory.
        EngineError: this worker would compute something else than the cache's identity says.
    """
    if not jobs:
        return
    identity = read_identity(jobs[0].cache / jobs[0].folder, "teacher" if jobs[0].request else "pictures")
    encoder: PicturePass | TeacherPass
    if jobs[0].request is None:
        encoder = PicturePass(identity, jobs[0].rows)
    else:
        encoder = TeacherPass(jobs[0], identity, load_teacher(jobs[0].request))
    pool = ThreadPoolExecutor(os.cpu_count() or 1, "decode")
    writer = ThreadPoolExecutor(1, "write")
    try:
        with torch_threads(encoder.threads):
            yield from _run(encoder, jobs, pool, writer)
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError(
            f"{encoder.device} ran out of memory with batches of {encoder.batch}: {str(error).splitlines()[0]} "
            "Give the device to this run alone, or extract into another cache with a smaller --batch-size"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        writer.shutdown(wait=True, cancel_futures=True)


def _run(
    encoder: "PicturePass | TeacherPass",
    jobs: Iterable[BlockJob],
    pool: ThreadPoolExecutor,
    writer: ThreadPoolExecutor,
) -> Iterator[BlockReport]:
    watch = Stopwatch(encoder.device)
    writing: deque[Future[BlockReport]] = deque()
    block = None
    for batch in _read_ahead(encoder, jobs, pool):
        job = batch.job
        if batch.skipped:
            yield BlockReport(job.folder, job.block, len(job.views), {}, name_worker(), skipped=True)
            continue
        if block is None:
            block = encoder.start(job)
        with watch.on_host("wait"):
            frames = [frame.result() for frame in batch.frames]
        for frame in {id(frame): frame for frame in frames}.values():
            watch.add("decode", frame.decode_s)
        block.add(batch.views, frames, watch, pool)
        if batch.last:
            with watch.on_host("wait"):
                while writing:  # at most one block waits to be written, so that memory stays bounded
                    yield writing.popleft().result()
            seconds = watch.read()
            writing.append(writer.submit(_write, block, seconds))
            block = None
    while writing:
        yield writing.popleft().result()


def _write(block: "PictureBlock | TeacherBlock", seconds: dict[str, float]) -> BlockReport:
    started_s = time.perf_counter()
    block.publish()
    seconds = seconds | {"write": time.perf_counter() - started_s}
    job = block.job
    return BlockReport(job.folder, job.block, len(job.views), seconds, name_worker())


@dataclass(frozen=True)
class Frame:
    """A decoded record: picture (3, H, W) uint8, mask (H, W) uint8 of 0 and 1 or None, and the seconds it took."""

    image: Tensor
    mask: Tensor | None
    decode_s: float


@dataclass(frozen=True)
class _Batch:
    job: BlockJob
    views: tuple[ViewJob, ...] = ()
    frames: tuple["Future[Frame]", ...] = ()
    last: bool = False
    skipped: bool = False


def _read_ahead(
    encoder: "PicturePass | TeacherPass", jobs: Iterable[BlockJob], pool: ThreadPoolExecutor
) -> Iterator[_Batch]:
    """Yield the batches of all jobs in request, with the pictures of the next few being decoded meanwhile."""
    queue: deque[_Batch] = deque()
    for job in jobs:
        if is_done(
            job.cache, encoder.column, job.block
        ):  # another writer may have been here since the jobs were listed
            queue.append(_Batch(job, skipped=True))
            continue
        decoding: dict[str, Future[Frame]] = {}
        for start in range(0, len(job.views), encoder.batch):
            views = job.views[start : start + encoder.batch]
            for view in views:
                if view.record.id not in decoding:
                    decoding[view.record.id] = pool.submit(read_frame, view.record, masks=encoder.needs_masks)
            frames = tuple(decoding[view.record.id] for view in views)
            decoding = {view.record.id: frame for view, frame in zip(views[-1:], frames[-1:], strict=True)}
            queue.append(_Batch(job, views, frames, last=start + encoder.batch >= len(job.views)))
            while len(queue) > READ_AHEAD_BATCHES:
                yield queue.popleft()
    yield from queue


def read_frame(record: Record, *, masks: bool) -> Frame:
    """Return a record's decoded files, which must be those that the manifest speaks of.

    Raises:
        ManifestError: a file changed since.
        ImageError: a file cannot be read.
    """
    started_s = time.perf_counter()
    check_unchanged(record)
    image = torch.from_numpy(
        np.ascontiguousarray(read_image(record.image).transpose(2, 0, 1))
    )  # (H, W, 3) -> (3, H, W)
    mask = torch.from_numpy(read_mask(record.mask)) if masks and record.mask is not None else None
    return Frame(image, mask, time.perf_counter() - started_s)


class PicturePass:
    """Rendering the stored student views. Always on the CPU, so that every writer writes equal bytes.

    A view is small work: views are rendered side by side, each by one thread.
    """

    device = torch.device("cpu")
    needs_masks = True
    batch = 16
    threads = 1

    def __init__(self, identity: Identity, rows: int) -> None:
        self.identity = identity
        self.column = pictures_column(identity, rows)

    def start(self, job: BlockJob) -> "PictureBlock":
        return PictureBlock(self, job)


class PictureBlock:
    """One block of stored views while it grows."""

    def __init__(self, encoder: PicturePass, job: BlockJob) -> None:
        self.job, self._column, self._side = job, encoder.column, encoder.identity["picture_px"]
        self._arrays = _empty_arrays(encoder.column, len(job.views))
        self._filled = 0

    def add(
        self, views: Sequence[ViewJob], frames: Sequence[Frame], watch: Stopwatch, pool: ThreadPoolExecutor
    ) -> None:
        with watch.on_host("render"):
            places = range(self._filled, self._filled + len(views))
            list(pool.map(self._render, places, views, frames))
            self._filled += len(views)

    def _render(self, place: int, view: ViewJob, frame: Frame) -> None:
        image = replay_image(frame.image, view.params, self._side).mul(255).round().byte()
        self._arrays["image"][place] = image.permute(1, 2, 0).numpy()  # (3, H, W) -> (H, W, 3)
        mask = NO_MASK if frame.mask is None else replay_mask(frame.mask, view.params, self._side).numpy()
        self._arrays["mask"][place] = mask
        if "valid" in self._arrays:
            self._arrays["valid"][place] = replay_valid(view.params, self._side).numpy()

    def publish(self) -> None:
        write_block(self.job.cache, self._column, self.job.block, self._arrays)


class TeacherPass:
    """A teacher with the codecs of its taps, set up as its identity says.

    Raises:
        EngineError: this process' teacher differs from the one that the cache was begun with.
    """

    needs_masks = False

    def __init__(self, job: BlockJob, identity: Identity, teacher: Teacher) -> None:
        assert_same_teacher(identity, teacher.spec, job.cache / job.folder)
        self.identity, self.teacher = identity, teacher
        self.label = Path(job.folder).name
        self.column = teacher_column(identity, self.label, job.rows)
        self.batch: int = identity["batch"]
        self.threads: int = identity["threads"]
        self.device = torch.device(job.request.device if job.request else "cpu")
        self.codecs = {tap["name"]: open_codec(job.cache, self.label, tap) for tap in identity["taps"]}

    def start(self, job: BlockJob) -> "TeacherBlock":
        return TeacherBlock(self, job)


class TeacherBlock:
    """One block of codes while it grows."""

    def __init__(self, encoder: TeacherPass, job: BlockJob) -> None:
        self.job, self._encoder = job, encoder
        self._arrays = _empty_tensors(encoder.column, len(job.views), pinned=encoder.device.type == "cuda")
        self._sums: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._fidelity: dict[str, Fidelity] = {}
        self._filled = 0

    def add(
        self, views: Sequence[ViewJob], frames: Sequence[Frame], watch: Stopwatch, pool: ThreadPoolExecutor
    ) -> None:
        encoder, spec = self._encoder, self._encoder.teacher.spec
        with watch.on_device("render"):
            pixels = render(views, frames, spec.input_px, encoder.batch, encoder.device)
        with watch.on_device("teacher"):
            native = encoder.teacher.features(pixels)
        with watch.on_device("encode"):
            train = upload(torch.tensor([view.train for view in views]), encoder.device)[:, None, None]
            grids = {tap["grid"] for tap in encoder.identity["taps"]}
            counts = {grid: valid_cells(views, grid, encoder.device) for grid in grids}
        for kept, tap in zip(spec.taps, encoder.identity["taps"], strict=True):
            with watch.on_device("encode"), torch.no_grad():
                feature = area_pool(native[kept.native], tap["grid"])[: len(views)]
                code, scale = encoder.codecs[tap["name"]].encode(feature, check=False)
                self._sum_up(tap["name"], feature, code, scale, counts[tap["grid"]], train)
            with watch.on_device("copy"):
                self._keep(f"{tap['name']}/code", code)
                if scale is not None:
                    self._keep(f"{tap['name']}/scale", scale)
        self._filled += len(views)

    def publish(self) -> None:
        """Refuse what could not be coded, then write the block."""
        if self._encoder.device.type == "cuda":
            torch.cuda.synchronize(self._encoder.device)
        arrays = {name: tensor.numpy() for name, tensor in self._arrays.items()}
        for name, codec in self._encoder.codecs.items():
            try:
                codec.check_code(arrays[f"{name}/code"], arrays.get(f"{name}/scale"))
            except UncodableFeatureError as error:
                view = self.job.views[error.row]
                raise CodecError(
                    f"{self._encoder.label}/{name}, record {view.record.id}, view {view.view}, "
                    f"channel {error.channel}: {error.problem}"
                ) from None
        write_block(
            self.job.cache,
            self._encoder.column,
            self.job.block,
            arrays,
            {tap: to_moments(sums) for tap, sums in self._sums.items()},
            {tap: fidelity.as_dict() for tap, fidelity in self._fidelity.items()},
        )

    def _keep(self, name: str, values: Tensor) -> None:
        place = self._arrays[name][self._filled : self._filled + len(values)]
        place.copy_(values, non_blocking=True)

    def _sum_up(
        self, name: str, feature: Tensor, code: Tensor, scale: Tensor | None, counts: Tensor, train: Tensor
    ) -> None:
        """Add what a batch of a tap adds to its moments and its fidelity.

        Args:
            name: of the tap.
            feature: (B, C, h, w), live.
            code, scale: as they are stored.
            counts: (B, h, w) bool, the cells that show the frame.
            train: (B, 1, 1) bool, the views of training records.
        """
        target = self._encoder.codecs[name].decode(code, scale)
        fidelity = measure_fidelity(feature, target, counts)
        self._fidelity[name] = self._fidelity[name] + fidelity if name in self._fidelity else fidelity
        sums = sum_cells(target, counts & train)
        before = self._sums.get(name)
        self._sums[name] = sums if before is None else (before[0] + sums[0], before[1] + sums[1], before[2] + sums[2])


def render(views: Sequence[ViewJob], frames: Sequence[Frame], size_px: int, batch: int, device: torch.device) -> Tensor:
    """Return a full batch of teacher input: float32 (batch, 3, size_px, size_px) in [0, 1], black behind the last view."""
    placed: dict[int, Tensor] = {}
    for frame in frames:  # each of them once, however many of its views are here
        if id(frame) not in placed:
            placed[id(frame)] = upload(frame.image, device)
    shown = replay_images([placed[id(frame)] for frame in frames], [view.params for view in views], size_px)
    return functional.pad(shown, (0, 0, 0, 0, 0, 0, 0, batch - len(views))) if len(views) < batch else shown


def valid_cells(views: Sequence[ViewJob], grid: int, device: torch.device) -> Tensor:
    """Return which cells show the frame: bool (B, grid, grid)."""
    if all(view.params.wholly_valid for view in views):
        return torch.ones((len(views), grid, grid), dtype=torch.bool, device=device)
    cells = torch.ones((len(views), grid, grid), dtype=torch.bool)
    for row, view in enumerate(views):
        if not view.params.wholly_valid:
            area = replay_valid(view.params, 8 * grid).float()[None, None]
            cells[row] = area_pool(area, grid)[0, 0] >= VALID_FRAC
    return upload(cells, device)


_BAND = 128  # channels; narrower bands save more products, but run slower


def sum_cells(target: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return number, sum (C,) and sum of outer products (C, C), float64, of the cells of `target` that count.

    Args:
        target: (B, C, h, w) float32.
        counts: (B, h, w) bool.
    """
    cells = target.transpose(0, 1).flatten(1)  # (B, C, h, w) -> (C, B*h*w)
    weights = counts.flatten().float()
    counted = cells * weights
    product = (_multiply_by_itself if cells.device.type == "cpu" else _multiply)(counted, cells)
    return weights.sum(dtype=torch.float64), counted.sum(1, dtype=torch.float64), product.double()


def _multiply(counted: Tensor, cells: Tensor) -> Tensor:
    return counted @ cells.T


def _multiply_by_itself(counted: Tensor, cells: Tensor) -> Tensor:
    """Return `counted @ cells.T` (C, C), which is symmetric: only bands up to the diagonal are computed."""
    channels = len(cells)
    product = cells.new_empty(channels, channels)
    for start in range(0, channels, _BAND):
        stop = min(start + _BAND, channels)
        band = counted[start:stop] @ cells[:stop].T
        product[start:stop, :stop] = band
        product[:start, start:stop] = band[:, :start].T
    return product


def to_moments(sums: tuple[Tensor, Tensor, Tensor]) -> Moments:
    """Return sums that lie on a device as moments."""
    count, total, product = (part.cpu().numpy() for part in sums)
    return Moments(int(count), total, product)


def _empty_arrays(column: Column, rows: int) -> dict[str, NDArray[np.generic]]:
    return {array.path: np.empty((rows, *array.row_shape), array.dtype) for array in column.arrays}


def _empty_tensors(column: Column, rows: int, *, pinned: bool) -> dict[str, Tensor]:
    return {
        array.path: torch.empty((rows, *array.row_shape), dtype=getattr(torch, array.dtype), pin_memory=pinned)
        for array in column.arrays
    }
