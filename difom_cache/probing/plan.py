"""What decides a probe: the taps it reads, the masks it learns from, which head speaks for which group."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from difom_cache.data.budget import draw_budget
from difom_cache.errors import DataError, SettingsError
from difom_cache.probing.options import ProbeConfig
from difom_cache.store.layout import TapSpec
from difom_cache.store.reader import Cache, require_teacher
from difom_cache.store.schema import check_plain_name

NAME = "probe"  # in the place of a teacher's name in the column's identity


@dataclass(frozen=True)
class ProbePlan:
    """A probe before anything is fitted.

    Attributes:
        label: of the column.
        taps: full names of what is read.
        grid: cells a side, of features, truth and logits.
        budget: (N,) bool, records whose masks are in the budget.
        fitted: (N,) bool, those of them that train: the heads learn from these.
        fold_of: (N,) int, the fold that holds a record's group; -1 where no mask of its group is fitted.
    """

    order: ProbeConfig
    label: str
    taps: tuple[str, ...]
    grid: int
    budget: NDArray[np.bool_]
    fitted: NDArray[np.bool_]
    fold_of: NDArray[np.int64]
    mask_digests: tuple[str, ...]

    @cached_property
    def masks_sha256(self) -> str:
        """One digest of the masks that the heads learn from."""
        return hashlib.sha256("\n".join(self.mask_digests).encode()).hexdigest()


def plan_probe(cache: Cache, order: ProbeConfig) -> ProbePlan:
    """Return what a probe reads and learns from.

    Raises:
        CacheFormatError: the cache has no such teacher.
        SettingsError: an option that cannot be meant, or a share of masks that holds none.
        DataError: the budget holds no training mask, or fewer groups than folds.
    """
    _check_order(cache, order)
    taps = tuple(tap for tap in cache.taps if tap.partition("/")[0] in order.teachers)
    grid = choose_grid(cache, [cache.taps[tap] for tap in taps], order.stride)
    table, records = cache.table, cache.table.records
    labelled, split = np.zeros(len(records), bool), np.zeros(len(records), np.int64)
    labelled[table.record], split[table.record] = table.labelled > 0, table.split
    groups = [line["group"] or line["id"] for line in records]
    budget = draw_budget(groups, labelled & (split < 2), share=order.labels, labels_seed=order.labels_seed)
    fitted = budget & (split == 0)
    folds = assign_folds([groups[i] for i in np.flatnonzero(fitted)], order.folds, order.labels_seed)
    return ProbePlan(
        order=order,
        label=order.name or default_label(cache, order),
        taps=taps,
        grid=grid,
        budget=budget,
        fitted=fitted,
        fold_of=np.array([folds.get(group, -1) for group in groups]),
        mask_digests=tuple(sorted(records[i]["mask_sha256"] for i in np.flatnonzero(fitted))),
    )


def find_labels(cache: Cache, names: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that are named, each once; a teacher's name stands for its only variant in the cache.

    Raises:
        SettingsError: a name that several variants share.
    """
    labels = []
    for name in names:
        own = [label for label, held in cache.teachers.items() if held.teacher.name == name != NAME]
        if name not in cache.teachers and len(own) > 1:
            raise SettingsError(f"--teachers {name}: {cache.path} holds {', '.join(own)}; name the one that is meant")
        labels.append(own[0] if name not in cache.teachers and own else name)
    return tuple(dict.fromkeys(labels))


def assign_folds(groups: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """Return the fold of each group: in an order of `seed`, each goes where the fewest masks are.

    Args:
        groups: of each mask, one entry a mask.
        folds: how many.
        seed: of the order.

    Raises:
        DataError: there are fewer groups than folds.
    """
    names, sizes = np.unique(np.asarray(groups, dtype=str), return_counts=True)
    if len(names) < folds:
        raise DataError(
            f"the {len(groups)} training masks of the budget lie in {len(names)} groups, which {folds} folds cannot "
            "share; use a larger --labels, or fewer --folds (at least 2)"
        )
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(f"fold {seed}\n{names[i]}".encode()).digest())
    held, fold_of = np.zeros(folds, np.int64), {}
    for number in order:
        fold = int(held.argmin())
        fold_of[str(names[number])] = fold
        held[fold] += sizes[number]
    return fold_of


def choose_grid(cache: Cache, taps: Sequence[TapSpec], stride: float | None) -> int:
    """Return the cells a side that features are brought to: those of the finest tap, or of `stride`.

    Raises:
        SettingsError: the stride does not divide the picture, or is finer than every tap.
    """
    finest = max(tap.grid for tap in taps)
    if stride is None:
        return finest
    grid = round(cache.picture_px / stride) if stride > 0 else 0
    if not 1 <= grid <= finest or abs(grid * stride - cache.picture_px) > 1e-6 * cache.picture_px:
        raise SettingsError(
            f"--stride {stride:g}: expected a divisor of the {cache.picture_px} px of the pictures that is no finer than "
            f"the finest tap's {cache.picture_px / finest:g}"
        )
    return grid


def default_label(cache: Cache, order: ProbeConfig) -> str:
    """Return "dinov2-small-probe-l10-s0": teachers joined by +, the head where it is not linear, percent, seed."""
    head = "" if order.head == "linear" else order.head
    teachers = "+".join(_full_label(cache, label) for label in order.teachers)
    return f"{teachers}-probe{head}-l{100 * order.labels:g}-s{order.labels_seed}"


def _full_label(cache: Cache, label: str) -> str:
    held = cache.teachers[label].teacher
    return f"{label}-{held.variant}" if label == held.name and held.variant else label


def _check_order(cache: Cache, order: ProbeConfig) -> None:
    for label in order.teachers:
        if require_teacher(cache, label).teacher.name == NAME:
            raise SettingsError(f"--teachers {label}: it is a probe already; name the teachers that it was made of")
    if order.name is not None:
        try:
            check_plain_name(order.name)
        except ValueError as error:
            raise SettingsError(f"--name {order.name!r}: {error}") from None
