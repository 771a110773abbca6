"""Frames as scoring, exporting and marking share them: which ones, their truth, their masks on disk, how well two agree."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difom_cache import Record, load_records, read_mask
from difom_cache.base.errors import DataError, SettingsError
from difom_cache.base.text import name_some
from difom_cache.data import DataSource, write_picture
from difom_cache.extraction import show_records
from difom_cache.teachers import Frames

FIXED_THRESHOLD = 0.5  # a pixel is polyp where its probability is at least this


@dataclass(frozen=True)
class LeftOut:
    """Frames of a set that are not scored, and why."""

    dataset: str
    frames: int
    reason: str

    def describe(self) -> str:
        """Return it as a line."""
        return f"left out: {self.frames} frames of {self.dataset}: {self.reason}"


def choose_records(data: Path | DataSource, limit: int | None = None) -> tuple[list[Record], list[LeftOut]]:
    """Return the labelled records to score, and what is left out: the test split, or all if the data has no test split.

    Raises:
        DataError: none is left, or some have no mask.
    """
    if limit is not None and limit < 1:
        raise SettingsError(f"--limit is at least 1 frame of each set, found {limit}")
    found = load_records(data)
    records = [record for record in found if record.split == "test"] or found
    bare = [record.id for record in records if not record.labelled]
    if bare:
        place = data.place if isinstance(data, DataSource) else data
        raise DataError(
            f"{place}: {len(bare)} of {len(records)} records have no mask to score against: {name_some(bare)}"
        )
    sets = {record.dataset for record in records}
    left = Counter(
        (record.dataset, record.split) for record in found if records is not found and record.split != "test"
    )
    reasons = {
        True: "its {} records, as it has test records",
        False: "{} records of a set without test records; score it alone",
    }
    left_out = [
        LeftOut(dataset, count, reasons[dataset in sets].format(split))
        for (dataset, split), count in sorted(left.items())
    ]
    if limit is None:
        return records, left_out
    kept: set[str] = set()
    for dataset in sorted(sets):
        ids = [record.id for record in records if record.dataset == dataset]
        kept.update(sorted(ids, key=lambda each: hashlib.sha256(each.encode()).digest())[:limit])
        if len(ids) > limit:
            left_out.append(LeftOut(dataset, len(ids) - limit, f"beyond --limit {limit}"))
    return [record for record in records if record.id in kept], left_out


def show_data(data: Path | DataSource) -> Frames:
    """Return frames of the data by which to tell what a network gives, read when they are wanted; `--limit` changes none."""
    return lambda input_px: show_records(load_records(data))(input_px)


def read_truth(record: Record) -> NDArray[np.bool_]:
    """Return the ground truth (H, W), which must be of the record's size.

    Raises:
        DataError: the record has no mask, or the file has another size than the manifest says.
    """
    if record.mask is None:
        raise DataError(f"record {record.id} has no mask, so it cannot be scored; leave it out of the test data")
    truth = read_mask(record.mask, max_pixels=None).astype(bool)
    if truth.shape != (record.height, record.width):
        raise DataError(
            f"{record.mask}: expected a mask of {record.width} x {record.height} px as its picture, "
            f"found {truth.shape[1]} x {truth.shape[0]}"
        )
    return truth


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask as 1-bit PNG."""
    write_picture(path, Image.fromarray(mask))


def write_map(path: Path, prob: NDArray[np.floating], bits: Literal[8, 16] = 8) -> None:
    """Write a probability (H, W) as a grey PNG, white where polyp is sure, rounded to the nearest level."""
    levels = np.rint(prob.astype(np.float64) * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    write_picture(path, Image.fromarray(levels))


def in_batches(records: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield `records` in runs of `size`; the last may be shorter."""
    for start in range(0, len(records), size):
        yield records[start : start + size]


def dice(both: Any, total: Any) -> Any:
    """Return the Dice overlap from counts of pixels, numbers or tensors alike; two empty masks agree wholly.

    Args:
        both: pixels in both masks.
        total: pixels of one mask plus pixels of the other.
    """
    empty = total == 0
    return (2 * both + empty) / (total + empty)
