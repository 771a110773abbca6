"""A map of view 0 seen through another view's geometry: what takes the place of encoding that view.

It is exact for a map that moves with its picture, as a mask does, and only near for features, which depend on scale,
direction and surroundings. `difom-cache verify --equivariance` measures how near, tap by tap.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from difom_cache.views.params import ViewParams


def warp_view(whole: Tensor, params: Sequence[ViewParams], sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Return each map of a view 0 as another view of its record would show it.

    Args:
        whole: (B, C, h, w) float, of view 0: the whole frame.
        params: (B,) the other view of each.
        sizes: (B,) width and height of each record, px.

    Returns:
        (B, C, h, w): bilinear between the centres of cells, border values beyond the border.
    """
    places = torch.stack(
        [locate_view(each, size, whole.shape[-1]) for each, size in zip(params, sizes, strict=True)]
    ).to(whole)
    return functional.grid_sample(whole, places, mode="bilinear", padding_mode="border", align_corners=False)


def locate_view(params: ViewParams, size: tuple[int, int], grid: int) -> Tensor:
    """Return where the centre of each cell of a view lies in its frame, (grid, grid, 2): x and y from -1 to 1.

    The steps of FORMAT.md, section 7, backwards: rotation, quarter turns, flips, crop.
    """
    centre = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid - 0.5
    y, x = torch.meshgrid(centre, centre, indexing="ij")  # in sides of the view, from its middle, y downwards
    angle = math.radians(params.angle_mdeg / 1000)
    cos, sin = math.cos(angle), math.sin(angle)
    spread = 1.0 if params.pad or not params.angle_mdeg else cos + abs(sin)
    x, y = (x * cos - y * sin) / spread, (x * sin + y * cos) / spread
    for _ in range(params.quarter_turns):
        x, y = -y, x
    if params.flip_v:
        y = -y
    if params.flip_h:
        x = -x
    width, height = size
    across = (params.left + (x + 0.5) * params.width) / width
    down = (params.top + (y + 0.5) * params.height) / height
    return torch.stack([2 * across - 1, 2 * down - 1], dim=-1)
