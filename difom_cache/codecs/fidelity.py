"""How well codes stand for the features they were made from: sums that add up over batches, blocks and writers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from difom_cache.errors import CacheFormatError

SMALLEST_DISTANCE = 1e-8
BINS_PER_DECADE = 20
BINS = 1 + 167
"""Bin 0 counts distances (1 - cosine) below 1e-8; bin i those from 1e-8 * 10 ** ((i - 1) / 20) up to the next; the last
one ends beyond the largest distance, 2."""
_SUMS = ("positions", "squared_error", "squares", "squares_about_mean", "cosine_distance")


def _last_edge(bin_index: int) -> float:
    """Return the largest distance that a bin may hold."""
    return min(2.0, SMALLEST_DISTANCE * 10 ** (bin_index / BINS_PER_DECADE))


def _share(part: Tensor, whole: Tensor, positions: int) -> float:
    """Return part / whole, 0 for no part of anything, NaN where nothing was measured."""
    if positions == 0:
        return float("nan")
    return float(part / whole) if part > 0 else 0.0


@dataclass(frozen=True)
class Fidelity:
    """Sums over positions (valid cells of pictures); add two to merge them.

    Attributes:
        sums: (5,) float64: positions; squared error; squares of the feature; squares of the feature about the mean of its
            picture and channel; 1 - cosine of feature and target, each about that mean.
        histogram: (BINS,) int64, positions by 1 - cosine.
    """

    sums: Tensor
    histogram: Tensor

    def __add__(self, other: Fidelity) -> Fidelity:
        return Fidelity(self.sums + other.sums, self.histogram + other.histogram)

    def as_dict(self) -> dict[str, Any]:
        """Return the sums by name and the histogram as {bin: count} without its zeros, fit for JSON."""
        counts = self.histogram.tolist()
        named: dict[str, Any] = dict(zip(_SUMS, self.sums.tolist(), strict=True))
        return named | {"histogram": {str(place): count for place, count in enumerate(counts) if count}}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Fidelity:
        """Return what `as_dict` gave.

        Raises:
            CacheFormatError: a sum is missing, or a bin does not exist.
        """
        histogram = torch.zeros(BINS, dtype=torch.int64)
        try:
            sums = torch.tensor([float(stored[name]) for name in _SUMS], dtype=torch.float64)
            for place, count in stored["histogram"].items():
                histogram[int(place)] = count
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise CacheFormatError(
                f"these are no fidelity sums: expected {', '.join(_SUMS)}, histogram: {error}"
            ) from None
        return cls(sums, histogram)

    @property
    def positions(self) -> int:
        """How many positions were compared."""
        return int(self.sums[0])

    @property
    def relative_l2(self) -> float:
        """Length of the error over length of the feature, over all positions; NaN when there were none."""
        return (
            float((self.sums[1] / self.sums[2]).sqrt())
            if self.sums[1] > 0
            else 0.0 * float(self.sums[0] / self.sums[0])
        )

    @property
    def kept_variance(self) -> float:
        """1 - squared error over squares about the mean: the share of the variance that the code keeps; NaN when empty."""
        return 1.0 - _share(self.sums[1], self.sums[3], self.positions)

    @property
    def mean_cosine(self) -> float:
        """Mean over positions of the mean-removed cosine of feature and target; NaN when there were none."""
        return 1.0 - float(self.sums[4] / self.sums[0])

    def cosine_percentile(self, percent: float) -> float:
        """Return a cosine that at least (100 - percent) % of the positions reach, at most a bin's width too low.

        Bins are 12 % wide in 1 - cosine. NaN when there were no positions.
        """
        if self.positions == 0:
            return float("nan")
        reached = self.histogram.cumsum(0) >= (1 - percent / 100) * self.positions
        return 1.0 - _last_edge(int(reached.nonzero()[0]))


def _length(x: Tensor) -> Tensor:
    """Return the length of each position's vector, (B, C, h, w) -> (B, h, w)."""
    return torch.linalg.vector_norm(x, dim=1)


def _length_over_picture(length: Tensor, cells: Tensor) -> Tensor:
    """Return, at every position, the length of the vector of all of its picture's valid positions, (B, h, w)."""
    return (length.square() * cells).sum((1, 2), keepdim=True).sqrt().expand_as(length)


def _cosine_distance(apart: Tensor, long: Tensor, short: Tensor) -> Tensor:
    """Return 1 - cosine of two vectors from their distance and lengths: 0 where both are zero, 1 where one is.

    1 - cos = (apart^2 - (long - short)^2) / (2 long short) keeps its digits in float32 where the cosine itself would
    round to 1.
    """
    both = 2 * long * short
    distance = (apart.square() - (long - short).square()) / both.clamp_min(torch.finfo(both.dtype).tiny)
    return torch.where(both > 0, distance, (apart > 0).to(both.dtype)).clamp(0, 2)


def measure_fidelity(feature: Tensor, target: Tensor, valid: Tensor) -> Fidelity:
    """Return how well `target` stands for `feature`; nothing waits for the device.

    Both are taken about the feature's mean over its picture's valid cells, channel by channel, before cosines are formed:
    a large mean common to all cells would otherwise make every cosine look near 1. Of one channel a cosine per position
    would be a mere sign; there it is taken over the positions of a picture, and counts for each.

    Args:
        feature: (B, C, h, w) float32, live.
        target: (B, C, h, w) float32, decoded.
        valid: (B, h, w), True where a cell counts.
    """
    cells = valid.to(feature.dtype)  # (B, h, w)
    counts = cells.sum((1, 2))[:, None]  # (B, 1)
    mean = torch.einsum("bchw,bhw->bc", feature, cells) / counts.clamp_min(1)
    apart, spread = _length(target - feature), _length(feature - mean[:, :, None, None])  # (B, h, w)
    vectors = (apart, spread, _length(target - mean[:, :, None, None]))
    if feature.shape[1] == 1:
        distance = _cosine_distance(*(_length_over_picture(vector, cells) for vector in vectors))
    else:
        distance = _cosine_distance(*vectors)
    about_mean, mean_part = (spread.square() * cells).double().sum(), (mean.square() * counts).double().sum()
    error, lost = ((part * cells).double().sum() for part in (apart.square(), distance))
    sums = torch.stack([counts.double().sum(), error, about_mean + mean_part, about_mean, lost])
    place = ((distance / SMALLEST_DISTANCE).log10() * BINS_PER_DECADE).floor() + 1  # -inf where the distance is 0
    # A feature with NaN is refused later, by its record's name; here it must not become an index beyond the histogram.
    place = place.nan_to_num(nan=BINS - 1).clamp(0, BINS - 1).long()
    histogram = torch.zeros(BINS, dtype=torch.int64, device=feature.device)
    histogram.scatter_add_(0, place.flatten(), valid.flatten().long())
    return Fidelity(sums, histogram)
