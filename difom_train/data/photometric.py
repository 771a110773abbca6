"""What is done to stored pictures on the device: float pixels, another size, other colours from explicit numbers."""

from collections.abc import Sequence

import kornia.enhance as enhance
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from difom_train.data.counter_rng import Keys, mix, uniform

_COLOUR, _SCALE = 11, 12  # what a mix is for


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
    """Return `pixels` (B, 3, H, W) in [0, 1] with their colours changed by `factors` (B, 4) of `draw_colours`."""
    brightness, contrast, saturation, hue = factors.to(pixels.device, pixels.dtype).unbind(1)
    pixels = (pixels * brightness[:, None, None, None]).clamp(0, 1)
    pixels = enhance.adjust_contrast_with_mean_subtraction(pixels, contrast)
    return enhance.adjust_hue(enhance.adjust_saturation(pixels, saturation), hue)


def to_pixels(image: Tensor, side_px: int) -> Tensor:
    """Return stored pictures (B, H, W, 3) uint8 as (B, 3, side_px, side_px) float32 in [0, 1], antialiased."""
    pixels = image.permute(0, 3, 1, 2).float() / 255  # (B, H, W, 3) -> (B, 3, H, W)
    if pixels.shape[-1] == side_px:
        return pixels.contiguous()
    resized = functional.interpolate(pixels, (side_px, side_px), mode="bilinear", antialias=True, align_corners=False)
    return resized.clamp(0, 1).contiguous()


def to_side(mask: Tensor, side_px: int) -> Tensor:
    """Return masks of 0 and 1 (B, H, W) uint8 at `side_px`: a pixel is 1 where at least half of it was."""
    if mask.shape[-1] == side_px:
        return mask
    share = functional.interpolate(
        mask[:, None].float(), (side_px, side_px), mode="bilinear", antialias=True, align_corners=False
    )
    return (share[:, 0] >= 0.5).to(torch.uint8)
