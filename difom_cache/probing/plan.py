"""What decides a probe: the taps it reads, the masks it learns from, which head speaks for which group."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import DataError, SettingsError
from difom_cache.base.options import validate
from difom_cache.data.record import by_hash, draw_budget
from difom_cache.probing.options import ProbeConfig
from difom_cache.store.reader import Cache, require_teacher
from difom_cache.store.schema import check_plain_name

DECODER = "decoder"
FINER = 4  # cells of a decoder's logits a side, for each of the finest tap's; but
LEAST_STRIDE_PX = 4  # of the image, which masks of students are rarely finer than
NAME = "probe"  # in the place of a teacher's name in the column's identity


@dataclass(frozen=True)
class ProbePlan:
    """A probe before anything is fitted.

    Attributes:
        order: what was asked, its head decided.
        label: of the column.
        taps: full names of what is read.
        grid: cells a side of truth and logits.
        read_grid: cells a side of the features.
        budget: (N,) bool, records whose masks are in the budget.
        fitted: (N,) bool, those of them that train: the heads learn from these.
        fold_of: (N,) int, the fold that holds a record's group; -1 where no mask of its group is fitted.
    """

    order: ProbeConfig
    label: str
    taps: tuple[str, ...]
    grid: int
    read_grid: int
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
    order, label = settle_head(cache, order)
    taps = tuple(tap for tap in cache.taps if tap.partition("/")[0] in order.teachers)
    finest = max(cache.taps[tap].grid for tap in taps)
    grid = choose_grid(cache, finest, order)
    table, records = cache.table, cache.table.records
    labelled, split = np.zeros(len(records), bool), np.zeros(len(records), np.int64)
    labelled[table.record], split[table.record] = table.labelled > 0, table.split
    groups = [line["group"] or line["id"] for line in records]
    budget = draw_budget(groups, labelled & (split < 2), share=order.labels, labels_seed=order.labels_seed)
    fitted = budget & (split == 0)
    folds = assign_folds([groups[i] for i in np.flatnonzero(fitted)], order.folds, order.labels_seed)
    return ProbePlan(
        order=order,
        label=label,
        taps=taps,
        grid=grid,
        read_grid=min(grid, finest),
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
    order = sorted(range(len(names)), key=lambda i: by_hash(f"fold {seed}\n{names[i]}"))
    held, fold_of = np.zeros(folds, np.int64), {}
    for number in order:
        fold = int(held.argmin())
        fold_of[str(names[number])] = fold
        held[fold] += sizes[number]
    return fold_of


def choose_grid(cache: Cache, finest: int, order: ProbeConfig) -> int:
    """Return the cells a side of the logits: those of the finest tap, of a decoder four times as many, or those of a stride.

    Raises:
        SettingsError: the stride does not divide the image, or is finer than the head can tell.
    """
    side_px, stride = cache.picture_px, order.stride
    most = max(finest, min(FINER * finest, side_px // LEAST_STRIDE_PX)) if order.head == DECODER else finest
    if stride is None:
        return most
    grid = round(side_px / stride)
    if not 1 <= grid <= most or abs(grid * stride - side_px) > 1e-6 * side_px:
        raise SettingsError(
            f"--stride {stride:g}: expected a divisor of the {side_px} px of the images that is no finer than "
            f"{side_px / most:g} (finest tap {side_px / finest:g}, head {order.head})"
        )
    return grid


def settle_head(cache: Cache, order: ProbeConfig) -> tuple[ProbeConfig, str]:
    """Return the order with its head, and the label of its column.

    The default label names no head. A column that has it keeps its head where none is asked for; another head than that, or
    than a decoder where there is none, is named: "dinov2-small-probelinear-l10-s0".
    """
    teachers = "+".join(_full_label(cache, label) for label in order.teachers)
    label, named = (f"{teachers}-probe{head}-l{100 * order.labels:g}-s{order.labels_seed}" for head in ("", order.head))
    held = cache.teachers.get(order.name or label)
    usual = DECODER if held is None or held.probe is None else held.probe.head
    head = order.head or usual
    return validate(ProbeConfig, order.model_dump() | {"head": head}), order.name or (label if head == usual else named)


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
