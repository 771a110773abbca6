"""Pictures that are the same picture: bit for bit, nearly, or mirrored.

Two perceptual hashes of 256 bits each must agree within NEAR_BITS: the signs of the low frequencies (pHash) and of the
horizontal steps (dHash). Each alone calls dark, empty frames alike. Measured on the five benchmark sets: of 1.9 million
pairs that come from other sets or other video sequences, the closest differs by 36 bits in one of the two; all 226
pairs within 20 bits show the same scene, seen by eye.

A second signal finds the same lesion seconds apart, whose hashes differ by more: the normalised cross-correlation of small
grey pictures above ALIKE_CORRELATION.

Neither compares all pairs, and neither misses one; near_pairs.py says how.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from difom_cache.data.fingerprints import NEAR_BITS, TURNS, Fingerprint
from difom_cache.data.near_pairs import find_close_bits, find_correlated

ALIKE_CORRELATION = 0.97  # of small grey pictures; two frames of one lesion seconds apart stay above it


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


def find_twins(fingerprints: Sequence[Fingerprint], *, near_bits: int = NEAR_BITS) -> list[Twins]:
    """Return every pair of pictures that show the same, each pair once, as its closest kind."""
    if not fingerprints:
        return []
    digests = [fingerprint.pixels_sha256 for fingerprint in fingerprints]
    bits = np.stack([fingerprint.bits for fingerprint in fingerprints])  # (N, 4, 2, 256)
    small = np.stack([fingerprint.small for fingerprint in fingerprints])
    found: dict[tuple[int, int], Twins] = {}

    def add(first: int, second: int, kind: str, turn: str) -> None:
        unlike = int((bits[first, 0] != bits[second, list(TURNS).index(turn)]).sum(-1).max())
        correlation = round(float(small[first] @ small[second]), 4)
        found.setdefault((first, second), Twins(first, second, kind, unlike, turn, correlation))

    for number, turn in enumerate(TURNS):
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
