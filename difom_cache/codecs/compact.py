"""Features on their first 3/8 principal directions, then as 8-bit integers: about 0.375 of int8's bytes.

Columns that were begun in it are read and finished; new ones are not made, as `packed` keeps more in fewer bytes
(docs/measurements.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import CodecError
from difom_cache.codecs.base import ArrayOrTensor, Basis, refuse_wrong_scale
from difom_cache.codecs.int8 import dequantize, quantize, refuse_not_finite_scale

if TYPE_CHECKING:
    from torch import Tensor

FEWEST_CHANNELS = 128
"""Below this many channels a tap keeps int8: there is little to save, and few directions to spare."""


@dataclass(frozen=True)
class CompactBasis(Basis):
    """Principal directions of one tap.

    Attributes:
        mean: (C,) float32, in feature units.
        directions: (C, k) float32, orthonormal columns, strongest first; each column's largest entry is positive.
        kept_variance: the share of the variance of the fitted sample that lies in the k directions, in [0, 1].
    """

    ARRAYS: ClassVar = {
        "basis_mean": ("mean", ("channel",), "<f4"),
        "basis": ("directions", ("channel", "direction"), "<f4"),
    }
    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    kept_variance: float

    def __post_init__(self) -> None:
        channels, kept = self.directions.shape if self.directions.ndim == 2 else (-1, -1)
        if self.mean.shape != (channels,) or not 0 < kept <= channels:
            raise CodecError(
                f"a compact basis needs a mean (C,) and directions (C, k) with k <= C, found {self.mean.shape} and "
                f"{self.directions.shape}"
            )


class CompactCodec:
    """Codes are 8-bit coordinates along the principal directions of the tap.

    Error: the part of x - mean outside the k directions (1 - kept_variance of the variance, over the fitted sample),
    plus at most scale / 2 per coordinate; directions are orthonormal, so the two add up as squares in each position.
    """

    name = "compact"
    code_dtype = "int8"
    has_scale = True
    code_units = "steps of scale"
    decoded = "basis_mean + basis @ (code * scale)"

    def __init__(self, basis: CompactBasis) -> None:
        self.basis = basis
        self._placed: dict[str, tuple[Tensor, Tensor]] = {}

    def code_channels(self, channels: int) -> int:
        """Return the number of directions."""
        if channels != len(self.basis.mean):
            raise CodecError(f"this compact basis is for {len(self.basis.mean)} channels, not for {channels}")
        return self.basis.directions.shape[1]

    def scale_channels(self, channels: int) -> int:
        """Return the number of directions: each has a scale."""
        return self.code_channels(channels)

    def _on_device_of(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        key = str(tensor.device)
        if key not in self._placed:
            mean, directions = (tensor.new_tensor(x, dtype=None) for x in (self.basis.mean, self.basis.directions))
            self._placed[key] = mean, directions
        return self._placed[key]

    def encode(self, feature: Tensor, *, check: bool = True) -> tuple[Tensor, Tensor]:
        """Return 8-bit coordinates and their scales (`Codec.encode`)."""
        batch, channels, height, width = feature.shape
        kept = self.code_channels(channels)
        mean, directions = self._on_device_of(feature)
        coordinates = feature.new_empty((batch, kept, height * width))
        # Picture by picture: a product over the whole batch may round differently when the batch is another one.
        for row in range(batch):
            coordinates[row] = directions.T @ (feature[row].flatten(1) - mean[:, None])  # (C, h*w) -> (k, h*w)
        code, scale = quantize(coordinates.view(batch, kept, height, width))
        if check:
            self.check_code(code, scale)
        return code, scale

    def check_code(self, code: Any, scale: Any) -> None:
        """Refuse scales with NaN or infinity (`Codec.check_code`)."""
        refuse_not_finite_scale(scale)

    def decode(self, code: ArrayOrTensor, scale: Any) -> ArrayOrTensor:
        """Return mean + directions x coordinates (`Codec.decode`)."""
        refuse_wrong_scale(self.name, code, scale)
        channels, kept = self.basis.directions.shape
        if code.shape[1] != kept:
            raise CodecError(f"this compact basis has {kept} directions, the code {code.shape[1]} channels")
        batch, _, height, width = code.shape
        coordinates = dequantize(code, scale).reshape(batch, kept, height * width)
        if isinstance(coordinates, np.ndarray):
            feature = np.matmul(self.basis.directions, coordinates) + self.basis.mean[:, None]
        else:
            mean, directions = self._on_device_of(coordinates)
            feature = directions @ coordinates + mean[:, None]
        return feature.reshape(batch, channels, height, width)

    def identity(self) -> dict[str, Any]:
        """Return the name and the basis that decide the bytes."""
        return {"name": self.name, "directions": self.basis.directions.shape[1], "basis": self.basis.digest}
