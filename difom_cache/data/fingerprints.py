"""What is kept of a picture so that the same one is known again, and a sieve of near-duplicates; duplicates.py compares them."""

import hashlib
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    return [
        hash_picture(thumb, hash_size=HASH_SIDE).hash.ravel() for hash_picture in (imagehash.phash, imagehash.dhash)
    ]
