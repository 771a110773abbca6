"""Pictures that are the same picture: bit for bit, nearly, or mirrored.

Two perceptual hashes of 256 bits each must agree within NEAR_BITS: the signs of the low frequencies (pHash) and of the
horizontal steps (dHash). Each alone calls dark, empty frames alike. Measured on the five benchmark sets: of 1.9 million
pairs that come from other sets or other video sequences, the closest differs by 36 bits in one of the two; all 226
pairs within 20 bits show the same scene, seen by eye.

A second signal finds the same lesion seconds apart, whose hashes differ by more: the normalised cross-correlation of small
grey pictures above ALIKE_CORRELATION.

Neither compares all pairs, and neither misses one; near_pairs.py says how.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from difom_cache.data.near_pairs import find_close_bits, find_correlated

HASH_SIDE = 16
NEAR_BITS = 20  # of 256, in each of the two hashes
_THUMB_PX = 256  # hashed instead of the picture: decoding dominates, eight hashes of a thumbnail are quick
ALIKE_CORRELATION = 0.97  # of small grey pictures; two frames of one lesion seconds apart stay above it
_SMALL_PX = 32

_TURNS = {
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
        bits: (4, 2, 256) bool: as it stands and in the three mirrorings of `_TURNS`; pHash, dHash.
        small: (32 * 32) float32: the grey picture, made small, about its mean and of length 1; zeros where it has one colour.
    """

    pixels_sha256: str
    bits: NDArray[np.bool_]
    small: NDArray[np.float32]


@dataclass(frozen=True)
class Twins:
    """Two pictures, by their places in the list, that show the same.

    `kind` is "exact" (equal pixels), "near" (both hashes), "mirrored" or "alike" (correlation alone); `bits` is the larger of
    both hash distances; `turn` says how a mirrored one was turned; `correlation` is that of the small grey pictures.
    """

    first: int
    second: int
    kind: str
    bits: int
    turn: str
    correlation: float


def take_fingerprint(image: NDArray[np.uint8]) -> Fingerprint:
    """Return the fingerprint of a picture (H, W, 3)."""
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    thumb = _shrink(image)
    turned = [thumb if turn is None else thumb.transpose(turn) for turn in _TURNS.values()]
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
    return [
        hash_picture(thumb, hash_size=HASH_SIDE).hash.ravel() for hash_picture in (imagehash.phash, imagehash.dhash)
    ]


def find_twins(fingerprints: Sequence[Fingerprint], *, near_bits: int = NEAR_BITS) -> list[Twins]:
    """Return every pair of pictures that show the same, each pair once, as its closest kind."""
    if not fingerprints:
        return []
    digests = [fingerprint.pixels_sha256 for fingerprint in fingerprints]
    bits = np.stack([fingerprint.bits for fingerprint in fingerprints])  # (N, 4, 2, 256)
    small = np.stack([fingerprint.small for fingerprint in fingerprints])
    found: dict[tuple[int, int], Twins] = {}

    def add(first: int, second: int, kind: str, turn: str) -> None:
        unlike = int((bits[first, 0] != bits[second, list(_TURNS).index(turn)]).sum(-1).max())
        correlation = round(float(small[first] @ small[second]), 4)
        found.setdefault((first, second), Twins(first, second, kind, unlike, turn, correlation))

    for number, turn in enumerate(_TURNS):
        for first, second in find_close_bits(bits[:, 0], bits[:, number], near_bits).tolist():
            kind = "mirrored" if turn else "exact" if digests[first] == digests[second] else "near"
            add(first, second, kind, turn)
    for first, second in find_correlated(small, ALIKE_CORRELATION).tolist():
        add(first, second, "alike", "")
    return [found[key] for key in sorted(found)]


def gather_families(twins: Sequence[Twins], count: int) -> list[list[int]]:
    """Return the places of pictures that are linked by `twins`, directly or through others, largest family first."""
    links = coo_array(
        (np.ones(len(twins)), ([twin.first for twin in twins], [twin.second for twin in twins])), shape=(count, count)
    )
    _, labels = connected_components(links, directed=False)
    families: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        families.setdefault(label, []).append(place)
    return sorted(
        (family for family in families.values() if len(family) > 1), key=lambda family: (-len(family), family)
    )
