"""Many views at once, as a GPU wants them: few kernels a view, a handful a batch, and no copy that the host waits for.

On the CPU a batch is its views, one by one. Elsewhere each crop is resized, mirrored and turned by itself, as crops have
sizes of their own; all rotated views are then resampled together, from one upload of their numbers.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from difom_cache.base.hardware import upload
from difom_cache.views.params import ViewParams
from difom_cache.views.replay import (
    flip_and_turn,
    recolour,
    replay_image,
    replay_valid,
    resize_crop,
    spread_of,
    to_radians,
    upright_px,
)


def replay_images(images: Sequence[Tensor], params: Sequence[ViewParams], size_px: int) -> Tensor:
    """Return the views of some pictures; on other devices than the CPU within a grey level of `replay_image`.

    Args:
        images: (B,) pictures (3, H, W) uint8 RGB, whole frames on one device.
        params: (B,) the view of each.
        size_px: side of the views.

    Returns:
        (B, 3, size_px, size_px) float32 in [0, 1], on the pictures' device.

    Raises:
        DataError: a crop does not lie inside its picture.
    """
    if images[0].device.type == "cpu":
        return torch.stack([replay_image(image, each, size_px) for image, each in zip(images, params, strict=True)])
    return replay_together(images, params, size_px)


def replay_together(images: Sequence[Tensor], params: Sequence[ViewParams], size_px: int) -> Tensor:
    """Return what `replay_images` does on a GPU, on any device."""
    device = images[0].device
    sides = [upright_px(each, size_px) for each in params]
    upright = torch.zeros((len(images), 3, max(sides), max(sides)), device=device)
    for row, (image, each, side) in enumerate(zip(images, params, sides, strict=True)):
        upright[row, :, :side, :side] = flip_and_turn(resize_crop(image, each, side), each)
    views = upright[:, :, :size_px, :size_px].contiguous()
    rotated = [row for row, each in enumerate(params) if each.angle_mdeg]
    if rotated:
        rows = upload(torch.tensor(rotated), device)
        chosen = [params[row] for row in rotated]
        numbers = upload(_list_numbers(chosen, size_px, max(sides)), device)
        turned = _rotate(upright.index_select(0, rows), numbers, size_px)
        if not all(each.wholly_valid for each in chosen):
            turned *= _show_valid(numbers, size_px)
        views.index_copy_(0, rows, turned)
    views.div_(255)
    for row, each in enumerate(params):
        if each.has_colour:  # no policy that `extract` offers records colours
            views[row] = recolour(views[row], each) * replay_valid(each, size_px, device=device)
    return views


def _list_numbers(params: Sequence[ViewParams], size_px: int, canvas_px: int) -> Tensor:
    """Return what a rotation needs, (B, 7) float64: cos and sin; the same in canvas units; the middle and both ends of the
    upright picture in canvas units, which reach from -1 to 1 over the canvas' pixels; and whether corners are left out."""
    table = []
    for each in params:
        angle, side = to_radians(each), upright_px(each, size_px)
        scale = 2 * side / (size_px * spread_of(each) * canvas_px)  # canvas units in a step of one pixel of the view
        middle, low, high = side / canvas_px - 1, 1 / canvas_px - 1, (2 * side - 1) / canvas_px - 1
        table.append([math.cos(angle), math.sin(angle), scale, middle, low, high, float(not each.wholly_valid)])
    return torch.from_numpy(np.array(table))


def _rotate(upright: Tensor, numbers: Tensor, size_px: int) -> Tensor:
    """Return the rotated views, (B, C, M, M) -> (B, C, size_px, size_px), border values beyond the border."""
    cos, sin, scale, middle, low, high = numbers.float()[:, :6, None, None].unbind(1)  # each (B, 1, 1)
    step = torch.arange(size_px, device=upright.device) - (size_px - 1) / 2
    x, y = step[None, None, :] * scale, step[None, :, None] * scale
    across, down = x * cos - y * sin, x * sin + y * cos
    places = torch.stack([across, down], dim=-1) + middle[..., None]
    places = places.clamp(low[..., None], high[..., None])
    views = functional.grid_sample(upright, places, mode="bilinear", padding_mode="border", align_corners=False)
    return views.clamp_(0, 255)  # the weights of a bilinear sum may add up to a little more than 1


def _show_valid(numbers: Tensor, size_px: int) -> Tensor:
    """Return True where `replay_valid` is 1, (B, 1, size_px, size_px) bool; in float64, as there."""
    cos, sin, left_out = (numbers[:, place, None, None] for place in (0, 1, 6))
    centre = (torch.arange(size_px, dtype=torch.float64, device=numbers.device) + 0.5) / size_px - 0.5
    x, y = centre[None, None, :], centre[None, :, None]
    inside = ((x * cos - y * sin).abs() <= 0.5) & ((x * sin + y * cos).abs() <= 0.5)
    return (inside | (left_out == 0))[:, None]
