"""The student and its distillation heads as one module, so that one forward pass gives every loss."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from difom_train.students.base import Student, StudentOutput
from difom_train.training.mask_losses import segmentation_loss


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
        each = segmentation_loss(self.loss_name, [one.float() for one in output.logits], mask, valid)  # (B,)
        each = torch.where(labelled, each, 0.0)
        parts = {"segmentation": (each.sum() / labelled.sum().clamp(min=1)).detach()}
        distillation = each.new_zeros(len(each))
        if targets:
            for name, term in self.distiller.terms(to_float(output), targets, valid).items():
                distillation = distillation + self.distiller.weights[name] * term
                parts[name] = term.mean().detach()
        return for_mask * each.mean(), for_teachers * distillation.mean(), parts


def to_float(output: StudentOutput) -> StudentOutput:
    """Return the output in float32, in which teachers and students are compared."""
    return StudentOutput(
        logits=[each.float() for each in output.logits],
        levels={name: each.float() for name, each in output.levels.items()},
        neck={name: each.float() for name, each in output.neck.items()},
    )


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
        norms.append(sum(float(each.float().square().sum()) for each in gradients if each is not None) ** 0.5)
    return norms[1] / max(sum(norms), 1e-30)
