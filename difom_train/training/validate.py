"""The validation pass: Dice at 0.5 on view 0, and how much of the targets' variance the student explains.

Where no validation mask shows a polyp, an empty answer has a Dice of 1 whatever the student has learnt: Dice then says nothing,
and the mask loss stands in its place.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from difom_train.data.feed import Feed
from difom_train.data.photometric import to_pixels, to_side
from difom_train.inference.frames import dice
from difom_train.students.base import Student
from difom_train.training.losses import segmentation_loss
from difom_train.training.processes import Processes


@dataclass(frozen=True)
class Validation:
    """What one pass over the validation split gave."""

    dice: float | None
    "Mean over pictures of Dice at 0.5, at the size of the stored masks; None where there is no polyp to be found."
    loss: float | None
    "Mean mask loss over pictures, where no mask shows a polyp; else None."
    pictures: int
    distillation: dict[str, float]
    "Figures of the distiller: variances, explained fractions."


@torch.no_grad()
def validate(
    processes: Processes, student: Student, distiller: Any, feed: Feed, *, loss_name: str, input_px: int, distils: bool
) -> Validation:
    """Return the student's figures on the validation split; it is left in evaluation mode."""
    student.eval()
    device = next(student.parameters()).device
    sums = torch.zeros(
        4, dtype=torch.float64, device=device
    )  # Dice, pictures, pictures with a polyp, mask loss of those before
    measured: dict[str, Tensor] = {}
    shown = False
    taps = distiller.taps if distils else ()
    distils = bool(taps)  # the averaged weights have nothing to be compared with but themselves
    for batch in feed.val_batches(taps):
        pixels = to_pixels(batch.tensors["image"], input_px)
        with processes.autocast():
            output = student.forward_train(pixels)
        dices = dice_at_half(output.logits[0].float(), batch.tensors["mask"])
        sums[0] += dices.double().sum()
        sums[1] += len(dices)
        with_polyp = (batch.tensors["mask"] > 0).flatten(1).any(1)
        sums[2] += with_polyp.sum()
        valid = to_side(batch.tensors["valid"], input_px) if feed.cache.pads else None
        shown = shown or bool(with_polyp.any())  # waits for the device until the first polyp
        if not shown:
            truth = to_side(batch.tensors["mask"], input_px)
            sums[3] += segmentation_loss(loss_name, output.logits, truth, valid).double().sum()
        if distils:
            targets = distiller.targets(batch.tensors)
            for name, value in distiller.measure(output, targets, valid).items():
                measured[name] = measured[name] + value if name in measured else value
    if feed.shares_validation:
        sums = processes.sum(sums)
        measured = {name: processes.sum(value) for name, value in sorted(measured.items())}
    dice_sum, pictures, polyps, loss_sum = sums.tolist()
    figures = distiller.summarise(measured) if measured else {}
    return Validation(
        dice=dice_sum / pictures if polyps else None,
        loss=loss_sum / pictures if pictures and not polyps else None,
        pictures=int(pictures),
        distillation=figures,
    )


def dice_at_half(logits: Tensor, mask: Tensor) -> Tensor:
    """Return Dice at prob 0.5 of each picture, (B,); 1 where both masks are empty.

    Args:
        logits: (B, 1, h, w), resized to the mask.
        mask: (B, H, W) of 0 and 1.
    """
    if logits.shape[-2:] != mask.shape[-2:]:
        logits = functional.interpolate(logits, mask.shape[-2:], mode="bilinear", align_corners=False)
    found, true = logits[:, 0] > 0, mask > 0
    overlap: Tensor = dice((found & true).sum((1, 2)).double(), (found.sum((1, 2)) + true.sum((1, 2))).double())
    return overlap
