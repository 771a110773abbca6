"""`multiscale`: levels learn from taps, the deepest from the deepest, and images without a mask from the teachers' masks."""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from difom_train.config import DistillConfig
from difom_train.distill.bands import fill_outside, split_bands
from difom_train.distill.base import (
    CACHED,
    FIRST_ROUND,
    LABELLED,
    Batch,
    Distiller,
    Targets,
    cells_to_compare,
    in_float32,
    mark_cached,
    mean_of,
)
from difom_train.distill.calibration import fit_calibration, sample_cells
from difom_train.distill.comparison import Comparison, cells_inside, resize_map, resize_to_coarser, to_grid
from difom_train.distill.heads import build_heads, read_level
from difom_train.distill.losses import cosine_and_smooth_l1, relation_error, soft_mask_loss, squared_error
from difom_train.distill.matching import (
    TeachingCache,
    logits_taps,
    match_levels,
    refuse_nothing,
    teacher_of,
    warn_of_matches,
)
from difom_train.distill.targets import FrozenTarget, fit_projection
from difom_train.distill.together import Group, join_pairs, mean_together
from difom_train.students.base import Student, StudentOutput

MASK_LEVEL = "logits"  # the student's own main output
_SUREST = 1e-4  # a prob of 0 or 1 has no finite logit
_WHOLLY = 1 - 1e-4  # of a pixel's neighbouring cells lie in the frame


class MultiscaleDistiller(Distiller):
    """Each pair of tap and level has its own head; pairs count equally within a teacher, and teachers among each other.

    Targets are rotated so that every channel has variance 1 (PHI-S), and compared by 0.9 cosine + 0.1 smooth L1, cell by cell,
    and, where it is asked for, by how cells resemble each other. Logits of networks of unknown training are calibrated on
    held-out masks; those of probes and students, which were trained to be cut at 0, are taken as they are. The mean of their
    probs is the soft mask of each image that has no mask of its own, pixel by pixel as far as it is sure: where teachers
    contradict each other it is not.
    """

    calibration: Tensor

    def __init__(
        self, options: DistillConfig, cache: TeachingCache, student: Student, teachers: Sequence[str], input_px: int
    ) -> None:
        by_features = options.learn != "masks" and (options.feature_weight > 0 or options.relation_weight > 0)
        matches = match_levels(cache, teachers, student, input_px) if by_features else []
        by_masks = options.learn != "features" and options.logits_weight > 0
        logits = logits_taps(cache, teachers) if by_masks else []
        masks = (*logits, FIRST_ROUND) if by_masks and options.rounds > 1 else tuple(logits)
        if not matches and not masks:
            refuse_nothing(cache, teachers, student, features=by_features)
        weights = {"feature": options.feature_weight} if matches and options.feature_weight > 0 else {}
        weights |= {"relation": options.relation_weight} if matches and options.relation_weight > 0 else {}
        weights |= {"low": options.low_weight, "high": options.high_weight} if matches and options.bands else {}
        weights |= {"logits": options.logits_weight} if masks else {}
        super().__init__(cache, [match.tap for match in matches] + logits, weights)
        self.matches, self.hard_masks = matches, options.hard_masks
        self.cautions = warn_of_matches(cache, matches, student, input_px)
        self.mask_taps, self.masks = tuple(logits), masks
        self.feature_taps = tuple(dict.fromkeys(match.tap for match in matches))
        projections = [
            FrozenTarget(fit_projection(tap, cache.stats(tap), options.channels, equalise=True))
            for tap in self.feature_taps
        ]
        self.projections = nn.ModuleList(projections)
        channels = {tap: projection.channels for tap, projection in zip(self.feature_taps, projections, strict=True)}
        self.heads = build_heads(student, [(match.level, channels[match.tap]) for match in matches])
        self.register_buffer("calibration", torch.full((len(logits), 2), torch.nan))
        for index, tap in enumerate(logits):
            if is_mask_network(cache, tap):
                self.calibration[index] = torch.tensor([1.0, 0.0])

    def taps_of(self, learn: str) -> tuple[str, ...]:
        return {"features": self.feature_taps, "masks": self.mask_taps}.get(learn, self.taps)

    @property
    def needs_calibration(self) -> bool:
        return bool(self.calibration.isnan().any())

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Fit sigmoid(a t + b) for each logits tap.

        Args:
            batches: of labelled records, view 0, whose masks the teachers have not seen: "<tap>/code", "<tap>/scale",
                "mask" (B, H, W) of 0 and 1, and perhaps "valid" (B, H, W).
        """
        asked = [tap for tap, row in zip(self.mask_taps, self.calibration, strict=True) if row.isnan().any()]
        cells: dict[str, list[tuple[Tensor, Tensor]]] = {tap: [] for tap in asked}
        for batch in batches:
            for tap in asked:
                logits = self.features(batch, tap)
                mask = to_grid(batch["mask"].clamp(max=1).float().unsqueeze(1), logits.shape[-1])
                inside = sample_cells(cells_inside(batch.get("valid"), logits)) > 0
                cells[tap].append((sample_cells(logits)[inside].cpu(), sample_cells(mask)[inside].cpu()))
        for tap in asked:
            values = torch.cat([pair[0] for pair in cells[tap]] or [torch.empty(0)])
            truth = torch.cat([pair[1] for pair in cells[tap]] or [torch.empty(0)])
            fitted = fit_calibration(tap, values, truth)
            self.calibration[self.mask_taps.index(tap)] = torch.tensor([fitted.slope, fitted.offset])

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        targets = mark_cached(batch)
        if batch.get("labelled") is not None:
            targets[LABELLED] = batch["labelled"].float()
        for tap, projection in zip(self.feature_taps, self.projections, strict=True):
            if not self.holds(batch, tap):
                continue
            grid = max(match.grid for match in self.matches if match.tap == tap)
            features = self.features(batch, tap, grid)
            with in_float32(features.device):
                targets[tap] = projection(features)
        for index, tap in enumerate(self.mask_taps):
            if self.holds(batch, tap):
                slope, offset = self.calibration[index]
                targets[tap] = (slope * self.logits(batch, tap) + offset).sigmoid()
        return targets

    def compare_features(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> list[Comparison]:
        """Return each level, through its head, beside the target of each of its taps.

        Heads compute in bfloat16 within such an autocast, as the student does; what they give is compared in float32.
        """
        pairs = []
        for match, head in zip(self.matches, self.heads, strict=True):
            if match.tap not in targets:
                continue
            level, target = output.levels[match.level], targets[match.tap]
            if level.shape[-1] > target.shape[-1] or not torch.is_autocast_enabled(level.device.type):
                level = level.float()  # a mean of cells needs it, and so do heads where nothing makes types equal
            with in_float32(target.device):
                level, target = resize_to_coarser(level, target)
                inside = cells_to_compare(targets, valid, target)
            pairs.append(Comparison(match.tap, match.level, read_level(head, level).float(), target, inside))
        return pairs

    def compare_masks(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> list[Comparison]:
        """Return the student's main logits beside each teacher's soft mask."""
        pairs = []
        for tap in filter(targets.__contains__, self.mask_taps):
            logits, prob = resize_to_coarser(output.logits[0].float(), targets[tap])
            pairs.append(Comparison(tap, MASK_LEVEL, logits, prob, cells_inside(valid, prob)))
        return pairs

    def mask_error(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> Tensor:
        """Return how far the student's mask is from the teachers', (B,), at the student's own resolution.

        A pixel weighs (2 p - 1)^2 where p is the teachers' mean prob, which is 1 where they are sure and 0 where they are not.
        Hard masks weigh 1 everywhere.
        """
        logits = output.logits[0].float()
        logits = logits if valid is None else to_grid(logits, valid.shape[-1])
        probs, inside = [], cells_inside(valid, logits)
        for tap in filter(targets.__contains__, self.masks):
            probs.append(resize_map(targets[tap].logit(eps=_SUREST), logits).sigmoid())
            if valid is not None:  # what is interpolated with a cell outside of the frame says nothing
                inside = inside * (resize_map(cells_inside(valid, targets[tap]), logits) > _WHOLLY)
        mean = torch.stack(probs).mean(dim=0)
        sure = (2 * mean - 1).square()
        if self.hard_masks:
            mean, sure = (mean > 0.5).float(), torch.ones_like(mean)
        return soft_mask_loss(logits, mean, inside * sure)

    def terms(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> dict[str, Tensor]:
        groups: list[Group]
        device, cached = output.logits[0].device, targets.get(CACHED)
        if is_gpu := device.type == "cuda":  # a CPU is faster with pairs that stay in its caches, one by one
            inside_of = partial(cells_to_compare, targets, valid)
            groups = join_pairs(self.matches, self.heads, output.levels, targets, inside_of)
        else:
            groups = [((pair.what,), pair) for pair in self.compare_features(output, targets, valid)]
        with in_float32(device):
            errors = [(taps, self._errors(pair)) for taps, pair in groups]
            found: dict[str, Tensor] = {}
            if errors and is_gpu:
                means = mean_together([(taps, torch.stack(list(own.values()))) for taps, own in errors])
                found = dict(zip(errors[0][1], mean_of(means, cached), strict=True))
            elif errors:
                own = {name: [(taps[0], each[name]) for taps, each in errors] for name in errors[0][1]}
                found = {name: mean_of(mean_over_teachers(losses), cached) for name, losses in own.items()}
            if any(tap in targets for tap in self.masks):
                without = 1 - targets[LABELLED] if LABELLED in targets else None
                found["logits"] = mean_of(self.mask_error(output, targets, valid), without)
            return found

    def _errors(self, pair: Comparison) -> dict[str, Tensor]:
        """Return each term of a pair that is asked for, (B,)."""
        about, errors = (pair.student, pair.target, pair.inside), {}
        if "feature" in self.weights:
            errors["feature"] = cosine_and_smooth_l1(*about)
        if "relation" in self.weights:
            errors["relation"] = relation_error(*about)
        if "low" in self.weights:
            errors["low"], errors["high"] = _band_errors(pair)
        return errors

    def compare(self, output: StudentOutput, targets: Targets, valid: Tensor | None) -> list[Comparison]:
        masks = self.compare_masks(output, targets, valid)
        for pair in masks:
            pair.student = pair.student.sigmoid()
        return self.compare_features(output, targets, valid) + masks

    def describe(self) -> list[str]:
        kept = dict(zip(self.feature_taps, self.projections, strict=True))
        lines = [f"distillation: multiscale, {len(self.matches)} pairs of tap and level"]
        for match in self.matches:
            projection = kept[match.tap]
            lines.append(
                f"  {match.tap} -> {match.level}, {match.grid} x {match.grid} cells, "
                f"{projection.channels} directions keep {projection.kept_frac:.1%} of variance"
            )
        return [*lines, *(f"  {tap} -> the student's mask" for tap in self.masks), *self.cautions]


def is_mask_network(cache: TeachingCache, tap: str) -> bool:
    """Whether logits come from a probe or a student, whose loss holds Dice: the least cross-entropy would shrink their masks."""
    identity = cache.teachers[teacher_of(tap)]
    return identity.probe is not None or identity.teacher.name == "student"


def mean_over_teachers(losses: Sequence[tuple[str, Tensor]]) -> Tensor:
    """Return the mean over teachers of the mean over each teacher's losses; (tap, (B,)) each -> (B,)."""
    by_teacher: dict[str, list[Tensor]] = {}
    for tap, loss in losses:
        by_teacher.setdefault(teacher_of(tap), []).append(loss)
    return torch.stack([torch.stack(own).mean(dim=0) for own in by_teacher.values()]).mean(dim=0)


def _band_errors(pair: Comparison) -> tuple[Tensor, Tensor]:
    student, target = (fill_outside(x, pair.inside) for x in (pair.student, pair.target))
    (student_low, student_high), (target_low, target_high) = split_bands(student), split_bands(target)
    low = squared_error(student_low, target_low, pair.inside)
    return low, squared_error(student_high, target_high, pair.inside)
