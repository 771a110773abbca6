"""Pictures that are the same picture: bit for bit, nearly, or mirrored.

Two perceptual hashes of 256 bits each must agree within NEAR_BITS: the signs of the low frequencies (pHash) and of the
horizontal steps (dHash). Each alone calls dark, empty frames alike. Measured on the five benchmark sets: of 1.9 million
pairs that come from other sets or other video sequences, the closest differs by 36 bits in one of the two; all 226
pairs within 20 bits show the same scene, seen by eye.

A second signal finds the same lesion seconds apart, whose hashes differ by more: the normalised cross-correlation of small
grey pictures above ALIKE_CORRELATION.

A third finds frames of one scene that are not nearly one picture: neighbours by their files' numbers above SCENE_CORRELATION.
Of the pairs of one sequence at most 5 numbers apart (`manifest --check` on the five sets; `same_group` of pairs and scenes):

                           pairs of one scene   the first two find   with the third   false, first two + third
    CVC-ClinicDB                        2,625               11.1 %           39.0 %                      2 + 0
    CVC-ColonDB and ETIS                2,230               12.1 %           32.4 %                      0 + 0

The truth is the sequences of CVC-ClinicDB's README, and data_manifests/scene-runs.csv, which was cut with the help of other
correlations and so is less independent. Kvasir's 1,000 stills, numbered by name, which is no order in time, make no further pair.

Neither of the first two compares all pairs, and neither misses one. Bits: two words that differ in at most 20 of 256 places
differ in at most 2 places of one of 7 bands, since 7 x 3 is more than 20. Two bands differ in at most 2 places where
turning at most one bit of each can make them equal, so that equal numbers have to be found, which is sorting. Correlation:
the distance of two pictures of length 1 follows from it, and no projection onto orthonormal directions makes a distance
longer. So all neighbours in a k-d tree over a few of a cosine transform's coefficients are looked at: of the 2.5 million
pairs of the five benchmark sets 7,116, which hold all 1,316 that correlate above .97.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

HASH_SIDE = 16
NEAR_BITS = 20  # of 256, in each of the two hashes
_THUMB_PX = 256  # hashed instead of the picture: decoding dominates, eight hashes of a thumbnail are quick
_SMALL_PX = 32

TURNS = {
    "": None,
    "left-right": Image.Transpose.FLIP_LEFT_RIGHT,
    "upside-down": Image.Transpose.FLIP_TOP_BOTTOM,
    "half-turn": Image.Transpose.ROTATE_180,
}


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of one picture.

    Attributes:
        pixels_sha256: digest of size and RGB pixels; equal also when a lossless format was changed.
        bits: (4, 2, 256) bool: as it stands and in the three mirrorings of `TURNS`; pHash, dHash.
        small: (32 * 32) float32: the grey picture, made small, about its mean and of length 1; zeros where it has one colour.
    """

    pixels_sha256: str
    bits: NDArray[np.bool_]
    small: NDArray[np.float32]


def take_fingerprint(image: NDArray[np.uint8]) -> Fingerprint:
    """Return the fingerprint of a picture (H, W, 3)."""
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    thumb = _shrink(image)
    turned = [thumb if turn is None else thumb.transpose(turn) for turn in TURNS.values()]
    bits = [_hash(picture) for picture in turned]
    small = np.asarray(thumb.resize((_SMALL_PX, _SMALL_PX), Image.Resampling.BOX), np.float32).ravel()
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    return Fingerprint(digest, np.array(bits), small / length if length > 1 else np.zeros_like(small))


class Sieve:
    """Pictures one after the other, of which those stay that are not near one that stayed before.

    Args:
        near_bits: two pictures are near where both hashes differ in so many bits at most.
    """

    def __init__(self, near_bits: int = NEAR_BITS) -> None:
        self._near_bits = near_bits
        self._signs = np.empty((0, 2, HASH_SIDE**2), np.float32)
        self._count = 0

    def take(self, image: NDArray[np.uint8]) -> bool:
        """Return whether a picture (H, W, 3) stays."""
        signs = np.stack(_hash(_shrink(image))).astype(np.float32) * 2 - 1  # (2, 256)
        bits = (HASH_SIDE**2 - np.einsum("nkb,kb->nk", self._signs[: self._count], signs)) / 2
        if (bits <= self._near_bits).all(axis=1).any():
            return False
        if self._count == len(self._signs):
            self._signs = np.concatenate([self._signs, np.empty((max(64, self._count), 2, HASH_SIDE**2), np.float32)])
        self._signs[self._count] = signs
        self._count += 1
        return True


def _shrink(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(image).convert("L").resize((_THUMB_PX, _THUMB_PX), Image.Resampling.LANCZOS)


def _hash(thumb: Image.Image) -> list[NDArray[np.bool_]]:
    """Return both hashes of a small grey picture, 256 bits each."""
    return [hash_of(thumb, hash_size=HASH_SIDE).hash.ravel() for hash_of in (imagehash.phash, imagehash.dhash)]


ALIKE_CORRELATION = 0.97  # of small grey pictures; two frames of one lesion seconds apart stay above it
SCENE_CORRELATION = 0.92  # of frames of one series whose numbers differ by SCENE_STEPS at most
SCENE_STEPS = 5


@dataclass(frozen=True)
class Twins:
    """Two pictures, by their places in the list, that show the same.

    `kind` is "exact" (equal pixels), "near" (both hashes), "mirrored", "alike" (correlation alone) or "scene" (of `find_scenes`:
    neighbours by their numbers in one scene); `bits` is the larger of both hash distances; `turn` says how a mirrored one was
    turned; `correlation` is that of the small grey pictures.
    """

    first: int
    second: int
    kind: str
    bits: int
    turn: str
    correlation: float


def find_twins(fingerprints: Sequence[Fingerprint], *, near_bits: int = NEAR_BITS) -> list[Twins]:
    """Return every pair of pictures that show the same, each pair once, as its closest kind."""
    if not fingerprints:
        return []
    digests = [fingerprint.pixels_sha256 for fingerprint in fingerprints]
    bits = np.stack([fingerprint.bits for fingerprint in fingerprints])  # (N, 4, 2, 256)
    small = np.stack([fingerprint.small for fingerprint in fingerprints])
    found: dict[tuple[int, int], tuple[str, str]] = {}
    for number, turn in enumerate(TURNS):
        for first, second in find_close_bits(bits[:, 0], bits[:, number], near_bits).tolist():
            kind = "mirrored" if turn else "exact" if digests[first] == digests[second] else "near"
            found.setdefault((first, second), (kind, turn))
    for first, second in find_correlated(small, ALIKE_CORRELATION).tolist():
        found.setdefault((first, second), ("alike", ""))
    return [_compare(fingerprints, *pair, *how) for pair, how in sorted(found.items())]


def find_scenes(ids: Sequence[str], fingerprints: Sequence[Fingerprint], twins: Sequence[Twins]) -> list[Twins]:
    """Return the pairs of neighbours by their numbers that show one scene, without those of `twins`; ids name the pictures."""
    if not fingerprints:
        return []
    known = {(twin.first, twin.second) for twin in twins}
    small = np.stack([fingerprint.small for fingerprint in fingerprints])
    found = find_neighbours(ids, small, SCENE_CORRELATION, SCENE_STEPS).tolist()
    return [_compare(fingerprints, one, two, "scene", "") for one, two in found if (one, two) not in known]


def _compare(fingerprints: Sequence[Fingerprint], first: int, second: int, kind: str, turn: str) -> Twins:
    one, other = fingerprints[first], fingerprints[second]
    unlike = int((one.bits[0] != other.bits[list(TURNS).index(turn)]).sum(-1).max())
    return Twins(first, second, kind, unlike, turn, round(float(one.small @ other.small), 4))


def gather_families(twins: Sequence[Twins], count: int) -> list[list[int]]:
    """Return the places of pictures that are linked by `twins`, directly or through others, largest family first."""
    ends = [twin.first for twin in twins], [twin.second for twin in twins]
    _, labels = connected_components(coo_array((np.ones(len(twins)), ends), shape=(count, count)), directed=False)
    families: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        families.setdefault(label, []).append(place)
    return sorted((each for each in families.values() if len(each) > 1), key=lambda family: (-len(family), family))


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
        weights = np.uint64(1) << np.arange(len(band), dtype=np.uint64)
        numbers = [np.where(each[:, 0, band], weights, np.uint64(0)).sum(1, np.uint64) for each in (here, there)]
        for pairs in _pair_bands(*numbers, width=len(band)):
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
