"""Features as 8-bit integers with one scale per picture and channel: the default code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from difom_cache.codecs.base import ArrayOrTensor, UncodableFeatureError, first_not_finite, refuse_wrong_scale

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 127
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""Scale of a channel that is zero everywhere: any positive number decodes its zeros to zero, and the smallest normal
one also keeps the error bound for channels that are all but zero."""


def quantize(feature: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest of 255 levels for each value, and the size of a level.

    Args:
        feature: (B, C, h, w) float32.

    Returns:
        code (B, C, h, w) int8 in [-127, 127]; scale (B, C) float32, feature units per step, > 0 unless the channel
        holds NaN or infinity, which then stands in its scale.
    """
    scale = (feature.abs().amax(dim=(2, 3)) / STEPS).clamp_min(SMALLEST_SCALE)
    code = (feature / scale[:, :, None, None]).round().clamp(-STEPS, STEPS).char()
    return code, scale


def dequantize(code: ArrayOrTensor, scale: Any) -> ArrayOrTensor:
    """Return (B, C, h, w) float32, `code` times its channel's scale."""
    if isinstance(code, np.ndarray):
        return np.multiply(code, scale[:, :, None, None], dtype=np.float32)
    return code.float().mul_(scale[:, :, None, None])


def refuse_not_finite_scale(scale: Any) -> None:
    """Refuse a scale with NaN or infinity: its channel of the feature had one.

    Raises:
        UncodableFeatureError: names the first such row and channel.
    """
    place = first_not_finite(scale)
    if place is not None:
        raise UncodableFeatureError(*place, "expected finite features, found NaN or infinity")


class Int8Codec:
    """Codes are whole steps of 1/127 of the largest magnitude in the picture's channel.

    Error: at most scale / 2 per value (plus one float32 rounding), where scale = max |x| / 127 over that picture's
    channel; nothing clips, and an all-zero channel comes back as exact zeros.

    Source: Jacob et al. 2018, arXiv:1712.05877, equation 1, with zero point 0.
    """

    name = "int8"
    code_dtype = "int8"
    has_scale = True
    code_units = "steps of scale"
    decoded = "code * scale"

    def code_channels(self, channels: int) -> int:
        """Return `channels`."""
        return channels

    def scale_channels(self, channels: int) -> int:
        """Return `channels`: each has a scale."""
        return channels

    def encode(self, feature: Tensor, *, check: bool = True) -> tuple[Tensor, Tensor]:
        """Return 8-bit codes and their scales (`Codec.encode`)."""
        code, scale = quantize(feature)
        if check:
            self.check_code(code, scale)
        return code, scale

    def check_code(self, code: Any, scale: Any) -> None:
        """Refuse scales with NaN or infinity (`Codec.check_code`)."""
        refuse_not_finite_scale(scale)

    def decode(self, code: ArrayOrTensor, scale: Any) -> ArrayOrTensor:
        """Return code times scale (`Codec.decode`)."""
        refuse_wrong_scale(self.name, code, scale)
        return dequantize(code, scale)

    def identity(self) -> dict[str, Any]:
        """Return the name: nothing else decides the bytes."""
        return {"name": self.name}
