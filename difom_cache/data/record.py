"""One frame of the data: its picture, its mask, what is known of both; and who validates, or has a mask in a budget."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import CacheIdentityError, DataError, SettingsError

VAL_SHARE = 10  # every tenth group of the training records; not tuned
_FEW_GROUPS, _FEW_SHARE = (
    20,
    3,
)  # of fewer groups than 20 every third at most, where the hash takes most of them; not tuned
READINGS = {
    1: "videos as they are stored; 16-bit levels as they are",
    2: "videos as players turn and stretch them; 16-bit levels by the number of bits that their file states",
}
"The rules by which files became pixels, the newest last (FORMAT.md, section 6)."


@dataclass(frozen=True)
class Record:
    """One frame: a picture, its mask, their digests, its split.

    Attributes:
        id: data set and stem, such as "Kvasir/cju0qkwl35piu0993l0dewei2"; unique in a manifest.
        dataset: a benchmark set's name, or the folder's.
        split: "train", "val" or "test".
        image: the picture's file.
        mask: the mask's file; None where the picture is unlabelled.
        width: of the picture in px, after its EXIF orientation.
        height: likewise.
        image_sha256: digest of the picture's file, hexadecimal.
        mask_sha256: digest of the mask's file; "" where there is none.
        group: the video sequence or patient that the frame belongs to; "" where unknown.
        reading: the oldest of `READINGS` that makes the same pixels of the picture as the newest; in no manifest.
    """

    id: str
    dataset: str
    split: str
    image: Path
    mask: Path | None
    width: int
    height: int
    image_sha256: str
    mask_sha256: str
    group: str
    reading: int = field(default=1, compare=False)

    @property
    def labelled(self) -> bool:
        """True where the record has a mask, be it empty."""
        return self.mask is not None


COLUMNS = tuple(each.name for each in fields(Record) if each.compare)


def belongs_to_val(key: str) -> bool:
    """Return whether training records of this group (or, without one, of this id) validate: SHA-256 mod 10 = 0."""
    return int.from_bytes(by_hash(key)) % VAL_SHARE == 0


def choose_validating(keys: Iterable[str]) -> frozenset[str]:
    """Return which groups of one data set's training records validate: those of `belongs_to_val`.

    Where that is more than half of fewer than 20 groups, only those with the lowest hashes do, a third of all groups at most:
    of three images two would validate and one would train.

    Args:
        keys: the group of each record, or its id where it has none.
    """
    groups = set(keys)
    chosen = sorted(filter(belongs_to_val, groups), key=by_hash)
    if len(groups) < _FEW_GROUPS and 2 * len(chosen) > len(groups):
        chosen = chosen[: len(groups) // _FEW_SHARE]
    return frozenset(chosen)


def by_hash(text: str) -> bytes:
    """Return where a text stands in an order that it alone decides: its SHA-256."""
    return hashlib.sha256(text.encode()).digest()


def refuse_twins(records: Sequence[Record], where: Path) -> None:
    """Raise where two records have one id.

    Raises:
        DataError: names both.
    """
    first: dict[str, Record] = {}
    for record in records:
        other = first.setdefault(record.id, record)
        if other is not record:
            raise DataError(
                f"{where}: record {record.id} stands for both {other.image} and {record.image}; rename one, or pass "
                f"the folder of one"
            )


def reading_of(records: Sequence[Record]) -> int | None:
    """Return the rule by which a cache of these records is made; None where the first would read all of them alike."""
    newest = max((record.reading for record in records), default=1)
    return None if newest == 1 else newest


def refuse_other_reading(held: int | None, records: Sequence[Record], where: Path) -> None:
    """Raise where a cache was made by another rule than its records are read by now.

    Args:
        held: `reading` of the cache's identity.
        records: whose files would be read, as `load_records` gives them.
        where: the cache.

    Raises:
        CacheIdentityError: names both rules.
    """
    before, now = held or 1, reading_of(records) or 1
    if before != now:
        told = [f"rule {each} ({READINGS.get(each, 'of a newer difom')})" for each in (before, now)]
        raise CacheIdentityError(
            f"{where} was made by {told[0]} of reading images, and its records would now be read by {told[1]}: the two are never "
            "mixed. Features that are finished train with the images stored beside them; for more, choose another --cache path"
        )


def draw_budget(
    groups: Sequence[str], labelled: NDArray[np.bool_], *, share: float, labels_seed: int
) -> NDArray[np.bool_]:
    """Return which records' masks are in the budget.

    Groups stand in an order that `labels_seed` and their names alone decide. The budget is the part from its start whose
    size is nearest to `share` of all masks, off by half a group at most; a smaller one lies inside a larger one of its seed.
    It covers training and validation records alike: give both, and those of the budget that validate, validate.

    Args:
        groups: (N,) group of each record, or its id where it has none; records of one group stay together.
        labelled: (N,) whether the record has a mask.
        share: of the masks, in (0, 1].
        labels_seed: of the order.

    Returns:
        (N,) bool; False where there is no mask.

    Raises:
        SettingsError: the share is not in (0, 1], or holds not even the first group.
    """
    if not 0 < share <= 1:
        raise SettingsError(f"the share of masks is {share}; it must be in (0, 1]")
    has_mask = np.asarray(labelled, bool)
    if share == 1 or not has_mask.any():
        return has_mask.copy()
    names, group = np.unique(np.asarray(groups, dtype=str)[has_mask], return_inverse=True)
    masks = np.bincount(group)
    order = sorted(range(len(names)), key=lambda number: by_hash(f"{labels_seed}\n{names[number]}"))
    reached = np.concatenate([[0], np.cumsum(masks[order])])
    taken = int(np.abs(reached - share * has_mask.sum()).argmin())  # of two that are equally near the smaller
    kept = np.zeros(len(names), bool)
    kept[order[:taken]] = True
    if not kept.any():
        raise SettingsError(
            f"{share:g} of {has_mask.sum()} masks holds none: the first group of labels seed {labels_seed}, "
            f"{names[order[0]]}, has {masks[order[0]]}; use a larger share, or another labels seed"
        )
    chosen = np.zeros(len(has_mask), bool)
    chosen[has_mask] = kept[group]
    return chosen
