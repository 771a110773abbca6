"""What is minimised: the loss of the masks, the terms of the distiller, and the student with both as one module."""

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits

from difom_cache.base.errors import SettingsError, name_nearest
from difom_cache.base.hardware import Coming
from difom_train.students.base import Student

SMOOTH = 1.0  # added to both sides of each fraction, so that an empty mask met with an empty answer costs nothing
EDGE_WINDOW_PX = 31  # as PraNet (arXiv 2006.11392) at 352 px input; not tuned here
BALANCE_EVERY_STEPS = 20  # a look costs two backward passes
BALANCE_PACE = 0.3  # share of the way, of logarithms, that the factor goes at each look
EDGE_GAIN = 5.0  # as PraNet: a pixel on the border of the mask weighs up to 1 + 5

PictureLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def dice_bce(logits: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """Return the mean binary cross-entropy plus one minus the soft Dice, over the valid area of each picture.

    Args:
        logits: (B, 1, H, W).
        mask: (B, 1, H, W), in [0, 1].
        valid: (B, 1, H, W), 1 inside the frame and 0 outside.

    Returns:
        (B,).
    """
    entropy = binary_cross_entropy_with_logits(logits, mask, reduction="none")
    prob = logits.sigmoid() * valid
    overlap = _sum(prob * mask)
    dice = (2 * overlap + SMOOTH) / (_sum(prob) + _sum(mask * valid) + SMOOTH)
    return _sum(entropy * valid) / _sum(valid).clamp_min(1.0) + 1 - dice


def structure_loss(logits: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """Return PraNet's weighted binary cross-entropy plus weighted IoU loss of each picture.

    Pixels weigh 1 + 5 |local mean of the mask - mask|, so borders count most. This is the formula of the paper
    (arXiv 2006.11392, section 3.4; the weights are those of F3Net, arXiv 1911.11445). The published code passes
    `reduce='none'` to the cross-entropy, which torch reads as "take the mean": its weights then cancel and the first
    term is the plain mean over the batch. Here the weights act.

    Args:
        logits: (B, 1, H, W).
        mask: (B, 1, H, W), in [0, 1].
        valid: (B, 1, H, W), 1 inside the frame and 0 outside.

    Returns:
        (B,).
    """
    local_mean = avg_pool2d(mask, EDGE_WINDOW_PX, stride=1, padding=EDGE_WINDOW_PX // 2)
    weight = (1 + EDGE_GAIN * (local_mean - mask).abs()) * valid
    entropy = binary_cross_entropy_with_logits(logits, mask, reduction="none")
    weighted_entropy = _sum(weight * entropy) / _sum(weight).clamp_min(1.0)
    prob = logits.sigmoid()
    overlap = _sum(prob * mask * weight)
    union = _sum((prob + mask) * weight) - overlap
    return weighted_entropy + 1 - (overlap + SMOOTH) / (union + SMOOTH)


LOSSES: dict[str, PictureLoss] = {"dice_bce": dice_bce, "structure": structure_loss}


def segmentation_loss(name: str, logits: Sequence[Tensor], mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the loss called `name`, summed over a student's outputs (deep supervision), for each picture.

    Args:
        name: "dice_bce" or "structure".
        logits: each (B, 1, H, W), of any floating type; the loss itself is computed in float32.
        mask: (B, H, W), 0 or 1; the row of a picture without a mask may hold anything, and its result means nothing.
        valid: (B, H, W), 1 inside the frame; None where every pixel is.

    Returns:
        (B,), finite.
    """
    if name not in LOSSES:
        raise SettingsError(name_nearest("segmentation loss", name, list(LOSSES)))
    truth = mask.clamp(max=1).float().unsqueeze(1)  # (B, H, W) -> (B, 1, H, W)
    inside = torch.ones_like(truth) if valid is None else valid.float().unsqueeze(1)
    return torch.stack([LOSSES[name](output.float(), truth, inside) for output in logits]).sum(dim=0)


def _sum(values: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B,)."""
    return values.sum(dim=(1, 2, 3))


@dataclass
class Losses:
    """The losses of one batch, averaged once over all of its pictures.

    `segmentation` and `distillation` carry the phase's factors; their sum is what is minimised. `parts` are the same by
    name, without factors: the mask loss over the pictures that have one, each term over all pictures.
    """

    segmentation: Tensor
    distillation: Tensor
    parts: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """The number that is minimised."""
        return self.segmentation + self.distillation


class Learner(nn.Module):
    """A student, what it is compared with, and what it is compared by.

    Args:
        student: to be trained.
        distiller: its heads and terms.
        loss_name: of the mask loss.
    """

    def __init__(self, student: Student, distiller: Any, loss_name: str) -> None:
        super().__init__()
        self.student, self.distiller, self.loss_name = student, distiller, loss_name

    def forward(
        self,
        pixels: Tensor,
        mask: Tensor,
        labelled: Tensor,
        valid: Tensor | None,
        targets: dict[str, Tensor],
        factors: tuple[float, float],
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the fields of `Losses` (a tuple, which DistributedDataParallel can look through).

        Args:
            pixels: (B, 3, H, W) in [0, 1].
            mask: (B, H, W) uint8 of 0 and 1; anything where there is none.
            labelled: (B,) whether the picture's mask counts.
            valid: (B, H, W) uint8, or None where all is valid.
            targets: of the distiller; empty where the phase does not distil.
            factors: of the phase, on mask loss and distillation.
        """
        output = self.student.forward_train(pixels)
        for_mask, for_teachers = factors
        each = segmentation_loss(self.loss_name, output.logits, mask, valid)  # (B,)
        each = each.masked_fill(~labelled, 0.0)
        # Over the pictures that have a mask: averaged over all of them, a batch of half as many masks would hear half of each.
        own_masks = each.sum() / labelled.sum().clamp(min=1)
        parts = {"segmentation": own_masks.detach()}
        terms = self.distiller.terms(output, targets, valid) if targets else {}
        parts |= {name: term.mean().detach() for name, term in terms.items()}
        weighted = [self.distiller.weights[name] * term for name, term in terms.items()]
        distillation = sum(weighted[1:], start=weighted[0]) if weighted else each.new_zeros(len(each))
        # The mask loss is a sum over the student's outputs, of which PraNet has four: the terms must not be drowned by it.
        outputs = 1 if self.distiller.literal else len(output.logits)
        return for_mask * own_masks, for_teachers * outputs * distillation.mean(), parts


def gradient_share(losses: Losses, student: Student) -> float:
    """Return the share of the distillation in the student's gradient: its norm over the sum of both norms, in [0, 1].

    The graph stays, so that the losses can be minimised afterwards.
    """
    moving = [each for each in student.parameters() if each.requires_grad]
    norms = []
    for loss in (losses.segmentation, losses.distillation):
        if not loss.requires_grad:
            return 0.0
        gradients = torch.autograd.grad(loss, moving, retain_graph=True, allow_unused=True)
        squares = [each.float().square().sum() for each in gradients if each is not None]
        norms.append(sum(torch.stack(squares).tolist()) ** 0.5 if squares else 0.0)  # one wait for all of them
    return norms[1] / max(sum(norms), 1e-30)


class GradientBalance:
    """The one factor on all distillation terms that gives them a wanted share of the student's gradient.

    The first look sets it, and later ones move it slowly: a share hangs on the few pictures of one batch.

    Args:
        share: wanted, in (0, 1); 0 leaves the factor at 1.
    """

    def __init__(self, share: float) -> None:
        self.share, self.factor, self.looks = share, 1.0, 0

    def is_due(self, step: int) -> bool:
        """Whether the gradients of a step of an epoch are looked at: the first for the log, more where the factor moves."""
        return step % BALANCE_EVERY_STEPS == 0 if self.share else step == 0

    def describe(self, measured: float) -> dict[str, Tensor]:
        """Return what the log says of a look."""
        figures = {"distill/gradient_share": measured} | ({"distill/factor": self.factor} if self.share else {})
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}

    def update(self, measured: float) -> None:
        """Move the factor.

        Args:
            measured: share of the student's gradient that the terms had with the factor as it is.
        """
        if not self.share or not 0 < measured < 1:  # a batch of whose two losses one is blind says nothing of a balance
            return
        ratio = self.share / (1 - self.share) * (1 - measured) / measured
        self.factor *= ratio ** (BALANCE_PACE if self.looks else 1.0)
        self.looks += 1

    def state_dict(self) -> dict[str, float]:
        """Return what a checkpoint holds."""
        return {"factor": self.factor, "looks": self.looks}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Put the state of `state_dict` back."""
        self.factor, self.looks = float(state["factor"]), int(state["looks"])


class EpochMeans:
    """Means of the losses over an epoch, kept on the device; a loss is looked at once it has come to the host.

    That is a step late at least: waiting for it would make a GPU's queue run dry.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._coming: deque[tuple[Coming, int, Sequence[Any]]] = deque()
        self._seen = math.nan

    def add(self, losses: dict[str, Tensor], step: int, rows: Sequence[Any]) -> tuple[int, Sequence[Any]] | None:
        """Take the losses of one step; return an earlier one, and its rows, whose loss was not finite."""
        broken = self.check()
        for dtype in dict.fromkeys(each.dtype for each in losses.values()):  # of losses, and of a look at gradients
            names = tuple(name for name, value in losses.items() if value.dtype == dtype)
            values = torch.stack([losses[name] for name in names])
            self._sums[names] = self._sums[names] + values if names in self._sums else values
            self._counts[names] += 1
        self._coming.append((Coming(losses["loss"]), step, rows))
        return broken

    def check(self, *, wait: bool = False) -> tuple[int, Sequence[Any]] | None:
        """Return the first step, and its rows, whose loss was not finite, of those that have come, or of all."""
        while self._coming and (wait or self._coming[0][0].is_there):
            loss, step, rows = self._coming.popleft()
            self._seen = float(loss.read())
            if not math.isfinite(self._seen):
                return step, rows
        return None

    @property
    def last_loss(self) -> float:
        """The last loss that has come to the host."""
        there = (float(each.read()) for each, _, _ in reversed(self._coming) if each.is_there)
        return next(there, self._seen)

    def means(self) -> dict[str, float]:
        """Return the mean of each loss."""
        totals: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        for names, values in self._sums.items():
            totals.update(dict(zip(names, values.tolist(), strict=True)))
            counts.update(dict.fromkeys(names, self._counts[names]))
        return {name: total / counts[name] for name, total in totals.items()}
