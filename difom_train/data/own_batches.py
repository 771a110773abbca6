"""What a training loop of one's own gets of a cache: as a dataset of PyTorch, or from the threads that feed the trainer."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from difom_cache import Cache, open_cache
from difom_cache.base.errors import CacheIncompleteError, SettingsError, name_nearest
from difom_cache.base.hardware import resolve_device
from difom_cache.store import NO_MASK, PICTURES, SPLITS
from difom_train.config import DataConfig
from difom_train.data.caches import JointCache, require_taps
from difom_train.data.feed import Feed, cut, one_row_each, select_rows
from difom_train.data.loader import Batch, Loader
from difom_train.data.photometric import to_pixels, to_side
from difom_train.data.stage import choose_stage

CacheSource = str | Path | Cache
"""A cache, open or by its folder."""


@dataclass(frozen=True)
class BatchForm:
    """How stored rows are shown."""

    taps: tuple[str, ...]
    "Full names; those of the cache that are wanted."
    decode: bool
    "Whether a tap is shown as its features, under its name, in place of `<tap>/code` and `<tap>/scale`."
    floats: bool
    "Whether pictures are float32 in [0, 1], in place of uint8."
    side_px: int
    "Of pictures, masks and valid areas."


def open_sources(cache: CacheSource | Sequence[CacheSource]) -> list[Cache]:
    """Return one or several caches, opened."""
    several = [cache] if isinstance(cache, str | Path) or not isinstance(cache, Sequence) else cache
    return [open_cache(each) if isinstance(each, str | Path) else each for each in several]


def choose_form(
    cache: JointCache, taps: Sequence[str] | None, *, decode: bool, floats: bool, input_px: int | None
) -> BatchForm:
    """Return the form that was asked for; None are all taps, and the side of the stored pictures.

    Raises:
        CacheIncompleteError: a tap that not every cache holds.
        SettingsError: pictures of another side, which are floats.
    """
    for tap in taps or ():
        if tap not in cache.taps:
            raise CacheIncompleteError(f"{cache.names}: {name_nearest('tap', tap, list(cache.taps))}")
    side = cache.picture_px if input_px is None else input_px
    if side < 1 or (side != cache.picture_px and not floats):
        raise SettingsError(
            f"input_px is {side} and the cache holds pictures of {cache.picture_px} px; only float pictures are resized, to "
            "1 px at least"
        )
    return BatchForm(tuple(cache.taps if taps is None else taps), decode, floats, side)


def form_batch(
    cache: JointCache,
    stored: Mapping[str, Tensor],
    rows: NDArray[np.int64],
    labelled: NDArray[np.bool_],
    form: BatchForm,
) -> dict[str, Tensor]:
    """Return stored rows in the form that a loop asked for, on the device where they are.

    Args:
        cache: that they are of.
        stored: as `Cache.gather` gives them; without `image`, no pictures are shown.
        rows: (B,) their numbers.
        labelled: (B,) whether the mask may be seen.
        form: asked for.
    """
    device = next(iter(stored.values())).device
    seen = torch.from_numpy(labelled).to(device)
    batch = {"row": torch.from_numpy(rows).to(device), "labelled": seen}
    if "image" in stored:
        image, side = stored["image"], form.side_px
        batch["image"] = to_pixels(image, side) if form.floats else image.permute(0, 3, 1, 2).contiguous()
        batch["mask"] = to_side(stored["mask"], side).masked_fill(~seen[:, None, None], NO_MASK)
        batch["valid"] = to_side(stored["valid"], side)
    for tap in form.taps:
        code, scale = stored[f"{tap}/code"], stored.get(f"{tap}/scale")
        if form.decode:
            batch[tap] = cache.decode(tap, code, scale).float()
        else:
            batch |= {f"{tap}/code": code} | ({} if scale is None else {f"{tap}/scale": scale})
    return batch


class CacheDataset(Dataset[dict[str, Tensor]]):
    """The views of a cache, one an item; a `DataLoader` over it gathers a whole batch at once.

    It can be pickled, and every worker process opens the cache for itself, whether it was forked or spawned. The faster way is
    `CacheLoader`, which needs no processes.

    An item has `image` (3, H, W), `mask` (H, W) uint8 of 0 and 1 (255 everywhere: the record has no mask), `valid` (H, W)
    uint8, `labelled` (bool), `row` (number in the cache), and for each tap `<tap>/code` (C, h, w) with, where its codec has
    one, `<tap>/scale` (C,), or decoded `<tap>` (C, h, w) float32.

    Args:
        cache: a cache, open or by its folder, or several, which are read as one.
        split: "train", "val" or "test"; None for all rows.
        view: only views of this number; 0 is the picture as it is.
        labelled: only records with a mask, or only those without.
        taps: full names, such as `distiller.taps`; None for every tap.
        pictures: whether pictures and masks are read.
        decode: give features in place of code and scale.
        floats: give pictures as float32 in [0, 1] in place of uint8.
        input_px: side of pictures, masks and valid areas; None as they are stored.
        device: where items go, such as "cuda"; only without worker processes.

    Attributes:
        rows: (N,) the row of the cache behind each item.

    Raises:
        CacheIncompleteError: a tap that is not there, or rows that are not finished.
        SettingsError: no such split, or a side that stored pictures cannot be given at.
    """

    def __init__(
        self,
        cache: CacheSource | Sequence[CacheSource],
        *,
        split: str | None = "train",
        view: int | None = None,
        labelled: bool | None = None,
        taps: Sequence[str] | None = None,
        pictures: bool = True,
        decode: bool = False,
        floats: bool = True,
        input_px: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if split is not None and split not in SPLITS:
            raise SettingsError(name_nearest("split", split, list(SPLITS)))
        self._parts: list[Cache] = open_sources(cache)
        self._opened: tuple[int, JointCache] | None = None
        joint = self.cache
        self.form = choose_form(joint, taps, decode=decode, floats=floats, input_px=input_px)
        self._pictures, self._device = pictures, device
        wanted = np.ones(len(joint), bool) if split is None else joint.split == SPLITS.index(split)
        if view is not None:
            wanted &= joint.view == view
        if labelled is not None:
            wanted &= joint.labelled == labelled
        rows = np.flatnonzero(wanted)
        self.rows: NDArray[np.int64] = require_taps(joint, rows, self.form.taps, allow_partial=False)

    @property
    def cache(self) -> JointCache:
        """The cache, as this process has opened it."""
        process = os.getpid()
        if self._opened is None:
            self._opened = process, JointCache(self._parts)
        elif self._opened[0] != process:  # forked: a lock or a thread of the parent's reader may be gone
            self._parts = [copy.copy(part) for part in self._parts]
            self._opened = process, JointCache(self._parts)
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return several items, gathered at once; a `DataLoader` asks for its batches so."""
        if self._device is not None and get_worker_info() is not None:
            raise SettingsError(
                f"items go to {self._device} from the process itself: use num_workers=0, or leave device out and move the batch"
            )
        rows = self.rows[np.asarray(indices, np.int64)]
        stored = self.cache.gather(rows, self.form.taps, pictures=self._pictures)
        tensors = {key: _to_tensor(array).to(self._device or "cpu") for key, array in stored.items()}
        batch = form_batch(self.cache, tensors, rows, self.cache.labelled[rows], self.form)
        return [{key: each[place] for key, each in batch.items()} for place in range(len(rows))]


def _to_tensor(array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor; one byte that stands for all is copied, as PyTorch knows no such arrays."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


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
        budget: Any = {"labels": labels, "labels_seed": labels_seed}
        options = DataConfig(batch_size=batch_size, all_views=all_views, **budget)
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
        own = None if self._feed is None else self._feed.train_table(epoch, distils=not self._labelled_only)
        for batch in loader.batches(cut(self._rows, self._batch_size) if own is None else own, self._groups):
            yield self._show(batch)

    def _open_loader(self) -> Loader:
        return Loader(self._stage, self._batch_size, self._device)

    def _show(self, batch: Batch) -> dict[str, Tensor]:
        shown = form_batch(self.cache, batch.tensors, batch.rows, self._labelled[batch.rows], self.form)
        if self._reuse or self._device.type != "cpu":
            return shown
        buffers = {each.untyped_storage().data_ptr() for each in batch.tensors.values()}
        return {k: v.clone() if v.untyped_storage().data_ptr() in buffers else v for k, v in shown.items()}
