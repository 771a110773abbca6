"""Checking a cache against its own promises, and against the teacher that filled it."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from tqdm import tqdm

from difom_cache.data.manifest import load_records
from difom_cache.errors import CacheDamagedError, CacheSpaceError
from difom_cache.maintenance.recompute import compare_live, orders_of
from difom_cache.maintenance.verify_report import VerifyReport
from difom_cache.store.atomic import digest_file
from difom_cache.store.layout import PICTURES, RECORDS, Column, marker_path, shard_path, totals_path
from difom_cache.store.ledger import read_damaged, read_marker, write_damaged
from difom_cache.store.reader import Cache, open_cache
from difom_cache.store.shard import read_index
from difom_cache.store.stats import read_moments
from difom_cache.store.writer import describe_array


def verify(
    cache: str | Path,
    *,
    recompute: int = 0,
    equivariance: bool = False,
    data: str | Path = "./data",
    teacher: Sequence[str] = (),
    weights: str = "hub",
    device: str = "cpu",
    seed: int = 0,
    unlabelled: bool = False,
) -> VerifyReport:
    """Check every file of a cache against its marker; name what is damaged, and keep the list for the next extraction.

    Args:
        cache: its folder.
        recompute: so many random views are rendered and encoded again and compared with what is stored.
        equivariance: also compare mirrored cached maps with maps of mirrored pictures.
        data: where the pictures are, for the two options above.
        teacher: how to build the teachers (`NAME[:VARIANT][@PX]`); by default as their identities say.
        weights: of those teachers.
        device: they run on.
        seed: of the choice of views.
        unlabelled: pictures without a mask are meant.

    Raises:
        CacheFormatError: there is no cache.
        CacheIdentityError: `data` are not those of the cache.
        EngineError: the teacher built here is not the one that filled the cache.
    """
    opened, report = open_cache(cache), VerifyReport()
    check_table(opened, report)
    for column in opened.columns():
        check_column(opened, column, report)
    known = {folder: blocks for folder, blocks in read_damaged(opened.path).items() if blocks}
    if report.damaged or known:
        try:
            write_damaged(opened.path, report.damaged)
        except CacheSpaceError:
            report.problems.append(
                f"{opened.path} cannot be written: extraction and training will not know of the damage"
            )
    if recompute or equivariance:
        records = {r.id: r for r in load_records(Path(data), unlabelled=unlabelled)}
        for order in orders_of(opened, teacher, weights, device):
            compare_live(opened, order, records, report, views=recompute or 16, seed=seed, mirror=equivariance)
    return report


def check_table(cache: Cache, report: VerifyReport) -> None:
    """Compare the table of records and rows with the cache's identity."""
    held = sha256((cache.path / RECORDS).read_bytes()).hexdigest()
    if held != cache.identity["records_sha256"]:
        report.problems.append(
            f"{cache.path / RECORDS}: its digest is not the identity's; copy it again from another copy"
        )
    if int(cache.table.record.max(initial=-1)) + 1 != cache.identity["records"]:
        report.problems.append(
            f"{cache.path / 'rows'}: names other records than the {cache.identity['records']} of the identity"
        )


def check_column(cache: Cache, column: Column, report: VerifyReport) -> None:
    """Check every block of one column; its problems, damaged and missing blocks go into `report`."""
    for array in column.arrays:
        path = cache.path / column.folder / array.path / "zarr.json"
        if not path.exists() or path.read_bytes() != describe_array(column, array):
            report.problems.append(
                f"{path}: is not what the identity says; `difom-cache extract` writes it where it is missing"
            )
    damaged, missing = [], []
    for block in tqdm(range(column.blocks), desc=f"verify {column.folder}", unit="block", disable=None):
        if not marker_path(cache.path, column, block).exists():
            missing.append(block)
            continue
        problems = list(check_block(cache.path, column, block, report))
        if problems:
            damaged.append(block)
            report.problems += problems
    if damaged:
        report.damaged[column.folder] = damaged
    if missing:
        report.missing[column.folder] = missing
    if column.folder != PICTURES:
        report.problems += check_statistics(cache.path, column, complete=not missing)


def check_statistics(cache: Path, column: Column, complete: bool) -> Iterator[str]:
    """Yield what is wrong with a teacher's statistics: of each block, and their sum once every block is finished."""
    totals = totals_path(cache, column.folder)
    if complete and not totals.exists():
        yield f"{totals}: missing; `difom-cache finish` sums it up"
    for path in [*sorted(totals.parent.glob("moments/*.safetensors")), totals]:
        try:
            if path.exists():
                read_moments(path)
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
    for array in column.arrays:
        shard = shard_path(cache, column, array, block)
        report.checked_files += 1
        if array.path not in marker.files:
            yield f"{path}: does not name {array.path}"
        elif not shard.exists():
            yield f"{shard}: missing"
        elif digest_file(shard) != marker.files[array.path]:
            sizes = f"{shard.stat().st_size} bytes, marked {marker.files[array.path].file_bytes}"
            yield f"{shard}: is not what its marker says ({sizes})"
        else:
            yield from check_rows(shard, column, array.dtype, marker.stop - marker.start)


def check_rows(shard: Path, column: Column, dtype: str, rows: int) -> Iterator[str]:
    """Yield what is wrong inside a shard whose digest is right: its index, and values that are not finite."""
    try:
        index = read_index(shard, column.block_rows)
    except CacheDamagedError as error:
        yield str(error)
        return
    if int((index[:, 0] != np.uint64(2**64 - 1)).sum()) != rows:
        yield f"{shard}: its index names other rows than the {rows} of its block"
    if dtype.startswith("float") and column.compression == "none":
        values = np.fromfile(shard, dtype=dtype, count=int(index[:rows, 1].sum()) // np.dtype(dtype).itemsize)
        if not np.isfinite(values).all():
            yield f"{shard}: holds values that are not finite"
