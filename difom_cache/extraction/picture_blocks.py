"""Blocks of stored views: rendered on the CPU, so that every writer writes equal bytes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from difom_cache.extraction.frames import Frame
from difom_cache.extraction.jobs import BlockJob, ViewJob
from difom_cache.extraction.timing import Stopwatch
from difom_cache.store.columns import pictures_column
from difom_cache.store.layout import NO_MASK, Column
from difom_cache.store.schema import PicturesIdentity
from difom_cache.store.writer import write_block
from difom_cache.views.replay import replay_image, replay_mask, replay_valid


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


def _empty_arrays(column: Column, rows: int) -> dict[str, NDArray[np.generic]]:
    return {array.path: np.empty((rows, *array.row_shape), array.dtype) for array in column.arrays}
