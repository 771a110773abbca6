"""Features as a mean, a size and 1 to 8 bits for each strong direction: about a seventh of int8's bytes.

A picture's own mean is kept apart and what is left is brought to one size, so that the bits say how a picture's cells differ
from each other, in a picture of much contrast as in one of little. Directions are as wide as they are strong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import CodecError
from difom_cache.codecs.base import (
    ArrayOrTensor,
    Basis,
    UncodableFeatureError,
    first_not_finite,
    principal_directions,
    refuse_no_scale,
)
from difom_cache.codecs.int8 import SMALLEST_SCALE

if TYPE_CHECKING:
    from torch import Tensor

WIDTHS = (8, 4, 2, 1)
"""Bits that a direction may have; a byte holds 1, 2, 4 or 8 neighbours of one width, the first in its lowest bits."""
_STEPS = {8: (0.025, 0.035, 0.05), 4: (0.22, 0.28, 0.34, 0.42, 0.5), 2: (0.7, 0.85, 1.0, 1.15), 1: (1.0, 1.3, 1.6)}
"""Steps that are tried for a direction, in its standard deviations: about the best for a Gaussian (Max 1960, table I),
whose tails are cut off, and others for lighter and heavier tails."""
_EVERY = 4  # cells of the sample that steps are chosen on; directions use all of them


def packed_bytes(channels: int) -> int:
    """Return the bytes of a cell for a tap of so many channels: 9/8 bits a channel."""
    return 9 * channels // 64


@dataclass(frozen=True)
class PackedBasis(Basis):
    """Directions of one tap, within pictures of mean 0 and size 1, and how finely each is told.

    Attributes:
        directions: (C, k) float32, orthonormal columns, strongest first; each column's largest entry is positive.
        steps: (k,) float32, > 0: distance of two levels.
        bits: (k,) uint8 of `WIDTHS`, the widest first, each width filling whole bytes: 2 ** bits levels about 0.
        kept_variance: the share of the variance of the fitted sample that lies in the k directions, in [0, 1].
    """

    ARRAYS: ClassVar = {
        "basis_bits": ("bits", ("direction",), "u1"),
        "basis_step": ("steps", ("direction",), "<f4"),
        "basis": ("directions", ("channel", "direction"), "<f4"),
    }
    directions: NDArray[np.float32]
    steps: NDArray[np.float32]
    bits: NDArray[np.uint8]
    kept_variance: float

    def __post_init__(self) -> None:
        channels, kept = self.directions.shape if self.directions.ndim == 2 else (-1, -1)
        counts = self.counts
        fits = self.steps.shape == self.bits.shape == (kept,) and 0 < kept <= channels and sum(counts) == kept
        if not fits or (np.diff(self.bits.astype(int)) > 0).any():
            raise CodecError(
                f"a packed basis needs directions (C, k) with k <= C and, for each, a step and {WIDTHS} bits, the widest "
                f"first; found {self.directions.shape}, {self.steps.shape} and bits {np.unique(self.bits).tolist()}"
            )
        if any(count * width % 8 for count, width in zip(counts, WIDTHS, strict=True)):
            raise CodecError(f"a packed basis fills whole bytes with each width, found {counts} of {WIDTHS} bits")

    @property
    def counts(self) -> list[int]:
        """How many directions there are of each of `WIDTHS`."""
        return [int((self.bits == width).sum()) for width in WIDTHS]

    @property
    def code_bytes(self) -> int:
        """Bytes of a cell."""
        return int(self.bits.sum(dtype=np.int64)) // 8

    @classmethod
    def placeholder(cls, channels: int) -> PackedBasis:
        """Return a basis of the size that `fit_packed` gives, for counting bytes before anything is fitted."""
        kept = 4 * packed_bytes(channels)
        bits = np.full(kept, 2, np.uint8)
        return cls(np.eye(channels, kept, dtype=np.float32), np.ones(kept, np.float32), bits, 1.0)


def fit_packed(features: Sequence[Tensor]) -> PackedBasis:
    """Return directions, widths and steps for a sample of features; the same sample in the same order gives the same basis.

    Args:
        features: maps (B, C, h, w) float32 of whole, valid pictures, all of one tap; on any device.

    Raises:
        CodecError: fewer positions than channels, or a value that is not finite.
    """
    count, products = 0, np.zeros(())
    for picture in _centre_all(features):
        count += picture.shape[1]
        products = products + picture @ picture.T
    channels = len(products) if products.ndim else 0
    if count <= channels:
        raise CodecError(
            f"the packed codec needs more positions than the {channels} channels to fit its basis, found {count}; "
            "give more records, or choose codec int8"
        )
    if not np.isfinite(products).all():
        raise CodecError("the packed codec cannot be fitted: the sample of features holds NaN or infinity")
    variance, directions = principal_directions(products / count)
    coordinates = (directions.T @ picture[:, ::_EVERY] for picture in _centre_all(features))
    sample = np.concatenate(list(coordinates), axis=1)  # (C, n)
    steps, errors = _choose_steps(sample, np.sqrt(variance))
    counts = _share_out(errors, (sample**2).mean(axis=1), packed_bytes(len(products)))
    bits = np.repeat(np.array(WIDTHS, np.uint8), counts)
    kept = len(bits)
    chosen = np.array([steps[WIDTHS.index(width)][place] for place, width in enumerate(bits.tolist())])
    share = float(variance[:kept].sum() / variance.sum()) if variance.sum() > 0 else 1.0
    return PackedBasis(
        np.ascontiguousarray(directions[:, :kept], dtype=np.float32),
        chosen.clip(min=SMALLEST_SCALE).astype(np.float32),
        bits,
        share,
    )


def _centre_all(features: Sequence[Tensor]) -> Iterator[NDArray[np.float64]]:
    """Yield each picture (C, h*w) less its mean, at size 1."""
    for feature in features:
        for picture in feature.flatten(2):
            yield centre(picture)[0].double().cpu().numpy()


def _choose_steps(
    sample: NDArray[np.float64], deviation: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the best step (4, C) of each of `WIDTHS` for each direction, and its mean squared error (4, C)."""
    steps, errors = (np.empty((len(WIDTHS), len(sample))) for _ in range(2))
    for place, width in enumerate(WIDTHS):
        half, best = 2 ** (width - 1), np.full(len(sample), np.inf)
        for step in (share * deviation.clip(min=SMALLEST_SCALE) for share in _STEPS[width]):
            levels = np.floor(sample / step[:, None]).clip(-half, half - 1) + 0.5
            error = ((sample - levels * step[:, None]) ** 2).mean(axis=1)
            better = error < best
            best[better], steps[place, better] = error[better], step[better]
        errors[place] = best
    return steps, errors


def _share_out(errors: NDArray[np.float64], unkept: NDArray[np.float64], size: int) -> list[int]:
    """Return how many directions get each of `WIDTHS`: of all ways to fill `size` bytes, widest first, the one of least error.

    Args:
        errors: (4, C) of each of `WIDTHS`, strongest direction first.
        unkept: (C,) where a direction is left out.
        size: bytes of a cell.
    """
    rows = np.pad(np.vstack([errors, unkept]), ((0, 0), (1, 0)))
    sums = np.cumsum(rows, axis=1)  # (5, C + 1), of the first directions
    four, two = (each.ravel() for each in np.mgrid[: size + 1, : size + 1])  # bytes
    best, least = [0, 0, 0, 0], np.inf
    for eight in range(size + 1):
        one = size - eight - four - two
        fits = (one >= 0) & (eight + 2 * four + 4 * two + 8 * one <= len(unkept))
        if not fits.any():
            continue
        counts = np.stack([np.full(fits.sum(), eight), 2 * four[fits], 4 * two[fits], 8 * one[fits]])
        edges = np.vstack([np.zeros_like(counts[:1]), np.cumsum(counts, axis=0)])  # (5, n)
        error = sums[-1, -1] - sums[-1, edges[-1]]
        for each, start, stop in zip(sums, edges[:-1], edges[1:], strict=False):
            error = error + each[stop] - each[start]
        place = int(error.argmin())
        if error[place] < least:
            best, least = counts[:, place].tolist(), error[place]
    return best


def centre(picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a picture (C, h*w) less its mean, at size 1; its mean (C,); and its size, the root mean square of the rest, > 0."""
    mean = picture.mean(dim=1)
    rest = picture - mean[:, None]
    size = rest.square().mean().sqrt().clamp_min(SMALLEST_SCALE)
    return rest / size, mean, size


class PackedCodec:
    """Codes are levels along the principal directions of the tap, packed into bytes; scales are each picture's mean and size.

    Error: the part of the centred feature outside the k directions, plus at most size x step / 2 per coordinate between the
    outermost levels; coordinates beyond them become the outermost level. The mean of a picture and channel is kept exactly,
    but for what the decoded rest adds to it.

    Source: bits by strength, as in transform coding (Huang and Schultheiss 1963, doi:10.1109/TCOM.1963.1088759).
    """

    name = "packed"
    code_dtype = "uint8"
    has_scale = True
    code_units = "levels of basis_step, several a byte"
    decoded = "scale[:C] + scale[C] * (basis @ (basis_step * (unpacked code + 1/2 - 2^(basis_bits - 1))))"

    def __init__(self, basis: PackedBasis) -> None:
        self.basis = basis
        halves = 2.0 ** (basis.bits.astype(np.float64) - 1) - 0.5
        weights = basis.directions.astype(np.float64) * basis.steps
        self._weights = np.ascontiguousarray(weights, dtype=np.float32)  # (C, k)
        self._offset = (weights @ halves).astype(np.float32)  # (C,), of levels that are counted from 0
        self._places = list(_find_places(basis.counts))
        self._placed: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def code_channels(self, channels: int) -> int:
        """Return the bytes of a cell."""
        if channels != len(self.basis.directions):
            raise CodecError(f"this packed basis is for {len(self.basis.directions)} channels, not for {channels}")
        return self.basis.code_bytes

    def scale_channels(self, channels: int) -> int:
        """Return the number of means and the one size."""
        return channels + 1

    def _on_device_of(self, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        key = str(tensor.device)
        if key not in self._placed:
            numbers = (self.basis.directions / self.basis.steps, 2.0**self.basis.bits, self._weights, self._offset)
            placed = (tensor.new_tensor(x.astype(np.float32), dtype=None) for x in numbers)
            self._placed[key] = tuple(placed)  # type: ignore[assignment]
        return self._placed[key]

    def encode(self, feature: Tensor, *, check: bool = True) -> tuple[Tensor, Tensor]:
        """Return packed levels, and means and sizes (`Codec.encode`)."""
        batch, channels, height, width = feature.shape
        size = self.code_channels(channels)
        towards, levels, _, _ = self._on_device_of(feature)
        code = feature.new_empty((batch, size, height * width)).byte()
        scale = feature.new_empty((batch, channels + 1))
        # Picture by picture: a product over the whole batch may round differently when the batch is another one.
        for row in range(batch):
            rest, scale[row, :channels], scale[row, channels] = centre(feature[row].flatten(1))
            fields = (towards.T @ rest).floor_() + (levels / 2)[:, None]  # (k, h*w)
            self._pack(fields.clamp_(min=0).minimum(levels[:, None] - 1).byte(), code[row])
        if check:
            self.check_code(code, scale)
        return code.view(batch, size, height, width), scale

    def _pack(self, fields: Tensor, code: Tensor) -> None:
        """Fill `code` (K, h*w) with the levels (k, h*w), both uint8."""
        for width, fields_of, bytes_of in self._places:
            neighbours = fields[fields_of].view(-1, 8 // width, fields.shape[1])
            code[bytes_of] = sum(neighbours[:, place] << place * width for place in range(8 // width))

    def _unpack(self, code: ArrayOrTensor, levels: ArrayOrTensor) -> None:
        """Fill `levels` (B, k, h*w) float32 with those of `code` (B, K, h*w), counted from 0."""
        for width, fields_of, bytes_of in self._places:
            each, last = code[:, bytes_of], 2**width - 1
            for place in range(8 // width):
                levels[:, fields_of][:, place :: 8 // width] = each >> place * width & last

    def check_code(self, code: Any, scale: Any) -> None:
        """Refuse means and sizes with NaN or infinity (`Codec.check_code`)."""
        place = first_not_finite(scale)
        if place is not None:
            row, channel = place
            problem = "expected finite features of less than 1e19, found NaN, infinity or a larger one"
            raise UncodableFeatureError(row, min(channel, len(self.basis.directions) - 1), problem)

    def decode(self, code: ArrayOrTensor, scale: Any) -> ArrayOrTensor:
        """Return mean + size x (directions x steps x levels) (`Codec.decode`)."""
        channels = len(self.basis.directions)
        refuse_no_scale(self.name, code, scale)
        if code.shape[1] != self.basis.code_bytes or tuple(scale.shape) != (len(code), channels + 1):
            raise CodecError(
                f"codec packed: this basis has {self.basis.code_bytes} bytes a cell and scales of {channels + 1} numbers, "
                f"found a code of shape {tuple(code.shape)} and a scale of shape {tuple(scale.shape)}"
            )
        batch, _, height, width = code.shape
        packed, shape = code.reshape(batch, -1, height * width), (batch, len(self.basis.bits), height * width)
        size = scale[:, channels, None]
        if isinstance(packed, np.ndarray):
            levels = np.empty(shape, np.float32)
            self._unpack(packed, levels)
            zero = scale[:, :channels] - size * self._offset  # (B, C), where all levels are 0
            feature = np.matmul(self._weights * size[:, None], levels) + zero[:, :, None]
        else:
            levels = scale.new_empty(shape)
            self._unpack(packed, levels)
            _, _, weights, offset = self._on_device_of(levels)
            zero = scale[:, :channels] - size * offset
            feature = zero[:, :, None].baddbmm(weights * size[:, None], levels)  # one pass over the maps
        return feature.reshape(batch, channels, height, width)

    def identity(self) -> dict[str, Any]:
        """Return the name and the basis that decide the bytes."""
        return {"name": self.name, "directions": len(self.basis.bits), "basis": self.basis.digest}


def _find_places(counts: Sequence[int]) -> Iterator[tuple[int, slice, slice]]:
    """Yield each width with the directions that have it, and their bytes in a cell."""
    field = byte = 0
    for width, count in zip(WIDTHS, counts, strict=True):
        if count:
            yield width, slice(field, field + count), slice(byte, byte + count * width // 8)
        field, byte = field + count, byte + count * width // 8
