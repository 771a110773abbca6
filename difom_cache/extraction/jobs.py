"""What goes to a worker and what comes back: views, blocks, reports; and a record's files, decoded."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from difom_cache.data.images import read_image, read_mask
from difom_cache.data.manifest import check_unchanged
from difom_cache.data.record import Record
from difom_cache.teachers.base import TeacherRequest
from difom_cache.teachers.outputs import PROBED_FRAMES, Frames
from difom_cache.views.params import ViewParams
from difom_cache.views.replay import replay_image, replay_mask


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


@dataclass(frozen=True)
class Frame:
    """A decoded record: picture (3, H, W) uint8, mask (H, W) uint8 of 0 and 1 or None, and the seconds it took."""

    image: Tensor
    mask: Tensor | None
    decode_s: float


def read_frame(record: Record, *, masks: bool) -> Frame:
    """Return a record's decoded files, which must be those that the manifest speaks of.

    Raises:
        ManifestError: a file changed since.
        ImageError: a file cannot be read.
    """
    started_s = time.perf_counter()
    check_unchanged(record)
    held = read_image(record.image, max_pixels=None).transpose(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    image = torch.from_numpy(np.ascontiguousarray(held))
    mask = torch.from_numpy(read_mask(record.mask, max_pixels=None)) if masks and record.mask is not None else None
    return Frame(image, mask, time.perf_counter() - started_s)


def show_records(records: Sequence[Record]) -> Frames:
    """Return frames by which to tell what a network gives: the same few of these records, whatever their order.

    They are those with masks, then those of the lowest digests, and no test frames where there are others.
    """
    own = [record for record in records if record.split != "test"] or records
    chosen = sorted(own, key=lambda record: (not record.labelled, record.image_sha256, record.id))[:PROBED_FRAMES]

    def show(input_px: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        for record in chosen:
            frame = read_frame(record, masks=True)
            whole = ViewParams(top=0, left=0, height=record.height, width=record.width)
            mask = None if frame.mask is None else replay_mask(frame.mask, whole, input_px)
            yield replay_image(frame.image, whole, input_px), mask

    return show
