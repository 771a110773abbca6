"""What a training loop of one's own gets of a cache: in which form a batch is shown, and a map-style dataset of PyTorch."""

import copy
import os
from collections.abc import Mapping, Sequence
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
from difom_cache.store import NO_MASK, SPLITS
from difom_train.data.caches import JointCache, require_taps
from difom_train.data.photometric import to_pixels, to_side

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
