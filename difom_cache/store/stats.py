"""Statistics that travel with a cache: count, mean and covariance of every tap (FORMAT.md, section 5)."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from difom_cache.base import disk
from difom_cache.base.atomic import remove, remove_empty, write_once
from difom_cache.base.errors import CacheDamagedError, CacheIncompleteError
from difom_cache.base.files import read_plain
from difom_cache.store.layout import IDENTITY, Column, moments_path, totals_path
from difom_cache.store.schema import DoneMarker


@dataclass(frozen=True)
class Moments:
    """Sums over cells: their number, the sum of their features (C,), the sum of their outer products (C, C); float64."""

    count: int
    total: NDArray[np.float64]
    product: NDArray[np.float64]

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.product + other.product)


@dataclass(frozen=True)
class TapStats:
    """What the decoded features of one tap look like over the valid cells of the training views.

    `count` is the number of cells, `mean` (C,) and `covariance` (C, C) are float64 in feature units.
    """

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def pack_moments(moments: dict[str, Moments]) -> bytes:
    """Return the file of one block's moments: symmetric products as float32 triangles, so that they stay small."""
    return _pack(moments, np.float32)


def write_totals(path: Path, sums: dict[str, Moments]) -> None:
    """Write the sums over all blocks, products in float64."""
    write_once(path, [_pack(sums, np.float64)])


def _pack(moments: dict[str, Moments], product_dtype: type[np.floating[Any]]) -> bytes:
    tensors: dict[str, NDArray[np.generic]] = {}
    for tap, sums in moments.items():
        tensors[f"{tap}/count"] = np.array([sums.count], dtype=np.int64)
        tensors[f"{tap}/total"] = sums.total
        tensors[f"{tap}/product"] = sums.product[np.tril_indices(len(sums.total))].astype(product_dtype)
    return save(tensors, metadata={"sha256": _digest(tensors)})


def read_moments(path: Path) -> dict[str, Moments]:
    """Return the moments that lie in `path`, by tap.

    Raises:
        CacheDamagedError: the file cannot be read as what it should be.
    """
    try:
        content = read_plain(path)  # whole: under a map a lost server would kill the process
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        if header.get("__metadata__", {}).get("sha256") != _digest(tensors):
            raise SafetensorError("its numbers are not those of its digest")
        taps = [name.removesuffix("/count") for name in tensors if name.endswith("/count")]
        return {tap: _unfold(tensors, tap) for tap in taps}
    except FileNotFoundError:
        raise
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise CacheDamagedError(
            f"the statistics in {path} cannot be read ({error}); remove the file and run `difom-cache finish`, or "
            "copy it again"
        ) from None


def _digest(tensors: dict[str, NDArray[np.generic]]) -> str:
    digest = sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def fold_statistics(cache: Path, column: Column, markers: dict[int, DoneMarker]) -> bool:
    """Sum the blocks' moments, in block order, into one file once every block is finished; then drop them.

    Returns:
        Whether the totals lie in the cache now; False where a block, or the moments of one, are not there.
    """
    totals = totals_path(cache, column.folder)
    if len(markers) < column.blocks:
        return False
    if not disk.is_there(totals):
        try:
            sums = _sum_blocks(cache, column, range(column.blocks))
        except CacheDamagedError:
            return False
        if sums is not None:
            write_totals(totals, sums)
            if not disk.is_there(totals.parent / IDENTITY):  # the column was dropped meanwhile
                remove(totals)
                remove_empty(totals.parent)
                return False
    for block in range(column.blocks):
        path = moments_path(cache, column, block)
        if disk.is_there(path):
            remove(path)
    return True


def _sum_blocks(cache: Path, column: Column, blocks: Iterable[int]) -> dict[str, Moments] | None:
    """Return the sums over `blocks` by tap, or None when another writer has folded them meanwhile."""
    sums: dict[str, Moments] = {}
    for block in blocks:
        path = moments_path(cache, column, block)
        try:
            parts = read_moments(path)
        except FileNotFoundError:
            if disk.is_there(totals_path(cache, column.folder)):  # written before any moments go
                return None
            raise CacheDamagedError(
                f"{path} is missing although its block is finished; `difom-cache finish {cache}` sums them up again"
            ) from None
        sums |= {tap: sums[tap] + part if tap in sums else part for tap, part in parts.items()}
    return sums


def read_statistics(cache: Path, column: Column, markers: dict[int, DoneMarker], tap: str) -> TapStats:
    """Return the statistics of one tap: the cache's totals, or the sum over the blocks that are finished.

    Raises:
        CacheIncompleteError: no block of training views is finished yet.
        CacheDamagedError: a finished block's moments are lost.
    """
    totals = totals_path(cache, column.folder)
    sums = None if disk.is_there(totals) else _sum_blocks(cache, column, sorted(markers))
    moments = (read_moments(totals) if sums is None else sums).get(tap)
    if moments is None or moments.count == 0:
        raise CacheIncompleteError(
            f"{cache} has no statistics of {tap} yet: no block with training views is finished; "
            "run `difom-cache extract` to its end"
        )
    mean = moments.total / moments.count
    return TapStats(moments.count, mean, moments.product / moments.count - np.outer(mean, mean))


def _unfold(tensors: dict[str, NDArray[np.generic]], tap: str) -> Moments:
    total = tensors[f"{tap}/total"].astype(np.float64)
    product = np.zeros((len(total), len(total)))
    lower = np.tril_indices(len(total))
    product[lower] = tensors[f"{tap}/product"]
    product.T[lower] = tensors[f"{tap}/product"]
    return Moments(int(tensors[f"{tap}/count"][0]), total, product)
