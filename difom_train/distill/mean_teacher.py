"""`mean_teacher`: the student in changed colours follows its own averaged weights, which see the picture as it is.

Source: Tarvainen and Valpola 2017 (arXiv:1703.01780) for the averaged teacher; the weak and strong view and the threshold on
confidence are FixMatch's (arXiv:2001.07685). The geometry of both is the same, so no map has to be moved.
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
        sure = (torch.maximum(prob, 1 - prob) >= self.confidence).float()
        inside = torch.ones_like(prob) if valid is None else valid.float().unsqueeze(1)
        with in_float32(prob.device):
            entropy = binary_cross_entropy_with_logits(output.logits[0].float(), (prob > 0.5).float(), reduction="none")
            pixels = inside.sum((1, 2, 3)).clamp_min(1.0)
            return {"consistency": (entropy * sure * inside).sum((1, 2, 3)) / pixels}

    def describe(self) -> list[str]:
        return [f"distillation: the run's own averaged weights, where they are sure by {self.confidence:g}"]
