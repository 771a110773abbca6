"""Codes on a coarser grid before they are decoded: where a level has fewer cells, only so many are decoded and projected."""

from functools import lru_cache
from math import gcd

import torch
from torch import Tensor

from difom_cache.base.compat import multiply_int8
from difom_train.distill.comparison import to_grid

POOLED_FIRST = frozenset({"float16", "int8", "compact"})
"""Codecs whose features are linear in their codes, cell by cell: the mean of codes decodes to the mean of their features."""
_LARGEST_SHARE = 64  # processors without VNNI add two products in 16 bits: 2 x 255 x 64 fits


def pool_codes(code: Tensor, grid: int) -> Tensor:
    """Return `code` (B, K, h, w) as float32 means over grid x grid cells, or over its own where these are not finer.

    Int8 codes of square maps are summed on the CPU in whole numbers, exactly: one product with how much of each old cell lies
    in each new one, at a fourth of the time of `area_pool` for 22 to 8 cells a side.
    """
    cells = code.shape[-1]
    whole = code.dtype == torch.int8 and code.device.type == "cpu" and code.shape[-2] == cells > grid
    shares = count_shares(cells, grid) if whole else None
    if shares is None:
        return to_grid(code.float(), grid)
    sums = multiply_int8(code.flatten(2).flatten(0, 1), shares)  # (B * K, h * w) -> (B * K, grid * grid), int32
    return (sums / int(shares[:, 0].sum())).view(*code.shape[:2], grid, grid)


@lru_cache(maxsize=64)
def count_shares(cells: int, grid: int) -> Tensor | None:
    """Return how much of each old cell lies in each new one, (cells * cells, grid * grid) int8, in equal whole parts.

    None where a cell has too many parts.
    """
    common = gcd(cells, grid)
    old, new = torch.arange(cells)[:, None] * (grid // common), torch.arange(grid)[None, :] * (cells // common)
    overlap = torch.minimum(old + grid // common, new + cells // common) - torch.maximum(old, new)
    shares = torch.kron(overlap.clamp_min(0), overlap.clamp_min(0))  # of rows and columns
    return shares.to(torch.int8) if int(shares.max()) <= _LARGEST_SHARE else None
