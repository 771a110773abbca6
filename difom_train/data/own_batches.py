"""What a training loop of one's own gets of a cache: which caches, and in which form a batch is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difom_cache import NO_MASK, Cache, open_cache
from difom_cache.errors import CacheIncompleteError, SettingsError, name_nearest
from difom_train.data.caches import JointCache
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
            names = ", ".join(str(part.path) for part in cache.parts)
            raise CacheIncompleteError(f"{names}: {name_nearest('tap', tap, list(cache.taps))}")
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
