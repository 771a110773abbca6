"""A complete cache of black pictures, to measure what grows with the number of records and not with what is computed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from difom_cache.data.record import Record
from difom_cache.extraction.prepare import prepare_pictures
from difom_cache.extraction.rows import start_cache
from difom_cache.store.ledger import read_markers
from difom_cache.store.reader import Cache
from difom_cache.store.writer import write_block
from difom_cache.views.plan import ViewPlan


def write_blank_cache(path: Path, records: Sequence[Record], plan: ViewPlan, *, views: int, picture_px: int) -> Cache:
    """Fill `path` as `extract` would without a teacher, but with black pictures, and return it; go on where it stopped.

    Args:
        path: of the cache.
        records: of the manifest.
        plan: their views, none of which leaves its frame.
        views: of each training record, as the plan was drawn.
        picture_px: side of the pictures.

    Raises:
        CacheIdentityError: another cache lies there.
    """
    start_cache(path, records, plan, views=views, picture_px=picture_px)
    column = prepare_pictures(path, picture_px=picture_px, pads=False, rows=len(plan), dry=False).column
    finished = read_markers(path, column)
    for block in (each for each in range(column.blocks) if each not in finished):
        start, stop = column.range_of(block)
        arrays = {each.path: np.zeros((stop - start, *each.row_shape), each.dtype) for each in column.arrays}
        write_block(path, column, block, arrays)
    return Cache(path)
