"""Which cells of a map show the frame, and sums over them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from difom_cache.base.hardware import upload
from difom_cache.extraction.jobs import ViewJob
from difom_cache.store.stats import Moments
from difom_cache.teachers.pooling import area_pool
from difom_cache.views.replay import replay_valid

VALID_FRAC = 0.5  # a cell counts in statistics where at least half of it shows the frame


_BAND = 128  # channels; narrower bands save more products, but run slower


def valid_cells(views: Sequence[ViewJob], grid: int, device: torch.device) -> Tensor:
    """Return which cells show the frame: bool (B, grid, grid)."""
    if all(view.params.wholly_valid for view in views):
        return torch.ones((len(views), grid, grid), dtype=torch.bool, device=device)
    cells = torch.ones((len(views), grid, grid), dtype=torch.bool)
    for row, view in enumerate(views):
        if not view.params.wholly_valid:
            area = replay_valid(view.params, 8 * grid).float()[None, None]
            cells[row] = area_pool(area, grid)[0, 0] >= VALID_FRAC
    return upload(cells, device)


def sum_cells(target: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return number, sum (C,) and sum of outer products (C, C), float64, of the cells of `target` that count.

    Args:
        target: (B, C, h, w) float32.
        counts: (B, h, w) bool.
    """
    cells = target.transpose(0, 1).flatten(1)  # (B, C, h, w) -> (C, B*h*w)
    weights = counts.flatten().float()
    counted = cells * weights
    product = _multiply_by_itself(counted, cells) if cells.device.type == "cpu" else counted @ cells.T
    return weights.sum(dtype=torch.float64), counted.sum(1, dtype=torch.float64), product.double()


def _multiply_by_itself(counted: Tensor, cells: Tensor) -> Tensor:
    """Return `counted @ cells.T` (C, C), which is symmetric: only bands up to the diagonal are computed."""
    channels = len(cells)
    product = cells.new_empty(channels, channels)
    for start in range(0, channels, _BAND):
        stop = min(start + _BAND, channels)
        band = counted[start:stop] @ cells[:stop].T
        product[start:stop, :stop] = band
        product[:start, start:stop] = band[:, :start].T
    return product


def to_moments(sums: tuple[Tensor, Tensor, Tensor]) -> Moments:
    """Return sums that lie on a device as moments."""
    count, total, product = (part.cpu().numpy() for part in sums)
    return Moments(int(count), total, product)
