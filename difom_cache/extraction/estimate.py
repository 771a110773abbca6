"""What a run will take, before it starts: bytes, room on the disk, teacher passes saved, and how long on many workers.

The time is a model, not a promise. A worker's measured rate already holds its decoding, teacher and writing, overlapped as they
are there. Workers share nothing but the file system, so rates add up until it is full; and they take whole blocks, so that the
last round may be half empty.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from difom_cache.base.errors import CacheSpaceError
from difom_cache.base.text import count_of, format_bytes, format_seconds
from difom_cache.commands import ScaleConfig
from difom_cache.store.layout import Column
from difom_cache.store.shard import index_bytes_of

BLOCK_VIEWS = 256
SPARE_FRAC = 0.02  # of the estimate, for metadata, markers and statistics


@dataclass(frozen=True)
class Estimate:
    """Bytes that the columns of a run take, by array and in all, and how often a cached view is used again."""

    rows: int
    bytes_per_view: dict[str, int]
    total_bytes: int
    missing_bytes: int
    passes_saved: float

    def format(self) -> str:
        """Return the estimate as a small table."""
        width = max(len(name) for name in self.bytes_per_view)
        lines = [f"  {name:<{width}}  {format_bytes(size):>10} a view" for name, size in self.bytes_per_view.items()]
        features = sum(size for name, size in self.bytes_per_view.items() if not name.startswith("pictures"))
        if features:
            lines.append(f"  {'features':<{width}}  {format_bytes(features):>10} a view")
        lines.append(
            f"  {self.rows} views, {format_bytes(self.total_bytes)} in all, {format_bytes(self.missing_bytes)} to write"
        )
        return "\n".join(lines)


def estimate_run(
    columns: Sequence[Column], missing_blocks: Sequence[int], *, views: int, epochs: int, runs: int
) -> Estimate:
    """Return what `columns` take.

    Args:
        columns: of the run.
        missing_blocks: how many blocks of each are still to be computed.
        views: of each training record.
        epochs: of each training run that will read the cache.
        runs: that will read it.
    """
    per_view, total, missing = {}, 0, 0
    for column, blocks in zip(columns, missing_blocks, strict=True):
        for array in column.arrays:
            name = f"{column.folder.removeprefix('teachers/')}/{array.path}"
            per_view[name] = array.row_bytes
            shard_bytes = column.block_rows * array.row_bytes + index_bytes_of(column.block_rows)
            total += column.rows * array.row_bytes + column.blocks * index_bytes_of(column.block_rows)
            missing += min(blocks * shard_bytes, column.rows * array.row_bytes)
    return Estimate(columns[0].rows, per_view, total, missing, epochs * runs / views)


def refuse_full_disk(cache: Path, estimate: Estimate) -> None:
    """Raise where the missing part of a cache does not fit on its disk.

    Raises:
        CacheSpaceError: names what is needed and what is free.
    """
    folder = next(parent for parent in [cache.resolve(), *cache.resolve().parents] if parent.exists())
    disk, needed_bytes = shutil.disk_usage(folder), int(estimate.missing_bytes * (1 + SPARE_FRAC))
    if needed_bytes > disk.free and disk.total:  # some file systems over networks say 0 of 0
        raise CacheSpaceError(
            f"{cache} needs {format_bytes(needed_bytes)} more, but its disk has {format_bytes(disk.free)} free; "
            "make room, choose fewer --views or --codec packed, or insist with --force"
        )


def format_passes(passes_saved: float, *, views: int, epochs: int, runs: int) -> str:
    """Return one sentence on whether the cache pays off."""
    worked = f"{count_of(epochs, 'epoch')} x {count_of(runs, 'run')} / {count_of(views, 'view')} = {passes_saved:.1f}"
    if passes_saved > 1:
        return f"teacher passes saved: {worked}; the cache pays off from epoch {views + 1} of the first run"
    return (
        f"teacher passes saved: none ({worked}): "
        "the teacher would be run as often without a cache; choose fewer --views, or train more"
    )


@dataclass(frozen=True)
class Prediction:
    """What the model says: seconds from start to end, hours of all workers together, and what the pass waits for."""

    wall_s: float
    worker_hours: float
    cache_bytes: float
    limit: str
    price: float


def predict(scale: ScaleConfig, workers: int, *, block_views: int = BLOCK_VIEWS) -> Prediction:
    """Return how long a pass takes on so many workers, which take blocks of `block_views`."""
    rows = scale.frames * scale.views
    rounds = math.ceil(math.ceil(rows / block_views) / workers)
    seconds = {
        "the workers": min(rounds * block_views, rows) / scale.rate,
        "writing": rows * scale.view_bytes / (scale.write_mb_s * 1e6),
        "reading": scale.frames * scale.frame_bytes / (scale.read_mb_s * 1e6),
    }
    limit = max(seconds, key=lambda part: seconds[part])
    wall_s = scale.start_s + seconds[limit]
    worker_hours = wall_s * workers / 3600
    return Prediction(wall_s, worker_hours, rows * scale.view_bytes, limit, worker_hours * scale.price)


def most_useful_workers(scale: ScaleConfig, *, block_views: int = BLOCK_VIEWS) -> int:
    """Return the number of workers from which on the file system, or the number of blocks, is the limit."""
    by_write = scale.write_mb_s * 1e6 / scale.view_bytes / scale.rate
    by_read = scale.read_mb_s * 1e6 / (scale.frame_bytes / scale.views) / scale.rate
    blocks = math.ceil(scale.frames * scale.views / block_views)
    return max(1, math.floor(min(by_write, by_read, blocks)))


def format_prediction(workers: int, prediction: Prediction) -> str:
    """Return one line of a table."""
    return (
        f"{workers:>6} workers  {format_seconds(prediction.wall_s):>16}  {prediction.worker_hours:>10.1f} worker hours"
        f"  {prediction.price:>8.0f} in price  {format_bytes(prediction.cache_bytes):>9}  limit: {prediction.limit}"
    )
