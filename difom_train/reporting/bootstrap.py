"""Is one entry better than another, or were frames and seeds kind to it? A paired bootstrap over groups and seeds.

Frames of one video are alike, so groups are drawn, not frames: within each test set as many groups as it has, with
replacement, the same ones for both entries (paired). Training seeds are nested in their settings: drawn together where run i
of both has the same seed and masks, else for each entry on its own. The difference is that of the means over test sets which
the table shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INTERVAL = (2.5, 97.5)  # percentiles of a 95 % interval
BLOCK = 1000  # resamples computed at once, so that memory stays small


@dataclass(frozen=True)
class Difference:
    """How much an entry lies above the first one.

    Attributes:
        mean: difference of the table's means, entry minus first.
        low: lower end of the 95 % interval.
        high: upper end.
        p: two-sided share of resamples that contradict the sign of the difference.
        seeds: runs of the entry and of the first; with one each, chance of training is not covered.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: tuple[int, int]

    def render(self) -> str:
        """Return the difference in points (hundredths), its interval and p."""
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        once = ", one seed" if 1 in self.seeds else ""
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}], {p}{once}"


def compare_paired(
    entry: Mapping[str, NDArray[np.float64]],
    first: Mapping[str, NDArray[np.float64]],
    groups: Mapping[str, Sequence[str]],
    *,
    resamples: int,
    seed: int,
    paired_seeds: bool = False,
) -> Difference:
    """Return the difference of two entries with its interval.

    Args:
        entry: test set to scores (seeds, N); every set counts the same.
        first: the same for the entry to compare with; it may have another number of seeds.
        groups: test set to the group of each frame, N names.
        resamples: how many draws.
        seed: of the draws.
        paired_seeds: whether run i of both entries has the same seed and the same masks.
    """
    rng = np.random.default_rng(seed)
    sums = {name: _sum_groups(first[name], entry[name], groups[name]) for name in entry}
    counts = (next(iter(first.values())).shape[0], next(iter(entry.values())).shape[0])
    whole = [_draw_means(*sums[name], np.ones((1, len(sums[name][2])))) for name in sums]
    mean = float(np.mean([ours.mean() - theirs.mean() for theirs, ours in whole]))
    drawn = np.concatenate(
        [
            _draw_block(sums, counts, rng, min(BLOCK, resamples - start), paired_seeds=paired_seeds)
            for start in range(0, resamples, BLOCK)
        ]
    )
    low, high = np.percentile(drawn, INTERVAL)
    tail = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    p = min(1.0, 2 * (tail + 1) / (resamples + 1))
    return Difference(mean, float(low), float(high), float(p), (counts[1], counts[0]))


GroupSums = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _sum_groups(first: NDArray[np.float64], entry: NDArray[np.float64], groups: Sequence[str]) -> GroupSums:
    """Return the scores summed by group, (seeds, G) for both, and the frames of each group, (G,)."""
    names, place = np.unique(np.array(groups, dtype=str), return_inverse=True)
    member = np.zeros((len(groups), len(names)))
    member[np.arange(len(groups)), place] = 1
    return first @ member, entry @ member, member.sum(axis=0)


def _draw_block(
    sums: Mapping[str, GroupSums],
    counts: tuple[int, int],
    rng: np.random.Generator,
    resamples: int,
    *,
    paired_seeds: bool,
) -> NDArray[np.float64]:
    """Return the difference in each of some resamples, (resamples,)."""
    seeds = [rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count for count in counts]
    if paired_seeds:
        seeds[1] = seeds[0]
    total = np.zeros(resamples)
    for first, entry, frames in sums.values():
        drawn = rng.multinomial(len(frames), np.full(len(frames), 1 / len(frames)), size=resamples)
        theirs, ours = _draw_means(first, entry, frames, drawn)
        total += (ours * seeds[1]).sum(axis=1) - (theirs * seeds[0]).sum(axis=1)
    return total / len(sums)


def _draw_means(
    first: NDArray[np.float64],
    entry: NDArray[np.float64],
    frames: NDArray[np.float64],
    drawn: NDArray[np.floating] | NDArray[np.integer],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean over the drawn frames for each seed of both, (resamples, seeds)."""
    total = (drawn @ frames)[:, None]
    return (drawn @ first.T) / total, (drawn @ entry.T) / total
