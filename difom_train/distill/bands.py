"""The low and the high spatial frequencies of a map, split on the grid where the loss compares it.

The paper (arXiv 2512.09307) keeps a centred square of half-width floor(min(h, w) / 6) of the 2-D FFT as the low band.
That window is a product of one window for rows and one for columns, so the split is two small matrix products, equal
to FFT, mask and inverse FFT. Our window is symmetric (-r..r), so the result is real by itself; the released notebook
takes -r..r-1 and drops an imaginary part, on a 64 x 64 grid that it then shrinks without antialiasing.
"""

from functools import lru_cache

import torch
from torch import Tensor


def halfwidth_cycles(height: int, width: int) -> int:
    """Return the highest frequency of the low band, in cycles per picture, for a grid of height x width cells."""
    return min(height, width) // 6


def split_bands(x: Tensor, low_cycles: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the low and the high band of `x` (B, C, h, w) in floating point; they sum to `x`.

    Args:
        x: to be split.
        low_cycles: highest frequency of the low band, in cycles per picture; None = the paper's share of the grid.
    """
    height, width = x.shape[-2:]
    halfwidth = halfwidth_cycles(height, width) if low_cycles is None else low_cycles
    rows = low_pass_matrix(height, halfwidth, x.dtype, x.device)
    columns = low_pass_matrix(width, halfwidth, x.dtype, x.device)
    low = rows @ x @ columns  # the matrices are symmetric
    return low, x - low


@lru_cache(maxsize=64)
def low_pass_matrix(cells: int, halfwidth: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the symmetric (cells, cells) matrix that keeps the frequencies -halfwidth..halfwidth of a periodic line."""
    distance = torch.arange(cells)[:, None] - torch.arange(cells)[None, :]
    frequency = torch.arange(1, halfwidth + 1, dtype=torch.float64)
    angle = 2 * torch.pi * frequency[:, None, None] * distance / cells
    return ((1 + 2 * angle.cos().sum(dim=0)) / cells).to(device=device, dtype=dtype)


def fill_outside(x: Tensor, inside: Tensor) -> Tensor:
    """Return `x` with each cell outside the frame replaced by its channel's mean over the cells inside.

    A hole would otherwise ring through every frequency.

    Args:
        x: (B, C, h, w).
        inside: (B, 1, h, w), 1 or 0; a picture without any cell inside becomes 0.
    """
    mean = (x * inside).sum(dim=(2, 3), keepdim=True) / inside.sum(dim=(2, 3), keepdim=True).clamp_min(1.0)
    return torch.where(inside > 0, x, mean)
