"""`paper` and `difom`: the bands of all teachers together, at the student's bottleneck (arXiv 2512.09307)."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from difom_cache.base.errors import SettingsError
from difom_train.config import DistillConfig
from difom_train.distill.bands import fill_outside, halfwidth_cycles, split_bands
from difom_train.distill.base import Batch, Distiller, Targets, cells_to_compare, in_float32, mark_cached
from difom_train.distill.comparison import Comparison, resize_to_coarser
from difom_train.distill.losses import cosine_and_smooth_l1, cosine_distance, squared_error
from difom_train.distill.matching import Match, TeachingCache, match_bottleneck, teacher_of, warn_of_matches
from difom_train.distill.targets import FrozenTarget, fit_projection
from difom_train.students.base import Student, StudentOutput

FUSED = "fused"
BANDS_FROM_CELLS = 12  # a side; below, a window of two cycles leaves hardly anything to either band
LOW_CYCLES = 2  # per picture, whatever the grid: the paper's window on 12 cells


class BottleneckDistiller(Distiller):
    """Targets are frozen: each teacher gives its first channels / T principal directions, scaled as one, side by side.

    The two neck layers of the student are compared with the low and the high band by their squared error. Where the teachers
    have fewer directions than the neck has channels, the neck's last channels are free.
    """

    literal = True
    equalise = False
    "Whether every channel of the target has the same variance."
    low_cycles: int | None = None
    "Highest frequency of the low band, in cycles per picture; None = the paper's share of the grid."

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
            FrozenTarget(fit_projection(match.tap, cache.stats(match.tap), share, equalise=self.equalise))
            for match, share in zip(matches, shares, strict=True)
        )
        self.grid = min(match.grid for match in matches)
        self.cautions = [line for each in matches for line in warn_of_matches(cache, [each], student, input_px)]

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        parts = []
        for match, projection in zip(self.matches, self.projections, strict=True):
            features = self.features(batch, match.tap, self.grid)
            with in_float32(features.device):
                parts.append(projection(features))
        return {FUSED: torch.cat(parts, dim=1)} | mark_cached(batch)  # (B, sum of k, g, g)

    def bands(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> list[Comparison]:
        """Return z1 beside the low band and z2 beside the high band of the target."""
        fused = targets[FUSED]
        with in_float32(fused.device):
            channels = fused.shape[1]
            z1, fused = resize_to_coarser(output.neck["z1"].float()[:, :channels], fused)
            z2, _ = resize_to_coarser(output.neck["z2"].float()[:, :channels], fused)
            inside = cells_to_compare(targets, valid, fused)
            low, high = split_bands(fused if valid is None else fill_outside(fused, inside), self.low_cycles)
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
        lines = [
            f"distillation: {self.kind}, at the bottleneck, {self.grid} x {self.grid} cells, {self.describe_bands()}"
        ]
        for match, projection in zip(self.matches, self.projections, strict=True):
            kept = f"{projection.channels} directions keep {projection.kept_frac:.1%} of variance"
            lines.append(f"  {match.tap} -> {match.level}, {kept}")
        return lines + self.cautions

    def describe_bands(self) -> str:
        """Return how the target is split."""
        return f"low band up to {halfwidth_cycles(self.grid, self.grid)} cycles per picture"


class DifomDistiller(BottleneckDistiller):
    """Channels of equal variance (PHI-S); the low band is held to strictly, the high one in direction alone.

    A map of few cells has no bands to speak of: there z1 + z2 is held to the whole of the target. That fine detail is
    matched more loosely than coarse structure is FreeKD's split of the two (arXiv 2311.12079).
    """

    literal = False
    equalise = True

    def __init__(
        self, options: DistillConfig, cache: TeachingCache, student: Student, teachers: Sequence[str], input_px: int
    ) -> None:
        super().__init__(options, cache, student, teachers, input_px)
        self.has_bands = self.grid >= BANDS_FROM_CELLS
        if self.has_bands:
            self.low_cycles = LOW_CYCLES
        else:
            self.weights = {"whole": options.low_weight + options.high_weight}

    def terms(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> dict[str, Tensor]:
        low, high = self.bands(output, targets, valid)
        with in_float32(low.target.device):
            if not self.has_bands:
                whole = cosine_and_smooth_l1(low.student + high.student, low.target + high.target, low.inside)
                return {"whole": whole}
            return {
                "low": cosine_and_smooth_l1(low.student, low.target, low.inside),
                "high": cosine_distance(high.student, high.target, high.inside),
            }

    def compare(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> list[Comparison]:
        return super().compare(output, targets, valid)[0 if self.has_bands else 2 :]

    def describe_bands(self) -> str:
        if self.has_bands:
            return f"low band up to {LOW_CYCLES} cycles per picture"
        return f"compared whole: there are bands from {BANDS_FROM_CELLS} x {BANDS_FROM_CELLS} cells on"


def share_channels(matches: Sequence[Match], channels: int) -> list[int]:
    """Return how many target channels each tap gets: equal shares for teachers, then for the taps of a teacher."""
    taps_of_teacher = Counter(teacher_of(match.tap) for match in matches)
    shares = [channels // len(taps_of_teacher) // taps_of_teacher[teacher_of(match.tap)] for match in matches]
    if min(shares) < 1:
        raise SettingsError(
            f"distill.channels = {channels} is too few for {len(matches)} taps: every tap needs one at least"
        )
    return shares
