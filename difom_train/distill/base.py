"""What every distiller does: it names taps, makes targets of them, holds the student to them, and measures."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from difom_cache.views import warp_some
from difom_train.distill.comparison import Comparison, cells_inside, count_moments, summarise_moments, to_grid
from difom_train.distill.matching import Match, TeachingCache
from difom_train.distill.pooled_codes import POOLED_FIRST, pool_codes
from difom_train.students.base import StudentOutput

Batch = dict[str, Any]
Targets = dict[str, Tensor]
CACHED = "cached"
"""Among targets of fresh views: (B,), 1 where the teachers have seen the picture's view, so that features can be compared."""
FIRST_ROUND = "first round"
"""Among targets: (B, 1, H, W), probs of the student that the run has trained alone."""
LABELLED = "labelled"
"""Among targets: (B,), 1 where the picture has a mask that the student learns from, so that nobody else's may teach it."""


class Distiller(nn.Module):
    """Distils nothing; every kind of distillation is one of these with taps, targets and comparisons.

    Attributes:
        taps: full names of what `targets` needs of a batch.
        weights: term name -> its weight beside the segmentation loss.
        matches: which feature tap teaches which level.
    """

    matches: Sequence[Match] = ()

    literal = False
    "Whether the terms weigh as they were published, also beside a mask loss that sums several outputs of the student."
    asks_average = False
    "Whether targets are made of the averaged student's logits, in place of taps."

    def __init__(self, cache: TeachingCache, taps: Sequence[str], weights: dict[str, float]) -> None:
        super().__init__()
        self._decode = cache.decode
        self._pooled_first = {tap for tap in taps if cache.taps[tap].codec in POOLED_FIRST}
        self.taps = tuple(dict.fromkeys(taps))
        self.weights = weights

    def taps_of(self, learn: str) -> tuple[str, ...]:
        """Return the taps that a phase reads which learns "features", "masks" or "both"."""
        return self.taps

    @property
    def needs_calibration(self) -> bool:
        """Whether `calibrate` has to be called before the first `targets`."""
        return False

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Fit what needs the masks of training records (nothing, unless a kind says otherwise)."""

    def features(self, batch: Batch, tap: str, grid: int | None = None) -> Tensor:
        """Return the decoded features of one tap, (B, C, g, g) float32; a batch may hold them, under its name.

        Args:
            batch: see `targets`.
            tap: full name.
            grid: most cells a side that are wanted; a finer map is pooled to it, before it is decoded where that is the same.
        """
        if tap in batch:
            features = torch.as_tensor(batch[tap]).float()
            return features if grid is None else to_grid(features, grid)
        code, scale = batch[f"{tap}/code"], batch.get(f"{tap}/scale")
        if grid is not None and tap in self._pooled_first:
            with in_float32(code.device):
                code = pool_codes(code, grid)
        features = self._decode(tap, code, scale).float()
        return features if grid is None else to_grid(features, grid)

    def holds(self, batch: Batch, tap: str) -> bool:
        """Whether a batch holds a tap, decoded or as stored: a phase reads only what it learns from."""
        return tap in batch or f"{tap}/code" in batch

    def logits(self, batch: Batch, tap: str) -> Tensor:
        """Return the decoded logits of one tap, (B, C, g, g) float32, as each picture's view shows them."""
        logits = self.features(batch, tap)
        return logits if batch.get("fresh") is None else warp_some(logits, batch["fresh"])

    def targets(self, batch: Batch) -> Targets:
        """Return what the student is compared with; call it without autocast or with, it computes in float32.

        Args:
            batch: "<tap>/code" and "<tap>/scale" for each of `taps`, tensors on this module's device; perhaps "fresh",
                the views that pictures show in place of view 0 (`locate_fresh`).
        """
        return {}

    def targets_of(self, average: Tensor) -> Targets:
        """Return targets made of the averaged student's logits (B, 1, H, W), where `asks_average`."""
        return {}

    def compare(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> list[Comparison]:
        """Return each pair of maps that the terms are made of."""
        return []

    def terms(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> dict[str, Tensor]:
        """Return the unweighted terms, each (B,), under the keys of `weights`.

        Args:
            output: of `Student.forward_train`, of any floating type; what is compared is made float32 first.
            targets: of `targets`, for the same pictures.
            valid: (B, H, W), 1 inside the frame; None where every pixel is.
        """
        return {}

    def forward(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> dict[str, Tensor]:
        """The same as `terms`, so that wrappers which synchronise gradients see the call."""
        return self.terms(output, targets, valid)

    @torch.no_grad()
    def measure(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> dict[str, Tensor]:
        """Return sums for `summarise`; add them over batches, and over processes."""
        return count_moments(self.compare(output, targets, valid))

    def summarise(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Return target variance, student variance and explained fraction by log key."""
        return summarise_moments(sums)

    def describe(self) -> list[str]:
        """Return lines for the start of a run: what teaches what."""
        return ["distillation: none"]


def mark_cached(batch: Batch) -> Targets:
    """Return `CACHED` for targets, or nothing where every view is one that the teachers have seen."""
    return {} if batch.get("fresh") is None else {CACHED: batch["fresh"].stored}


def mean_of(losses: Tensor, counts: Tensor | None) -> Tensor:
    """Return losses (B,) whose mean is the mean over those pictures that count; 0 where none does.

    Args:
        losses: (B,) of each picture.
        counts: (B,) 1 where it counts, else 0; None where all do.
    """
    return losses if counts is None else losses * counts / counts.mean().clamp_min(1 / len(counts))


def cells_to_compare(targets: Targets, valid: Tensor | None, like: Tensor) -> Tensor:
    """Return (B, 1, h, w) for the grid of `like`: 1 where a cell of features counts, else 0, as in all of a fresh view."""
    inside = cells_inside(valid, like)
    return inside * targets[CACHED].view(-1, 1, 1, 1) if CACHED in targets else inside


def in_float32(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which autocast is off: targets, bands and errors need more than bfloat16's 8 bits."""
    return torch.autocast(device.type, enabled=False)
