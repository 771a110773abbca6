"""Random numbers that depend on names and counts alone, computed for a million records at once.

A number is a mix of a record's key with the seed, the epoch and whatever else decides it, so that no generator has a state
that a resumed run would have to restore, and another record changes no record's numbers.

Source: the mixer is splitmix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195).
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]


def key_of(name: str) -> int:
    """Return the 64-bit key of a name: the first eight bytes of its SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def keys_of(names: Iterable[str]) -> Keys:
    """Return one key a name, (N,)."""
    return np.fromiter((key_of(name) for name in names), np.uint64)


def mix(keys: Keys, *parts: int | Keys) -> Keys:
    """Return keys that look drawn anew for each value of `parts`.

    Args:
        keys: (N,) or any shape.
        parts: what decides the numbers, such as the seed and the epoch: counts, or arrays that broadcast with `keys`.
    """
    mixed = keys
    for part in parts:
        word = np.atleast_1d(np.asarray(part)).astype(np.uint64)  # arrays wrap around without a warning
        mixed = _scramble(mixed ^ _scramble(word + np.uint64(0x9E3779B97F4A7C15)))
    return mixed


def mix_counts(*parts: int) -> int:
    """Return one 64-bit number decided by `parts`."""
    return int(mix(np.zeros(1, np.uint64), *parts)[0])


def uniform(keys: Keys) -> NDArray[np.float64]:
    """Return numbers in [0, 1), one a key, from the key's upper 53 bits."""
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _scramble(word: Keys) -> Keys:
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(word ^ (word >> np.uint64(31)))
