"""A map of view 0 seen through another view's geometry: what takes the place of encoding that view.

It is exact for a map that moves with its picture, as a mask does, and only near for features, which depend on scale,
direction and surroundings. `difom-cache verify --equivariance` measures how near, tap by tap.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from difom_cache.views.params import ViewParams

FreshView = tuple[ViewParams, tuple[int, int]]
"""A view that no teacher has seen, and the width and height of its record in px."""


@dataclass(frozen=True)
class Warps:
    """The fresh views of a batch: the places (F,) of their maps in it, and where each lies in its frame (F, 2, 3) float64.

    `stored` is (B,) float32: 1 where a picture stays as it is.
    """

    places: Tensor
    matrices: Tensor
    stored: Tensor


def warp_view(whole: Tensor, params: Sequence[ViewParams], sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Return each map of a view 0 as another view of its record would show it.

    Args:
        whole: (B, C, h, w) float, of view 0: the whole frame.
        params: (B,) the other view of each.
        sizes: (B,) width and height of each record, px.

    Returns:
        (B, C, h, w): bilinear between the centres of cells, border values beyond the border.
    """
    return _warp(whole, locate_fresh(list(zip(params, sizes, strict=True))).matrices.to(whole.device))


def locate_fresh(fresh: Sequence[FreshView | None]) -> Warps:
    """Return the fresh views of a batch, (B,) with None where a map stays as it is, as numbers on the CPU."""
    found = [(place, locate_view(*view)) for place, view in enumerate(fresh) if view]
    places = torch.tensor([place for place, _ in found], dtype=torch.int64)
    matrices = torch.tensor([matrix for _, matrix in found], dtype=torch.float64).view(-1, 2, 3)
    return Warps(places, matrices, torch.tensor([view is None for view in fresh], dtype=torch.float32))


def warp_some(maps: Tensor, warps: Warps) -> Tensor:
    """Return maps (B, C, h, w), of view 0 where a fresh view is named, each as that view shows it; the others as they are.

    Args:
        maps: of a batch.
        warps: of the same batch, on the same device.
    """
    if not len(warps.places):
        return maps
    if len(warps.places) == len(maps):
        return _warp(maps, warps.matrices)
    return maps.index_copy(0, warps.places, _warp(maps.index_select(0, warps.places), warps.matrices))


def _warp(maps: Tensor, matrices: Tensor) -> Tensor:
    grid = functional.affine_grid(matrices, list(maps.shape), align_corners=False).to(maps.dtype)
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)


def locate_view(params: ViewParams, size: tuple[int, int]) -> list[list[float]]:
    """Return where a view lies in its frame: the matrix (2, 3) from its x, y to the frame's, both from -1 to 1, y downwards.

    The steps of FORMAT.md, section 7, backwards: rotation, quarter turns, flips, crop.
    """
    angle = math.radians(params.angle_mdeg / 1000)
    spread = 1.0 if params.pad or not params.angle_mdeg else math.cos(angle) + abs(math.sin(angle))
    cos, sin = math.cos(angle) / spread, math.sin(angle) / spread
    x, y = (cos, -sin), (sin, cos)  # each as shares of the view's own x and y
    for _ in range(params.quarter_turns):
        x, y = (-y[0], -y[1]), x
    across, down = -1.0 if params.flip_h else 1.0, -1.0 if params.flip_v else 1.0
    width, height = size
    rows = []
    for axis, sign, first, length, whole in (
        (x, across, params.left, params.width, width),
        (y, down, params.top, params.height, height),
    ):
        share = length / whole
        rows.append([axis[0] * sign * share, axis[1] * sign * share, (2 * first + length) / whole - 1])
    return rows
