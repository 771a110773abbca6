"""From a student's levels to the targets; heads are trained beside the student and thrown away with the teachers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from difom_train.distill.comparison import to_grid
from difom_train.students.base import Student


def build_heads(student: Student, pairs: Sequence[tuple[str, int]]) -> nn.ModuleList:
    """Return one 1x1 layer for each pair of a level's name and a target's channels: (B, C, h, w) -> (B, k, h, w).

    Every teacher reads every level through its own head, so that no teacher has to share directions with another; a
    1x1 layer is weak on purpose: what it can read, the level itself must hold.
    """
    return nn.ModuleList(
        nn.Conv2d(student.levels[level].channels, channels, kernel_size=1) for level, channels in pairs
    )


def read_level(head: nn.Module, level: Tensor) -> Tensor:
    """Return what a head of `build_heads` reads of a level, (B, C, h, w) -> (B, k, h, w): as a product, which is faster."""
    weight, bias = head.parameters()
    cells = linear(level.permute(0, 2, 3, 1), weight.flatten(1), bias)  # (B, h, w, k)
    return cells.permute(0, 3, 1, 2)


def read_levels(heads: Sequence[nn.Module], level: Tensor, grid: int) -> Tensor:
    """Return what several heads of one number of targets k read of a level on a grid, side by side: (B, grid, grid, P * k)."""
    if level.shape[-1] > grid or not torch.is_autocast_enabled(level.device.type):
        level = level.float()  # a mean of cells needs it, and so do heads where nothing makes types equal
    with torch.autocast(level.device.type, enabled=False):
        level = to_grid(level, grid)
    weights, biases = zip(*(head.parameters() for head in heads), strict=True)
    return linear(level.permute(0, 2, 3, 1), torch.cat([each.flatten(1) for each in weights]), torch.cat(biases))
