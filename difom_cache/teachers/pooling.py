"""A feature map on a coarser grid: each new cell is the exact mean over the area that it covers.

A new cell's border may cut an old cell; the old cell then counts with the fraction that lies inside.
(`adaptive_avg_pool2d` rounds borders outwards instead, so its cells overlap and differ in size.)
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from difom_cache.base.errors import TeacherError


@lru_cache(maxsize=256)
def _pool_matrix(cells: int, grid: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the (grid, cells) matrix whose rows sum to 1: row i holds the share of each old cell in new cell i."""
    # In units of 1 / grid old cells all borders are integers, so the shares are exact before the one division.
    old = torch.arange(cells)[None, :] * grid
    new = torch.arange(grid)[:, None] * cells
    overlap = torch.minimum(old + grid, new + cells) - torch.maximum(old, new)  # (grid, cells)
    return (overlap.clamp_min(0).double() / cells).to(device=device, dtype=dtype)


def area_pool(x: Tensor, grid: int) -> Tensor:
    """Return the mean of `x` over each cell of a `grid` x `grid` division of its area.

    Args:
        x: (B, C, h, w), floating point; h and w may differ.
        grid: cells a side, at most min(h, w).

    Returns:
        (B, C, grid, grid) of the same dtype and device; `x` itself where the grid is already its own.

    Raises:
        TeacherError: `grid` is finer than the map.
    """
    height, width = x.shape[-2:]
    if not 0 < grid <= min(height, width):
        raise TeacherError(
            f"a map of {height}x{width} cells cannot be pooled to {grid}x{grid}: expected 1 to {min(height, width)} "
            "cells a side; choose a larger stride for this tap, or a larger teacher input"
        )
    if height == width == grid:
        return x
    if height % grid == 0 and width % grid == 0:
        return functional.avg_pool2d(x, (height // grid, width // grid))
    rows = _pool_matrix(height, grid, x.dtype, x.device)
    columns = _pool_matrix(width, grid, x.dtype, x.device)
    return rows @ (x @ columns.T)  # (B, C, h, w) -> (B, C, h, grid) -> (B, C, grid, grid)
