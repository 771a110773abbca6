"""What a distiller compares, and how much of it the student has learnt."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from difom_cache.teachers import area_pool

INSIDE_FRAC = 0.5  # a cell counts where at least half of it shows the frame


@dataclass
class Comparison:
    """A student's map beside its target, on one grid.

    Attributes:
        what: name of the target: a tap, or "low" or "high".
        level: name of the student's side.
        student: (B, k, h, w).
        target: (B, k, h, w).
        inside: (B, 1, h, w), 1 where the cell counts, else 0.
    """

    what: str
    level: str
    student: Tensor
    target: Tensor
    inside: Tensor


def to_grid(x: Tensor, grid: int) -> Tensor:
    """Return `x` (B, C, h, w) area-pooled to grid x grid, or as it is where it is not finer."""
    pooled: Tensor = area_pool(x, grid) if grid < x.shape[-1] else x
    return pooled


def resize_to_coarser(student: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps on the coarser grid of the two."""
    grid = min(student.shape[-1], target.shape[-1])
    return to_grid(student, grid), to_grid(target, grid)


def resize_map(x: Tensor, like: Tensor) -> Tensor:
    """Return a map (B, 1, h, w) at the size of `like` (B, C, H, W): interpolated where it is finer, else pooled by area."""
    if like.shape[-1] <= x.shape[-1]:
        return to_grid(x, like.shape[-1])
    return interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def cells_inside(valid: Tensor | None, like: Tensor) -> Tensor:
    """Return (B, 1, h, w) float32 for the grid of `like` (B, C, h, w): 1 where a cell counts, else 0.

    Args:
        valid: (B, H, W), 1 inside the frame; None where every pixel is.
    """
    batch, _, height, width = like.shape
    if valid is None:
        return torch.ones(batch, 1, height, width, device=like.device)
    return (to_grid(valid.float().unsqueeze(1), height) >= INSIDE_FRAC).float()


def count_moments(comparisons: Sequence[Comparison]) -> dict[str, Tensor]:
    """Return sums from which `summarise_moments` tells variances, explained fraction and cosine; float64, additive."""
    sums: dict[str, Tensor] = {}
    for comparison in comparisons:
        student, target = comparison.student.detach().double(), comparison.target.detach().double()
        inside = comparison.inside.double()
        parts = {
            "cells": inside.sum(),
            "target": (target * inside).sum(dim=(0, 2, 3)),
            "target2": (target.square() * inside).sum(dim=(0, 2, 3)),
            "student": (student * inside).sum(dim=(0, 2, 3)),
            "student2": (student.square() * inside).sum(dim=(0, 2, 3)),
            "error": ((student - target).square() * inside).sum(),
        }
        if student.shape[1] > 1:  # of one channel only the sign would count
            parts["cosine"] = (cosine_similarity(student, target, dim=1, eps=1e-6).unsqueeze(1) * inside).sum()
        sums |= {f"{comparison.what}|{comparison.level}|{part}": value for part, value in parts.items()}
    return sums


def summarise_moments(sums: dict[str, Tensor]) -> dict[str, float]:
    """Return what a run logs of its distillation.

    `distill/target_var/<what>` and `distill/student_var/<level>` are mean channel variances over all cells;
    `distill/explained/<what>` is one minus squared error over target variance (1 is a perfect copy, 0 no better than
    the mean), and `distill/explained/<what>:<level>` the same for each level where several learn from one tap.
    `distill/cosine/<what>` is the mean over cells of the cosine over channels, of all levels that learn from the tap: what
    most losses here ask for, blind to the scale that a squared error sees first.
    """
    pairs = list(dict.fromkeys(tuple(key.split("|")[:2]) for key in sums))
    errors: dict[str, list[tuple[str, float, float]]] = {}
    student_vars: dict[str, list[float]] = {}
    cosines: dict[str, list[float]] = {}
    logged: dict[str, float] = {}
    for what, level in pairs:
        part = {name: sums[f"{what}|{level}|{name}"] for name in ("cells", "target", "target2", "student", "student2")}
        cells = part["cells"].clamp_min(1.0)
        target_var = part["target2"] / cells - (part["target"] / cells).square()  # (k,)
        student_var = part["student2"] / cells - (part["student"] / cells).square()
        logged[f"distill/target_var/{what}"] = float(target_var.mean())
        student_vars.setdefault(level, []).append(float(student_var.mean()))
        if f"{what}|{level}|cosine" in sums:
            cosines.setdefault(what, []).append(float(sums[f"{what}|{level}|cosine"] / cells))
        error, total = float(sums[f"{what}|{level}|error"]), float(target_var.sum() * cells)
        errors.setdefault(what, []).append((level, error, total))
    for level, values in student_vars.items():
        logged[f"distill/student_var/{level}"] = sum(values) / len(values)
    logged |= {f"distill/cosine/{what}": sum(values) / len(values) for what, values in cosines.items()}
    for what, parts in errors.items():
        logged[f"distill/explained/{what}"] = _explained(sum(p[1] for p in parts), sum(p[2] for p in parts))
        if len(parts) > 1:
            logged |= {f"distill/explained/{what}:{level}": _explained(error, total) for level, error, total in parts}
    return logged


def _explained(error: float, total: float) -> float:
    """A target without any variance has nothing to explain: 0."""
    return 1 - error / total if total > 0 else 0.0
