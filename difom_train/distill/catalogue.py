"""Distillers by kind."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch

from difom_train.config import DistillConfig, TrainConfig
from difom_train.distill.base import Distiller
from difom_train.distill.bottleneck import BottleneckDistiller, DifomDistiller
from difom_train.distill.matching import TeachingCache, choose_teachers
from difom_train.distill.mean_teacher import MeanTeacherDistiller
from difom_train.distill.multiscale import MultiscaleDistiller
from difom_train.distill.published import PublishedDistiller
from difom_train.students.base import Student

DISTILLERS: dict[str, Callable[[DistillConfig, TeachingCache, Student, Sequence[str], int], Distiller]] = {
    "difom": DifomDistiller,
    "paper": BottleneckDistiller,
    "published": PublishedDistiller,
    "multiscale": MultiscaleDistiller,
    "mean_teacher": MeanTeacherDistiller,
}
REVISIONS = {"difom": 2, "paper": 2, "published": 2, "multiscale": 4, "mean_teacher": 2}
"""Kind to the number of its revision; it rises where the same settings teach otherwise than before. 2: taps meet levels in order
of depth; masks of teachers teach where there are none; the averaged teacher's thresholds. 4: logits of probes and students are
taken as they are."""
_LATER_VIEWS = 2  # a view for every draw, and an average that forgets its first weights
_LATER_FEATURES = 3  # stored views, which features teach, lie at other places in each step


def revision_of(config: TrainConfig) -> int:
    """Return the revision of a run: one of another revision is not resumed, though its student opens all the same."""
    later = config.data.fresh_views or config.optimizer.ema_decay > 0
    features = config.data.fresh_views and config.distill.kind not in ("none", "mean_teacher")
    return max(REVISIONS.get(config.distill.kind, 1), _LATER_VIEWS if later else 1, _LATER_FEATURES if features else 1)


def build_distiller(
    options: DistillConfig,
    *,
    cache: TeachingCache,
    student: Student,
    teachers: Sequence[str] | None = None,
    input_px: int,
    seed: int | None = None,
) -> Distiller:
    """Return the distiller that `options` ask for, its frozen targets fitted from the cache's statistics.

    Args:
        options: the recipe's [distill] table.
        cache: an open cache, or several joined ones.
        student: it will be held to; its neck fits the kind (`DistillConfig.neck`).
        teachers: labels to learn from, instead of `options.teachers`; empty or None there and here means all.
        input_px: side of the student's input.
        seed: of the heads' first weights, drawn without touching the global generator; None draws from the global one.

    Raises:
        SettingsError: an unknown teacher, or a student without the neck that this kind needs.
        CacheIncompleteError: the cache lacks a tap that is needed; lists what it has.
        TeacherError: a tap never varies, so nothing can be learnt from it.
    """
    if options.kind == "none":
        return Distiller(cache, (), {})
    chosen = choose_teachers(cache, options.teachers if teachers is None else teachers)
    with nullcontext() if seed is None else torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        return DISTILLERS[options.kind](options, cache, student, chosen, input_px)
