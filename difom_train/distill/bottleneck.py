"""`difom` and `paper`: the bands of all teachers together, at the student's bottleneck (arXiv 2512.09307)."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from difom_cache.errors import SettingsError
from difom_train.config import DistillConfig
from difom_train.distill.bands import fill_outside, halfwidth_cycles, split_bands
from difom_train.distill.base import Batch, Distiller, Targets, in_float32
from difom_train.distill.comparison import Comparison, cells_inside, resize_to_coarser, to_grid
from difom_train.distill.losses import squared_error
from difom_train.distill.matching import Match, TeachingCache, match_bottleneck, teacher_of
from difom_train.distill.targets import FrozenTarget, fit_projection
from difom_train.students.base import Student, StudentOutput

FUSED = "fused"


class BottleneckDistiller(Distiller):
    """Targets are frozen: each teacher gives its first channels / T principal directions, scaled as one, side by side.

    The two neck layers of the student are compared with the low and the high band. Where the teachers have fewer
    directions than the neck has channels, the neck's last channels are free.
    """

    def __init__(
        self, options: DistillConfig, cache: TeachingCache, student: Student, teachers: Sequence[str], input_px: int
    ) -> None:
        matches = match_bottleneck(cache, teachers, student, input_px)
        weights = {"low": options.low_weight, "high": options.high_weight}
        super().__init__(cache, [match.tap for match in matches], weights)
        needed = options.neck
        if student.settings.neck != needed:
            raise SettingsError(
                f"the recipe's distillation {options.kind!r} needs a student with neck {needed!r}, "
                f"found {student.settings.neck!r}"
            )
        self.kind = options.kind
        self.matches = matches
        shares = share_channels(matches, options.channels)
        self.projections = nn.ModuleList(
            FrozenTarget(fit_projection(match.tap, cache.stats(match.tap), share))
            for match, share in zip(matches, shares, strict=True)
        )

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        parts = []
        grid = min(match.grid for match in self.matches)
        for match, projection in zip(self.matches, self.projections, strict=True):
            features = self.features(batch, match.tap)
            with in_float32(features.device):
                parts.append(projection(to_grid(features, grid)))
        return {FUSED: torch.cat(parts, dim=1)}  # (B, sum of k, g, g)

    def bands(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> list[Comparison]:
        """Return z1 beside the low band and z2 beside the high band of the target."""
        fused = targets[FUSED]
        with in_float32(fused.device):
            channels = fused.shape[1]
            z1, fused = resize_to_coarser(output.neck["z1"].float()[:, :channels], fused)
            z2, _ = resize_to_coarser(output.neck["z2"].float()[:, :channels], fused)
            inside = cells_inside(valid, fused)
            low, high = split_bands(fused if valid is None else fill_outside(fused, inside))
            return [Comparison("low", "z1", z1, low, inside), Comparison("high", "z2", z2, high, inside)]

    def terms(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> dict[str, Tensor]:
        bands = self.bands(output, targets, valid)
        with in_float32(bands[0].target.device):
            return {band.what: squared_error(band.student, band.target, band.inside) for band in bands}

    def compare(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> list[Comparison]:
        low, high = self.bands(output, targets, valid)
        sizes = [projection.channels for projection in self.projections]
        # With the paper's wiring only L2 reaches the decoder, yet what L1 and L2 hold together is what was asked for.
        student = (low.student + high.student).split(sizes, dim=1)
        target = (low.target + high.target).split(sizes, dim=1)
        return [low, high] + [
            Comparison(match.tap, "z1+z2", student[i], target[i], low.inside) for i, match in enumerate(self.matches)
        ]

    def describe(self) -> list[str]:
        grid = min(match.grid for match in self.matches)
        lines = [
            f"distillation: {self.kind}, at the bottleneck, {grid} x {grid} cells, "
            f"low band up to {halfwidth_cycles(grid, grid)} cycles per picture"
        ]
        for match, projection in zip(self.matches, self.projections, strict=True):
            lines.append(f"  {match.tap}: {projection.channels} directions keep {projection.kept_frac:.1%} of variance")
        return lines


def share_channels(matches: Sequence[Match], channels: int) -> list[int]:
    """Return how many target channels each tap gets: equal shares for teachers, then for the taps of a teacher."""
    taps_of_teacher = Counter(teacher_of(match.tap) for match in matches)
    shares = [channels // len(taps_of_teacher) // taps_of_teacher[teacher_of(match.tap)] for match in matches]
    if min(shares) < 1:
        raise SettingsError(
            f"distill.channels = {channels} is too few for {len(matches)} taps: every tap needs one at least"
        )
    return shares
