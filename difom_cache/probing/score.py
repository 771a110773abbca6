"""How good a probe's logits are, on frames whose masks their head did not see."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
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
        size = batch["mask"].shape[-2:]
        found = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)[:, 0] > 0
        valid = torch.from_numpy(np.array(batch["valid"])) > 0
        mask = torch.from_numpy(batch["mask"]) == 1
        both = (found & mask & valid).sum((1, 2)).double()
        either = (found & valid).sum((1, 2)) + (mask & valid).sum((1, 2))
        scores.append(torch.where(either > 0, 2 * both / either.clamp(min=1), 1.0))
    dice = torch.cat(scores) if scores else torch.empty(0)
    return UnseenScore(len(dice), float(dice.mean()))
