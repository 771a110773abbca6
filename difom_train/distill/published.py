"""`published`: the losses of the authors' released notebook as they are, so that anyone can watch them collapse.

The fusion layer stands on the target side and is trained through the very error that it defines, with nothing to hold
it up: the shortest way down is to make both sides zero. L1 and L2 are side branches that the decoder never sees.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from difom_train.config import DistillConfig
from difom_train.distill.base import Batch, Distiller, Targets, in_float32
from difom_train.distill.comparison import Comparison, cells_inside
from difom_train.distill.losses import squared_error
from difom_train.distill.matching import TeachingCache, match_bottleneck
from difom_train.students.base import BOTTLENECK, Student, StudentOutput
from difom_train.students.necks import NECK_CHANNELS, PaperNeck

NOTEBOOK_GRID = 64  # features are brought here, split, and shrunk to the student's grid without antialiasing


class PublishedDistiller(Distiller):
    """Concatenated raw features -> trainable 1x1 -> bands by FFT; L1 and L2 on a branch beside the decoder."""

    literal = True

    def __init__(
        self, options: DistillConfig, cache: TeachingCache, student: Student, teachers: Sequence[str], input_px: int
    ) -> None:
        matches = match_bottleneck(cache, teachers, student, input_px)
        weights = {"low": options.low_weight, "high": options.high_weight}
        super().__init__(cache, [match.tap for match in matches], weights)
        self.matches = matches
        self.fuse = nn.Conv2d(sum(cache.taps[tap].channels for tap in self.taps), NECK_CHANNELS, kernel_size=1)
        self.branch = PaperNeck(student.levels[BOTTLENECK].channels)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        features = [self.features(batch, tap) for tap in self.taps]
        return {"features": torch.cat([_resize(x, NOTEBOOK_GRID) for x in features], dim=1)}  # (B, sum of C, 64, 64)

    def compare(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> list[Comparison]:
        bottleneck = output.levels[BOTTLENECK].float()
        with in_float32(bottleneck.device):
            _, layers = self.branch(bottleneck)
            low, high = split_as_published(self.fuse(targets["features"]))
            grid = bottleneck.shape[-1]
            inside = cells_inside(valid, bottleneck)
            return [
                Comparison("low", "z1", layers["z1"], _resize(low, grid), inside),
                Comparison("high", "z2", layers["z2"], _resize(high, grid), inside),
            ]

    def terms(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> dict[str, Tensor]:
        compared = self.compare(output, targets, valid)
        with in_float32(compared[0].target.device):
            return {pair.what: squared_error(pair.student, pair.target, pair.inside) for pair in compared}

    def describe(self) -> list[str]:
        return [
            f"distillation: as the notebook was published, from {', '.join(self.taps)}",
            "  warning: its target is trained too and nothing it learns reaches the decoder; expect it to collapse",
        ]


def split_as_published(fused: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bands of `fused` (B, C, h, w) through the notebook's window, -r..r-1, real parts only."""
    height, width = fused.shape[-2:]
    halfwidth = min(height, width) // 6
    spectrum = torch.fft.fftshift(torch.fft.fft2(fused), dim=(-2, -1))
    window = torch.zeros(height, width, device=fused.device)
    middle_row, middle_column = height // 2, width // 2
    rows = slice(middle_row - halfwidth, middle_row + halfwidth)
    window[rows, middle_column - halfwidth : middle_column + halfwidth] = 1

    def back(masked: Tensor) -> Tensor:
        return torch.fft.ifft2(torch.fft.ifftshift(masked, dim=(-2, -1))).real

    return back(spectrum * window), back(spectrum * (1 - window))


def _resize(x: Tensor, grid: int) -> Tensor:
    return interpolate(x, size=(grid, grid), mode="bilinear", align_corners=False)
