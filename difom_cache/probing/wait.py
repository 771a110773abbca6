"""How long a probe takes, told before it starts: a step and a pass of its heads are timed on maps of the same size."""

import time
from pathlib import Path

import torch

from difom_cache.base import disk
from difom_cache.base.text import format_seconds
from difom_cache.probing import decoder_head
from difom_cache.probing.cells import FeatureReader
from difom_cache.probing.lesson import Lesson
from difom_cache.probing.plan import DECODER, ProbePlan
from difom_cache.store.layout import HEADS, teacher_folder

LONG_S = 120
_TIMED_VIEWS, _TIMED_STEPS = 16, 4


def describe_wait(plan: ProbePlan, reader: FeatureReader, home: Path, *, fitted: int, written: int, once: bool) -> str:
    """Return the expected time in a line; `once` adds, where it is long, how several runs share it."""
    order, folds = plan.order, plan.order.folds
    line = f"{plan.label}: {folds} heads on {fitted} views of {len(plan.mask_digests)} masks, then logits of {written} views"
    if order.head != DECODER:
        return line
    step_s, pass_s = time_heads(plan, reader)
    there = disk.is_there(home / teacher_folder(plan.label) / HEADS)
    steps = 0 if there else decoder_head.count_steps(fitted * (folds - 1) // folds)
    total_s = folds * (steps * step_s + written * pass_s)
    line += f": about {format_seconds(total_s)}"
    if not once or total_s <= LONG_S:
        return line
    return (
        f"{line}; for several runs make it once: difom-cache probe {order.cache} --teachers {','.join(order.teachers)} "
        f"--labels {order.labels:g} --labels-seed {order.labels_seed}"
    )


def time_heads(plan: ProbePlan, reader: FeatureReader) -> tuple[float, float]:
    """Return the seconds of a decoder's step, and of its pass over one view."""
    features = torch.randn((_TIMED_VIEWS, plan.read_grid, plan.read_grid, reader.channels))
    truth = torch.rand((_TIMED_VIEWS, plan.grid, plan.grid))
    lesson = Lesson(features, truth, torch.ones_like(truth, dtype=torch.bool), (_TIMED_VIEWS // 2, _TIMED_VIEWS))
    decoder_head.fit(lesson, 0, 0, steps=1)  # the first one finds its kernels
    started_s = time.perf_counter()
    head = decoder_head.fit(lesson, 0, 0, steps=_TIMED_STEPS)
    fitted_s = time.perf_counter()
    with torch.no_grad():
        decoder_head.speak(head, features, plan.grid)
    return (fitted_s - started_s) / _TIMED_STEPS, (time.perf_counter() - fitted_s) / _TIMED_VIEWS
