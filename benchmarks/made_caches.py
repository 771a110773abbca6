"""Caches without a teacher: of random numbers in the layout of a real one, for reading; of black images, for bookkeeping."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache import Cache, Record
from difom_cache.base.progress import track
from difom_cache.codecs import build_codec
from difom_cache.extraction import prepare_pictures, start_cache
from difom_cache.store import (
    ArraySpec,
    CacheIdentity,
    Column,
    Identity,
    PicturesIdentity,
    RowTable,
    TapSpec,
    TeacherIdentity,
    choose_block_rows,
    create_cache,
    create_column,
    describe_tap,
    format_records,
    pictures_column,
    read_markers,
    teacher_column,
    write_block,
)
from difom_cache.views import COLUMNS, ViewPlan

_LABEL = "random"


def write_random_cache(
    path: Path, *, views: int, taps: int = 3, channels: int = 256, grid: int = 22, picture_px: int = 352, seed: int = 0
) -> Cache:
    """Fill `path` with pictures, masks and int8 taps of random numbers, and return it opened; go on where it stopped.

    Args:
        path: of the cache.
        views: rows; each is a training record's view 0.
        taps: of the one made-up teacher.
        channels: of each tap.
        grid: cells along a tap's side.
        picture_px: side of the pictures.
        seed: of the numbers.

    Raises:
        CacheIdentityError: another cache lies there.
    """
    stride = picture_px / grid
    specs = [
        TapSpec(f"{_LABEL}/tap{each}@{stride:g}", "feature", channels, grid, stride, "int8") for each in range(taps)
    ]
    shared: dict[str, Any] = {"compression": "none", "libraries": {}}
    pictures = PicturesIdentity.build(
        picture_px=picture_px, pads=False, block_rows=choose_block_rows(views, 3 * picture_px**2, 1), **shared
    )
    teacher = TeacherIdentity.build(
        teacher={"name": _LABEL, "variant": str(seed), "input_px": picture_px, "weights_digest": "0" * 64}
        | {"precision": "float32", "libraries": {}, "seed": seed},
        device="cpu",
        batch=1,
        threads=1,
        taps=[describe_tap(spec, build_codec(spec.codec, spec.channels)) for spec in specs],
        block_rows=choose_block_rows(views, channels * grid**2, 1),
        **shared,
    )
    _write_rows(path, views, picture_px)
    _fill(path, pictures_column(pictures, views), pictures, seed)
    _fill(path, teacher_column(teacher, _LABEL, views), teacher, seed)
    return Cache(path)


def _write_rows(path: Path, views: int, picture_px: int) -> None:
    numbers = np.arange(views, dtype=np.int32)
    zeros, small = np.zeros(views, np.int32), np.zeros(views, np.uint8)
    plan = ViewPlan(numbers, zeros, np.zeros((views, len(COLUMNS)), np.int32), _LABEL, 0)
    table = RowTable(numbers, zeros, small, numbers, small + 1, plan.params)
    fields = {
        "dataset": _LABEL,
        "split": "train",
        "group": "",
        "labelled": 1,
        "width": picture_px,
        "height": picture_px,
    }
    digests = {"image_sha256": "0" * 64, "mask_sha256": "0" * 64}
    records = format_records([{"id": f"{_LABEL}/{number:07d}"} | fields | digests for number in range(views)])
    identity = CacheIdentity.build(
        replay=1,
        picture_px=picture_px,
        rows=views,
        records=views,
        records_sha256=sha256(records).hexdigest(),
        plan={"policy": _LABEL, "seed": 0, "views": 1, "digest": plan.digest(), "params": list(COLUMNS)},
    )
    create_cache(path, identity, records, table)


def _fill(path: Path, column: Column, identity: Identity, seed: int) -> None:
    create_column(path, column, identity)
    finished = Cache(path).markers(column)
    blocks = [block for block in range(column.blocks) if block not in finished]
    for block in track(blocks, f"random {Path(column.folder).name}", "block"):
        start, stop = column.range_of(block)
        rng = np.random.default_rng([seed, block])
        write_block(path, column, block, {each.path: _draw(rng, stop - start, each) for each in column.arrays})


def _draw(rng: np.random.Generator, rows: int, array: ArraySpec) -> NDArray[np.generic]:
    shape = (rows, *array.row_shape)
    if array.dtype == "float32":
        return rng.uniform(0.5, 2.0, shape).astype(np.float32)
    if array.path == "mask":
        return rng.integers(0, 2, shape, np.uint8)
    raw = rng.integers(0, 256, shape, np.uint8)
    return np.maximum(raw.view(np.int8), -127) if array.dtype == "int8" else raw


def write_blank_cache(path: Path, records: Sequence[Record], plan: ViewPlan, *, views: int, picture_px: int) -> Cache:
    """Fill `path` as `extract` would without a teacher, but with black pictures, and return it; go on where it stopped.

    Args:
        path: of the cache.
        records: of the manifest.
        plan: their views, none of which leaves its frame.
        views: of each training record, as the plan was drawn.
        picture_px: side of the pictures.

    Raises:
        CacheIdentityError: another cache lies there.
    """
    start_cache(path, records, plan, views=views, picture_px=picture_px)
    column = prepare_pictures(path, picture_px=picture_px, pads=False, rows=len(plan), dry=False).column
    finished = read_markers(path, column)
    for block in (each for each in range(column.blocks) if each not in finished):
        start, stop = column.range_of(block)
        arrays = {each.path: np.zeros((stop - start, *each.row_shape), each.dtype) for each in column.arrays}
        write_block(path, column, block, arrays)
    return Cache(path)
