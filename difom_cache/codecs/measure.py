"""The measurement that `Fidelity` sums up: codes against the features they were made from, on the features' device."""

import torch
from torch import Tensor

from difom_cache.codecs.fidelity import BINS, BINS_PER_DECADE, SMALLEST_DISTANCE, Fidelity


def _length(x: Tensor) -> Tensor:
    """Return the length of each position's vector, (B, C, h, w) -> (B, h, w); `x` may be used up."""
    if x.device.type == "cpu":  # where the library's norm takes twice as long; elsewhere it is one kernel
        return x.square_().sum(1).sqrt_()
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
