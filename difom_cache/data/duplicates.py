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

Neither of the first two compares all pairs, and neither misses one; near_pairs.py says how.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from difom_cache.data.fingerprints import NEAR_BITS, TURNS, Fingerprint
from difom_cache.data.near_pairs import find_close_bits, find_correlated, find_neighbours

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
    found: dict[tuple[int, int], Twins] = {}

    def add(first: int, second: int, kind: str, turn: str) -> None:
        found.setdefault((first, second), _compare(fingerprints, first, second, kind, turn))

    for number, turn in enumerate(TURNS):
        for first, second in find_close_bits(bits[:, 0], bits[:, number], near_bits).tolist():
            kind = "mirrored" if turn else "exact" if digests[first] == digests[second] else "near"
            add(first, second, kind, turn)
    for first, second in find_correlated(small, ALIKE_CORRELATION).tolist():
        add(first, second, "alike", "")
    return [found[key] for key in sorted(found)]


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
