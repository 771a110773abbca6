"""FORMAT.md, section 7, written out in float64 NumPy from its text alone, against what replays views."""

import math

import numpy as np
import pytest
import torch
from landmarks import HEIGHT, VIEWS, WIDTH, paint_disc
from numpy.typing import NDArray

from difom_cache import ViewParams, replay_image, replay_mask
from difom_cache.views import replay_together

Floats = NDArray[np.float64]
SIZES = [224, 97, 352]


def weights_of(length: int, side: int) -> Floats:
    """Return the antialiased bilinear weights (side, length) of a resize: a triangle as wide as a pixel of the coarser grid."""
    scale = length / side
    centre = (np.arange(side) + 0.5) * scale
    away = np.abs((np.arange(length) + 0.5)[None] - centre[:, None]) / max(scale, 1.0)
    weights = np.maximum(0, 1 - away)
    return weights / weights.sum(axis=1, keepdims=True)


def sample(values: Floats, x: Floats, y: Floats) -> Floats:
    """Return bilinear values (..., S, S) at pixel coordinates, with border values beyond the border."""
    height, width = values.shape[-2:]
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    right, down = x - left, y - top
    upper = values[..., top, left] * (1 - right) + values[..., top, left + 1] * right
    lower = values[..., top + 1, left] * (1 - right) + values[..., top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def define_view(source: NDArray[np.uint8], view: ViewParams, size_px: int) -> Floats:
    """Return steps 1 to 4, (C, H, W) -> (C, S, S) grey levels."""
    angle = math.radians(view.angle_mdeg / 1000)
    cos, sin = math.cos(angle), math.sin(angle)
    spread = 1.0 if view.pad or not view.angle_mdeg else cos + abs(sin)
    side = math.ceil(size_px * spread)
    crop = source[:, view.top : view.top + view.height, view.left : view.left + view.width].astype(np.float64)
    x = np.rint(weights_of(view.height, side) @ crop @ weights_of(view.width, side).T)
    x = x[..., ::-1] if view.flip_h else x
    x = x[..., ::-1, :] if view.flip_v else x
    x = np.rot90(x, view.quarter_turns, axes=(-2, -1))
    if not view.angle_mdeg:
        return x
    r = size_px * spread / side
    across, down = np.meshgrid(*[np.arange(size_px) - (size_px - 1) / 2] * 2)
    # (u, v) moves to r (u cos + v sin, -u sin + v cos), so the pixel at (across, down) shows what was at the inverse of it.
    u, v = (across * cos - down * sin) / r, (across * sin + down * cos) / r
    x = sample(x, u + (side - 1) / 2, v + (side - 1) / 2)
    if view.pad:
        part, rest = across / size_px, down / size_px
        x = x * ((np.abs(part * cos - rest * sin) <= 0.5) & (np.abs(part * sin + rest * cos) <= 0.5))
    return x


@pytest.mark.parametrize("size_px", SIZES)
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_of_noise_is_within_a_grey_level_of_its_definition(name, size_px):
    """Of noise, as there every pixel tells where it was taken from; Pillow's integers round twice where float64 rounds once."""
    view = VIEWS[name]
    frame = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)
    defined = define_view(frame, view, size_px)
    shown = replay_image(torch.from_numpy(frame), view, size_px).double().numpy() * 255
    together = replay_together([torch.from_numpy(frame)], [view], size_px)[0].double().numpy() * 255
    for found in (shown, together):
        assert np.abs(found - defined).max() <= 1.01  # a hundredth for float32's places
        assert np.abs(found - defined).mean() < 0.25


@pytest.mark.parametrize("size_px", SIZES)
@pytest.mark.parametrize("name", VIEWS)
def test_a_mask_is_its_definition_but_for_pixels_that_are_half_in(name, size_px):
    view, disc = VIEWS[name], paint_disc((200, 155), radius_px=60)
    defined = define_view(disc.numpy()[None] * 255, view, size_px)[0]
    shown = replay_mask(disc, view, size_px).numpy()
    wrong = shown != (defined >= 127.5)
    assert np.abs(defined[wrong] - 127.5).max(initial=0) <= 1.001
    assert wrong.sum() <= 4
