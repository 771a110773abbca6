"""What it costs to warp a cached map of view 0 to another view, in place of encoding that view."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from difom_cache.base.errors import CacheIncompleteError
from difom_cache.base.text import format_table
from difom_cache.probing.cells import valid_cells
from difom_cache.probing.score import dice_of
from difom_cache.store.reader import Cache
from difom_cache.views.params import ViewParams
from difom_cache.views.warp import warp_view

PART_VIEWS = 16
VIEWS = 128  # compared by default

Figures = dict[str, dict[str, float]]


def compare_warped(cache: Cache, *, views: int, seed: int) -> Figures:
    """Return, for each tap, how near view 0's map, warped by known geometry, is to the map of the view as it was encoded.

    Args:
        cache: with several views of a record.
        views: drawn from all but views 0.
        seed: of the draw.

    Returns:
        Tap to `views`, `cosine` (mean over positions of valid cells, each map about its own mean; of one channel over whole maps)
        and, of logits of one class where there are masks, `dice_encoded` and `dice_warped` against the stored masks.

    Raises:
        CacheIncompleteError: the cache has no view but 0.
    """
    rows, firsts = pair_rows(cache)
    if not len(rows):
        raise CacheIncompleteError(
            f"{cache.path} holds no view but 0, so there is nothing to compare warped maps with; extract a part of the "
            "records with --views 8 --limit 100 into another cache"
        )
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:views])
    rows, firsts = rows[chosen], firsts[chosen]
    params = [ViewParams.from_row(cache.table.params[row]) for row in rows]
    lines = [cache.table.records[cache.table.record[row]] for row in rows]
    sizes = [(int(line["width"]), int(line["height"])) for line in lines]
    figures: Figures = {}
    for tap in cache.taps:
        sums: dict[str, list[Tensor]] = {}
        for start in range(0, len(rows), PART_VIEWS):
            part = slice(start, start + PART_VIEWS)
            encoded, whole = read_target(cache, tap, rows[part]), read_target(cache, tap, firsts[part])
            warped = warp_view(whole, params[part], sizes[part])
            inside = valid_cells(cache, rows[part], encoded.shape[-1])
            sums.setdefault("cosine", []).append(centred_cosine(encoded, warped, inside))
            if cache.taps[tap].kind == "logits" and encoded.shape[1] == 1 and cache.has_pictures:
                batch = cache.gather(rows[part], [])
                mask, valid = (torch.from_numpy(np.array(batch[name])) for name in ("mask", "valid"))
                known = torch.from_numpy(cache.table.labelled[rows[part]] > 0)
                for name, logits in (("dice_encoded", encoded), ("dice_warped", warped)):
                    sums.setdefault(name, []).append(dice_of(logits, mask, valid)[known])
        figures[tap] = {"views": float(len(rows))} | {name: float(torch.cat(v).mean()) for name, v in sums.items()}
    return figures


def pair_rows(cache: Cache) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of all views but 0, and for each the row of view 0 of its record."""
    table = cache.table
    first = {int(table.record[row]): int(row) for row in np.flatnonzero(table.view == 0)}
    rows = np.array([row for row in np.flatnonzero(table.view > 0) if int(table.record[row]) in first], dtype=np.int64)
    return rows, np.array([first[int(table.record[row])] for row in rows], dtype=np.int64)


def read_target(cache: Cache, tap: str, rows: NDArray[np.int64]) -> Tensor:
    """Return a tap's targets (B, C, h, w) float32."""
    batch = cache.gather(rows, [tap], pictures=False)
    return torch.from_numpy(cache.decode(tap, batch[f"{tap}/code"], batch.get(f"{tap}/scale")))


def centred_cosine(one: Tensor, other: Tensor, inside: Tensor) -> Tensor:
    """Return cosines of the positions that are inside, each map about its mean over them; of one channel, of whole maps."""
    weight = inside[:, None].float()
    count = weight.sum((2, 3), keepdim=True).clamp(min=1)
    one, other = (x - (x * weight).sum((2, 3), keepdim=True) / count for x in (one, other))
    if one.shape[1] == 1:
        return functional.cosine_similarity((one * weight).flatten(1), (other * weight).flatten(1), dim=1)
    return functional.cosine_similarity(one, other, dim=1)[inside]


def format_warped(figures: Figures) -> str:
    """Return the figures as a table, a line a tap."""
    rows = [["view 0's map, warped, against the encoded one", "cosine", "Dice encoded", "Dice warped"]]
    for tap, figure in figures.items():
        dice = [f"{figure[name]:.3f}" if name in figure else "" for name in ("dice_encoded", "dice_warped")]
        rows.append([tap, f"{figure['cosine']:.3f}", *dice])
    views = next(iter(figures.values()))["views"]
    return f"{format_table(rows)}\n{views:.0f} views; Dice at 0.5 against the stored masks"
