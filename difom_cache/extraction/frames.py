"""A record's files, decoded: for a worker, and shown to a network from elsewhere to tell what its outputs are."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from difom_cache.base.errors import CacheIdentityError, TeacherError
from difom_cache.data.images import read_image, read_mask
from difom_cache.data.manifest import check_unchanged
from difom_cache.data.record import Record
from difom_cache.extraction.begun import Begun, held_readings
from difom_cache.store.columns import teacher_column
from difom_cache.store.ledger import read_markers
from difom_cache.store.schema import TeacherIdentity
from difom_cache.teachers.base import TeacherRequest
from difom_cache.teachers.catalogue import read_outputs
from difom_cache.teachers.outputs import PROBED_FRAMES, Frames, Reading
from difom_cache.views.params import ViewParams
from difom_cache.views.replay import replay_image, replay_mask


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


def settle_readings(
    cache: Path, begun: Begun, request: TeacherRequest, records: Sequence[Record], rows: int
) -> tuple[Reading, ...] | None:
    """Return what a network's outputs are: as its column was begun, or as the network and some frames tell.

    Raises:
        TeacherError: it cannot be told.
        CacheIdentityError: an unfinished column took for logits what are none.
    """
    if begun.identity is None:
        return read_outputs(request, show_records(records))
    readings = held_readings(begun.identity, begun.folder)
    column = teacher_column(begun.identity, begun.label, rows)
    if not readings and len(read_markers(cache, column, skip_unreadable=True)) < column.blocks:
        _refuse_misread(begun, begun.identity, request, records)
    return readings


def _refuse_misread(
    begun: Begun, identity: TeacherIdentity, request: TeacherRequest, records: Sequence[Record]
) -> None:
    """Raise where features of an old column were taken for logits that, by today's reading, are none."""
    taken = {tap.name.rpartition("@")[0] for tap in identity.taps if tap.kind == "logits"}
    try:
        told = read_outputs(replace(request, taps=tuple(sorted(taken)) or None), show_records(records)) if taken else ()
    except TeacherError:  # it was never clear, and stays as it was begun
        return
    for reading in told or ():
        if reading.output in taken and reading.values != "logits":
            raise CacheIdentityError(
                f"{begun.folder} was begun with output {reading.output!r} taken for logits, as maps of one channel once were; "
                f"now {reading.describe()}. Drop the column with `difom-cache drop` and extract it anew"
            )
