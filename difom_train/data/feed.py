"""The batches of a run: which rows train in each epoch on this process, and which ones validate."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difom_cache import ViewParams, draw_budget
from difom_cache.base.errors import CacheIncompleteError, SettingsError
from difom_cache.store import SPLITS
from difom_cache.views import FreshView, Warps, draw_table, locate_fresh, policy_named, warp_some
from difom_train.config import DataConfig
from difom_train.data.caches import JointCache
from difom_train.data.counter_rng import mix_counts
from difom_train.data.epochs import Pool, Shape, build_pool, choose_labelled, count_steps, draw_epoch, find_share
from difom_train.data.loader import Batch, DataTimer, Loader
from difom_train.data.photometric import draw_colours
from difom_train.data.stage import PICTURES


@dataclass(frozen=True)
class Selection:
    """The rows of a run: what may train, what validates, and whose masks may be seen in training."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    supervised: NDArray[np.bool_]
    "(R,) for every row of the cache, whether its mask is used in training."


def select_rows(cache: JointCache, options: DataConfig, *, seed: int, usable: NDArray[np.bool_]) -> Selection:
    """Return the rows of the run.

    Args:
        cache: to choose from.
        options: of the run.
        seed: of the run.
        usable: (R,) which rows can be read in full.

    Raises:
        CacheIncompleteError: there is no train row, or none with a mask.
    """
    train = cache.rows_of("train")
    train = train[usable[train]]
    if options.views:
        train = train[cache.view[train] < options.views]
    val = cache.rows_of("val")
    budget = choose_masks(cache, options, seed=seed)
    val = one_row_each(cache, val[usable[val] & (cache.view[val] == 0) & budget[val]])
    if not len(train):
        raise CacheIncompleteError(f"{cache.names} holds no finished train view; extract the split 'train'")
    if not cache.labelled[train].any():
        raise CacheIncompleteError(f"{cache.names} holds no train mask; extract records with masks")
    supervised = np.zeros(len(cache), bool)
    supervised[train] = budget[train]
    twice = ~supervised[train] & np.isin(cache.record_key[train], cache.record_key[supervised])
    train = train[~twice]  # a record that has its mask in one cache is not seen without it in another
    if not supervised.any():
        raise SettingsError(
            f"data.labels = {options.labels} with labels seed {options.labels_seed} holds no mask of a train record; use a "
            "larger share, or another --labels-seed"
        )
    return Selection(train, val, supervised)


def choose_masks(cache: JointCache, options: DataConfig, *, seed: int) -> NDArray[np.bool_]:
    """Return, for every row of the cache, whether the run may read its mask.

    `data.labels` covers train and validation records, also those whose views are not finished, so that a probe of the same
    cache draws the same masks. `data.labels_frac`, of earlier versions, covers train records alone.
    """
    drawn = np.concatenate([cache.rows_of("train"), *([] if options.labels_frac < 1 else [cache.rows_of("val")])])
    key, first = np.unique(cache.record_key[drawn], return_index=True)
    records = drawn[first]  # one row of each record
    groups, labelled = cache.groups(records), np.isin(key, cache.record_key[cache.labelled])
    if options.labels_frac < 1:
        kept = choose_labelled(groups, labelled, frac=options.labels_frac, seed=seed)
        validating = cache.labelled & (cache.split == SPLITS.index("val"))
        return (cache.labelled & np.isin(cache.record_key, key[kept])) | validating
    kept = draw_budget(groups, labelled, share=options.labels, labels_seed=options.labels_seed)
    return cache.labelled & np.isin(cache.record_key, key[kept])


def one_row_each(cache: JointCache, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one of `rows` for each record, in order: what lies in several caches counts once."""
    ordered = cache.in_one_order(rows)
    return np.sort(ordered[np.unique(cache.record_key[ordered], return_index=True)[1]])


class Feed:
    """Batches of this process, epoch by epoch.

    Args:
        cache: what rows refer to.
        loader: brings rows to the device.
        selection: the rows of the run.
        options: of the run.
        seed: of the run.
        rank, world: number of this process, and of all.
        reach: of changes of colour (`ColourConfig.reach`).
    """

    def __init__(
        self,
        cache: JointCache,
        loader: Loader,
        selection: Selection,
        options: DataConfig,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        reach: Sequence[float] = (),
    ) -> None:
        self.reach = reach
        self.cache, self.loader, self.selection, self.options = cache, loader, selection, options
        self.seed, self.rank, self.world = seed, rank, world
        train, supervised = selection.train, selection.supervised[selection.train]
        self.labelled = self._pool(train[supervised])
        self.unlabelled = self._pool(train[~supervised])
        self.shape = Shape(options.batch_size, options.accumulate * world)
        beside = round(options.batch_size * options.unlabelled_ratio) if len(self.unlabelled) else 0
        self.distilled_shape = Shape(options.batch_size + beside, options.accumulate * world)
        self.steps = count_steps(len(self.labelled) + len(self.unlabelled), self.shape)

    def train_table(self, epoch: int, *, distils: bool) -> NDArray[np.int64]:
        """Return this process's rows of an epoch, (batches, pictures), in order of steps and accumulated passes."""
        return self._own(self.epoch_table(epoch, distils=distils))

    def epoch_table(self, epoch: int, *, distils: bool) -> NDArray[np.int64]:
        """Return the rows of an epoch of all processes, (steps, micro-batches, pictures).

        Without distillation frames without a mask have nothing to say, and all batches are labelled; the number of steps
        is the same, so that runs with and without distillation have one budget.
        """
        shape = self.distilled_shape if distils else self.shape
        share = 1.0
        if distils and shape.batch > self.shape.batch:
            share = self.shape.batch / shape.batch
        elif distils:
            share = find_share(len(self.labelled), len(self.unlabelled), self.options.labelled_min_frac)
        return draw_epoch(
            self.labelled, self.unlabelled, steps=self.steps, share=share, shape=shape, seed=self.seed, epoch=epoch
        )

    def slots(self, own_pass: int, batch: int) -> NDArray[np.int64]:
        """Return the places in the epoch of the pictures of one of this process's passes, counted over all steps, (batch,)."""
        return (own_pass * self.world + self.rank) * batch + np.arange(batch)

    def train_batches(
        self, epoch: int, taps: Sequence[str], *, distils: bool, timer: DataTimer
    ) -> Generator[Batch, None, None]:
        """Yield this process's batches of an epoch, in order of steps and accumulated passes.

        A fresh view is shown from view 0 and its mask, or rendered where the source images were named. Teachers teach it by
        the maps of view 0, which logits can be warped from. Features cannot: beside them every other picture of a batch, and
        every other batch's first, shows a view that the teachers have seen.

        Beside what is stored, tensors hold `labelled` (B,) and, where colours change, `colour` (B, 4) of `draw_colours`.
        """
        table = self.epoch_table(epoch, distils=distils)
        fresh: list[list[FreshView | None]] | None = None
        if self.options.fresh_views:
            places = fresh_places(table.shape, mixed=any(self.cache.taps[tap].kind == "feature" for tap in taps))
            table[places] = self.find_whole(table[places])
            views = [None, *draw_fresh(self.cache, table[places], seed=self.seed, epoch=epoch)]
            number = self._own(np.where(places, places.cumsum().reshape(places.shape), 0))
            fresh = [[views[each] for each in line] for line in number.tolist()]
        own = self._own(table)
        notes = (
            self._note(epoch, number, rows, None if fresh is None else fresh[number]) for number, rows in enumerate(own)
        )
        with closing(self.loader.batches(own, [PICTURES, *taps], timer, fresh, notes)) as batches:
            for batch in batches:
                if batch.warps and not self.loader.stage.renders_anew:
                    batch.tensors |= show_fresh(batch.tensors, batch.warps)
                yield batch

    def _note(
        self, epoch: int, own_pass: int, rows: NDArray[np.int64], fresh: list[FreshView | None] | None
    ) -> dict[str, Tensor]:
        """Return the numbers that one of this process's passes brings along beside what is stored."""
        notes = {"labelled": torch.from_numpy(self.selection.supervised[rows])}
        if any(self.reach):
            keys, slots = self.cache.record_key[rows], self.slots(own_pass, len(rows))
            factors = draw_colours(self.reach, keys, slots, seed=self.seed, epoch=epoch)
            notes["colour"] = torch.from_numpy(factors)
        return notes if fresh is None else notes | vars(locate_fresh(fresh))

    def _own(self, table: NDArray[Any]) -> NDArray[Any]:
        """Return this process's part of a table of all (steps, micro-batches, ...): (batches, ...)."""
        own = table[:, self.rank :: self.world]
        return own.reshape(-1, *own.shape[2:])

    def find_whole(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of view 0 of each row's record, of the same shape.

        Raises:
            CacheIncompleteError: a record has none among the rows of the run.
        """
        key, train = self.cache.record_key, self.selection.train
        whole = train[self.cache.view[train] == 0]
        whole = whole[np.argsort(key[whole], kind="stable")]
        found = whole[np.searchsorted(key[whole], key[rows]).clip(max=len(whole) - 1)] if len(whole) else rows * 0 - 1
        lacking = np.flatnonzero((key[found] != key[rows]).reshape(-1))
        if len(lacking):
            record = self.cache.record_ids(rows.reshape(-1)[lacking[:1]])[0]
            raise CacheIncompleteError(
                f"new views are made of view 0, which {record} lacks; finish the cache, or use --no-fresh-views"
            )
        return np.asarray(found, np.int64)

    def val_batches(self, taps: Sequence[str]) -> Generator[Batch, None, None]:
        """Yield the validation rows of this process; every process sees all of them where there are fewer than processes."""
        rows = self.selection.val[self.rank :: self.world] if self.shares_validation else self.selection.val
        yield from self._batches(rows, taps)

    @property
    def shares_validation(self) -> bool:
        """Whether each process validates a part of its own."""
        return self.world > 1 and len(self.selection.val) >= self.world

    def calibration_batches(self, taps: Sequence[str], most: int) -> Generator[Batch, None, None]:
        """Yield up to `most` rows of view 0 whose masks nobody has trained on, the same on every process.

        They are the validation records: a teacher that was trained on the training masks is surer of them than it is elsewhere.
        Where the budget holds none, labelled train rows take their place.
        """
        rows = self.selection.val if len(self.selection.val) else self.supervised_rows()
        yield from self._batches(self._choose_some(rows, most), taps)

    def supervised_rows(self) -> NDArray[np.int64]:
        """Return the train rows of view 0 whose masks are used, or those of other views where no view 0 is."""
        train = self.selection.train
        rows = train[self.selection.supervised[train] & (self.cache.view[train] == 0)]
        return rows if len(rows) else train[self.selection.supervised[train]]

    def count_empty(self, rows: NDArray[np.int64], most: int = 512) -> tuple[int, int]:
        """Return how many masks show no polyp, of how many: of all `rows`, or of `most` of them where there are more."""
        chosen, empty = self._choose_some(rows, most), 0
        for batch in self._batches(chosen, ()):
            empty += int((batch.tensors["mask"] == 0).flatten(1).all(1).sum())
        return empty, len(chosen)

    def _batches(self, rows: NDArray[np.int64], taps: Sequence[str]) -> Generator[Batch, None, None]:
        return self.loader.batches(cut(rows, self.options.batch_size), [PICTURES, *taps])

    def _choose_some(self, rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
        return np.sort(rows[np.argsort(self.cache.record_key[rows], kind="stable")[:most]])

    def _pool(self, rows: NDArray[np.int64]) -> Pool:
        rows = self.cache.in_one_order(rows)
        return build_pool(rows, self.cache.record_key, self.cache.view, all_views=self.options.all_views)


def cut(rows: NDArray[np.int64], batch: int) -> list[NDArray[np.int64]]:
    """Return rows in batches, the last of which may be smaller."""
    return [rows[start : start + batch] for start in range(0, len(rows), batch)]


def fresh_places(shape: tuple[int, ...], *, mixed: bool) -> NDArray[np.bool_]:
    """Return which places of an epoch, (steps, micro-batches, pictures), show fresh views: all, or every other one.

    What is fresh in one step is stored in the next: also of batches of one picture, or with one frame that has a mask.
    """
    return np.indices(shape).sum(axis=0) % 2 == 0 if mixed else np.ones(shape, bool)


def draw_fresh(cache: JointCache, rows: NDArray[np.int64], *, seed: int, epoch: int) -> list[FreshView]:
    """Return a new view, with the size of its record, for each of the rows (N,) that an epoch shows anew, in order.

    A record that is drawn again in the epoch gets another view; equal arguments give equal numbers on every process.
    """
    sizes = [(int(line["width"]), int(line["height"])) for line in cache.records_of(rows)]
    numbers = draw_table(
        policy_named("default"),
        np.array(sizes, np.int64).reshape(-1, 2),
        mix_counts(seed, epoch) >> 1,
        cache.record_ids(rows),
        1 + count_before(cache.record_key[rows]),
    )
    return [(ViewParams.from_row(each), size) for each, size in zip(numbers, sizes, strict=True)]


def count_before(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return how often each key (N,) has come before it."""
    order = np.argsort(keys, kind="stable")
    _, first, number = np.unique(keys[order], return_index=True, return_inverse=True)
    before = np.empty(len(keys), np.int64)
    before[order] = np.arange(len(keys)) - first[number]
    return before


def show_fresh(tensors: dict[str, Tensor], warps: Warps) -> dict[str, Tensor]:
    """Return `image` (B, S, S, 3) and `mask` (B, S, S), uint8, with fresh views of those pictures that have one.

    Args:
        tensors: `image` and `mask` of the same kind; view 0 wherever a fresh view is named.
        warps: the fresh views.
    """
    image, mask = (
        tensors["image"].permute(0, 3, 1, 2),
        tensors["mask"].clamp(max=1)[:, None],
    )  # (B, S, S, 3) -> (B, 3, S, S)
    shown = warp_some(torch.cat([image.float(), mask.float()], dim=1), warps)
    image, mask = shown[:, :3].round().to(torch.uint8), shown[:, 3] >= 0.5
    return {"image": image.permute(0, 2, 3, 1), "mask": mask.to(torch.uint8)}
