"""A new view for every draw of a picture: numbers that hang on record, epoch and draw alone, shown from view 0 of the cache."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difom_cache import ViewParams
from difom_cache.views import FreshView, draw_table, policy_named, warp_some
from difom_train.data.caches import JointCache
from difom_train.data.counter_rng import mix_counts

_POLICY = "default"


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
        policy_named(_POLICY),
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


def show_fresh(tensors: dict[str, Tensor], fresh: Sequence[FreshView | None]) -> dict[str, Tensor]:
    """Return `image` (B, S, S, 3) and `mask` (B, S, S), uint8, with fresh views of those pictures that have one.

    Args:
        tensors: `image` and `mask` of the same kind; view 0 wherever a fresh view is named.
        fresh: (B,) views, None where a picture stays as it is.
    """
    image = warp_some(tensors["image"].permute(0, 3, 1, 2).float(), fresh)  # (B, S, S, 3) -> (B, 3, S, S)
    mask = warp_some(tensors["mask"].clamp(max=1)[:, None].float(), fresh)[:, 0]
    return {
        "image": image.round_().to(torch.uint8).permute(0, 2, 3, 1),
        "mask": (mask >= 0.5).to(torch.uint8),
    }
