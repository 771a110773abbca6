"""What writers left is finished, and a teacher dropped."""

import secrets
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from difom_cache.base.atomic import remove_stale, remove_tree
from difom_cache.base.errors import CacheSpaceError
from difom_cache.base.progress import track
from difom_cache.extraction.cells import sum_cells, to_moments
from difom_cache.maintenance.decoded import decode_rows
from difom_cache.store.consolidated import consolidate
from difom_cache.store.layout import PICTURES, Column, teacher_folder, totals_path
from difom_cache.store.reader import Cache, open_cache, require_teacher
from difom_cache.store.stats import Moments, fold_statistics, write_totals

LOOK_AGAIN_S = 1.0


def finish(cache: str | Path) -> dict[str, list[int]]:
    """Remove what dead writers left, sum up statistics, and return the missing blocks of each column by its folder."""
    opened = open_cache(cache)
    for leftover in opened.path.glob("teachers/.dropped-*"):
        remove_tree(leftover)
    remove_stale(opened.path)
    missing = {}
    for column in opened.columns():
        markers = opened.markers(column)
        if len(markers) < column.blocks:  # a file system over a network may list for a while what it listed before
            time.sleep(LOOK_AGAIN_S)
            markers = opened.markers(column)
        missing[column.folder] = sorted(set(range(column.blocks)) - markers.keys())
        if (
            column.folder != PICTURES
            and not fold_statistics(opened.path, column, markers)
            and not missing[column.folder]
        ):
            rebuild_statistics(opened, column)
    consolidate(opened.path)
    return missing


def rebuild_statistics(cache: Cache, column: Column) -> None:
    """Sum up a complete column's statistics from its codes, where the sums of its blocks were lost."""
    label = column.folder.partition("/")[2]
    sums: dict[str, Moments] = {}
    for block in track(range(column.blocks), f"statistics of {label}", "block"):
        rows = np.arange(*column.range_of(block))
        for name, target, counts in decode_rows(cache, label, rows):
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
        folder.rename(away)
        remove_tree(away)
    except OSError as error:
        hint = f"run `difom-cache finish {cache}` when it can be written"
        raise CacheSpaceError(f"cannot drop {folder}: {error.strerror}; {hint}") from None
    return held_bytes
