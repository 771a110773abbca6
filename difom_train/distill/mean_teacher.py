"""`mean_teacher`: the student in changed colours follows its own averaged weights, which see the picture as it is.

Source: Tarvainen and Valpola 2017 (arXiv:1703.01780) for the averaged teacher; the weak and strong view and the threshold on
confidence are FixMatch's (arXiv:2001.07685). One fixed threshold teaches nothing for as long as no pixel of the rare class
reaches it; as in FreeMatch (arXiv:2205.07246) each class has the mean confidence of its own pixels, here of the batch, as its
threshold where that is lower. The geometry of both views is the same, so no map has to be moved.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from difom_train.config import DistillConfig
from difom_train.distill.base import Distiller, Targets, in_float32
from difom_train.distill.matching import TeachingCache
from difom_train.students.base import Student, StudentOutput

AVERAGE = "average"


class MeanTeacherDistiller(Distiller):
    """Pixels where the averaged weights are sure teach the student their mask, also in frames without one of their own."""

    asks_average = True

    def __init__(
        self, options: DistillConfig, cache: TeachingCache, student: Student, teachers: Sequence[str], input_px: int
    ) -> None:
        super().__init__(cache, (), {"consistency": options.consistency_weight})
        self.confidence = options.confidence

    def targets_of(self, average: Tensor) -> Targets:
        """Return the prob that the averaged weights give each pixel, (B, 1, H, W) float32, of their logits."""
        return {AVERAGE: average.float().sigmoid()}

    def terms(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> dict[str, Tensor]:
        prob = targets[AVERAGE]
        inside = torch.ones_like(prob) if valid is None else valid.float().unsqueeze(1)
        sure = find_sure(prob, inside, self.confidence)
        with in_float32(prob.device):
            entropy = binary_cross_entropy_with_logits(output.logits[0].float(), (prob > 0.5).float(), reduction="none")
            pixels = inside.sum((1, 2, 3)).clamp_min(1.0)
            return {"consistency": (entropy * sure * inside).sum((1, 2, 3)) / pixels}

    def describe(self) -> list[str]:
        return [f"distillation: the run's own averaged weights, where they are sure by {self.confidence:g}"]


def find_sure(prob: Tensor, inside: Tensor, most: float) -> Tensor:
    """Return 1 where the averaged weights are sure enough to teach a pixel, else 0; (B, 1, H, W).

    Args:
        prob: (B, 1, H, W), that a pixel is polyp.
        inside: (B, 1, H, W), 1 inside the frame.
        most: the highest threshold of a class; a lower mean confidence of the class in the batch takes its place.
    """
    confidence = torch.maximum(prob, 1 - prob)
    sure = torch.zeros_like(prob)
    for own in ((prob > 0.5) * inside, (prob <= 0.5) * inside):
        mean = (confidence * own).sum() / own.sum().clamp_min(1.0)
        sure += own * (confidence >= mean.clamp(max=most))
    return sure
