"""What writers left is finished, and a teacher dropped; rows of a cache as targets, with the cells that count."""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from difom_cache.base import disk
from difom_cache.base.atomic import remove_stale, remove_tree, rename
from difom_cache.base.errors import CacheSpaceError
from difom_cache.base.progress import track
from difom_cache.extraction.cells import VALID_FRAC, sum_cells, to_moments
from difom_cache.store.consolidated import consolidate
from difom_cache.store.identity import read_identity
from difom_cache.store.layout import PICTURES, Column, teacher_folder, totals_path
from difom_cache.store.reader import Cache, open_cache, require_teacher
from difom_cache.store.schema import PicturesIdentity
from difom_cache.store.stats import Moments, fold_statistics, write_totals
from difom_cache.teachers.pooling import area_pool

LOOK_AGAIN_S = 1.0


def finish(cache: str | Path) -> dict[str, list[int]]:
    """Remove what dead writers left, sum up statistics, and return the missing blocks of each column by its folder."""
    opened = open_cache(cache)
    teachers = opened.path / "teachers"
    for leftover in (name for name in disk.list_names(teachers) if name.startswith(".dropped-")):
        remove_tree(teachers / leftover)
    remove_stale(opened.path)
    missing, found = {}, [(column, opened.markers(column)) for column in opened.columns()]
    if any(len(markers) < column.blocks for column, markers in found):
        time.sleep(LOOK_AGAIN_S)  # a file system over a network may list for a while what it listed before
        found = [(column, opened.markers(column)) for column, _ in found]
    for column, markers in found:
        missing[column.folder] = sorted(set(range(column.blocks)) - markers.keys())
        folded = column.folder == PICTURES or fold_statistics(opened.path, column, markers)
        if not folded and not missing[column.folder]:
            rebuild_statistics(opened, column)
    consolidate(opened.path)
    return missing


def rebuild_statistics(cache: Cache, column: Column) -> None:
    """Sum up a complete column's statistics from its codes, where the sums of its blocks were lost."""
    sums: dict[str, Moments] = {}
    for _, rows in blocks_of(column, f"statistics of {column.label}"):
        for name, target, counts in decode_rows(cache, column.label, rows):
            moments = to_moments(sum_cells(target, counts))
            sums[name] = sums[name] + moments if name in sums else moments
    write_totals(totals_path(cache.path, column.folder), sums)


def drop(cache: str | Path, teacher: str) -> int:
    """Make `cache` hold no features of `teacher`; everything else stays. Return how many bytes that were.

    Raises:
        CacheFormatError: the cache has no such teacher.
        CacheSpaceError: the cache cannot be written.
    """
    opened = open_cache(cache)
    require_teacher(opened, teacher)
    folder = opened.path / teacher_folder(teacher)
    away = folder.with_name(f".dropped-{secrets.token_hex(4)}")
    held_bytes = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a writer at work takes its temporary files away
            held_bytes += path.stat().st_size if path.is_file() else 0
    try:
        consolidate(opened.path, leave_out=teacher_folder(teacher))
        rename(folder, away)
        remove_tree(away)
    except OSError as error:
        hint = f"run `difom-cache finish {cache}` when it can be written"
        raise CacheSpaceError(f"cannot drop {folder}: {error.strerror}; {hint}") from None
    return held_bytes


def decode_rows(
    cache: Cache, label: str, rows: NDArray[np.int64], taps: Sequence[str] | None = None
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield (tap name without its teacher, target (B, C, h, w), which cells count in statistics (B, h, w)).

    Raises:
        CacheIncompleteError: rows are missing; or the plan pads and the valid areas are not stored.
    """
    names = [tap for tap in cache.taps if tap.partition("/")[0] == label] if taps is None else list(taps)
    if not names:
        return
    pads = cache.has_pictures and read_identity(cache.path / PICTURES, PicturesIdentity).pads
    batch = cache.gather(rows, names, pictures=pads)
    train = torch.from_numpy(cache.table.split[rows] == 0)
    for tap in names:
        target = torch.from_numpy(cache.target(batch, tap))
        counts = torch.ones((len(rows), *target.shape[-2:]), dtype=torch.bool)
        if pads:
            area = torch.from_numpy(batch["valid"]).float()[:, None]
            counts = area_pool(area, target.shape[-1])[:, 0] >= VALID_FRAC
        yield tap.partition("/")[2], target, counts & train[:, None, None]


def blocks_of(column: Column, title: str) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield every block of a column with its rows, under a bar."""
    for block in track(range(column.blocks), title, "block"):
        yield block, np.arange(*column.range_of(block))
