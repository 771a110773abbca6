"""What heads see of a cache: features on one grid, the share of polyp in a cell, which cells count; and how good logits are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from difom_cache.extraction.cells import VALID_FRAC
from difom_cache.store.reader import Cache
from difom_cache.teachers.pooling import area_pool
from difom_cache.views.params import ViewParams
from difom_cache.views.replay import replay_valid

READ_ROWS = 32  # views that are decoded at a time
LEAST_STD_FRAC = 1e-2  # of the tap's mean: a nearly dead channel is not blown up


class FeatureReader:
    """Reads rows of several taps as one map: each tap brought to the grid, each channel to mean 0 and variance 1.

    Means and variances are those of the cache's training views. They come from features alone, so no mask is in them.
    """

    def __init__(self, cache: Cache, taps: Sequence[str], grid: int) -> None:
        self._cache, self.taps, self._grid = cache, tuple(taps), grid
        self._means, self._stds = [], []
        for tap in self.taps:
            stats = cache.stats(tap)
            variance = np.diag(stats.covariance).clip(min=0)
            floor = max(LEAST_STD_FRAC**2 * float(variance.mean()), float(np.finfo(np.float32).tiny))
            self._means.append(torch.tensor(stats.mean, dtype=torch.float32)[:, None, None])
            self._stds.append(torch.tensor(np.sqrt(variance.clip(min=floor)), dtype=torch.float32)[:, None, None])
        self.channels = sum(cache.taps[tap].channels for tap in self.taps)
        self.row_bytes = 4 * self.channels * grid**2

    def read(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (B, grid, grid, channels) float32."""
        batch = self._cache.gather(rows, self.taps, pictures=False)
        return self.standardise({tap: torch.from_numpy(self._cache.target(batch, tap)) for tap in self.taps})

    def standardise(self, targets: Mapping[str, Tensor]) -> Tensor:
        """Return decoded maps (B, C, h, w) of the taps as one, (B, grid, grid, channels)."""
        parts = [
            (to_grid(targets[tap], self._grid) - mean) / std
            for tap, mean, std in zip(self.taps, self._means, self._stds, strict=True)
        ]
        return torch.cat(parts, dim=1).permute(0, 2, 3, 1).contiguous()  # (B, C, h, w) -> (B, h, w, C)

    def read_all(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the same of many rows, with a few of them decoded at a time."""
        whole = torch.empty((len(rows), self._grid, self._grid, self.channels))
        for part in chunks(0, len(rows), READ_ROWS):
            whole[part] = self.read(rows[part])
        return whole


def to_grid(feature: Tensor, grid: int) -> Tensor:
    """Return a map (B, C, h, w) on `grid` x `grid` cells: pooled by area, or interpolated where it is coarser."""
    if feature.shape[-1] >= grid:
        return area_pool(feature, grid)
    return functional.interpolate(feature, size=(grid, grid), mode="bilinear", align_corners=False)


def read_truth(cache: Cache, rows: NDArray[np.int64], grid: int) -> Tensor:
    """Return the share of polyp in each cell, (B, grid, grid) float32, of rows whose records have masks."""
    parts = [
        area_pool(torch.from_numpy(cache.gather(rows[part], [])["mask"]).float()[:, None], grid)[:, 0]
        for part in chunks(0, len(rows), READ_ROWS)
    ]
    return torch.cat(parts)


def valid_cells(cache: Cache, rows: NDArray[np.int64], grid: int) -> Tensor:
    """Return which cells show the frame, bool (B, grid, grid), by the rule of the cache's statistics."""
    cells = torch.ones((len(rows), grid, grid), dtype=torch.bool)
    for place, row in enumerate(rows.tolist()):
        params = ViewParams.from_row(cache.table.params[row])
        if not params.wholly_valid:
            area = replay_valid(params, 8 * grid).float()[None, None]
            cells[place] = area_pool(area, grid)[0, 0] >= VALID_FRAC
    return cells


def chunks(start: int, stop: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` that cover `start` to `stop`."""
    for first in range(start, stop, size):
        yield slice(first, min(stop, first + size))


@dataclass(frozen=True)
class UnseenScore:
    """Mean Dice at 0.5 over `frames` frames at the size of the stored pictures; NaN where there are none."""

    frames: int
    dice: float


def score_logits(cache: Cache, tap: str, rows: NDArray[np.int64]) -> UnseenScore:
    """Return the Dice of a logits tap against the stored masks of `rows`, all of which have one.

    Logits are resized bilinearly to the picture; an empty mask that is met by none counts 1. Pixels that do not show the
    frame are left out.
    """
    scores = []
    for part in chunks(0, len(rows), READ_ROWS):
        batch = cache.gather(rows[part], [tap])
        logits = torch.from_numpy(cache.target(batch, tap))
        scores.append(dice_of(logits, torch.from_numpy(batch["mask"]), torch.from_numpy(np.array(batch["valid"]))))
    dice = torch.cat(scores) if scores else torch.empty(0)
    return UnseenScore(len(dice), float(dice.mean()))


def dice_of(logits: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """Return Dice at 0.5 of each view, (B,) float64; 1 where nothing is there and nothing was found.

    Args:
        logits: (B, 1, h, w); resized bilinearly to the mask.
        mask: (B, H, W) uint8, 1 where there is a polyp.
        valid: (B, H, W) uint8, 1 where a pixel counts.
    """
    found = functional.interpolate(logits, size=mask.shape[-2:], mode="bilinear", align_corners=False)[:, 0] > 0
    found, truth = found & (valid > 0), (mask == 1) & (valid > 0)
    either = (found.sum((1, 2)) + truth.sum((1, 2))).double()
    return torch.where(either > 0, 2 * (found & truth).sum((1, 2)) / either.clamp(min=1), 1.0)
