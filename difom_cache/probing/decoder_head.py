"""`decoder`: features become a few channels, these are looked at together on their own cells and on finer ones."""

import torch
from torch import Tensor
from torch.nn import functional

from difom_cache.probing.lesson import Lesson, descend, mask_loss

CHANNELS, FINE_CHANNELS = 48, 24
STEPS, EPOCHS, BATCH_VIEWS = 200, 2, 8  # at least so many steps, and so many looks at each view
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-2
DROPPED_FRAC = 0.2  # of the channels, whole, while fitting
FIT = {
    "channels": CHANNELS,
    "fine_channels": FINE_CHANNELS,
    "steps": STEPS,
    "epochs": EPOCHS,
    "batch": BATCH_VIEWS,
    "learning_rate": LEARNING_RATE,
    "weight_decay": WEIGHT_DECAY,
    "dropped": DROPPED_FRAC,
}


def count_steps(views: int) -> int:
    """Return the steps of a fit to so many views."""
    return max(STEPS, EPOCHS * views // BATCH_VIEWS)


def fit(lesson: Lesson, fold: int, seed: int, *, steps: int = 0) -> dict[str, Tensor]:
    """Return a head fitted to all folds but one: AdamW, a one-cycle rate, and a generator of its own seeded by `seed`.

    Views are shown mirrored and transposed, features and truth alike. The features of a mirrored image differ from mirrored
    features, so this is noise as much as augmentation; it helps a head that sees a hundred masks.
    """
    random = torch.Generator().manual_seed(seed * 1000 + fold)
    parts = lesson.parts_without(fold, 1)
    views = torch.tensor([part.start for part in parts])
    head = draw_weights(lesson.features.shape[-1], lesson.share_of_polyp(parts), random)

    def loss_of(batch: Tensor) -> Tensor:
        kept = torch.rand((BATCH_VIEWS, CHANNELS, 1, 1), generator=random) >= DROPPED_FRAC
        turns = torch.rand((3, BATCH_VIEWS), generator=random) < 0.5
        logits = speak(head, lesson.features[batch], lesson.grid, kept / (1 - DROPPED_FRAC), turns)
        return mask_loss(logits, turn(lesson.truth[batch], turns), turn(lesson.valid[batch], turns)).mean()

    how = {"rate": LEARNING_RATE, "decay": WEIGHT_DECAY}
    steps = steps or count_steps(len(views))
    return descend(head, loss_of, views, random, steps=steps, batch=BATCH_VIEWS, **how)


def draw_weights(inputs: int, share_of_polyp: float, random: torch.Generator) -> dict[str, Tensor]:
    """Return a head's first weights: those of He et al. 2015 (arXiv:1502.01852), and the polyps' share as its first answer."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random) * (2 / torch.Size(shape[1:]).numel()) ** 0.5

    return {
        "reduce": 0.5**0.5 * draw(CHANNELS, inputs, 1, 1),
        "reduce_bias": torch.zeros(CHANNELS),
        "coarse": draw(FINE_CHANNELS, CHANNELS, 3, 3),
        "coarse_bias": torch.zeros(FINE_CHANNELS),
        "fine": draw(FINE_CHANNELS, FINE_CHANNELS, 3, 3),
        "fine_bias": torch.zeros(FINE_CHANNELS),
        "weight": 0.1 * draw(1, FINE_CHANNELS, 1, 1),
        "bias": torch.tensor([share_of_polyp]).logit(),
    }


def turn(views: Tensor, turns: Tensor) -> Tensor:
    """Return views (B, ..., s, s), each turned upside down, mirrored and transposed where `turns` (3, B) bool says so."""
    up_down, mirrored, transposed = turns.view(3, -1, *[1] * (views.ndim - 1))
    views = torch.where(up_down, views.flip(-2), views)
    views = torch.where(mirrored, views.flip(-1), views)
    return torch.where(transposed, views.transpose(-2, -1), views)


def speak(
    head: dict[str, Tensor], features: Tensor, grid: int, kept: Tensor | None = None, turns: Tensor | None = None
) -> Tensor:
    """Return the logits (B, grid, grid) of features (B, g, g, C).

    Args:
        head: of `fit`.
        features: standardised.
        grid: cells a side of the logits.
        kept: (B, 48, 1, 1), factors on the first channels, while fitting.
        turns: (3, B) bool, how each view is turned while fitting.
    """
    x = functional.conv2d(features.permute(0, 3, 1, 2), head["reduce"], head["reduce_bias"]).relu()
    if kept is not None and turns is not None:
        # The first map looks at single cells: turned after it, the wide features need no copy.
        x = turn(x * kept, turns)
    x = functional.conv2d(x, head["coarse"], head["coarse_bias"], padding=1).relu()
    x = functional.interpolate(x, size=(grid, grid), mode="bilinear", align_corners=False)
    x = functional.conv2d(x, head["fine"], head["fine_bias"], padding=1).relu()
    return functional.conv2d(x, head["weight"], head["bias"])[:, 0]
