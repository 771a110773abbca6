"""Checking a cache against its own promises, and against the teacher that filled it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from difom_cache.data.manifest import Record, load_records
from difom_cache.errors import CacheDamagedError, CacheFormatError, CacheIdentityError, CacheSpaceError
from difom_cache.extraction.blocks import (
    BlockJob,
    TeacherOrderLine,
    ViewJob,
    assert_same_teacher,
    load_teacher,
    read_frame,
    render,
    torch_threads,
)
from difom_cache.store.atomic import digest_file
from difom_cache.store.layout import PICTURES, RECORDS, Column, marker_path, shard_path, totals_path
from difom_cache.store.ledger import read_damaged, read_marker, write_damaged
from difom_cache.store.reader import Cache, open_cache
from difom_cache.store.shard import read_index
from difom_cache.store.stats import read_moments
from difom_cache.store.writer import describe_array
from difom_cache.teachers.pooling import area_pool
from difom_cache.views.params import ViewParams


@dataclass
class VerifyReport:
    """What was found: problems as sentences, damaged and missing blocks by column folder, comparisons by tap."""

    checked_files: int = 0
    problems: list[str] = field(default_factory=list)
    damaged: dict[str, list[int]] = field(default_factory=dict)
    missing: dict[str, list[int]] = field(default_factory=dict)
    recomputed: dict[str, dict[str, float]] = field(default_factory=dict)
    mirrored: dict[str, float] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether nothing was found damaged; missing blocks are no damage."""
        return not self.problems


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


def orders_of(cache: Cache, specs: Sequence[str], weights: str, device: str) -> list[TeacherOrderLine]:
    """Return how to build the teachers of a cache again."""
    orders = []
    for label, identity in cache.teachers.items():
        held = identity["teacher"]
        spec = next((s for s in specs if s.partition(":")[0].partition("@")[0] == held["name"]), None)
        if specs and spec is None:
            continue
        orders.append(
            TeacherOrderLine(
                spec=spec or f"{held['name']}:{held['variant']}@{held['input_px']}",
                weights=weights,
                taps=tuple(tap["name"] for tap in identity["taps"]) if label == held["name"] else None,
                strides=None,
                device=device,
                precision=held["precision"],
                picture_px=cache.picture_px,
            )
        )
    if not orders:
        raise CacheFormatError(
            f"{cache.path} holds none of the teachers {', '.join(specs)}; it has {', '.join(cache.teachers)}"
        )
    return orders


def compare_live(
    cache: Cache,
    order: TeacherOrderLine,
    records: dict[str, Record],
    report: VerifyReport,
    *,
    views: int,
    seed: int,
    mirror: bool,
) -> None:
    """Encode random views again and compare them with their targets; the figures go into `report`, by tap."""
    teacher = load_teacher(order)
    label, identity = teacher.spec.label, cache.teachers[teacher.spec.label]
    assert_same_teacher(identity, teacher, BlockJob(cache.path, f"teachers/{label}", 0, len(cache), (), order))
    rows = np.random.default_rng(seed).permutation(len(cache))[:views]
    jobs = [view_of(cache, int(row), records) for row in rows]
    batch, device = identity["batch"], torch.device(order.device)
    cosines: dict[str, list[Tensor]] = {}
    errors: dict[str, list[float]] = {}
    mirrored: dict[str, list[Tensor]] = {}
    with torch_threads(identity["threads"]):
        for start in tqdm(range(0, len(jobs), batch), desc=f"recompute {label}", unit="batch", disable=None):
            part = jobs[start : start + batch]
            frames = [read_frame(job.record, masks=False) for job in part]
            pixels = render(part, frames, teacher.spec.input_px, batch, device)
            live = teacher.features(pixels)
            flipped = teacher.features(pixels.flip(-1)) if mirror else {}
            stored = cache.gather(
                rows[start : start + batch], [f"{label}/{tap['name']}" for tap in identity["taps"]], pictures=False
            )
            for request, tap in zip(teacher.spec.taps, identity["taps"], strict=True):
                name = f"{label}/{tap['name']}"
                target = torch.from_numpy(cache.decode(name, stored[f"{name}/code"], stored.get(f"{name}/scale")))
                feature = area_pool(live[request.native], tap["grid"])[: len(part)].cpu()
                cosines.setdefault(name, []).append(mean_removed_cosine(feature, target))
                errors.setdefault(name, []).append(float((feature - target).abs().max()))
                if mirror:
                    other = area_pool(flipped[request.native], tap["grid"])[: len(part)].cpu()
                    mirrored.setdefault(name, []).append(mean_removed_cosine(other, target.flip(-1)))
    for name, parts in cosines.items():
        cosine = torch.cat(parts)
        report.recomputed[name] = {
            "views": float(len(jobs)),
            "cosine_mean": float(cosine.mean()),
            "cosine_percentile_1": float(cosine.quantile(0.01)),
            "max_error": max(errors[name]),
        }
    report.mirrored |= {name: float(torch.cat(parts).mean()) for name, parts in mirrored.items()}


def view_of(cache: Cache, row: int, records: dict[str, Record]) -> ViewJob:
    """Return the view in a row with the record it was made of.

    Raises:
        CacheIdentityError: the data given lack the record, or hold another picture under its name.
    """
    line = cache.table.records[cache.table.record[row]]
    record = records.get(line["id"])
    if record is None:
        raise CacheIdentityError(
            f"{cache.path} holds record {line['id']}, which --data lack; give the data it was made of"
        )
    if record.image_sha256 != line["image_sha256"]:
        raise CacheIdentityError(
            f"{record.image} is not the picture that {cache.path} was made of: held {line['image_sha256'][:12]}, "
            f"found {record.image_sha256[:12]}"
        )
    return ViewJob(
        record, ViewParams.from_row(cache.table.params[row]), line["split"] == "train", int(cache.table.view[row])
    )


def mean_removed_cosine(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine of every position (B*h*w,) of two maps (B, C, h, w), each about `one`'s mean over its positions."""
    mean = one.mean((2, 3), keepdim=True)
    return functional.cosine_similarity(one - mean, other - mean, dim=1).flatten()


def format_report(report: VerifyReport) -> str:
    """Return what was found, a line each."""
    lines = [*report.problems]
    for folder, blocks in report.missing.items():
        lines.append(
            f"{folder}: {len(blocks)} blocks are not there yet; `difom-cache extract` with the same arguments makes them"
        )
    for name, figures in report.recomputed.items():
        lines.append(
            f"{name}: stored against live over {figures['views']:.0f} views: cosine {figures['cosine_mean']:.6f}, "
            f"1st percentile {figures['cosine_percentile_1']:.6f}, largest error {figures['max_error']:.3g}"
        )
    for tap, cosine in report.mirrored.items():
        lines.append(f"{tap}: a mirrored cached map against the map of the mirrored picture: cosine {cosine:.4f}")
    if report.damaged:
        named = ", ".join(f"{folder} {numbers}" for folder, numbers in report.damaged.items())
        lines.append(f"damaged blocks: {named}; `difom-cache extract` with the same arguments makes just those anew")
    lines.append(
        f"{report.checked_files} files checked, {'sound' if report.sound else f'{len(report.problems)} problems'}"
    )
    return "\n".join(lines)


def as_json(report: VerifyReport) -> dict[str, Any]:
    """Return the report for a program to read."""
    return {**vars(report), "sound": report.sound}
