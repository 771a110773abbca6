"""Rows of a cache as targets, with the cells that count."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from difom_cache.base.progress import track
from difom_cache.extraction.cells import VALID_FRAC
from difom_cache.store.identity import read_identity
from difom_cache.store.layout import PICTURES, Column
from difom_cache.store.reader import Cache
from difom_cache.store.schema import PicturesIdentity
from difom_cache.teachers.pooling import area_pool


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
        target = torch.from_numpy(cache.decode(tap, batch[f"{tap}/code"], batch.get(f"{tap}/scale")))
        counts = torch.ones((len(rows), *target.shape[-2:]), dtype=torch.bool)
        if pads:
            area = torch.from_numpy(batch["valid"]).float()[:, None]
            counts = area_pool(area, target.shape[-1])[:, 0] >= VALID_FRAC
        yield tap.partition("/")[2], target, counts & train[:, None, None]


def blocks_of(column: Column, title: str) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield every block of a column with its rows, under a bar."""
    for block in track(range(column.blocks), title, "block"):
        yield block, np.arange(*column.range_of(block))
