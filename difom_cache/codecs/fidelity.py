"""How well codes stand for the features they were made from: sums that add up over batches, blocks and writers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import nan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import CacheFormatError

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_DISTANCE = 1e-8
BINS_PER_DECADE = 20
BINS = 1 + 167
"""Bin 0 counts distances (1 - cosine) below 1e-8; bin i those from 1e-8 * 10 ** ((i - 1) / 20) up to the next; the last
one ends beyond the largest distance, 2."""
_SUMS = ("positions", "squared_error", "squares", "squares_about_mean", "cosine_distance")


def _last_edge(bin_index: int) -> float:
    """Return the largest distance that a bin may hold."""
    return min(2.0, SMALLEST_DISTANCE * 10 ** (bin_index / BINS_PER_DECADE))


def _share(part: float, whole: float, positions: int) -> float:
    """Return part / whole, 0 for no part of anything, NaN where nothing was measured or a part is of nothing."""
    if positions == 0 or whole == 0 < part:
        return nan
    return part / whole if part > 0 else 0.0


@dataclass(frozen=True)
class Fidelity:
    """Sums over positions (valid cells of pictures); add two to merge them.

    As measured they are tensors on the features' device; as read back from a cache they are NumPy arrays, so that
    asking a cache what it holds loads no PyTorch.

    Attributes:
        sums: (5,) float64: positions; squared error; squares of the feature; squares of the feature about the mean of its
            picture and channel; 1 - cosine of feature and target, each about that mean.
        histogram: (BINS,) int64, positions by 1 - cosine.
    """

    sums: Tensor | NDArray[np.float64]
    histogram: Tensor | NDArray[np.int64]

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
        histogram = np.zeros(BINS, np.int64)
        try:
            sums = np.array([float(stored[name]) for name in _SUMS])
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
        return sqrt(_share(float(self.sums[1]), float(self.sums[2]), self.positions))

    @property
    def kept_variance(self) -> float:
        """1 - squared error over squares about the mean: the share of the variance that is kept; NaN when there was none."""
        return 1.0 - _share(float(self.sums[1]), float(self.sums[3]), self.positions)

    @property
    def mean_cosine(self) -> float:
        """Mean over positions of the mean-removed cosine of feature and target; NaN when there were none."""
        return 1.0 - _share(float(self.sums[4]), self.positions, self.positions)

    def cosine_percentile(self, percent: float) -> float:
        """Return a cosine that at least (100 - percent) % of the positions reach, at most a bin's width too low.

        Bins are 12 % wide in 1 - cosine. NaN when there were no positions.
        """
        if self.positions == 0:
            return nan
        enough = (1 - percent / 100) * self.positions
        so_far = accumulate(self.histogram.tolist())
        return 1.0 - _last_edge(next(place for place, count in enumerate(so_far) if count >= enough))
