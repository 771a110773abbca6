"""Which rows an epoch visits: every train record once, with one view drawn by (seed, epoch, record).

All of an epoch's micro-batches form one table, (steps, micro-batches, pictures). A process takes its own micro-batches of
each step; so two processes see in one step what one process sees in two accumulated passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import SettingsError
from difom_train.data.counter_rng import Keys, key_of, mix, uniform

_ORDER, _VIEW, _LABELS = 1, 2, 3  # what a mix is for, so that order and view do not depend on each other


@dataclass(frozen=True)
class Pool:
    """Records that are drawn from together, with the rows of their views."""

    key: Keys
    "(N,) one key a record, rising."
    start: NDArray[np.int64]
    "(N,) where the record's rows begin in `rows`."
    views: NDArray[np.int64]
    "(N,) how many rows the record has, at least 1."
    rows: NDArray[np.int64]
    "(R,) row numbers, record after record."

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True)
class Shape:
    """How an epoch is cut up."""

    batch: int
    "Pictures in a micro-batch."
    micro: int
    "Micro-batches in a step, over all processes: processes x accumulated passes."

    @property
    def step(self) -> int:
        """Pictures in a step."""
        return self.batch * self.micro


def build_pool(rows: NDArray[np.int64], record_key: Keys, view: NDArray[np.int32], *, all_views: bool = False) -> Pool:
    """Return the pool of `rows`.

    Args:
        rows: (R,) the row numbers to draw from.
        record_key: key of every row of the cache, equal for the views of one record.
        view: view number of every row of the cache.
        all_views: count each view as a record of its own, so that an epoch visits all of them.
    """
    key = record_key[rows]
    if all_views:
        key = mix(key, view[rows].astype(np.uint64))
    ordered = np.lexsort((view[rows], key))
    unique, start, count = np.unique(key[ordered], return_index=True, return_counts=True)
    return Pool(unique, start.astype(np.int64), count.astype(np.int64), rows[ordered])


def draw_rows(pool: Pool, number: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return `number` rows: the records in random order, again and again in new orders, each with one view drawn."""
    if number and not len(pool):
        raise ValueError("cannot draw from an empty pool")
    passes = [_draw_pass(pool, seed, epoch, each) for each in range(-(-number // max(1, len(pool))))]
    return np.concatenate([*passes, np.empty(0, np.int64)])[:number].astype(np.int64)


def count_steps(records: int, shape: Shape) -> int:
    """Return the steps of an epoch that visits `records`; the last step is topped up, so that all have one shape."""
    return -(-records // shape.step)


def draw_epoch(
    labelled: Pool, unlabelled: Pool, *, steps: int, share: float, shape: Shape, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Return the rows of an epoch, (steps, micro-batches, pictures); in each micro-batch labelled rows come first.

    Args:
        labelled: records whose masks are used.
        unlabelled: records without a mask, or whose mask is not used.
        steps: steps of the epoch.
        share: of each micro-batch that is labelled, in [0, 1]; spread evenly where it is no whole number of pictures.
        shape: how the epoch is cut up.
        seed: of the run.
        epoch: counted from 0.
    """
    batches = steps * shape.micro
    ends = np.floor(np.arange(batches + 1) * shape.batch * share + 1e-9).astype(np.int64)
    with_mask = np.diff(ends)  # (batches,) labelled pictures in each
    table = np.empty((batches, shape.batch), np.int64)
    is_labelled = np.arange(shape.batch) < with_mask[:, None]
    table[is_labelled] = draw_rows(labelled, int(ends[-1]), seed=seed, epoch=epoch)
    table[~is_labelled] = draw_rows(unlabelled, table.size - int(ends[-1]), seed=seed, epoch=epoch)
    return table.reshape(steps, shape.micro, shape.batch)


def find_share(labelled: int, unlabelled: int, least: float) -> float:
    """Return the share of labelled pictures in a batch: the records' own, but no less than `least`."""
    if not unlabelled:
        return 1.0
    return 0.0 if not labelled else max(least, labelled / (labelled + unlabelled))


def choose_labelled(groups: Sequence[str], labelled: NDArray[np.bool_], *, frac: float, seed: int) -> NDArray[np.bool_]:
    """Return which records keep their mask: whole groups in random order, as many as fit in `frac` of the masks.

    Args:
        groups: (N,) a record's group; records of one group are kept or left out together.
        labelled: (N,) whether the record has a mask.
        frac: share of the masks to keep, in (0, 1].
        seed: of the run.

    Raises:
        SettingsError: not even one group fits.
    """
    if frac >= 1:
        return labelled.copy()
    names, group = np.unique(np.asarray(groups)[labelled], return_inverse=True)
    size = np.bincount(group, minlength=len(names))
    order = np.argsort(mix(np.array([key_of(str(name)) for name in names], np.uint64), seed, _LABELS), kind="stable")
    wanted = round(frac * int(labelled.sum()))
    kept = np.zeros(len(names), bool)
    for each in order:
        if size[each] <= wanted:
            kept[each] = True
            wanted -= size[each]
    if not kept.any():
        raise SettingsError(
            f"data.labels_frac = {frac} of {int(labelled.sum())} masks keeps none: the smallest group has "
            f"{size.min() if len(size) else 0}; use a larger share"
        )
    chosen = np.zeros_like(labelled)
    chosen[labelled] = kept[group]
    return chosen


def _draw_pass(pool: Pool, seed: int, epoch: int, number: int) -> NDArray[np.int64]:
    """Return one row of each record, in an order of its own."""
    order = np.argsort(mix(pool.key, seed, epoch, number, _ORDER), kind="stable")
    view = np.floor(uniform(mix(pool.key, seed, epoch, number, _VIEW)) * pool.views).astype(np.int64)
    return np.asarray(pool.rows[pool.start + view][order])
