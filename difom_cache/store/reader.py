"""Reading: any rows of a cache as one contiguous batch (FORMAT.md says how to do the same in another language)."""

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difom_cache.base import disk
from difom_cache.base.errors import (
    CacheDamagedError,
    CacheFormatError,
    CacheIdentityError,
    CacheIncompleteError,
    name_nearest,
)
from difom_cache.base.text import Shown, count_of, format_bytes
from difom_cache.codecs.base import ArrayOrTensor, Codec
from difom_cache.store.access import RowAccess, choose_access, open_access, take_all
from difom_cache.store.columns import open_codec, pictures_column, tap_specs, teacher_column
from difom_cache.store.identity import content_digest, digest_identity, list_random, read_identity, read_seen_masks
from difom_cache.store.layout import IDENTITY, PICTURES, Column, TapSpec, list_labels, teacher_folder
from difom_cache.store.ledger import read_damaged, read_markers
from difom_cache.store.schema import CacheIdentity, DoneMarker, PicturesIdentity, TeacherIdentity
from difom_cache.store.stats import TapStats, read_statistics
from difom_cache.store.table import Table

Batch = dict[str, NDArray[Any]]


def open_cache(path: str | Path, *, access: str = "auto", beside: str | Path | None = None) -> "Cache":
    """Return the cache that lies at `path`, ready to be read.

    Args:
        path: its folder.
        access: "map", "read" or "zarr" (store/access.py); "auto" chooses by file system and compression.
        beside: a folder of more columns of the same rows, as `probe(into=...)` makes it; they are read as if they were the
            cache's own.

    Raises:
        CacheIdentityError: `beside` holds columns of other rows.
        CacheFormatError: there is no cache, or one of another format version.
        CacheIncompleteError: its table of rows is not there.
    """
    return Cache(Path(path), access, None if beside is None else Path(beside))


class Taps(Shown, dict[str, TapSpec]):
    """Taps by full name."""

    def _line(self) -> str:
        return ", ".join(self) or "none"

    def _table(self) -> list[list[str]]:
        head = ["tap", "kind", "channels", "cells", "stride, px", "codec"]
        cells = [[str(each.channels), f"{each.grid} x {each.grid}", f"{each.stride:g}"] for each in self.values()]
        taps = zip(self.values(), cells, strict=True)
        return [head, *([tap.name, tap.kind, *size, tap.codec] for tap, size in taps)]


class Cache(Shown):
    """A cache opened for reading. Threads may share it; processes may inherit it by fork or receive it by pickle.

    `open_cache` opens one. A row is one view of one record; these are the features of eight views, from any tap:

        rows = cache.rows_of("train", view=0)[:8]
        batch = cache.gather(rows)
        features = {tap: cache.target(batch, tap) for tap in cache.taps}  # (8, C, h, w) float32 each

    Attributes:
        path: its folder.
        identity: what decides its rows and pictures.
        teachers: label to identity of every teacher in it.
        taps: full name to TapSpec of every tap in it.
        table: which view lies in which row: `table.record` is (R,) numbers in `table.records`, the manifest's lines.
        picture_px: side of the stored pictures.
    """

    def __init__(self, path: Path, access: str = "auto", beside: Path | None = None) -> None:
        self.path, self._access, self._beside = path, access, beside
        self.identity = read_identity(path, CacheIdentity)
        self.picture_px = self.identity.picture_px
        mapped, params = choose_access(path, asked=access) == "map", self.identity.plan.params
        self.table = Table(path, self.identity.rows, len(params), mapped=mapped)
        if beside is not None and read_identity(beside, CacheIdentity).to_dict() != self.identity.to_dict():
            raise CacheIdentityError(f"{beside} holds columns of other views than those of {path}; remove it")
        self._homes: dict[str, Path] = {}  # of columns that lie elsewhere
        self.teachers: dict[str, TeacherIdentity] = {}
        for home in (path, *([beside] if beside is not None else [])):
            folders = {label: home / teacher_folder(label) for label in list_labels(home)}
            found = {label: folder for label, folder in folders.items() if disk.is_there(folder / IDENTITY)}
            self.teachers |= {label: read_identity(folder, TeacherIdentity) for label, folder in found.items()}
            self._homes |= {teacher_folder(label): home for label in found if home != path}
        self.taps = Taps()
        for label, identity in self.teachers.items():
            self.taps |= tap_specs(identity, label)
        self._columns: dict[str, _OpenColumn] = {}
        self._asked: dict[tuple[tuple[str, ...] | None, bool], list[_AskedColumn]] = {}
        self._opening = threading.Lock()  # threads that share a cache map its shards once
        self._codecs: dict[str, Codec] = {}
        self._ones: dict[int, NDArray[np.uint8]] = {}  # a `valid` of ones by the number of its rows

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self.path, self._access, self._beside)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.table)

    def _line(self) -> str:
        held = f"{count_of(self.identity.records, 'record')}, {count_of(len(self), 'view')} of {self.picture_px} px"
        return f"{self.path}: {held}; teachers: {', '.join(self.teachers) or 'none'}"

    def _table(self) -> list[list[str]]:
        head, *rows = self.taps._table()
        rows = [["images, masks", "", "", f"{self.picture_px} x {self.picture_px}", "1", ""]] * self.has_pictures + rows
        stored = [self._count_bytes(row[0] if row[1] else "") for row in rows]
        rows = [
            [*row, format_bytes(of / max(1, len(self))), format_bytes(of)] for row, of in zip(rows, stored, strict=True)
        ]
        total = ["in all", *[""] * 5, format_bytes(sum(stored) / max(1, len(self))), format_bytes(sum(stored))]
        return [[*head, "a view", "on disk"], *rows, total]

    def _count_bytes(self, tap: str) -> int:
        """Return the bytes of the finished blocks of a tap; of images and masks where none is named."""
        label, _, name = tap.partition("/")
        markers = self.markers(self.column(teacher_folder(label) if tap else PICTURES)).values()
        files = [held for marker in markers for held in marker.files.items()]
        return sum(digest.file_bytes for path, digest in files if not tap or path.rpartition("/")[0] == name)

    @cached_property
    def has_pictures(self) -> bool:  # asked at every gather, which must not ask the file system again
        """Whether student views and masks are stored beside the features."""
        return disk.is_there(self.path / PICTURES / IDENTITY)

    def rows_of(
        self, split: str | None = None, view: int | None = None, labelled: bool | None = None
    ) -> NDArray[np.int64]:
        """Return the rows of a split ("train", "val", "test"), of one view number, with or without a mask.

        None takes every split, every view, or both kinds; view 0 is the image as it is.
        """
        return self.table.rows_of(split=split, view=view, labelled=labelled)

    def finished_rows(self, taps: Sequence[str] | None = None, *, pictures: bool = True) -> NDArray[np.bool_]:
        """Return, for each row, whether everything that is asked for lies in finished blocks."""
        finished = np.ones(len(self), dtype=bool)
        for column in self._asked_columns(self._check_taps(taps), pictures):
            finished &= column.finished[np.arange(len(self)) // column.column.block_rows]
        return finished

    def gather(
        self, rows: ArrayLike, taps: Sequence[str] | None = None, out: Batch | None = None, *, pictures: bool = True
    ) -> Batch:
        """Return what is stored of `rows`, one contiguous array for each kind.

        Args:
            rows: (B,) row numbers, in any order, repeats allowed.
            taps: full tap names; None for every tap.
            out: arrays to fill instead of new ones, such as NumPy views of pinned tensors; keys and shapes as returned
                (`valid` may be left out where the plan never pads).
            pictures: whether to return the stored views too.

        Returns:
            `image` (B, H, W, 3) uint8 RGB, `mask` (B, H, W) uint8 of 0 and 1 (255 everywhere: the record has no mask),
            `valid` (B, H, W) uint8, and for each tap `<tap>/code` (B, C, h, w) and, where its codec has one,
            `<tap>/scale` (B, C) float32.

        Raises:
            CacheIncompleteError: a row or tap is not in the cache.
            CacheDamagedError: a shard is missing, short, or known to be damaged.
            ValueError: an array of `out` has too few rows, another row shape or type, or is not contiguous.
        """
        wanted = np.ascontiguousarray(rows, dtype=np.int64)
        if wanted.size and wanted.view(np.uint64).max() >= len(self):  # a negative one is a large one
            raise CacheIncompleteError(
                f"{self.path} has rows 0 to {len(self) - 1}; asked for {wanted.min()} to {wanted.max()}"
            )
        batch: Batch = {}
        takes: list[tuple[RowAccess, NDArray[Any]]] = []
        for column, arrays in self._arrays_of(taps, pictures):
            column.refuse_missing(wanted)
            for key, access, row_shape, dtype in arrays:
                batch[key] = _place(out, key, (len(wanted), *row_shape), dtype)
                takes.append((access, batch[key]))
        take_all(wanted, takes)
        if pictures and "valid" not in batch:
            batch["valid"] = self._all_valid(len(wanted), out)
        return batch

    def decode(self, tap: str, code: ArrayOrTensor, scale: ArrayOrTensor | None = None) -> ArrayOrTensor:
        """Return the target (B, C, h, w) float32 of a tap's code and scale: arrays to arrays, tensors to tensors.

        Raises:
            CacheIncompleteError: the cache has no such tap.
            CodecError: code and scale do not fit the tap.
        """
        return self.codec(tap).decode(code, scale)

    def target(self, batch: Batch, tap: str) -> NDArray[Any]:
        """Return the target (B, C, h, w) float32 of a tap in a batch that `gather` gave."""
        return self.decode(tap, batch[f"{tap}/code"], batch.get(f"{tap}/scale"))

    def codec(self, tap: str) -> Codec:
        """Return the codec of a tap."""
        if tap not in self._codecs:
            self._check_taps([tap])
            label, _, name = tap.partition("/")
            entry = next(entry for entry in self.teachers[label].taps if entry.name == name)
            self._codecs[tap] = open_codec(self.home(teacher_folder(label)), label, entry)
        return self._codecs[tap]

    def stats(self, tap: str) -> TapStats:
        """Return count, mean and covariance of a tap over the valid cells of the training views."""
        self._check_taps([tap])
        label, _, name = tap.partition("/")
        column = self.column(teacher_folder(label))
        return read_statistics(self.home(column.folder), column, self.markers(column), name)

    def seen_masks(self, label: str) -> frozenset[str] | None:
        """Return the SHA-256 of every mask file that a teacher has learnt from; None where nobody knows.

        Raises:
            CacheFormatError: the cache has no such teacher.
        """
        identity, folder = require_teacher(self, label), teacher_folder(label)
        return read_seen_masks(self.home(folder) / folder, identity)

    def column(self, folder: str) -> Column:
        """Return the column in `folder`: "pictures" or "teachers/<label>"."""
        if folder == PICTURES:
            return pictures_column(read_identity(self.path / PICTURES, PicturesIdentity), len(self))
        label = folder.partition("/")[2]
        return teacher_column(self.teachers[label], label, len(self))

    def columns(self) -> list[Column]:
        """Return every column of the cache."""
        folders = [PICTURES] if self.has_pictures else []
        return [self.column(folder) for folder in [*folders, *map(teacher_folder, self.teachers)]]

    def markers(self, column: Column) -> dict[int, DoneMarker]:
        """Return the finished blocks of a column."""
        return read_markers(self.home(column.folder), column)

    def home(self, folder: str) -> Path:
        """Return where the column in `folder` lies: the cache itself, but for what was opened beside it."""
        return self._homes.get(folder, self.path)

    @property
    def random_teachers(self) -> list[str]:
        """Labels of the teachers whose weights are random: their features are for trials alone."""
        return list_random(self.teachers)

    @cached_property
    def damaged(self) -> dict[str, list[int]]:
        """The blocks that `verify` found damaged, by column folder."""
        return read_damaged(self.path) | (read_damaged(self._beside) if self._beside else {})

    def content_digests(self) -> dict[str, str]:
        """Return the content digest of every column by its folder, and of the whole cache under "cache"."""
        digests = {}
        for column in self.columns():
            held = self.teachers.get(column.label)
            identity = held or read_identity(self.path / PICTURES, PicturesIdentity)
            digests[column.folder] = content_digest(identity, column, self.markers(column))
        digests["cache"] = digest_identity({"identity": self.identity.to_dict(), "columns": dict(digests)})
        return digests

    def _check_taps(self, taps: Sequence[str] | None) -> list[str]:
        for tap in taps or []:
            if tap not in self.taps:
                raise CacheIncompleteError(f"{self.path}: {name_nearest('tap', tap, list(self.taps))}")
        return list(self.taps) if taps is None else list(taps)

    def _asked_columns(self, taps: Sequence[str], pictures: bool) -> "list[_OpenColumn]":
        if pictures and not self.has_pictures:
            raise CacheIncompleteError(
                f"{self.path} holds no pictures (it was made with --no-pictures); give the data they came from with --data"
            )
        folders = [PICTURES] if pictures else []
        folders += dict.fromkeys(teacher_folder(tap.partition("/")[0]) for tap in taps)
        return [self._open(folder) for folder in folders]

    def _arrays_of(self, taps: Sequence[str] | None, pictures: bool) -> "list[_AskedColumn]":
        """Return the columns and open arrays of what is asked for; the same question is answered at once."""
        asked = (None if taps is None else tuple(taps), pictures)
        if asked not in self._asked:
            with self._opening:
                names = self._check_taps(taps)
                self._asked[asked] = [(column, column.arrays(names)) for column in self._asked_columns(names, pictures)]
        return self._asked[asked]

    def _open(self, folder: str) -> "_OpenColumn":
        if folder not in self._columns:
            self._columns[folder] = _OpenColumn(self, self.column(folder), self._access)
        return self._columns[folder]

    def _all_valid(self, rows: int, out: Batch | None) -> NDArray[np.uint8]:
        if out is None or "valid" not in out:  # nothing to copy: one byte stands for all
            if rows not in self._ones:
                self._ones[rows] = np.broadcast_to(np.uint8(1), (rows, self.picture_px, self.picture_px))
            return self._ones[rows]
        out["valid"][:rows] = 1
        return out["valid"][:rows]


def _place(out: Batch | None, key: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return where an array of a batch goes: a new one, or the first rows of the caller's."""
    if out is None:
        return np.empty(shape, dtype)
    given = out[key]
    if given.dtype != dtype or given.shape[1:] != shape[1:] or len(given) < shape[0] or not given.flags.c_contiguous:
        raise ValueError(
            f"out[{key!r}] is {given.shape} {given.dtype}; expected a contiguous one of at least {shape} {dtype}"
        )
    return given[: shape[0]]


_OpenArray = tuple[str, RowAccess, tuple[int, ...], str]  # key, rows, shape and type of a row


class _OpenColumn:
    """A column with its finished blocks; each array is opened when it is first asked for."""

    def __init__(self, cache: Cache, column: Column, access: str) -> None:
        self._home, self.column = cache.home(column.folder), column
        self._how = choose_access(self._home, column.compression, access)
        identity = cache.teachers.get(column.label)
        self._maker = f"`difom-cache {'probe' if identity is not None and identity.probe is not None else 'extract'}`"
        self._damaged = set(cache.damaged.get(column.folder, []))
        self._blocks = sorted(cache.markers(column).keys() - self._damaged)
        self.finished = np.zeros(column.blocks, dtype=bool)
        self.finished[self._blocks] = True
        self._is_whole = bool(self.finished.all())
        self._opened: dict[str, RowAccess] = {}

    def refuse_missing(self, rows: NDArray[np.int64]) -> None:
        if self._is_whole:
            return
        finished = self.finished[rows // self.column.block_rows]
        if finished.all():
            return
        block = int(rows[~finished][0]) // self.column.block_rows
        where = f"{self._home / self.column.folder}: block {block} (row {rows[~finished][0]})"
        if block in self._damaged:
            raise CacheDamagedError(f"{where} is damaged; {self._maker} with the same arguments makes it anew")
        missing = self.column.blocks - len(self._blocks)
        raise CacheIncompleteError(
            f"{where} is not there, one of {missing} missing of {self.column.blocks}; "
            f"run {self._maker} with the same arguments to its end"
        )

    def arrays(self, taps: Sequence[str]) -> "list[_OpenArray]":
        label, chosen = self.column.label, []
        for array in self.column.arrays:
            key = f"{label}/{array.path}" if label else array.path
            if not label or key.rpartition("/")[0] in taps:
                if array.path not in self._opened:
                    self._opened[array.path] = open_access(self._how, self._home, self.column, array, self._blocks)
                chosen.append((key, self._opened[array.path], array.row_shape, array.dtype))
        return chosen


_AskedColumn = tuple[_OpenColumn, list[_OpenArray]]


def require_teacher(cache: Cache, label: str) -> TeacherIdentity:
    """Return a teacher's identity.

    Raises:
        CacheFormatError: the cache has no such teacher.
    """
    if label not in cache.teachers:
        raise CacheFormatError(f"{cache.path}: {name_nearest('teacher', label, list(cache.teachers))}")
    return cache.teachers[label]
