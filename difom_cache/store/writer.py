"""Writing: the skeleton of a cache, the skeleton of a column, and one finished block."""

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.base import disk
from difom_cache.base.atomic import (
    FileDigest,
    digest_file,
    keep,
    make_private_folder,
    publish_once,
    remove,
    remove_empty,
    write_once,
)
from difom_cache.base.errors import (
    CacheDamagedError,
    CacheFormatError,
    CacheIdentityError,
    CacheSpaceError,
    EngineError,
)
from difom_cache.base.text import format_rows
from difom_cache.store.identity import AnyIdentity, fix_identity, read_identity
from difom_cache.store.layout import (
    IDENTITY,
    PICTURES,
    RECORDS,
    SPLITS,
    ArraySpec,
    Column,
    array_metadata,
    flags,
    group_metadata,
    keep_metadata,
    marker_path,
    moments_path,
    shard_path,
)
from difom_cache.store.ledger import read_marker, withdraw_block, write_marker
from difom_cache.store.schema import CacheIdentity, DoneMarker, TeacherIdentity
from difom_cache.store.shard import encode_shard
from difom_cache.store.stats import Moments, pack_moments

RECORD_FIELDS = ("id", "dataset", "split", "group", "labelled", "width", "height", "image_sha256", "mask_sha256")


@dataclass(eq=False)
class RowTable:
    """Which view lies in which row; every array has one entry a row, `params` one line of integers."""

    record: NDArray[np.int32]
    view: NDArray[np.int32]
    split: NDArray[np.uint8]
    group: NDArray[np.int32]
    labelled: NDArray[np.uint8]
    params: NDArray[np.int32]


def format_records(lines: Iterable[Mapping[str, Any]]) -> bytes:
    """Return records.csv: one line for each record, in the order that rows/record counts in."""
    cells = itemgetter(*RECORD_FIELDS)
    return format_rows(RECORD_FIELDS, map(cells, lines)).encode()


_MEETINGS = 8  # with another writer of one block, until it is given up
ROWS = {  # type and dimensions of every array in rows/
    "record": ("int32", ("row",)),
    "view": ("int32", ("row",)),
    "split": ("uint8", ("row",)),
    "group": ("int32", ("row",)),
    "labelled": ("uint8", ("row",)),
    "params": ("int32", ("row", "param")),
}

_ROW_MEANINGS: dict[str, dict[str, Any]] = {
    "record": {"long_name": "line of records.csv, counted from 0", "units": "1"},
    "view": {"long_name": "number of the view; 0 is the whole frame", "units": "1"},
    "split": flags("split of the record", **{name: number for number, name in enumerate(SPLITS)})
    | {"split_names": list(SPLITS)},
    "group": {"long_name": "number that rows of one group, such as a video, share", "units": "1"},
    "labelled": flags("whether the record has a mask", no=0, yes=1),
    "params": {"long_name": "the numbers that made the view (FORMAT.md, section 7)", "units": "as its name says"},
}


def create_cache(cache: Path, identity: CacheIdentity, records: bytes, rows: RowTable) -> None:
    """Make `cache` hold everything but columns, or refuse when it is the cache of something else.

    What the identity decides and what was damaged since is written anew.

    Raises:
        CacheIdentityError: another identity lies there.
    """
    hint = "More records, other views or another picture size are another cache: choose another --cache path"
    fix_identity(cache, identity, hint=hint)
    write_skeleton(cache, identity, records, rows)


def write_skeleton(cache: Path, identity: CacheIdentity, records: bytes, rows: RowTable) -> None:
    """Make the records, the table of rows and their metadata be what the identity of `cache` decides."""
    keep(cache / RECORDS, records)
    for path, metadata in {**describe_root(cache, identity), **describe_rows(cache, identity)}.items():
        keep_metadata(path, metadata)
    for name, values in vars(rows).items():
        chunk = cache / "rows" / name / ".".join(["c", *["0"] * values.ndim])
        keep(chunk, np.ascontiguousarray(values).tobytes())


def describe_root(cache: Path, identity: CacheIdentity) -> dict[Path, bytes]:
    """Return the zarr.json of the cache's own group."""
    return {cache / "zarr.json": group_metadata({"difom_format": identity.format, "about": "see FORMAT.md"})}


def describe_rows(cache: Path, identity: CacheIdentity) -> dict[Path, bytes]:
    """Return the zarr.json of rows/ and of every array in it, by its path."""
    params = identity.plan.params
    described = {cache / "rows" / "zarr.json": group_metadata()}
    for name, (dtype, dimensions) in ROWS.items():
        shape = (identity.rows, len(params))[: len(dimensions)]
        attributes = _ROW_MEANINGS[name] | ({"param_names": params} if name == "params" else {})
        described[cache / "rows" / name / "zarr.json"] = array_metadata(shape, dtype, dimensions, attributes=attributes)
    return described


def create_column(cache: Path, column: Column, identity: AnyIdentity, *, public: bool = False) -> AnyIdentity:
    """Make `cache` ready for the blocks of `column`, or refuse when the column holds something else.

    A new folder of pictures may be entered by its owner and group alone, unless `public`: they show patients.
    """
    if column.folder == PICTURES and not public:
        make_private_folder(cache / PICTURES)
    name = Path(column.folder).name
    held = fix_identity(
        cache / column.folder,
        identity,
        hint=f"Choose another --cache path, or drop what is there with `difom-cache drop {cache} --teacher {name}`",
    )
    try:
        for path, metadata in describe_column(cache, column).items():
            keep_metadata(path, metadata)
    except CacheSpaceError:
        refuse_dropped(cache, column, held if isinstance(held, TeacherIdentity) else None)  # then its folder went
        raise
    return held


def describe_column(cache: Path, column: Column) -> dict[Path, bytes]:
    """Return the zarr.json of every group and array of a column, by its path."""
    groups = {
        Path(column.folder),
        *Path(column.folder).parents,
        *[Path(column.folder, a.path).parent for a in column.arrays],
    }
    described = {cache / group / "zarr.json": group_metadata() for group in sorted(groups - {Path()})}
    return described | {
        cache / column.folder / array.path / "zarr.json": describe_array(column, array) for array in column.arrays
    }


def describe_array(column: Column, array: ArraySpec) -> bytes:
    """Return the zarr.json of one array of a column."""
    return array_metadata(
        (column.rows, *array.row_shape),
        array.dtype,
        array.dimensions,
        shard_rows=column.block_rows,
        compression=column.compression,
        attributes=dict(array.attributes),
    )


def write_constant(folder: Path, values: NDArray[np.generic], dimensions: Sequence[str]) -> None:
    """Write a small array that belongs to a whole tap, such as a codec's basis, as one plain Zarr chunk."""
    write_once(folder / "zarr.json", [array_metadata(values.shape, str(values.dtype), dimensions)])
    write_once(folder / ".".join(["c", *["0"] * values.ndim]), [np.ascontiguousarray(values).tobytes()])


def write_block(
    cache: Path,
    column: Column,
    block: int,
    arrays: Mapping[str, NDArray[np.generic]],
    moments: dict[str, Moments] | None = None,
    fidelity: dict[str, Any] | None = None,
    *,
    identity: TeacherIdentity | None = None,
) -> DoneMarker:
    """Publish the shards of one block, then its marker.

    Two writers of one block write equal bytes on a CPU, and need not on a GPU. So a block is marked only where every file in it
    has this writer's own digest: what else lies there, of a writer that was killed or is still at work, is withdrawn,
    unless it is finished, and the block is written again.

    Args:
        cache: the cache's folder.
        column: pictures or one teacher.
        block: its number.
        arrays: rows of the block for every array of the column, by the array's path.
        moments: sums over the block's training views by tap; None for pictures.
        fidelity: mergeable sums of what the codec lost, by tap.
        identity: what the block was computed under, and the column must hold still when it is marked; None: nobody drops it.

    Returns:
        The marker that lies there: of this writer, or of one that had finished the block before.

    Raises:
        CacheIdentityError: the column was dropped meanwhile, and perhaps begun anew; nothing of the block is left in it.
        EngineError: another writer of other bytes was met again and again.
    """
    marked = False
    try:
        for attempt in range(_MEETINGS):
            refuse_dropped(cache, column, identity)
            try:
                marker = _publish_block(cache, column, block, arrays, moments, fidelity)
            except CacheSpaceError:
                refuse_dropped(cache, column, identity)  # then its folder went, and the disk is well
                raise
            marker = marker or _find_finished(cache, column, block)
            if marker is not None:
                marked = True
                refuse_dropped(cache, column, identity)
                return marker
            withdraw_block(cache, column, block)
            time.sleep(random.uniform(0, 0.1 * (attempt + 1)))  # two writers that meet part at different times
    except CacheIdentityError:
        if marked or not disk.is_there(cache / column.folder / IDENTITY):
            withdraw_block(cache, column, block)
            remove_empty(cache / column.folder)
        raise
    raise EngineError(
        f"{cache / column.folder}: another writer put other bytes into block {block} {_MEETINGS} times; "
        "let one run at a time write this column"
    )


def refuse_dropped(cache: Path, column: Column, identity: TeacherIdentity | None) -> None:
    """Raise unless a column holds what it held when this run came to it.

    Args:
        cache: the cache's folder.
        column: one teacher.
        identity: what it held; None asks nothing.

    Raises:
        CacheIdentityError: says whether it was dropped or begun anew.
    """
    if identity is None:
        return
    folder = cache / column.folder
    try:
        held: TeacherIdentity | None = read_identity(folder, TeacherIdentity)
    except CacheFormatError:
        held = None
    if held != identity:
        how = "dropped and begun anew" if held else "dropped"
        raise CacheIdentityError(f"{folder} was {how} while this run wrote into it; run the same command again")


def _publish_block(
    cache: Path,
    column: Column,
    block: int,
    arrays: Mapping[str, NDArray[np.generic]],
    moments: dict[str, Moments] | None,
    fidelity: dict[str, Any] | None,
) -> DoneMarker | None:
    """Write one block and mark it; None, and nothing is marked, where a file of other bytes lies in it."""
    start, stop = column.range_of(block)
    files: dict[str, FileDigest] = {}
    own = []
    for array in column.arrays:
        rows = arrays[array.path]
        if rows.shape != (stop - start, *array.row_shape) or rows.dtype != array.dtype:
            raise ValueError(
                f"{array.path}: got {rows.shape} {rows.dtype}, the column has {array.row_shape} {array.dtype}"
            )
        path = shard_path(cache, column, array, block)
        files[array.path], lies_there = publish_once(path, encode_shard(rows, column.block_rows, column.compression))
        if not lies_there:
            return None
        own.append(path)
    digest = None
    if moments is not None:
        path = moments_path(cache, column, block)
        digest, lies_there = publish_once(path, [pack_moments(moments)])
        if not lies_there:
            return None
        own.append(path)
    marker = DoneMarker(block=block, start=start, stop=stop, files=files, moments=digest, fidelity=fidelity or {})
    before = [_identify(path) for path in own]
    write_marker(cache, column, marker)
    held = _read_or_none(cache, column, block)
    if held is not None and (held.files, held.moments) != (marker.files, marker.moments):
        return None
    if None in before or before != [_identify(path) for path in own]:  # withdrawn by another writer meanwhile
        remove(marker_path(cache, column, block))
        return None
    return marker


def _find_finished(cache: Path, column: Column, block: int) -> DoneMarker | None:
    """Return the marker of a block that another writer has finished, whole; None where there is none."""
    marker = _read_or_none(cache, column, block)
    if marker is None or (marker.start, marker.stop) != column.range_of(block):
        return None
    try:
        found = {array.path: digest_file(shard_path(cache, column, array, block)) for array in column.arrays}
    except OSError:
        return None
    return marker if found == marker.files else None


def _read_or_none(cache: Path, column: Column, block: int) -> DoneMarker | None:
    try:
        return read_marker(marker_path(cache, column, block))
    except CacheDamagedError:
        return None


def _identify(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one that took its name."""
    found = disk.find(path)
    return found and (found.st_ino, found.st_mtime_ns)
