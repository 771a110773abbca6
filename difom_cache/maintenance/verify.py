"""Checking a cache against its own promises, and against the teacher that filled it."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from difom_cache.base import disk
from difom_cache.base.atomic import FileDigest, digest_file
from difom_cache.base.errors import CacheDamagedError, CacheError, CacheSpaceError, CodecError
from difom_cache.base.files import explain
from difom_cache.base.options import read_call
from difom_cache.base.progress import track
from difom_cache.data.manifest import load_records
from difom_cache.data.record import refuse_other_reading
from difom_cache.extraction.requests import requests_of
from difom_cache.extraction.teachers import load_all, own_teachers
from difom_cache.maintenance.options import VerifyConfig
from difom_cache.maintenance.recompute import VIEWS, compare_live, compare_warped
from difom_cache.maintenance.rows import MEND, check_metadata, check_rows, restore_rows
from difom_cache.maintenance.verify_report import VerifyReport
from difom_cache.probing.heads import read_heads
from difom_cache.probing.run import recompute_probe
from difom_cache.store.columns import list_columns, open_codec
from difom_cache.store.consolidated import consolidate, find_stale
from difom_cache.store.identity import read_identity, read_seen_masks
from difom_cache.store.layout import (
    IDENTITY,
    PICTURES,
    Column,
    keep_metadata,
    marker_path,
    moments_path,
    shard_path,
    totals_path,
)
from difom_cache.store.ledger import list_markers, read_damaged, read_marker, write_damaged
from difom_cache.store.reader import Cache, open_cache
from difom_cache.store.schema import CacheIdentity, TeacherIdentity
from difom_cache.store.shard import read_index
from difom_cache.store.stats import read_moments
from difom_cache.store.writer import describe_column, describe_root, describe_rows

if TYPE_CHECKING:
    from difom_cache.keywords import VerifyKeywords

LOOK_AGAIN_S = 0.5  # after which what an extraction was about to write has been written


def verify(cache: str | Path | VerifyConfig, **options: "Unpack[VerifyKeywords]") -> VerifyReport:
    """Check every file of a cache against its marker; name what is damaged, and keep the list for the next extraction.

    Args:
        cache: its folder, or the config of the call.
        **options: as the signature lists them. With `recompute`, views are rendered and encoded again and compared with what is
            stored; the heads of a probe are fitted again, and their logits of as many views compared. With `equivariance`, maps
            of view 0, warped to other views by their known geometry, are compared with those views' own maps; with both,
            mirrored cached maps with live maps of mirrored pictures too.

    Raises:
        CacheFormatError: there is no cache.
        StorageError: the file system cannot say what a file holds; nothing is listed as damaged because of it.
        CacheDamagedError: `repair` where records.csv is damaged; a comparison with teachers of a damaged cache.
        CacheIncompleteError: `equivariance` of a cache of views 0 alone.
        CacheIdentityError: `data` are not those of the cache.
        EngineError: the teacher built here is not the one that filled the cache.
    """
    config = read_call(VerifyConfig, options, cache=cache)
    path, report, views = config.cache, VerifyReport(), config.recompute
    identity = read_identity(path, CacheIdentity)
    if config.repair:
        repair_skeleton(path, identity)
    report.problems += check_rows(path, identity)
    described = {**describe_root(path, identity), **describe_rows(path, identity)}
    for column in find_columns(path, identity.rows, report):
        check_column(path, column, report)
        described |= describe_column(path, column)
    report.problems += look_twice(lambda: [f"{line}; {MEND}" for line in find_stale(described)])
    keep_damaged(path, report)
    if (views or config.equivariance) and report.problems:
        raise CacheDamagedError(f"{report.problems[0]}; only a sound cache is compared with its teachers")
    if views or config.equivariance:
        opened = open_cache(path)
        if config.equivariance:
            report.warped = compare_warped(opened, views=views or VIEWS, seed=config.seed)
        if views:
            compare_columns(opened, config, report)
    return report


def compare_columns(opened: Cache, config: VerifyConfig, report: VerifyReport) -> None:
    """Compute random views of every column anew, probes first; how far what is stored lies from that goes into `report`."""
    for label, held in opened.teachers.items():
        if held.probe is not None and (not config.teacher or label in config.teacher):
            compare_probe(opened, label, report, views=config.recompute, seed=config.seed)
    requests = requests_of(opened, config.teacher, config.weights, config.device)
    records = {record.id: record for record in load_records(config.find_source())} if requests else {}
    if requests:
        own = [records[name] for name in opened.table.ids if name in records]
        refuse_other_reading(opened.identity.reading, own, opened.path)
    with own_teachers():
        load_all(requests)
        for label, request in requests.items():
            compare_live(opened, label, request, records, report, config)


def repair_skeleton(cache: Path, identity: CacheIdentity) -> None:
    """Write anew what the identities and records.csv decide: the table of rows, and all Zarr metadata.

    Raises:
        CacheDamagedError: records.csv is damaged itself.
    """
    if any(check_rows(cache, identity)):
        restore_rows(cache, identity)
    for column in find_columns(cache, identity.rows, VerifyReport()):
        for path, metadata in describe_column(cache, column).items():
            keep_metadata(path, metadata)
    consolidate(cache)


def compare_probe(cache: Cache, label: str, report: VerifyReport, *, views: int, seed: int) -> None:
    """Fit a probe again and compare; where the cache lacks what the probe read, say so."""
    probe = cache.teachers[label].probe
    lacking = sorted((probe.reads.keys() if probe else set()) - cache.teachers.keys())
    if lacking or not cache.has_pictures:
        what = f"the teachers {', '.join(lacking)}" if lacking else "the masks"
        report.notes.append(f"{label}: not recomputed, as the cache lacks {what} that this probe was made of")
        return
    report.recomputed |= recompute_probe(cache, label, views=views, seed=seed)


def keep_damaged(cache: Path, report: VerifyReport) -> None:
    """Keep the list of damaged blocks beside the cache, for its readers and the next extraction."""
    try:
        known = any(read_damaged(cache).values())
    except CacheDamagedError as error:
        report.problems.append(f"{error}; it was written anew")
        known = True
    if report.damaged or known:
        try:
            write_damaged(cache, report.damaged)
        except (CacheSpaceError, OSError):
            report.problems.append(f"{cache} cannot be written: extraction and training will not know of the damage")


def find_columns(cache: Path, rows: int, report: VerifyReport) -> list[Column]:
    """Return every column of a cache; a folder that lost its identity, or whose identity cannot be, is a problem."""
    columns = []
    for folder, column in list_columns(cache, rows):
        if isinstance(column, Column):
            columns.append(column)
        elif disk.is_there(folder / IDENTITY):
            report.problems.append(str(column))
        elif any(path.is_file() and path.name[:5] != ".tmp-" for path in folder.rglob("*")):  # else it is being made
            report.problems.append(
                f"{folder / IDENTITY}: missing; `difom-cache extract` with the same arguments writes it anew, or "
                "remove the folder"
            )
    return columns


def check_column(cache: Path, column: Column, report: VerifyReport) -> None:
    """Check every block of one column; its problems, damaged and missing blocks go into `report`."""
    report.problems += look_twice(lambda: check_metadata(describe_column(cache, column)))
    damaged, missing = [], []
    for block in track(range(column.blocks), f"verify {column.folder}", "block"):
        if not disk.is_there(marker_path(cache, column, block)):
            missing.append(block)
        elif problems := list(check_block(cache, column, block, report)):
            damaged.append(block)
            report.problems += problems
    markers = set(list_markers(cache, column).values())
    ticks = cache / column.folder / "ticks"
    for path in (ticks / name for name in disk.list_names(ticks) if not name.startswith(".")):
        if path not in markers:
            report.problems.append(f"{path}: is no marker of this column's {column.blocks} blocks; remove it")
    if damaged:
        report.damaged[column.folder] = damaged
    if missing:
        report.missing[column.folder] = missing
    if column.folder != PICTURES:
        report.problems += check_decoding(cache, column)
        report.problems += look_twice(lambda: check_statistics(cache, column, complete=not missing))


def look_twice(check: Callable[[], Iterable[str]]) -> list[str]:
    """Return what `check` says, if it still says so a moment later: an extraction at work writes one file after another."""
    said = list(check())
    if said:
        time.sleep(LOOK_AGAIN_S)
        said = [problem for problem in check() if problem in said]
    return said


def check_decoding(cache: Path, column: Column) -> Iterator[str]:
    """Yield what is wrong with the codecs of a teacher, the list of masks that it has seen, and a probe's heads."""
    folder = cache / column.folder
    identity = read_identity(folder, TeacherIdentity)
    for tap in identity.taps:
        try:
            open_codec(cache, column.label, tap)
        except (CacheError, CodecError) as error:  # nothing of a file system that cannot say
            yield str(error)
    try:
        read_seen_masks(folder, identity)
        if identity.probe is not None:
            read_heads(folder, identity.probe.head, identity.taps[0].grid)
    except FileNotFoundError as error:
        yield f"{error.filename}: missing; `difom-cache probe` with the same arguments writes it anew"
    except CacheDamagedError as error:
        yield str(error)


def check_statistics(cache: Path, column: Column, complete: bool) -> Iterator[str]:
    """Yield what is wrong with a teacher's statistics: of each block, and their sum once every block is finished."""
    totals = totals_path(cache, column.folder)
    if complete and not disk.is_there(totals):
        yield f"{totals}: missing; `difom-cache finish` sums it up"
    channels = {tap.name: tap.channels for tap in read_identity(totals.parent, TeacherIdentity).taps}
    moments = totals.parent / "moments"
    names = [name for name in disk.list_names(moments) if not name.startswith(".")]
    for path in [*(moments / name for name in names), totals]:
        try:
            held = (
                {tap: len(sums.total) for tap, sums in read_moments(path).items()} if disk.is_there(path) else channels
            )
            if held != channels:
                yield f"{path}: holds sums of {held}, the identity's taps and channels are {channels}; remove it"
        except FileNotFoundError:  # summed up a moment ago
            continue
        except CacheDamagedError as error:
            yield str(error)


def check_block(cache: Path, column: Column, block: int, report: VerifyReport) -> Iterator[str]:
    """Yield one sentence for each thing that is wrong with a marked block."""
    path = marker_path(cache, column, block)
    try:
        marker = read_marker(path)
    except CacheDamagedError as error:
        yield str(error)
        return
    if (marker.block, (marker.start, marker.stop)) != (block, column.range_of(block)):
        yield f"{path}: speaks of block {marker.block}, rows {marker.start} to {marker.stop}"
        return
    for array in column.arrays:
        shard = shard_path(cache, column, array, block)
        report.checked_files += 1
        if array.path not in marker.files:
            yield f"{path}: does not name {array.path}"
            continue
        difference = find_digest_difference(shard, marker.files[array.path])
        if difference:
            yield f"{shard}: {difference}"
        else:
            yield from check_shard(shard, column, array.dtype, marker.stop - marker.start)
    moments = moments_path(cache, column, block)
    if marker.moments is not None and disk.is_there(moments):
        difference = find_digest_difference(moments, marker.moments)
        if difference not in ("", "missing") and disk.is_there(moments):  # else summed up; a late server still lists it
            yield f"{moments}: {difference}"


def find_digest_difference(path: Path, promised: FileDigest) -> str:
    """Return what is wrong with a file that a marker names, "" where nothing is."""
    try:
        found = digest_file(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {explain(error)}"
    if found == promised:
        return ""
    return f"is not what its marker says ({found.file_bytes} bytes, marked {promised.file_bytes})"


def check_shard(shard: Path, column: Column, dtype: str, rows: int) -> Iterator[str]:
    """Yield what is wrong inside a shard whose digest is right: its index, and values that are not finite."""
    try:
        index = read_index(shard, column.block_rows)
    except CacheDamagedError as error:
        yield str(error)
        return
    if int((index[:, 0] != np.uint64(2**64 - 1)).sum()) != rows:
        yield f"{shard}: its index names other rows than the {rows} of its block"
    if dtype.startswith("float") and column.compression == "none":
        count = int(index[:rows, 1].sum()) // np.dtype(dtype).itemsize
        values = disk.ask(shard, lambda: np.fromfile(shard, dtype=dtype, count=count))
        if not np.isfinite(values).all():
            yield f"{shard}: holds values that are not finite"
