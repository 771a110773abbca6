"""What is done to stored pictures on the device: float pixels, another size, other colours from explicit numbers."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from difom_train.data.counter_rng import Keys, mix, uniform

_COLOUR, _SCALE = 11, 12  # what a mix is for
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_OPPOSITES = (3.0, 5.0, 1.0)  # where cyan, magenta and yellow lie, in sixths of the circle of hues
_FAINTEST = 1e-20  # chroma of a pixel that has a hue


def draw_colours(
    reach: Sequence[float], record_key: Keys, slots: NDArray[np.int64], *, seed: int, epoch: int
) -> NDArray[np.float32]:
    """Return brightness, contrast, saturation (factors) and hue (radians) for each picture, (B, 4).

    Args:
        reach: of the four changes: factors in [1 - x, 1 + x], and the hue by [-x, x] circles (`ColourConfig.reach`).
        record_key: (B,) keys of the pictures' records.
        slots: (B,) the pictures' places in the epoch, so that a record that comes twice differs.
        seed: of the run.
        epoch: counted from 0.
    """
    drawn = [uniform(mix(record_key, seed, epoch, _COLOUR, each, slots.astype(np.uint64))) * 2 - 1 for each in range(4)]
    factors = np.stack(drawn, axis=1) * np.array(reach)
    factors[:, :3] += 1
    factors[:, 3] *= 2 * np.pi
    return factors.astype(np.float32)


def draw_scale(scales: tuple[float, ...], *, seed: int, epoch: int, step: int) -> float:
    """Return the factor on the input size of one step."""
    if len(scales) == 1:
        return scales[0]
    share = float(uniform(mix(np.zeros(1, np.uint64), seed, epoch, step, _SCALE))[0])
    return scales[int(share * len(scales))]


def recolour(pixels: Tensor, factors: Tensor) -> Tensor:
    """Return `pixels` (B, 3, H, W) in [0, 1] with their colours changed by `factors` (B, 4) of `draw_colours`.

    Brightness multiplies, contrast moves away from the mean grey of the picture, saturation and hue are those of HSV: what
    `kornia.enhance` does one after the other, in one pass through hue, chroma and value.
    """
    brightness, contrast, saturation, hue = factors.to(pixels.device, pixels.dtype)[:, :, None, None].unbind(1)
    pixels = (pixels * brightness[:, None]).clamp_(0, 1)
    means = pixels.mean(dim=(2, 3))  # (B, 3)
    grey = (means * _constant(_GREY, pixels.device, pixels.dtype)).sum(dim=1)[:, None, None, None]
    pixels = pixels.mul_(contrast[:, None]).add_(grey * (1 - contrast[:, None])).clamp_(0, 1)
    return _turn_colours(pixels, saturation, hue)


@cache
def _constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return numbers that stay on a device, which need not wait for them again."""
    return torch.tensor(values, device=device, dtype=dtype)


def _turn_colours(pixels: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Return `pixels` (B, 3, H, W) with their saturation multiplied, up to 1, and their hue turned; both (B, 1, 1).

    Value and chroma say how far each channel lies below the largest, and the hue, in sixths of a circle, which share of the
    chroma that is: max(0, min(1, 2 - |hue - c|)) for the channel whose opposite colour lies at c.
    """
    red, green, blue = pixels.unbind(1)
    value = pixels.amax(dim=1)  # (B, H, W)
    chroma = value - pixels.amin(dim=1)
    above_green = torch.where(green == value, (blue - red).add_(chroma, alpha=2), (red - green).add_(chroma, alpha=4))
    sixths = torch.where(red == value, green - blue, above_green).div_(chroma.clamp_min(_FAINTEST))
    sixths += hue * (3 / math.pi)
    chroma = torch.minimum(chroma.mul_(saturation), value)
    away = sixths.unsqueeze(1) - _constant(_OPPOSITES, pixels.device, pixels.dtype).view(3, 1, 1)  # (B, 3, H, W)
    away = away.sub_((away / 6).round_(), alpha=6).abs_()  # the hue goes in a circle
    return torch.addcmul(value.unsqueeze(1), chroma.unsqueeze(1), away.neg_().add_(2).clamp_(0, 1), value=-1)


def to_pixels(image: Tensor, side_px: int) -> Tensor:
    """Return stored pictures (B, H, W, 3) uint8 as (B, 3, side_px, side_px) float32 in [0, 1], antialiased.

    On a CPU a resized picture is of whole grey levels, as the stored one is: resizing bytes is several times as fast there.
    """
    pixels = image.permute(0, 3, 1, 2)  # (B, H, W, 3) -> (B, 3, H, W)
    if pixels.shape[-1] != side_px:
        pixels = pixels if pixels.device.type == "cpu" else pixels.float()
        size = (side_px, side_px)
        pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div(255).clamp_(0, 1)


def to_side(mask: Tensor, side_px: int) -> Tensor:
    """Return masks of 0 and 1 (B, H, W) uint8 at `side_px`: a pixel is 1 where at least half of it was."""
    if mask.shape[-1] == side_px:
        return mask
    share = functional.interpolate(
        mask[:, None].float(), (side_px, side_px), mode="bilinear", antialias=True, align_corners=False
    )
    return (share[:, 0] >= 0.5).to(torch.uint8)
