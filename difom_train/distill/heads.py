"""From a student's levels to the targets; heads are trained beside the student and thrown away with the teachers."""

from collections.abc import Sequence

from torch import nn

from difom_train.students.base import Student


def build_heads(student: Student, pairs: Sequence[tuple[str, int]]) -> nn.ModuleList:
    """Return one 1x1 layer for each pair of a level's name and a target's channels: (B, C, h, w) -> (B, k, h, w).

    Every teacher reads every level through its own head, so that no teacher has to share directions with another; a
    1x1 layer is weak on purpose: what it can read, the level itself must hold.
    """
    return nn.ModuleList(
        nn.Conv2d(student.levels[level].channels, channels, kernel_size=1) for level, channels in pairs
    )
