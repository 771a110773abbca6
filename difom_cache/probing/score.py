"""How good a probe's logits are, on frames whose masks their head did not see."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from difom_cache.probing.cells import READ_ROWS, chunks
from difom_cache.store.reader import Cache


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
        logits = torch.from_numpy(cache.decode(tap, batch[f"{tap}/code"], batch.get(f"{tap}/scale")))
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
