"""A whole cache as one HDF5 file, and back, bit for bit. Plain h5py reads the file (FORMAT.md, section 1)."""

import json
from pathlib import Path

import h5py
import numpy as np
import zarr
from tqdm import tqdm

from difom_cache.errors import CacheFormatError, CacheIncompleteError, CacheSpaceError
from difom_cache.store.atomic import draft_of, write_once
from difom_cache.store.columns import pictures_column, teacher_column
from difom_cache.store.identity import Identity
from difom_cache.store.layout import FORMAT_VERSION, PICTURES, RECORDS, Column, canonical, totals_path
from difom_cache.store.reader import Cache, open_cache
from difom_cache.store.writer import RowTable, create_cache, create_column, write_block, write_constant

BASIS = ("basis_mean", "basis", "basis_kept_variance")


def export_hdf5(cache: str | Path, file: str | Path) -> None:
    """Write every array of a complete cache into one HDF5 file, under the names that it has in the cache.

    Raises:
        CacheIncompleteError: blocks are missing.
        CacheSpaceError: the file exists, or cannot be written.
    """
    opened, path = open_cache(cache), Path(file)
    if path.exists():
        raise CacheSpaceError(f"{path} exists; choose another file, or remove it")
    for column in opened.columns():
        missing = column.blocks - len(opened.markers(column))
        if missing:
            raise CacheIncompleteError(
                f"{opened.path / column.folder}: {missing} blocks are missing; run `difom-cache extract` first"
            )
    try:
        with draft_of(path) as draft, h5py.File(draft, "w") as book:
            book.attrs["identity"] = canonical(opened.identity).decode()
            book.create_dataset(RECORDS, data=np.frombuffer((opened.path / RECORDS).read_bytes(), np.uint8))
            for name, values in vars(opened.table.as_rows()).items():
                book.create_dataset(f"rows/{name}", data=values)
            for column in opened.columns():
                _export_column(opened, column, book)
    except OSError as error:  # HDF5's own, without a code
        raise CacheSpaceError(f"cannot write {path}: {error}; make room and run the same command again") from None


def import_hdf5(file: str | Path, cache: str | Path) -> None:
    """Make `cache` the cache that was exported to `file`: equal bytes, equal content digest.

    Raises:
        CacheFormatError: the file is no exported cache, or of another format version.
        CacheIdentityError: `cache` holds something else.
    """
    path, folder = Path(file), Path(cache)
    try:
        book = h5py.File(path, "r")
    except OSError as error:
        raise CacheFormatError(f"{path} cannot be opened as HDF5: {error}") from None
    with book:
        if "identity" not in book.attrs:
            raise CacheFormatError(f"{path} is no cache exported by `difom-cache export`: it has no identity")
        identity: Identity = json.loads(str(book.attrs["identity"]))
        if identity["format"] != FORMAT_VERSION:
            raise CacheFormatError(
                f"{path} is of format version {identity['format']}, this difom reads version {FORMAT_VERSION}"
            )
        rows = RowTable(**{name: np.asarray(values) for name, values in book["rows"].items()})
        create_cache(folder, identity, bytes(book[RECORDS][...]), rows, identity["plan"]["params"])
        if PICTURES in book:
            held = json.loads(str(book[PICTURES].attrs["identity"]))
            _import_column(book, folder, pictures_column(held, identity["rows"]), held)
        for label, group in book.get("teachers", {}).items():
            held = json.loads(str(group.attrs["identity"]))
            _import_column(book, folder, teacher_column(held, label, identity["rows"]), held)


def _export_column(cache: Cache, column: Column, book: h5py.File) -> None:
    label = column.folder.partition("/")[2]
    group = book.create_group(column.folder)
    identity = (cache.path / column.folder / "identity.json").read_text()
    markers = cache.markers(column)
    group.attrs["identity"] = identity
    fidelity = canonical({str(block): markers[block].fidelity for block in sorted(markers)})
    group.create_dataset("fidelity.json", data=np.frombuffer(fidelity, np.uint8))
    totals = totals_path(cache.path, column.folder)
    if totals.exists():
        group.create_dataset(totals.name, data=np.frombuffer(totals.read_bytes(), np.uint8))
    for array in column.arrays:
        shape = (column.rows, *array.row_shape)
        group.create_dataset(array.path, shape, array.dtype, chunks=(1, *array.row_shape))
    for tap in {Path(array.path).parent for array in column.arrays if label}:
        for name in BASIS:
            values = cache.path / column.folder / tap / name
            if values.exists():
                group.create_dataset(f"{tap}/{name}", data=zarr.open_array(values, mode="r")[...])
    taps = [tap for tap in cache.taps if tap.partition("/")[0] == label] if label else []
    for block in tqdm(range(column.blocks), desc=f"export {column.folder}", unit="block", disable=None):
        start, stop = column.range_of(block)
        batch = cache.gather(np.arange(start, stop), taps, pictures=not label)
        for array in column.arrays:
            group[array.path][start:stop] = batch[f"{label}/{array.path}" if label else array.path]


def _import_column(book: h5py.File, cache: Path, column: Column, identity: Identity) -> None:
    group = book[column.folder]
    create_column(cache, column, identity)
    for tap in {str(Path(array.path).parent) for array in column.arrays} - {"."}:
        for name in BASIS:
            if f"{tap}/{name}" in group:
                dimensions = {"basis_mean": ("channel",), "basis": ("channel", "direction")}.get(name, ("one",))
                write_constant(cache / column.folder / tap / name, np.asarray(group[f"{tap}/{name}"]), dimensions)
    fidelity = json.loads(bytes(group["fidelity.json"][...]))
    for block in tqdm(range(column.blocks), desc=f"import {column.folder}", unit="block", disable=None):
        rows = slice(*column.range_of(block))
        arrays = {array.path: np.asarray(group[array.path][rows]) for array in column.arrays}
        write_block(cache, column, block, arrays, None, fidelity[str(block)])
    totals = totals_path(cache, column.folder)
    if totals.name in group:
        write_once(totals, [bytes(group[totals.name][...])])
