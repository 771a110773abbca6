"""How blocks grow, batch by batch: of stored views, rendered; and of one teacher's codes: rendered, seen, encoded, copied."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from difom_cache.base.errors import CodecError
from difom_cache.base.hardware import upload
from difom_cache.codecs.base import UncodableFeatureError
from difom_cache.codecs.fidelity import Fidelity
from difom_cache.codecs.measure import measure_fidelity
from difom_cache.extraction.cells import sum_cells, to_moments, valid_cells
from difom_cache.extraction.frames import Frame
from difom_cache.extraction.jobs import BlockJob, ViewJob
from difom_cache.extraction.report import STAGES
from difom_cache.extraction.teachers import assert_same_teacher
from difom_cache.store.columns import open_codec, pictures_column, teacher_column
from difom_cache.store.layout import NO_MASK
from difom_cache.store.schema import PicturesIdentity, TeacherIdentity
from difom_cache.store.writer import write_block
from difom_cache.teachers.base import Teacher
from difom_cache.teachers.pooling import area_pool
from difom_cache.views.replay import replay_image, replay_mask, replay_valid
from difom_cache.views.replay_many import replay_images


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

    def split(self) -> "Stopwatch":
        """Return a stopwatch with what was counted so far, and start from zero."""
        earlier = copy(self)
        self._seconds, self._events = defaultdict(float), []
        return earlier

    def read(self) -> dict[str, float]:
        """Return the seconds by stage, once the device has done what is counted."""
        for stage, start, stop in self._events:
            stop.synchronize()
            self._seconds[stage] += start.elapsed_time(stop) / 1000
        self._events = []
        return {stage: self._seconds.get(stage, 0.0) for stage in STAGES}


class PicturePass:
    """Rendering the stored student views. Always on the CPU, so that every writer writes equal bytes.

    A view is small work: views are rendered side by side, each by one thread.
    """

    device = torch.device("cpu")
    needs_masks = True
    batch = 16
    threads = 1

    def __init__(self, identity: PicturesIdentity, rows: int) -> None:
        self.identity = identity
        self.column = pictures_column(identity, rows)

    def start(self, job: BlockJob) -> "PictureBlock":
        return PictureBlock(self, job)


class PictureBlock:
    """One block of stored views while it grows."""

    def __init__(self, encoder: PicturePass, job: BlockJob) -> None:
        self.job, self._column, self._side = job, encoder.column, encoder.identity.picture_px
        shapes = {array.path: (len(job.views), *array.row_shape) for array in encoder.column.arrays}
        self._arrays = {array.path: np.empty(shapes[array.path], array.dtype) for array in encoder.column.arrays}
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

    def __init__(self, job: BlockJob, identity: TeacherIdentity, teacher: Teacher) -> None:
        assert_same_teacher(identity, teacher.spec, job.cache / job.folder)
        self.identity, self.teacher = identity, teacher
        self.label = Path(job.folder).name
        self.column = teacher_column(identity, self.label, job.rows)
        self.batch = identity.batch
        self.threads = identity.threads
        self.device = torch.device(job.request.device if job.request else "cpu")
        self.codecs = {tap.name: open_codec(job.cache, self.label, tap) for tap in identity.taps}

    def start(self, job: BlockJob) -> "TeacherBlock":
        return TeacherBlock(self, job)


class TeacherBlock:
    """One block of codes while it grows."""

    def __init__(self, encoder: TeacherPass, job: BlockJob) -> None:
        self.job, self._encoder = job, encoder
        rows, pinned = len(job.views), encoder.device.type == "cuda"
        self._arrays = {
            array.path: torch.empty((rows, *array.row_shape), dtype=getattr(torch, array.dtype), pin_memory=pinned)
            for array in encoder.column.arrays
        }
        self._sums: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._fidelity: dict[str, Fidelity] = {}
        self._filled = 0
        self._copied: torch.cuda.Event | None = None

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
            grids = {tap.grid for tap in encoder.identity.taps}
            counts = {grid: valid_cells(views, grid, encoder.device) for grid in grids}
        for kept, tap in zip(spec.taps, encoder.identity.taps, strict=True):
            with watch.on_device("encode"), torch.no_grad():
                feature = area_pool(native[kept.native], tap.grid)[: len(views)]
                code, scale = encoder.codecs[tap.name].encode(feature, check=False)
                self._sum_up(tap.name, feature, code, scale, counts[tap.grid], train)
            with watch.on_device("copy"):
                self._keep(f"{tap.name}/code", code)
                if scale is not None:
                    self._keep(f"{tap.name}/scale", scale)
        self._filled += len(views)
        if encoder.device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(encoder.device))

    def publish(self) -> None:
        """Refuse what could not be coded, then write the block."""
        if self._copied is not None:
            self._copied.synchronize()
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
            identity=self._encoder.identity,
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
