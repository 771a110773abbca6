"""Buffers that checkpoints hold and today's networks compute by themselves.

Until 2023 the libraries wrote them into every file. A file's value that equals what is computed here is left out; one
that differs means that the checkpoint belongs to a network that computes something else.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from difom_cache.base.errors import WeightsError

Compute = Callable[[Tensor], Tensor | None]
"""Gives what a buffer of this shape must hold, None for a shape that it cannot have."""


def relative_position_index(found: Tensor) -> Tensor | None:
    """Return Swin's table of offsets between the cells of a window, (w*w, w*w) numbers of rows of its bias table.

    Source: Liu et al. 2021, arXiv:2103.14030, section 3.2; (row difference, column difference), each from 1 - w, as
    one number in base 2w - 1.
    """
    side = math.isqrt(found.shape[0]) if found.ndim == 2 else 0
    if side == 0 or found.shape != (side * side, side * side):
        return None
    cells = torch.arange(side * side)
    rows, columns = cells // side, cells % side
    down, right = rows[:, None] - rows, columns[:, None] - columns
    return (down + side - 1) * (2 * side - 1) + right + side - 1


def position_ids(found: Tensor) -> Tensor | None:
    """Return 0, 1, 2, ... in the shape (1, tokens)."""
    return torch.arange(found.shape[1])[None] if found.ndim == 2 and found.shape[0] == 1 else None


def num_batches_tracked(found: Tensor) -> Tensor | None:
    """Return the count itself: batch norms read it in training alone."""
    return found if found.ndim == 0 and not found.is_floating_point() else None


def rope_periods(found: Tensor) -> Tensor | None:
    """Return the periods of DINOv3's rotary positions: base 100, a quarter of a head's channels each."""
    return 100.0 ** (torch.arange(len(found)) / len(found)) if found.ndim == 1 else None


COMMON: dict[str, Compute] = {"position_ids": position_ids, "num_batches_tracked": num_batches_tracked}
"""By the last part of a tensor's name; what any network may hold."""


def drop_computed(tensors: Mapping[str, Tensor], computed: Mapping[str, Compute], source: Path) -> dict[str, Tensor]:
    """Return `tensors` without the buffers that `computed` names.

    Args:
        tensors: of a checkpoint.
        computed: last part of a tensor's name to what it must hold.
        source: named in messages.

    Raises:
        WeightsError: a buffer differs from what the network computes.
    """
    kept = {}
    for name, found in tensors.items():
        compute = computed.get(name.rpartition(".")[2])
        if compute is None:
            kept[name] = found
            continue
        expected = compute(found)
        if expected is None or not _equal(found, expected):
            raise WeightsError(
                f"{source}: {name} differs from what the network computes; this checkpoint is of a network that "
                f"does something else, and its features would be wrong"
            )
    return kept


def _equal(found: Tensor, expected: Tensor) -> bool:
    """Whether a file's value is the expected one, or what is left of it in a file that was saved in half precision."""
    if not expected.is_floating_point():
        return torch.equal(found.to(expected.dtype), expected)
    rounded = (expected.to(kind).to(expected) for kind in (expected.dtype, torch.float16, torch.bfloat16))
    return found.shape == expected.shape and any(torch.allclose(found.to(expected), each) for each in rounded)
