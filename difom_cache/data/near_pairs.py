"""Close pairs among many rows, every one of them, without comparing all pairs.

Bits: two words that differ in at most 20 of 256 places differ in at most 2 places of one of 7 bands, since 7 x 3 is more
than 20. Two bands differ in at most 2 places where turning at most one bit of each can make them equal, so that equal
numbers have to be found, which is sorting.

Correlation: the distance of two pictures of length 1 follows from it, and no projection onto orthonormal directions makes
a distance longer. So all neighbours in a k-d tree over a few of a cosine transform's coefficients are looked at: of the
2.5 million pairs of the five benchmark sets 7,116, which hold all 1,316 that correlate above .97.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.spatial import cKDTree

Pairs = NDArray[np.int64]
"""(P, 2), each pair once, in order; what that order means is said where pairs are made."""

_BANDS = 7  # at least; 37 bits and a row's number make one word of 64
_BAND_ERRORS = 2
_ROW_BITS = 27
_WAVES = 4  # coefficients kept along each side
_TOGETHER = 1 << 20
_NUMBERED = re.compile(r"(.*?)([0-9]+)", re.DOTALL)  # of an id: its series, and the number at its end


def find_close_bits(here: NDArray[np.bool_], there: NDArray[np.bool_], most: int) -> Pairs:
    """Return every (first, second), first < second, where `here[first]` and `there[second]` differ in few places.

    Args:
        here: (N, P, 256), P words a row.
        there: (N, P, 256).
        most: places in which each of the P words may differ.
    """
    packed = [np.packbits(each, axis=-1).view(np.uint64) for each in (here, there)]  # (N, P, 256) -> (N, P, 4)
    found: list[Pairs] = []
    bands = np.array_split(np.arange(here.shape[-1]), max(_BANDS, most // (_BAND_ERRORS + 1) + 1))
    for band in bands:
        for pairs in _pair_bands(*(_to_numbers(each[:, 0, band]) for each in (here, there)), width=len(band)):
            unlike = np.bitwise_count(packed[0][pairs[:, 0]] ^ packed[1][pairs[:, 1]]).sum(-1, dtype=np.int64)
            found.append(pairs[(unlike <= most).all(axis=1)])
    return np.unique(np.concatenate(found), axis=0)


def find_correlated(small: NDArray[np.float32], least: float) -> Pairs:
    """Return every (first, second), first < second, whose rows correlate.

    Args:
        small: (N, S * S), pictures about their mean, of length 1 or zeros.
        least: the smallest dot product of a pair.
    """
    rows = np.flatnonzero(small.any(axis=1))
    if len(rows) < 2:
        return np.empty((0, 2), np.int64)
    near = cKDTree(_main_coordinates(small[rows])).query_pairs(
        np.sqrt(2 - 2 * least) + 1e-4,
        output_type="ndarray",  # the margin is for rounding
    )
    return np.unique(_keep_correlated(rows[near], small, least), axis=0)


def find_neighbours(ids: Sequence[str], small: NDArray[np.float32], least: float, most: int) -> Pairs:
    """Return every (first, second), first < second, of one series whose numbers are near and whose rows correlate.

    A series is what has one name but for the number at its end, so that names of random letters and digits are in none.

    Args:
        ids: (N,), names, such as "CVC-ClinicDB/12" or "data/case3/frame_0012".
        small: (N, S * S), as in `find_correlated`.
        least: the smallest dot product of a pair.
        most: the largest difference of their numbers.
    """
    named = [(*match.groups(), row) for row, each in enumerate(ids) if (match := _NUMBERED.fullmatch(each))]
    ordered = sorted((series, int(number), row) for series, number, row in named)
    near = [
        sorted((row, other))
        for place, (series, number, row) in enumerate(ordered)
        for same, next_number, other in ordered[place + 1 : place + 1 + most]
        if same == series and next_number - number <= most
    ]
    return np.unique(_keep_correlated(np.array(near, np.int64).reshape(-1, 2), small, least), axis=0)


def _keep_correlated(pairs: Pairs, small: NDArray[np.float32], least: float) -> Pairs:
    kept = [
        part[np.einsum("pd,pd->p", small[part[:, 0]], small[part[:, 1]]) >= least]
        for part in np.array_split(pairs, len(pairs) // (_TOGETHER >> 6) + 1)
    ]
    return np.concatenate(kept)


def _main_coordinates(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N, K) coordinates whose distances are at most those of the rows (N, S * S): slow waves, and what is left."""
    side = round(small.shape[1] ** 0.5)
    waves = dctn(small.reshape(-1, side, side), axes=(1, 2), norm="ortho")[:, :_WAVES, :_WAVES].reshape(len(small), -1)
    left = np.sqrt(np.maximum(0, (small**2).sum(axis=1) - (waves**2).sum(axis=1)))
    coordinates: NDArray[np.float32] = np.column_stack([waves, left])
    return coordinates


def _to_numbers(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return bits (N, W) as numbers (N,)."""
    weights = np.uint64(1) << np.arange(bits.shape[1], dtype=np.uint64)
    return np.where(bits, weights, np.uint64(0)).sum(axis=1, dtype=np.uint64)


def _pair_bands(here: NDArray[np.uint64], there: NDArray[np.uint64], *, width: int) -> Iterator[Pairs]:
    """Yield (first, second), first < second, of numbers (N,) that differ in at most two of `width` bits, in parts."""
    numbers, place = np.unique(np.concatenate([here, there]), return_inverse=True)
    low, high = _neighbours(numbers, width)
    itself = np.arange(len(numbers))
    one, other = np.concatenate([low, high, itself]), np.concatenate([high, low, itself])
    of_here, of_there = _Groups(place[: len(here)], len(numbers)), _Groups(place[len(here) :], len(numbers))
    sizes = of_here.sizes[one] * of_there.sizes[other]
    one, other, sizes = one[sizes > 0], other[sizes > 0], sizes[sizes > 0]
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // _TOGETHER)) + 1
    for part in np.split(np.arange(len(sizes)), cuts):
        which = np.repeat(part, sizes[part])
        within = np.arange(len(which)) - np.repeat(np.cumsum(sizes[part]) - sizes[part], sizes[part])
        across = of_there.sizes[other[which]]
        first = of_here.rows[of_here.starts[one[which]] + within // across]
        second = of_there.rows[of_there.starts[other[which]] + within % across]
        yield np.column_stack([first, second])[first < second]


class _Groups:
    """The rows of each group: `rows[starts[g] : starts[g] + sizes[g]]`."""

    def __init__(self, group: NDArray[np.int64], groups: int) -> None:
        self.rows = np.argsort(group, kind="stable")
        self.sizes = np.bincount(group, minlength=groups)
        self.starts = np.cumsum(self.sizes) - self.sizes


def _neighbours(numbers: NDArray[np.uint64], width: int) -> tuple[Pairs, Pairs]:
    """Return the places (i, j), i < j, of distinct numbers that differ in one or two bits."""
    turned = np.concatenate([[np.uint64(0)], np.uint64(1) << np.arange(width, dtype=np.uint64)])
    place = np.arange(len(numbers), dtype=np.uint64)
    keys = np.sort(((numbers[:, None] ^ turned) << np.uint64(_ROW_BITS) | place[:, None]).ravel())
    number = keys >> np.uint64(_ROW_BITS)
    place = (keys & np.uint64((1 << _ROW_BITS) - 1)).astype(np.int64)
    found, at = [], np.flatnonzero(number[1:] == number[:-1])
    step = 1
    while len(at):
        found.append(place[at] * len(numbers) + place[at + step])
        step += 1
        at = at[at + step < len(number)]
        at = at[number[at] == number[at + step]]
    pairs = np.unique(np.concatenate([np.empty(0, np.int64), *found]))
    return np.divmod(pairs, max(1, len(numbers)))
