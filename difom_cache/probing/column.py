"""The column of a probe: its identity, what lies beside it, and its blocks."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from difom_cache.base import disk
from difom_cache.base.errors import CacheIncompleteError, CodecError
from difom_cache.codecs.catalogue import build_codec
from difom_cache.codecs.measure import measure_fidelity
from difom_cache.extraction.cells import sum_cells, to_moments
from difom_cache.probing.cells import READ_ROWS, FeatureReader, chunks, valid_cells
from difom_cache.probing.heads import KINDS, Heads
from difom_cache.probing.plan import NAME, ProbePlan
from difom_cache.store.columns import describe_tap
from difom_cache.store.identity import content_digest, digest_identity, read_identity
from difom_cache.store.layout import IDENTITY, Column, TapSpec, choose_block_rows, teacher_folder
from difom_cache.store.reader import Cache
from difom_cache.store.schema import TeacherIdentity
from difom_cache.store.writer import write_block

CODEC = "float16"  # as all logits (FORMAT.md, section 4)


def identify_probe(cache: Cache, home: Path, plan: ProbePlan, *, fitted_views: int) -> TeacherIdentity:
    """Return the identity of a probe's column in the cache, or the folder beside it, that `home` is.

    Raises:
        CacheIncompleteError: a teacher that the probe reads is not finished.
    """
    stride = cache.picture_px / plan.grid
    spec = TapSpec(f"{plan.label}/logits@{stride:g}", "logits", 1, plan.grid, stride, CODEC)
    facts: dict[str, Any] = {
        "reads": {label: _read_whole(cache, label) for label in plan.order.teachers},
        "masks": len(plan.mask_digests),
        "masks_sha256": plan.masks_sha256,
        "labels": plan.order.labels,
        "labels_seed": plan.order.labels_seed,
        "folds": plan.order.folds,
        "head": plan.order.head,
        "fit": {"views": fitted_views, **KINDS[str(plan.order.head)].FIT},
    }
    path = home / teacher_folder(plan.label) / IDENTITY
    held = read_identity(path.parent, TeacherIdentity) if disk.is_there(path) else None
    return TeacherIdentity.build(
        teacher={
            **({"weights": "random"} if set(cache.random_teachers) & set(plan.order.teachers) else {}),
            "name": NAME,
            "variant": plan.order.head,
            "input_px": cache.picture_px,
            "weights_digest": digest_identity(facts),
            "mean": [],
            "std": [],
            "interpolation": "none",
            "taps": [{"name": spec.name.partition("/")[2], "channels": 1, "native_grid": plan.grid, "kind": "logits"}],
            "libraries": {},
            "precision": "float32",
            "options": {},
        },
        probe=facts,
        taps=[describe_tap(spec, build_codec(CODEC, 1))],
        block_rows=held.block_rows if held else choose_block_rows(len(cache), 2 * plan.grid**2, 1),
        compression="none",
        device="cpu",
        batch=READ_ROWS,
        threads=held.threads if held else torch.get_num_threads(),
        libraries={"torch": version("torch")},
    )


def _read_whole(cache: Cache, label: str) -> dict[str, Any]:
    """Return the digest of a column that is read, and its taps."""
    column = cache.column(teacher_folder(label))
    markers = cache.markers(column)
    damaged = cache.damaged.get(column.folder, [])
    if len(markers) < column.blocks or damaged:
        raise CacheIncompleteError(
            f"{cache.path / column.folder}: {column.blocks - len(markers)} blocks are missing and {len(damaged)} damaged; "
            "run `difom-cache extract` with the same arguments to its end, then probe"
        )
    identity = cache.teachers[label]
    return {"digest": content_digest(identity, column, markers), "taps": [tap.name for tap in identity.taps]}


def compute_logits(cache: Cache, reader: FeatureReader, heads: Heads, plan: ProbePlan, rows: NDArray[np.int64]) -> Any:
    """Return the logits (B, 1, grid, grid) float32 of any rows."""
    fold = plan.fold_of[cache.table.record[rows]]
    with torch.no_grad():
        parts = [heads.speak(reader.read(rows[part]), fold[part]) for part in chunks(0, len(rows), READ_ROWS)]
    return torch.cat(parts)


def write_logits(
    cache: Cache, home: Path, column: Column, block: int, reader: FeatureReader, heads: Heads, plan: ProbePlan
) -> None:
    """Publish one block of a probe's column in `home`."""
    rows = np.arange(*column.range_of(block))
    logits = compute_logits(cache, reader, heads, plan, rows)
    codec = build_codec(CODEC, 1)
    try:
        code, _ = codec.encode(logits)
    except CodecError as error:
        raise CodecError(f"{plan.label}, rows {rows[0]} to {rows[-1]}: {error}") from None
    target = codec.decode(code, None)
    counts = valid_cells(cache, rows, plan.grid)
    train = torch.from_numpy(np.asarray(cache.table.split[rows] == 0))
    name = Path(column.arrays[0].path).parent.as_posix()
    write_block(
        home,
        column,
        block,
        {column.arrays[0].path: code.numpy()},
        {name: to_moments(sum_cells(target, counts & train[:, None, None]))},
        {name: measure_fidelity(logits, target, counts).as_dict()},
    )
