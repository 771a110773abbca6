"""Batches of a cache for a training loop of one's own, gathered by the threads that feed the trainer."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from difom_cache.base.errors import SettingsError, name_nearest
from difom_cache.base.hardware import resolve_device
from difom_cache.store import PICTURES, SPLITS
from difom_train.config import DataConfig
from difom_train.data.caches import JointCache, require_taps
from difom_train.data.feed import Feed, one_row_each, select_rows
from difom_train.data.loader import Batch, Loader
from difom_train.data.own_batches import CacheSource, choose_form, form_batch, open_sources
from difom_train.data.stage import choose_stage


class CacheLoader:
    """Batches of stored views in the order in which `train --no-fresh-views` sees them; each pass over it is the next epoch.

    An epoch of "train" visits every record once, in a new order, with one view drawn for it; the last batch is topped up, so
    that all have one size. "val" and "test" give view 0 of each record in the cache's order.

    A batch is as `DataLoader(CacheDataset(...))` gives it: `image` (B, 3, H, W), `mask`, `valid` (B, H, W), `labelled`, `row`
    (B,), and the taps. In "train", masks outside of the budget are 255 everywhere and count as not labelled.

    Args:
        cache: a cache, open or by its folder, or several, which are read as one.
        split: "train", "val" or "test".
        batch_size: pictures in a batch.
        taps: full names, such as `distiller.taps`; None for every tap.
        decode: give features in place of code and scale.
        floats: give pictures as float32 in [0, 1] in place of uint8.
        input_px: side of pictures, masks and valid areas; None as they are stored.
        labelled_only: leave out train records whose mask may not be seen.
        all_views: visit every view in every epoch, in place of one view of each record.
        labels: share of the masks of train and validation records together that may be seen.
        labels_seed: of the choice of these masks.
        seed: of the order and of the views.
        device: where batches go: "auto", "cpu", "cuda" or "cuda:N".
        stage: where the cache is held: "auto", "disk", "ram" or "gpu".
        rank, world: number of this process, and of all; each gets its own part of every epoch.
        reuse: on the CPU, hand out the buffers that rows are gathered into: no copy, and gone once the next batch is asked for.

    Attributes:
        epoch: number of the next pass, from 0; set it to go on where a run stopped.

    Raises:
        CacheIncompleteError: a tap that is not there, rows that are not finished, or no train row with a mask.
        SettingsError: a value that cannot be meant.
        DeviceError: the device is not there.
    """

    def __init__(
        self,
        cache: CacheSource | Sequence[CacheSource],
        *,
        split: str = "train",
        batch_size: int = 16,
        taps: Sequence[str] | None = None,
        decode: bool = False,
        floats: bool = True,
        input_px: int | None = None,
        labelled_only: bool = False,
        all_views: bool = False,
        labels: float = 1.0,
        labels_seed: int = 0,
        seed: int = 0,
        device: str = "auto",
        stage: str = "auto",
        rank: int = 0,
        world: int = 1,
        reuse: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise SettingsError(name_nearest("split", split, list(SPLITS)))
        if batch_size < 1 or not 0 <= rank < world:
            raise SettingsError(
                f"expected batch_size >= 1 and 0 <= rank < world, found {batch_size}, {rank} and {world}"
            )
        self.cache = JointCache(open_sources(cache))
        self.form = choose_form(self.cache, taps, decode=decode, floats=floats, input_px=input_px)
        self.epoch = 0
        self._batch_size, self._labelled_only, self._reuse = batch_size, labelled_only, reuse
        self._device = resolve_device(device)
        options = DataConfig(
            batch_size=batch_size,
            all_views=all_views,
            labels=labels,
            labels_seed=labels_seed,
            input_px=self.form.side_px,
        )
        self._feed: Feed | None = None
        if split == "train":
            selection = select_rows(self.cache, options, seed=seed, usable=np.ones(len(self.cache), bool))
            self._rows, self._labelled = selection.train, selection.supervised
        else:
            rows = self.cache.rows_of(split)
            rows = one_row_each(self.cache, rows[self.cache.view[rows] == 0])
            self._rows, self._labelled = rows[rank::world], self.cache.labelled
        require_taps(self.cache, self._rows, self.form.taps, allow_partial=False)
        self._groups = [PICTURES, *self.form.taps]
        self._stage = choose_stage(
            stage, self.cache, used=self._rows, groups=self._groups, device=self._device, processes=world
        )
        if split == "train":
            self._feed = Feed(self.cache, self._open_loader(), selection, options, seed=seed, rank=rank, world=world)

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return -(-len(self._rows) // self._batch_size) if self._feed is None else self._feed.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        loader = self._open_loader()  # of its own, so that two passes at once share no buffers
        for batch in loader.batches(self._table(epoch), self._groups):
            yield self._show(batch)

    def _open_loader(self) -> Loader:
        return Loader(self._stage, self._batch_size, self._device)

    def _table(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Return the rows of each batch."""
        if self._feed is not None:
            table = self._feed.train_table(epoch, distils=not self._labelled_only)
            return list(table.reshape(-1, self._batch_size))
        return [self._rows[start : start + self._batch_size] for start in range(0, len(self._rows), self._batch_size)]

    def _show(self, batch: Batch) -> dict[str, Tensor]:
        shown = form_batch(self.cache, batch.tensors, batch.rows, self._labelled[batch.rows], self.form)
        if self._reuse or self._device.type != "cpu":
            return shown
        buffers = {each.untyped_storage().data_ptr() for each in batch.tensors.values()}
        return {k: v.clone() if v.untyped_storage().data_ptr() in buffers else v for k, v in shown.items()}
