"""One or several caches, read as one: rows are numbered through, cache after cache."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from difom_cache import Cache
from difom_cache.base.errors import CacheIdentityError, CacheIncompleteError
from difom_cache.base.text import name_some
from difom_cache.data import join_records
from difom_cache.store import SPLITS, TapStats, TeacherIdentity
from difom_train.data.counter_rng import Keys, keys_of

HostBatch = dict[str, NDArray[Any]]
T = TypeVar("T")


class JointCache:
    """Caches with the same picture size, and teachers that are the same wherever both have them.

    Records of several caches are joined by their images, whatever their files are called (`join_records`).

    Attributes:
        parts: the caches, in the order given.
        join: what records and groups are called here.
        taps: full name to TapSpec of every tap that all of them hold.
        record_key: (R,) uint64, equal for the views of one record; it does not depend on the order of the caches.
        view, split, labelled: (R,) as in each cache's table.

    Raises:
        CacheIdentityError: a cache stands there twice, the caches do not go together, or a record trains in one and validates
            in another.
    """

    def __init__(self, parts: Sequence[Cache]) -> None:
        self.parts = list(parts)
        self._starts = np.cumsum([0, *[len(part) for part in parts]])
        first = self.parts[0]
        for one, two in combinations([part.path for part in parts], 2):
            if one == two or (one.exists() and two.exists() and one.samefile(two)):
                raise CacheIdentityError(f"{one} and {two} are one cache; name each cache once")
        for other in self.parts[1:]:
            _refuse_unlike(first, other)
        self.taps = {name: spec for name, spec in first.taps.items() if all(name in part.taps for part in parts)}
        tables = [part.table for part in parts]
        self.join = join_records([table.records for table in tables])
        if torn := self.join.torn:
            raise CacheIdentityError(
                f"{self.names}: {len(torn)} images train in one cache and validate in another ({name_some(torn)}); extract "
                "both from one manifest, in which each image has one split"
            )
        keys = [keys_of(names) for names in self.join.names]
        self.record_key: Keys = np.concatenate([key[table.record] for key, table in zip(keys, tables, strict=True)])
        self.view: NDArray[np.int32] = np.concatenate([np.asarray(table.view) for table in tables])
        self.split: NDArray[np.uint8] = np.concatenate([np.asarray(table.split) for table in tables])
        self.labelled: NDArray[np.bool_] = np.concatenate([np.asarray(table.labelled) > 0 for table in tables])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def names(self) -> str:
        """The folders of the caches, for messages."""
        return ", ".join(str(part.path) for part in self.parts)

    @property
    def picture_px(self) -> int:
        """Side of the stored pictures."""
        return self.parts[0].picture_px

    @property
    def has_pictures(self) -> bool:
        """Whether every cache holds the student's pictures and masks."""
        return all(part.has_pictures for part in self.parts)

    @property
    def pads(self) -> bool:
        """Whether any view has an area that does not come from its picture."""
        for part in self.parts:
            names = part.identity.plan.params
            if "pad" in names and np.any(part.table.params[:, names.index("pad")]):
                return True
        return False

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """Return the rows of a split, in order."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def finished_rows(self, taps: Sequence[str], *, pictures: bool = True) -> NDArray[np.bool_]:
        """Return, for each row, whether everything asked for is there."""
        return np.concatenate([part.finished_rows(taps, pictures=pictures) for part in self.parts])

    def record_ids(self, rows: ArrayLike) -> list[str]:
        """Return what the record of each row is called: its id, unless other caches have other images of that id."""
        return self._look_up(self.join.names, rows)

    def groups(self, rows: ArrayLike) -> list[str]:
        """Return the group of each row; a record without one is a group of its own."""
        return self._look_up(self.join.groups, rows)

    def records_of(self, rows: ArrayLike) -> list[Mapping[str, str]]:
        """Return the line of records.csv of each row."""
        return self._look_up([part.table.records for part in self.parts], rows)

    def part_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place of each row's cache in `parts`."""
        return self._locate(rows)[0]

    def in_one_order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return rows in an order of their caches that is the same however these are given."""
        if len(self.parts) == 1:
            return rows
        identities = [json.dumps(part.identity.to_dict(), sort_keys=True) for part in self.parts]
        place = np.argsort(np.argsort(identities, kind="stable"), kind="stable")
        return rows[np.argsort(place[self.part_of(rows)], kind="stable")]

    def params(self, rows: ArrayLike) -> NDArray[np.int32]:
        """Return the recorded view parameters of each row, (B, P)."""
        part, local = self._locate(np.asarray(rows, np.int64))
        return np.stack([self.parts[p].table.params[each] for p, each in zip(part, local, strict=True)])

    def gather(
        self, rows: NDArray[np.int64], taps: Sequence[str], out: HostBatch | None = None, *, pictures: bool = True
    ) -> HostBatch:
        """Return what is stored of `rows`, as `difom_cache.Cache.gather` does."""
        if len(self.parts) == 1:
            return self.parts[0].gather(rows, taps, out, pictures=pictures)
        part, local = self._locate(rows)
        batch: HostBatch = {}
        for number in np.unique(part):
            here = np.flatnonzero(part == number)
            stored = self.parts[number].gather(local[here], taps, pictures=pictures)
            for key, array in stored.items():
                if out is not None and key not in out:  # `valid` where all is: nobody asks for a copy
                    continue
                if key not in batch:
                    shape = (len(rows), *array.shape[1:])
                    batch[key] = out[key][: len(rows)] if out and key in out else np.empty(shape, array.dtype)
                batch[key][here] = array
        return batch

    def decode(self, tap: str, code: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the target of a tap's code and scale; every part has the same codec."""
        decoded: Tensor = self.parts[0].decode(tap, code, scale)
        return decoded

    def stats(self, tap: str) -> TapStats:
        """Return the statistics of a tap over the training rows of all caches."""
        parts = [part.stats(tap) for part in self.parts]
        count = sum(int(part.count) for part in parts)
        shares = [part.count / count for part in parts]
        mean = np.sum([share * part.mean for share, part in zip(shares, parts, strict=True)], axis=0)
        second = [part.covariance + np.outer(part.mean, part.mean) for part in parts]
        product = np.sum([share * each for share, each in zip(shares, second, strict=True)], axis=0)
        return TapStats(count, mean, product - np.outer(mean, mean))

    @property
    def teachers(self) -> Mapping[str, Any]:
        """Label to identity of every teacher; what several caches hold of one is the same."""
        return {label: identity for part in self.parts for label, identity in part.teachers.items()}

    def random_teachers(self, taps: Sequence[str]) -> list[str]:
        """Return the labels of those teachers of `taps` whose weights are random."""
        labels = dict.fromkeys(tap.partition("/")[0] for tap in taps)
        return [
            label for label in labels if any(part.teachers[label].teacher.weights == "random" for part in self.parts)
        ]

    def seen_masks(self, label: str) -> frozenset[str] | None:
        """Return the digests of the masks that a teacher has learnt from, in any of the caches; None where nobody knows."""
        seen = [part.seen_masks(label) for part in self.parts if label in part.teachers]
        known = [masks for masks in seen if masks is not None]
        return None if len(known) < len(seen) else frozenset[str]().union(*known)

    def mask_digests(self, rows: ArrayLike) -> frozenset[str]:
        """Return the digests of the mask files of rows, each of which has one."""
        return frozenset(str(line["mask_sha256"]) for line in self.records_of(rows))

    def _look_up(self, lists: Sequence[Sequence[T]], rows: ArrayLike) -> list[T]:
        """Return what `lists`, one for each cache, holds of the record of each row."""
        part, local = (each.tolist() for each in self._locate(np.asarray(rows, np.int64)))
        return [lists[p][int(self.parts[p].table.record[row])] for p, row in zip(part, local, strict=True)]

    def _locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        part = np.searchsorted(self._starts, rows, side="right") - 1
        return part, rows - self._starts[part]


def require_taps(
    cache: JointCache, rows: NDArray[np.int64], taps: Sequence[str], *, allow_partial: bool
) -> NDArray[np.int64]:
    """Return those of `rows` that can be read in full.

    Raises:
        CacheIncompleteError: some cannot, and `allow_partial` does not say to go on without them; or none can.
    """
    finished = cache.finished_rows(taps, pictures=cache.has_pictures)[rows]
    missing = len(rows) - int(finished.sum())
    if missing and not allow_partial:
        raise CacheIncompleteError(
            f"{cache.names}: {missing} of {len(rows)} views are not finished; run `difom-cache extract` with the same "
            "arguments to its end, or train on what is there with --allow-partial"
        )
    if len(rows) and missing == len(rows):
        raise CacheIncompleteError(
            f"{cache.names}: not one of {len(rows)} views is finished; run `difom-cache extract` first"
        )
    return rows[finished]


def _refuse_unlike(first: Cache, other: Cache) -> None:
    if first.picture_px != other.picture_px:
        raise CacheIdentityError(
            f"{first.path} holds pictures of {first.picture_px} px and {other.path} of {other.picture_px} px; "
            f"extract new records with `difom-cache extract --like {first.path}` to train on both together"
        )
    for label in first.teachers.keys() & other.teachers.keys():
        mine, theirs = _what_decides(first.teachers[label]), _what_decides(other.teachers[label])
        differing = [key for key in sorted(mine | theirs) if mine.get(key) != theirs.get(key)]
        if differing:
            key = differing[0]
            raise CacheIdentityError(
                f"teacher {label!r} differs in {', '.join(differing)}: {key} is {mine.get(key)!r} in {first.path} and "
                f"{theirs.get(key)!r} in {other.path}; their features cannot be mixed; "
                f"extract new records with `difom-cache extract --like {first.path}`"
            )


def _what_decides(teacher: TeacherIdentity) -> dict[str, Any]:
    """Return what must be equal for two caches' features of one teacher to be mixed; library versions may differ."""
    held = teacher.to_dict()
    about = {key: value for key, value in held["teacher"].items() if key != "libraries"}
    return about | {"stored taps": held["taps"]}
