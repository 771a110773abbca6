"""Small caches written block by block from random numbers: everything that lies on disk, and no teacher."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache import Cache, Record
from difom_cache.codecs import build_codec
from difom_cache.store import (
    FORMAT_VERSION,
    CacheIdentity,
    Column,
    Moments,
    PicturesIdentity,
    RowTable,
    TapSpec,
    TeacherIdentity,
    create_cache,
    create_column,
    describe_tap,
    format_records,
    pictures_column,
    teacher_column,
    write_block,
)
from difom_cache.views import COLUMNS, ViewPlan, draw_plan

PARAM_NAMES = COLUMNS
EMPTY_MASK_ROW, NO_MASK_ROW, ZERO_MAP_ROW = 3, 4, 6
"""Rows with an empty mask, without a mask, and with a map and picture that are zero everywhere."""


PERFECT = {
    "squared_error": 0.0,
    "squares": 1.0,
    "squares_about_mean": 1.0,
    "cosine_distance": 0.0,
    "histogram": {"0": 1},
}


@dataclass(frozen=True)
class SmallCache:
    """What was written: the folder, the columns, and every array whole, by the key that `gather` uses."""

    path: Path
    columns: dict[str, Column]
    arrays: dict[str, NDArray[Any]]

    @property
    def rows(self) -> int:
        return self.columns["pictures"].rows


@dataclass(frozen=True)
class Shape:
    """How a small cache is cut: `records` training records of two views and two validation records of one."""

    records: int = 6
    block_rows: int = 4
    picture_px: int = 8
    channels: int = 3
    grid: int = 4
    compression: str = "none"
    pads: bool = False

    @property
    def rows(self) -> int:
        return 2 * self.records + 2


DEFAULT = Shape()


def lines_of(shape: Shape = DEFAULT) -> list[dict[str, Any]]:
    """Return the lines of a small cache's records.csv; one training record has no mask."""
    return [
        {"id": f"set/{i}", "dataset": "set", "split": "train" if i < shape.records else "val", "group": ""}
        | {"labelled": int(i != NO_MASK_ROW // 2), "width": 8, "height": 8, "image_sha256": f"{i:064d}"}
        | {"mask_sha256": "" if i == NO_MASK_ROW // 2 else f"{i:064d}"}
        for i in range(shape.records + 2)
    ]


@cache
def plan_of(shape: Shape = DEFAULT) -> ViewPlan:
    """Return the views of a small cache."""
    records = [
        Record(line["id"], "set", line["split"], Path(), None, 8, 8, line["image_sha256"], "", "")
        for line in lines_of(shape)
    ]
    return draw_plan(records, views=2, seed=0)


def identity_of(shape: Shape = DEFAULT, **changed: Any) -> dict[str, Any]:
    """Return the identity of a small cache."""
    return {
        "format": FORMAT_VERSION,
        "replay": 1,
        "picture_px": shape.picture_px,
        "rows": shape.rows,
        "records": shape.records + 2,
        "records_sha256": sha256(format_records(lines_of(shape))).hexdigest(),
        "plan": {"policy": "default", "seed": 0, "views": 2, "digest": plan_of(shape).digest()}
        | {"params": list(PARAM_NAMES)},
    } | changed


def pictures_identity(shape: Shape = DEFAULT) -> dict[str, Any]:
    """Return the identity of a small cache's pictures."""
    return {
        "format": FORMAT_VERSION,
        "picture_px": shape.picture_px,
        "pads": shape.pads,
        "block_rows": shape.block_rows,
        "compression": shape.compression,
        "libraries": {},
    }


def teacher_identity(shape: Shape = DEFAULT, label: str = "one", **changed: Any) -> dict[str, Any]:
    """Return the identity of a made-up teacher with an int8 tap and a float16 tap of logits."""
    taps = [
        TapSpec(f"{label}/block1@2", "feature", shape.channels, shape.grid, shape.picture_px / shape.grid, "int8"),
        TapSpec(f"{label}/logits@2", "logits", 1, shape.grid, shape.picture_px / shape.grid, "float16"),
    ]
    return {
        "format": FORMAT_VERSION,
        "teacher": {"name": label, "variant": "small", "input_px": 8, "weights_digest": "a" * 64}
        | {"precision": "float32", "libraries": {}},
        "taps": [describe_tap(tap, build_codec(tap.codec, tap.channels)) for tap in taps],
        "block_rows": shape.block_rows,
        "compression": shape.compression,
        "device": "cpu",
        "batch": 2,
        "threads": 1,
        "libraries": {},
    } | changed


def start_small_cache(path: Path, shape: Shape = DEFAULT) -> dict[str, Column]:
    """Make a cache whose identities and rows are there and whose blocks are not; return its columns."""
    record = np.concatenate([np.repeat(np.arange(shape.records), 2), [shape.records, shape.records + 1]])
    view = np.concatenate([np.tile([0, 1], shape.records), [0, 0]])
    split = (record >= shape.records).astype(np.uint8)
    labelled = np.ones(shape.rows, np.uint8)
    labelled[record == record[NO_MASK_ROW]] = 0
    params, group = plan_of(shape).params, record.astype(np.int32)
    table = RowTable(group, view.astype(np.int32), split, group, labelled, params)
    create_cache(path, CacheIdentity.build(**identity_of(shape)), format_records(lines_of(shape)), table)
    pictures = PicturesIdentity.build(**pictures_identity(shape))
    teacher = TeacherIdentity.build(**teacher_identity(shape))
    columns = {
        "pictures": pictures_column(pictures, shape.rows),
        "teachers/one": teacher_column(teacher, "one", shape.rows),
    }
    create_column(path, columns["pictures"], pictures)
    create_column(path, columns["teachers/one"], teacher)
    return columns


def draw_arrays(shape: Shape = DEFAULT, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return what a small cache holds, by the key that `gather` uses."""
    rng, rows, px = np.random.default_rng(seed), shape.rows, shape.picture_px
    arrays: dict[str, NDArray[Any]] = {
        "image": rng.integers(0, 256, (rows, px, px, 3), np.uint8),
        "mask": rng.integers(0, 2, (rows, px, px), np.uint8),
        "one/block1@2/code": rng.integers(-127, 128, (rows, shape.channels, shape.grid, shape.grid), np.int8),
        "one/block1@2/scale": rng.uniform(0.5, 2.0, (rows, shape.channels)).astype(np.float32),
        "one/logits@2/code": rng.normal(size=(rows, 1, shape.grid, shape.grid)).astype(np.float16),
    }
    arrays["mask"][EMPTY_MASK_ROW] = 0
    arrays["mask"][NO_MASK_ROW] = 255
    arrays["image"][ZERO_MAP_ROW] = 0
    arrays["one/block1@2/code"][ZERO_MAP_ROW] = 0
    arrays["one/logits@2/code"][ZERO_MAP_ROW] = 0
    if shape.pads:
        arrays["valid"] = rng.integers(0, 2, (rows, px, px), np.uint8)
    return arrays


def write_small_block(path: Path, column: Column, block: int, arrays: dict[str, NDArray[Any]], train_rows: int) -> None:
    """Write one block of a small cache with its statistics, as an extraction would.

    Args:
        path: the cache's folder.
        column: pictures or the teacher "one".
        block: its number.
        arrays: from `draw_arrays`.
        train_rows: rows before this one are training views.
    """
    start, stop = column.range_of(block)
    if column.folder == "pictures":
        write_block(path, column, block, {a.path: arrays[a.path][start:stop] for a in column.arrays})
        return
    part = {a.path: arrays[f"one/{a.path}"][start:stop] for a in column.arrays}
    moments, fidelity = {}, {}
    for tap in ("block1@2", "logits@2"):
        target = part[f"{tap}/code"].astype(np.float32)
        if f"{tap}/scale" in part:
            target *= part[f"{tap}/scale"][:, :, None, None]
        moments[tap] = moments_of(target[: max(0, train_rows - start)])
        fidelity[tap] = PERFECT | {"positions": float(target[:, 0].size), "histogram": {"0": target[:, 0].size}}
    write_block(path, column, block, part, moments, fidelity)


def moments_of(target: NDArray[np.float32]) -> Moments:
    """Return the sums over all cells of `target` (B, C, h, w)."""
    cells = target.transpose(0, 2, 3, 1).reshape(-1, target.shape[1]).astype(np.float64)
    return Moments(len(cells), cells.sum(0), cells.T @ cells)


def write_small_cache(path: Path, shape: Shape = DEFAULT, *, leave_out: tuple[int, ...] = ()) -> SmallCache:
    """Write a whole small cache, less the teacher's blocks in `leave_out`."""
    columns, arrays = start_small_cache(path, shape), draw_arrays(shape)
    for folder, column in columns.items():
        for block in range(column.blocks):
            if folder == "pictures" or block not in leave_out:
                write_small_block(path, column, block, arrays, 2 * shape.records)
    return SmallCache(path, columns, arrays)


def gathers_right(cache: Cache, arrays: dict[str, NDArray[Any]], seed: int) -> bool:
    """Return whether random batches hold what `arrays` says; at module level, so that workers can be sent it."""
    rng = np.random.default_rng(seed)
    for _ in range(5):
        rows = rng.integers(0, len(cache), 5)
        batch = cache.gather(rows)
        if not all(np.array_equal(batch[key], whole[rows]) for key, whole in arrays.items()):
            return False
    return True
