"""Painted landmarks, views to see them in, and where they must then be: worked out point by point, not by resampling."""

import math
from dataclasses import replace

import torch

from difom_cache import ViewParams
from difom_cache.views import POLICIES, draw_params

WIDTH, HEIGHT = 400, 310
PLACES = [(200, 155), (150, 120), (250, 120), (150, 190), (250, 190)]
"""Five landmarks (x, y) in source px, in sight of every view below."""
CROP = ViewParams(20, 35, 270, 340)
VIEWS = {
    "plain": ViewParams(0, 0, HEIGHT, WIDTH),
    "crop": CROP,
    "flip_h": replace(CROP, flip_h=1),
    "flip_v": replace(CROP, flip_v=1),
    "turn_1": replace(CROP, quarter_turns=1),
    "turn_2": replace(CROP, quarter_turns=2),
    "turn_3": replace(CROP, quarter_turns=3),
    "flip_then_turn": replace(CROP, flip_h=1, quarter_turns=1),
    "rotate_left": replace(CROP, angle_mdeg=15_000),
    "rotate_right": replace(CROP, angle_mdeg=-7_300),
    "rotate_padded": replace(CROP, angle_mdeg=40_000, pad=1),
    "everything": replace(CROP, flip_h=1, flip_v=1, quarter_turns=3, angle_mdeg=11_000),
} | {f"drawn_{i}": draw_params(POLICIES["default"], WIDTH, HEIGHT, 1, "sample/a", i) for i in range(1, 9)}


def paint_smooth_frame(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> torch.Tensor:
    """Return a smooth coloured frame, (3, height, width) uint8."""
    coarse = torch.rand(1, 3, 7, 9, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (smooth[0] * 255).byte()


def paint_disc(place: tuple[float, float], radius_px: float = 14) -> torch.Tensor:
    """Return a mask with one disc about `place` (x, y), (HEIGHT, WIDTH) uint8."""
    x, y = torch.arange(WIDTH) + 0.5, torch.arange(HEIGHT) + 0.5
    return ((x[None, :] - place[0]) ** 2 + (y[:, None] - place[1]) ** 2 <= radius_px**2).byte()


def find_centre(weight: torch.Tensor) -> tuple[float, float]:
    """Return the centre of mass (x, y) in px of a (H, W) map, pixel centres at halves."""
    weight = weight.double()
    steps = torch.arange(weight.shape[0], dtype=torch.float64) + 0.5
    return float((weight.sum(0) @ steps) / weight.sum()), float((weight.sum(1) @ steps) / weight.sum())


def expected_place(place: tuple[float, float], params: ViewParams, size_px: int) -> tuple[float, float]:
    """Return where a source point lies in a view, worked out point by point and not by resampling."""
    x, y = (place[0] - params.left) / params.width, (place[1] - params.top) / params.height
    x, y = (1 - x if params.flip_h else x), (1 - y if params.flip_v else y)
    for _ in range(params.quarter_turns):
        x, y = y, 1 - x  # what was at the right edge is now at the top
    angle = math.radians(params.angle_mdeg / 1000)
    zoom = 1.0 if params.pad else math.cos(angle) + abs(math.sin(angle))
    x, y = x - 0.5, y - 0.5
    x, y = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return (x * zoom + 0.5) * size_px, (y * zoom + 0.5) * size_px


def source_place(place: tuple[float, float], params: ViewParams) -> tuple[float, float]:
    """Return the source point (x, y) in px that a view shows at `place` (x, y), in sides of the view."""
    angle = math.radians(params.angle_mdeg / 1000)
    zoom = 1.0 if params.pad else math.cos(angle) + abs(math.sin(angle))
    x, y = (place[0] - 0.5) / zoom, (place[1] - 0.5) / zoom
    x, y = x * math.cos(angle) - y * math.sin(angle) + 0.5, y * math.cos(angle) + x * math.sin(angle) + 0.5
    for _ in range(params.quarter_turns):
        x, y = 1 - y, x
    x, y = (1 - x if params.flip_h else x), (1 - y if params.flip_v else y)
    return x * params.width + params.left, y * params.height + params.top
