"""A whole cache as one HDF5 file, and back, bit for bit. Plain h5py reads the file (FORMAT.md, section 1)."""

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr

from difom_cache.base import disk
from difom_cache.base.atomic import build_folder, draft_of, write_once
from difom_cache.base.errors import CacheDamagedError, CacheFormatError, CacheIncompleteError, CacheSpaceError
from difom_cache.base.files import read_held, refuse_special
from difom_cache.base.progress import track
from difom_cache.codecs.catalogue import BASES
from difom_cache.maintenance.book import EXPORT_AGAIN, Book
from difom_cache.maintenance.finish import finish
from difom_cache.maintenance.verify import verify
from difom_cache.store.columns import BASIS, BASIS_ARRAYS, pictures_column, teacher_column, write_basis
from difom_cache.store.identity import MAKE_ANEW, read_beside
from difom_cache.store.layout import (
    BESIDE_IDENTITY,
    IDENTITY,
    PICTURES,
    RECORDS,
    Column,
    canonical,
    teacher_folder,
    totals_path,
)
from difom_cache.store.reader import Cache, open_cache
from difom_cache.store.schema import CacheIdentity, FidelitySums, PicturesIdentity, TeacherIdentity, check_plain_name
from difom_cache.store.table import read_records
from difom_cache.store.writer import ROWS, RowTable, create_cache, create_column, write_block


def export_hdf5(cache: str | Path, file: str | Path) -> None:
    """Write every array of a complete cache into one HDF5 file, under the names that it has in the cache.

    Raises:
        CacheDamagedError: a file of the cache cannot be read.
        CacheIncompleteError: blocks are missing.
        CacheSpaceError: the file exists, or cannot be written.
    """
    opened, path = open_cache(cache), Path(file)
    if path.exists() or path.is_symlink():
        raise CacheSpaceError(f"{path} exists; choose another file, or remove it")
    for column in opened.columns():
        missing = column.blocks - len(opened.markers(column))
        if missing:
            raise CacheIncompleteError(
                f"{opened.path / column.folder}: {missing} blocks are missing; run `difom-cache extract` first"
            )
    try:
        with draft_of(path) as draft, _Writing(draft) as writing, h5py.File(writing, "w") as book:
            book.attrs["identity"] = canonical(opened.identity.to_dict()).decode()
            book.create_dataset(RECORDS, data=np.frombuffer(read_records(opened.path, opened.identity), np.uint8))
            for name, values in vars(opened.table.as_rows()).items():
                book.create_dataset(f"rows/{name}", data=values)
            for column in opened.columns():
                _export_column(opened, column, book)
    except (OSError, RuntimeError) as error:  # HDF5's own, without a code
        raise CacheSpaceError(f"cannot write {path}: {error}; make room and run the same command again") from None


def import_hdf5(file: str | Path, cache: str | Path) -> None:
    """Make `cache` the cache that was exported to `file`: equal bytes, equal content digest.

    The file may come from anybody. Only datasets that the identities in it speak of are read; each must lie in the file
    itself, plain and whole, with the shape and type that its identity gives it. The cache is built in a temporary folder
    beside `cache`, verified there, and appears whole or not at all.

    Raises:
        CacheFormatError: the file is no exported cache, holds something else, or is of another format version.
        CacheSpaceError: something lies at `cache` already, or it cannot be written.
    """
    path, folder = Path(file), Path(cache)
    refuse_target(folder)
    try:
        book = h5py.File(refuse_special(path), "r")
    except OSError as error:
        raise CacheFormatError(f"{path} cannot be opened as HDF5: {' '.join(str(error).split())}") from None
    with book, build_folder(folder) as draft:
        _import_book(Book(book, path), draft)
        finish(draft)
        report = verify(draft)
        if not report.sound or report.missing:
            found = (report.problems or ["blocks are missing"])[0].replace(str(draft), str(path))
            raise CacheFormatError(f"{path} holds no sound cache: {found}; {EXPORT_AGAIN}")


def refuse_target(folder: Path) -> None:
    """Raise where something lies at the place of a cache that is to be made.

    Raises:
        CacheSpaceError: there is something.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise CacheSpaceError(f"{folder} exists; choose another folder for the cache, or remove it")


def _import_book(book: Book, cache: Path) -> None:
    identity = book.identity("", CacheIdentity)
    book.expect("", [RECORDS, "rows"], ["pictures", "teachers"])
    book.expect("rows", list(ROWS))
    rows, params = identity.rows, len(identity.plan.params)
    shapes = {name: (rows, params)[: len(dimensions)] for name, (_, dimensions) in ROWS.items()}
    table = RowTable(**{name: book.read(f"rows/{name}", shapes[name], ROWS[name][0]) for name in ROWS})
    create_cache(cache, identity, book.read_bytes(RECORDS), table)
    if book.holds(PICTURES):
        pictures = book.identity(PICTURES, PicturesIdentity)
        column = pictures_column(pictures, rows)
        book.expect(PICTURES, ["fidelity.json", *[array.path for array in column.arrays]])
        _import_column(book, cache, column, pictures)
    for label in book.names("teachers") if book.holds("teachers") else []:
        folder = teacher_folder(check_label(label, book.path))
        held = book.identity(folder, TeacherIdentity)
        column = teacher_column(held, label, rows)
        book.expect(
            folder, ["fidelity.json", *[tap.name for tap in held.taps]], ["statistics.safetensors", *BESIDE_IDENTITY]
        )
        for tap in held.taps:
            basis = BASIS_ARRAYS.get(tap.codec.name, ())
            book.expect(f"{folder}/{tap.name}", ["code", *["scale"] * tap.has_scale, *basis])
        _import_column(book, cache, column, held)


def check_label(label: str, path: Path) -> str:
    """Return a teacher's label, which becomes a folder's name."""
    try:
        return check_plain_name(label)
    except ValueError as error:
        raise CacheFormatError(f"{path}: a teacher is called {label!r}: {error}; {EXPORT_AGAIN}") from None


class _Writing(io.FileIO):
    """A file that HDF5 writes through, which tells of a full disk when it is closed, and not before.

    HDF5 cannot leave a file that it could not write: it tries again while the program ends, and says so each time.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._failed: OSError | None = None

    def write(self, part: Any) -> int:
        view = memoryview(part).cast("B")
        size_bytes = len(view)
        while len(view) and self._failed is None:
            try:
                view = view[super().write(view) or 0 :]
            except OSError as error:
                self._failed = error
        return size_bytes

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._failed = error
            return size or 0

    def readinto(self, part: Any) -> int:
        got = super().readinto(part) or 0
        if self._failed is not None:  # what was not written is read back as zeros
            memoryview(part).cast("B")[got:] = bytes(len(part) - got)
            return len(part)
        return got

    def close(self) -> None:
        super().close()
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed


def _export_column(cache: Cache, column: Column, book: h5py.File) -> None:
    label = column.label
    group = book.create_group(column.folder)
    folder = cache.path / column.folder
    markers = cache.markers(column)
    group.attrs["identity"] = read_held(folder / IDENTITY, CacheDamagedError, MAKE_ANEW).decode()
    fidelity = canonical({str(block): markers[block].model_dump()["fidelity"] for block in sorted(markers)})
    group.create_dataset("fidelity.json", data=np.frombuffer(fidelity, np.uint8))
    for name, content in read_beside(folder, (totals_path(cache.path, column.folder).name, *BESIDE_IDENTITY)):
        group.create_dataset(name, data=np.frombuffer(content, np.uint8))
    for array in column.arrays:
        shape = (column.rows, *array.row_shape)
        group.create_dataset(array.path, shape, array.dtype, chunks=(1, *array.row_shape))
    for tap in {Path(array.path).parent for array in column.arrays if label}:
        for name in BASIS:
            values = folder / tap / name
            if disk.is_there(values):
                group.create_dataset(f"{tap}/{name}", data=zarr.open_array(values, mode="r")[...])
    taps = [tap for tap in cache.taps if tap.partition("/")[0] == label] if label else []
    for block in track(range(column.blocks), f"export {column.folder}", "block"):
        start, stop = column.range_of(block)
        batch = cache.gather(np.arange(start, stop), taps, pictures=not label)
        for array in column.arrays:
            group[array.path][start:stop] = batch[f"{label}/{array.path}" if label else array.path]


def _import_column(book: Book, cache: Path, column: Column, identity: PicturesIdentity | TeacherIdentity) -> None:
    create_column(cache, column, identity)
    for name in BESIDE_IDENTITY:
        if book.holds(f"{column.folder}/{name}"):
            write_once(cache / column.folder / name, [book.read_bytes(f"{column.folder}/{name}")])
    for tap in identity.taps if isinstance(identity, TeacherIdentity) else []:
        if (codec := tap.codec.name) in BASES:
            folder, channels = f"{column.folder}/{tap.name}", tap.channels
            kept = tap.codec.directions or tap.code_channels
            shapes = {
                "basis_mean": ((channels,), "float32"),
                "basis": ((channels, kept), "float32"),
                "basis_step": ((kept,), "float32"),
                "basis_bits": ((kept,), "uint8"),
                "basis_kept_variance": ((1,), "float64"),
            }
            arrays = {name: book.read(f"{folder}/{name}", *shapes[name]) for name in BASIS_ARRAYS[codec]}
            write_basis(cache / folder, codec, BASES[codec].from_arrays(arrays))
    fidelity = book.json(f"{column.folder}/fidelity.json", dict[str, dict[str, FidelitySums]])
    if fidelity.keys() != {str(block) for block in range(column.blocks)}:
        raise CacheFormatError(f"{book.path}: {column.folder}/fidelity.json: expected blocks 0 to {column.blocks - 1}")
    for block in track(range(column.blocks), f"import {column.folder}", "block"):
        rows = slice(*column.range_of(block))
        arrays = {
            array.path: book.read(f"{column.folder}/{array.path}", (column.rows, *array.row_shape), array.dtype, rows)
            for array in column.arrays
        }
        write_block(cache, column, block, arrays, None, fidelity[str(block)])
    totals = totals_path(cache, column.folder)
    if book.holds(f"{column.folder}/{totals.name}"):
        write_once(totals, [book.read_bytes(f"{column.folder}/{totals.name}")])
