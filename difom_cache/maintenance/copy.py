"""A cache, or some of its taps in another codec, into another folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from difom_cache.base import disk
from difom_cache.base.atomic import write_once
from difom_cache.base.errors import CacheIncompleteError, SettingsError
from difom_cache.base.options import read_call
from difom_cache.base.progress import say
from difom_cache.codecs.base import Basis, Codec
from difom_cache.codecs.catalogue import BASES, build_codec, describe_fallback, refuse_compact, resolve_codec
from difom_cache.codecs.measure import measure_fidelity
from difom_cache.codecs.packed import fit_packed
from difom_cache.commands import CopyConfig
from difom_cache.extraction.cells import sum_cells, to_moments
from difom_cache.extraction.teacher_column import FIT_RECORDS
from difom_cache.maintenance.finish import blocks_of, decode_rows
from difom_cache.store.columns import describe_tap, pictures_column, read_basis, tap_specs, teacher_column, write_basis
from difom_cache.store.consolidated import consolidate
from difom_cache.store.identity import digest_identity, read_beside, read_identity, read_source, write_source
from difom_cache.store.layout import BESIDE_IDENTITY, PICTURES, Column, teacher_folder, totals_path
from difom_cache.store.reader import Cache, open_cache
from difom_cache.store.schema import PicturesIdentity
from difom_cache.store.stats import fold_statistics, read_moments, write_totals
from difom_cache.store.table import read_records
from difom_cache.store.writer import create_cache, create_column, write_block

if TYPE_CHECKING:
    from difom_cache.keywords import CopyKeywords


def copy(source: str | Path | CopyConfig, target: str | Path | None = None, **options: "Unpack[CopyKeywords]") -> None:
    """Make `target` a cache with the same views as `source` and some of its taps, perhaps in another codec.

    Args:
        source: a complete cache, or the config of the call.
        target: a folder to fill; an interrupted copy is finished by running it again.
        **options: as the signature lists them; maps that zstd has made smaller are read at the speed of zarr-python.

    Raises:
        CacheIncompleteError: the source lacks a tap or blocks.
        CacheIdentityError: the target is another cache.
    """
    config = read_call(CopyConfig, options, source=source, target=target)
    refuse_compact(config.codec)
    opened, folder, codec = open_cache(config.source, access=config.access), config.target, config.codec
    chosen = list(opened.taps if config.taps is None else config.taps)
    unknown = [tap for tap in chosen if tap not in opened.taps]
    if unknown:
        raise CacheIncompleteError(f"{config.source} has no tap {unknown[0]!r}; it has {', '.join(opened.taps)}")
    features = {tap: opened.taps[tap].channels for tap in chosen if opened.taps[tap].kind == "feature"}
    if codec is not None and (line := describe_fallback(codec, features)):
        say(line)
    if folder.resolve() == config.source.resolve():
        raise SettingsError(f"copy: source and target are the same folder {folder}; choose another target")
    records = read_records(opened.path, opened.identity)
    create_cache(folder, opened.identity, records, opened.table.as_rows())
    compression = "zstd" if config.compress else "none"
    if config.pictures and opened.has_pictures:
        copy_pictures(opened, folder, compression)
    for label in opened.teachers:
        wanted = [tap for tap in chosen if tap.partition("/")[0] == label]
        if wanted:
            copy_teacher(opened, folder, label, wanted, codec, compression)
    consolidate(folder)


def copy_pictures(source: Cache, target: Path, compression: str) -> None:
    """Copy the stored views."""
    identity = read_identity(source.path / PICTURES, PicturesIdentity).changed(compression=compression)
    column = pictures_column(identity, len(source))
    create_column(target, column, identity)
    names = {array.path for array in column.arrays}
    for block, rows in blocks_of(column, "copy pictures"):
        batch = source.gather(rows, [], pictures=True)
        write_block(target, column, block, {name: batch[name] for name in names})


def copy_teacher(
    source: Cache, target: Path, label: str, taps: Sequence[str], codec: str | None, compression: str
) -> None:
    """Copy some taps of one teacher, code by code, or decoded and encoded again where the codec changes."""
    held = source.teachers[label]
    codecs = {tap: choose_codec(source, target, tap, codec) for tap in taps}
    specs = tap_specs(held, label)
    identity = held.changed(
        taps=[describe_tap(specs[tap], codecs[tap]) for tap in taps],
        compression=compression,
        copied_from=digest_identity(held.to_dict()),
    )
    if codec is None and compression == held.compression and len(taps) == len(held.taps):
        identity = held  # a whole copy is the same column
    column = teacher_column(identity, label, len(source))
    create_column(target, column, identity)
    for name, content in read_beside(source.path / column.folder, BESIDE_IDENTITY):
        write_once(target / column.folder / name, [content])
    kept = {tap for tap in taps if codecs[tap].identity() == source.codec(tap).identity()}
    for block, rows in blocks_of(column, f"copy {label}"):
        write_recoded(source, target, column, block, rows, codecs, kept)
    if len(kept) == len(taps):
        path, names = totals_path(source.path, column.folder), [t.partition("/")[2] for t in taps]
        if not disk.is_there(path):
            raise CacheIncompleteError(f"{path} is missing; `difom-cache finish {source.path}` sums it up")
        totals = read_moments(path)
        write_totals(totals_path(target, column.folder), {name: totals[name] for name in names})
    fold_statistics(target, column, open_cache(target).markers(column))
    found = read_source(source.path / column.folder)
    if found is not None:
        write_source(target / column.folder, found)


def choose_codec(source: Cache, target: Path, tap: str, codec: str | None) -> Codec:
    """Return the codec that a tap has in a copy; a packed one is fitted to the tap's targets."""
    spec = source.taps[tap]
    name = spec.codec if codec is None or spec.kind == "logits" else resolve_codec(codec, spec.channels)
    if name not in BASES:
        return source.codec(tap) if name == spec.codec else build_codec(name, spec.channels)
    label, _, place = tap.partition("/")
    folder = target / teacher_folder(label) / place
    basis: Basis
    if name == spec.codec:
        basis = source.codec(tap).basis  # type: ignore[attr-defined]
    elif disk.is_there(folder / "basis_kept_variance" / "c.0"):  # of a copy that was interrupted
        basis = read_basis(folder, name)
    else:
        basis = fit_packed(_sample_targets(source, tap))
    return build_codec(name, spec.channels, basis=write_basis(folder, name, basis))


def _sample_targets(source: Cache, tap: str) -> list[torch.Tensor]:
    """Return the targets of view 0 of training records, as many as an extraction fits a basis on, evenly over the cache."""
    rows = source.rows_of("train", view=0)
    if not len(rows):
        raise SettingsError("codec packed is fitted on training records, and the cache has none; choose --codec int8")
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, FIT_RECORDS).astype(int))]
    stored = (source.gather([row], [tap], pictures=False) for row in chosen.tolist())
    return [torch.from_numpy(source.target(each, tap)) for each in stored]


def write_recoded(
    source: Cache,
    target: Path,
    column: Column,
    block: int,
    rows: NDArray[np.int64],
    codecs: dict[str, Codec],
    kept: set[str],
) -> None:
    """Write one block of a copy; taps in `kept` go over as they are."""
    label = column.label
    stored = source.gather(rows, list(codecs), pictures=False)
    arrays: dict[str, NDArray[Any]] = {name.removeprefix(f"{label}/"): values for name, values in stored.items()}
    held = source.markers(source.column(column.folder))[block].fidelity
    fidelity: dict[str, Any] = {name: sums.model_dump() for name, sums in held.items() if f"{label}/{name}" in kept}
    moments = {}
    for name, feature, counts in decode_rows(source, label, rows, [tap for tap in codecs if tap not in kept]):
        codec = codecs[f"{label}/{name}"]
        code, scale = codec.encode(feature)
        arrays[f"{name}/code"] = code.numpy()
        arrays.pop(f"{name}/scale", None)
        if scale is not None:
            arrays[f"{name}/scale"] = scale.numpy()
        decoded = codec.decode(code, scale)
        fidelity[name] = measure_fidelity(feature, decoded, torch.ones_like(counts)).as_dict()
        moments[name] = to_moments(sum_cells(decoded, counts))
    for tap in kept if moments else ():
        for name, feature, counts in decode_rows(source, label, rows, [tap]):
            moments[name] = to_moments(sum_cells(feature, counts))
    write_block(target, column, block, arrays, moments or None, fidelity)
