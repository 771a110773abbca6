"""Which blocks a run computes: those that are missing, and those that cannot be believed."""

import random
from collections.abc import Sequence, Set
from pathlib import Path

from difom_cache.base.atomic import remove_stale
from difom_cache.base.errors import SettingsError
from difom_cache.extraction.prepare import ColumnWork
from difom_cache.extraction.report import ExtractReport
from difom_cache.store.consolidated import consolidate
from difom_cache.store.layout import PICTURES, Column
from difom_cache.store.ledger import (
    find_short_blocks,
    list_markers,
    read_damaged,
    read_markers,
    withdraw_block,
    write_damaged,
)
from difom_cache.store.stats import fold_statistics

EVERY_BLOCK = (0, 1)  # as `parse_part` gives it


def find_missing(cache: Path, work: ColumnWork, part: tuple[int, int] = EVERY_BLOCK, *, repair: bool) -> list[int]:
    """Return the blocks that are to be computed, in a random order of this writer's own.

    Blocks of this part whose marker cannot be believed, whose files are short, or that `verify` found damaged, are
    withdrawn first where `repair` is true.
    """
    column = work.column
    first, step = part
    there = list_markers(cache, column)  # before they are read: what another writer adds meanwhile is not unreadable
    markers = read_markers(cache, column, skip_unreadable=True)
    unreadable = there.keys() - markers.keys()
    listed = set(read_damaged(cache).get(column.folder, []))
    bad = unreadable | set(find_short_blocks(cache, column, markers)) | listed
    own = {block for block in bad if block % step == first}
    if repair and own:
        repair_blocks(cache, column, own, listed)
    missing = [b for b in range(column.blocks) if (b not in markers or b in bad) and b % step == first]
    random.shuffle(missing)  # writers that start together seldom meet at the same block
    return missing


def repair_blocks(cache: Path, column: Column, blocks: Set[int], listed: Set[int]) -> None:
    """Make `blocks` missing, so that they are computed anew.

    They are listed as damaged until nothing is left of them: a file that stayed behind when this process was killed
    would be taken for another writer's, and marked.

    Args:
        cache: the cache's folder.
        column: pictures or one teacher.
        blocks: to withdraw.
        listed: blocks of the column that are listed as damaged already.
    """
    write_damaged(cache, read_damaged(cache) | {column.folder: sorted(blocks | listed)})
    for block in sorted(blocks):
        withdraw_block(cache, column, block)
    write_damaged(cache, read_damaged(cache) | {column.folder: sorted(listed - blocks)})


def parse_part(part: str | None) -> tuple[int, int]:
    """Return (first block, step) of "I/N"; None is everything.

    Raises:
        SettingsError: not of this form.
    """
    if part is None:
        return EVERY_BLOCK
    first, slash, step = part.partition("/")
    if not (slash and first.isdecimal() and step.isdecimal() and 1 <= int(first) <= int(step)):
        raise SettingsError(f"--part: expected I/N with 1 <= I <= N, such as 1/8, found {part!r}")
    return int(first) - 1, int(step)


def finish_columns(cache: Path, works: Sequence[ColumnWork], part: tuple[int, int], report: ExtractReport) -> None:
    """Sum statistics of complete columns, remove what dead writers left, and count what is still missing, also of `part`."""
    first, step = part
    for work in works:
        column, markers = work.column, read_markers(cache, work.column, skip_unreadable=True)
        for block in find_short_blocks(cache, column, markers, sizes=False):
            del markers[block]  # two writers that repair one block at once can leave a marker without its files
        missing = [block for block in range(column.blocks) if block not in markers]
        report.missing_blocks[column.folder] = len(missing)
        report.left_blocks[column.folder] = [block for block in missing if block % step == first]
        if column.folder != PICTURES:
            fold_statistics(cache, column, markers)
    remove_stale(cache)
    consolidate(cache, whole={folder for folder, missing in report.missing_blocks.items() if not missing})
