"""What a head is fitted to, and how far it is from it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from difom_cache.probing.cells import chunks


@dataclass(frozen=True)
class Lesson:
    """Views of labelled records, in order of folds.

    `features` (N, g, g, C) standardised, `truth` (N, G, G) the share of polyp in a cell of the logits, `valid` (N, G, G)
    whether it counts, `ends` where each fold's views end.
    """

    features: Tensor
    truth: Tensor
    valid: Tensor
    ends: tuple[int, ...]

    @property
    def grid(self) -> int:
        """Cells a side of the logits."""
        return self.truth.shape[-1]

    @property
    def folds(self) -> int:
        return len(self.ends)

    def parts_without(self, fold: int, views: int) -> list[slice]:
        """Return slices of at most `views` views each that cover all folds but one."""
        start, stop = (0, *self.ends)[fold : fold + 2]
        return [*chunks(0, start, views), *chunks(stop, self.ends[-1], views)]

    def share_of_polyp(self, parts: list[slice]) -> float:
        """Return the polyps' share of the cells that count, kept off 0 and 1."""
        shown = sum(float(self.valid[part].sum()) for part in parts)
        polyp = sum(float((self.truth[part] * self.valid[part]).sum()) for part in parts)
        return min(max(polyp / max(1.0, shown), 1e-3), 1 - 1e-3)


def descend(
    head: dict[str, Tensor],
    loss_of: Callable[[Tensor], Tensor],
    views: Tensor,
    random: torch.Generator,
    *,
    steps: int,
    batch: int,
    rate: float,
    decay: float,
) -> dict[str, Tensor]:
    """Return a head after so many steps of AdamW under a one-cycle rate, each on the `loss_of` a batch of `views`."""
    weights = [tensor.requires_grad_() for tensor in head.values()]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        loss = loss_of(views[torch.randint(0, len(views), (batch,), generator=random)])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return {name: tensor.detach() for name, tensor in head.items()}


def mask_loss(logits: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Return cross-entropy plus soft Dice loss of each view, (B,), over the cells that count; all (B, g, g).

    Both count alike, as in the trainer's mask loss.
    """
    counts = valid.float()
    cells = counts.sum((1, 2)).clamp(min=1)
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    prob, wanted = logits.sigmoid() * counts, truth * counts
    dice = (2 * (prob * wanted).sum((1, 2)) + 1) / (prob.sum((1, 2)) + wanted.sum((1, 2)) + 1)
    return (entropy * counts).sum((1, 2)) / cells + 1 - dice
