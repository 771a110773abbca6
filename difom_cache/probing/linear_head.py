"""`linear`: one affine map from a cell's features to its logit."""

import torch
from torch import Tensor

from difom_cache.probing.lesson import Lesson, mask_loss

ITERATIONS = 30  # of L-BFGS; stopping early keeps the head from learning noise, as the decay does
WEIGHT_DECAY = 0.02  # times the sum of squared weights
FIT = {"iterations": ITERATIONS, "weight_decay": WEIGHT_DECAY}
PASS_VIEWS = 64  # views that are looked at together


def fit(lesson: Lesson, fold: int, seed: int) -> dict[str, Tensor]:
    """Return `weight` (C,) and `bias` () that least miss the truth of all folds but one.

    L-BFGS starts from zero weights and the polyps' share of all cells, so the result depends on nothing but the lesson.
    """
    parts = lesson.parts_without(fold, PASS_VIEWS)
    views = sum(part.stop - part.start for part in parts)
    weight = torch.zeros(lesson.features.shape[-1], requires_grad=True)
    bias = torch.tensor(lesson.share_of_polyp(parts)).logit().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, history_size=10, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def close() -> Tensor:
        optimizer.zero_grad()
        total = WEIGHT_DECAY * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        for part in parts:
            logits = speak({"weight": weight, "bias": bias}, lesson.features[part], lesson.grid)
            loss = mask_loss(logits, lesson.truth[part], lesson.valid[part]).sum() / views
            loss.backward()  # type: ignore[no-untyped-call]
            total = total.detach() + loss.detach()
        return total

    optimizer.step(close)  # type: ignore[no-untyped-call]
    return {"weight": weight.detach(), "bias": bias.detach()}


def speak(head: dict[str, Tensor], features: Tensor, grid: int) -> Tensor:
    """Return the logits (B, g, g) of features (B, g, g, C)."""
    return features @ head["weight"] + head["bias"]
