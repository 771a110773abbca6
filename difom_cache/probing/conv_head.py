"""`3x3`: a cell's features become a few channels, and those of a cell and its neighbours its logit."""

import torch
from torch import Tensor
from torch.nn import functional

from difom_cache.probing.lesson import Lesson, descend, mask_loss

CHANNELS = 16
STEPS, BATCH_VIEWS = 250, 16
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1.0
DROPPED_FRAC = 0.3  # of the channels, whole, while fitting
FIT = {
    "channels": CHANNELS,
    "steps": STEPS,
    "batch": BATCH_VIEWS,
    "learning_rate": LEARNING_RATE,
    "weight_decay": WEIGHT_DECAY,
    "dropped": DROPPED_FRAC,
}


def fit(lesson: Lesson, fold: int, seed: int) -> dict[str, Tensor]:
    """Return a head fitted to all folds but one: AdamW, a one-cycle rate, and a generator of its own seeded by `seed`.

    `reduce` (C, 16) and `reduce_bias` (16,) make channels of features, `weight` (1, 16, 3, 3) and `bias` (1,) the logit.
    """
    random = torch.Generator().manual_seed(seed * 1000 + fold)
    parts = lesson.parts_without(fold, 1)
    views = torch.tensor([part.start for part in parts])
    inputs = lesson.features.shape[-1]
    head = {
        "reduce": torch.randn((inputs, CHANNELS), generator=random) / inputs**0.5,
        "reduce_bias": torch.zeros(CHANNELS),
        "weight": torch.randn((1, CHANNELS, 3, 3), generator=random) / (9 * CHANNELS) ** 0.5,
        "bias": torch.tensor([lesson.share_of_polyp(parts)]).logit(),
    }

    def loss_of(batch: Tensor) -> Tensor:
        kept = torch.rand((BATCH_VIEWS, CHANNELS, 1, 1), generator=random) >= DROPPED_FRAC
        logits = speak(head, lesson.features[batch], lesson.grid, kept / (1 - DROPPED_FRAC))
        return mask_loss(logits, lesson.truth[batch], lesson.valid[batch]).mean()

    how = {"rate": LEARNING_RATE, "decay": WEIGHT_DECAY}
    return descend(head, loss_of, views, random, steps=STEPS, batch=BATCH_VIEWS, **how)


def speak(head: dict[str, Tensor], features: Tensor, grid: int, kept: Tensor | None = None) -> Tensor:
    """Return the logits (B, g, g) of features (B, g, g, C); `kept` (B, 16, 1, 1) is a factor on channels."""
    channels = (features @ head["reduce"] + head["reduce_bias"]).relu()  # (B, g, g, 16)
    channels = channels.permute(0, 3, 1, 2)  # (B, g, g, 16) -> (B, 16, g, g)
    if kept is not None:
        channels = channels * kept
    padded = functional.pad(channels, (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, head["weight"], head["bias"])[:, 0]
