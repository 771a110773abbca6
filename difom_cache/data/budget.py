"""Which masks a budget of annotation holds: whole groups, in one order, until a share of the masks is reached."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import SettingsError


def draw_budget(
    groups: Sequence[str], labelled: NDArray[np.bool_], *, share: float, labels_seed: int
) -> NDArray[np.bool_]:
    """Return which records' masks are in the budget.

    Groups stand in an order that `labels_seed` and their names alone decide. The budget is the part from its start whose
    size is nearest to `share` of all masks, off by half a group at most; a smaller one lies inside a larger one of its seed.
    It covers training and validation records alike: give both, and those of the budget that validate, validate.

    Args:
        groups: (N,) group of each record, or its id where it has none; records of one group stay together.
        labelled: (N,) whether the record has a mask.
        share: of the masks, in (0, 1].
        labels_seed: of the order.

    Returns:
        (N,) bool; False where there is no mask.

    Raises:
        SettingsError: the share is not in (0, 1], or holds not even the first group.
    """
    if not 0 < share <= 1:
        raise SettingsError(f"the share of masks is {share}; it must be in (0, 1]")
    has_mask = np.asarray(labelled, bool)
    if share == 1 or not has_mask.any():
        return has_mask.copy()
    names, group = np.unique(np.asarray(groups, dtype=str)[has_mask], return_inverse=True)
    masks = np.bincount(group)
    order = sorted(range(len(names)), key=lambda number: _place(str(names[number]), labels_seed))
    reached = np.concatenate([[0], np.cumsum(masks[order])])
    taken = int(np.abs(reached - share * has_mask.sum()).argmin())  # of two that are equally near the smaller
    kept = np.zeros(len(names), bool)
    kept[order[:taken]] = True
    if not kept.any():
        raise SettingsError(
            f"{share:g} of {has_mask.sum()} masks holds none: the first group of labels seed {labels_seed}, "
            f"{names[order[0]]}, has {masks[order[0]]}; use a larger share, or another labels seed"
        )
    chosen = np.zeros(len(has_mask), bool)
    chosen[has_mask] = kept[group]
    return chosen


def _place(group: str, labels_seed: int) -> bytes:
    """Return where a group stands; no other group moves it."""
    return hashlib.sha256(f"{labels_seed}\n{group}".encode()).digest()
