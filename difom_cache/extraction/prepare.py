"""Fixing, before the first block, everything that decides a column: what it continues, its batch, codecs and identity."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from difom_cache.base import disk
from difom_cache.base.errors import CacheIdentityError, DataError, TeacherError
from difom_cache.base.hardware import is_out_of_memory
from difom_cache.codecs.base import Basis
from difom_cache.codecs.catalogue import BASES, build_codec, refuse_compact, resolve_codec
from difom_cache.codecs.packed import PackedBasis, fit_packed
from difom_cache.data.record import Record
from difom_cache.extraction.jobs import ViewJob, read_frame, show_records
from difom_cache.extraction.passes import render
from difom_cache.extraction.requests import OldColumn, refuse_unlike, taps_of
from difom_cache.extraction.teachers import (
    NETWORKS,
    OPENVINO,
    choose_backend,
    describe_source,
    held_readings,
    identify_teacher,
    load_teacher,
)
from difom_cache.store.columns import describe_tap, pictures_column, read_basis, teacher_column, write_basis
from difom_cache.store.identity import AnyIdentity, offer_identity, read_identity, write_seen_masks, write_source
from difom_cache.store.layout import IDENTITY, PICTURES, Column, TapSpec, choose_block_rows, teacher_folder
from difom_cache.store.ledger import read_markers
from difom_cache.store.schema import CacheIdentity, PicturesIdentity, TeacherIdentity
from difom_cache.store.writer import create_column
from difom_cache.teachers.base import RANDOM, Teacher, TeacherRequest, TeacherSpec
from difom_cache.teachers.catalogue import outline_teacher, read_outputs
from difom_cache.teachers.openvino_teacher import describe_openvino
from difom_cache.teachers.outputs import Reading
from difom_cache.teachers.pooling import area_pool

FIT_RECORDS = 256  # view 0 of so many training records decides a codec's basis
LARGEST_BATCH = 64
MEMORY_FRAC = 0.8  # of the memory of a CUDA device that is free, which the probe may fill
PROBED = ("batch", "threads", "block_rows")  # what a job finds out by itself, and takes over where another was first


@dataclass(frozen=True)
class ColumnWork:
    """A column ready for its blocks: where it lies, what it holds, and how a worker builds its teacher."""

    column: Column
    identity: PicturesIdentity | TeacherIdentity
    request: TeacherRequest | None


@dataclass(frozen=True)
class ColumnChoices:
    """What the user chose for a column; None leaves it to this file, or to the identity that is there already."""

    codec: str = "int8"
    batch: int | None = None
    old: OldColumn | None = None
    "A column of another cache that this one shall be mixed with."


@dataclass(frozen=True)
class Begun:
    """The column that a cache has for a teacher, or would have: its label, its folder, and its identity once it is begun."""

    label: str
    folder: Path
    identity: TeacherIdentity | None


def find_begun(cache: Path, spec: TeacherSpec) -> Begun:
    """Return a teacher's column: under its label, or under the name alone where an old cache has just these features there.

    Caches once kept every variant, and random weights too, under the teacher's name.
    """
    for label in dict.fromkeys((spec.label, spec.name, spec.label.removesuffix(f"-{RANDOM}"))):
        folder = cache / teacher_folder(label)
        held = _held_identity(folder, TeacherIdentity)
        if held is None:
            continue
        is_same = (held.teacher.name, held.teacher.variant) == (spec.name, spec.variant)
        if label == spec.label or (is_same and spec.weights_digest in ("", held.teacher.weights_digest)):
            return Begun(label, folder, held)  # a dry run has read no weights
    return Begun(spec.label, cache / teacher_folder(spec.label), None)


def continue_column(
    cache: Path, request: TeacherRequest, records: Sequence[Record], rows: int
) -> tuple[TeacherRequest, str]:
    """Return a request with what its column was begun with, and a line that says which taps these are, or "".

    That is how the outputs of a network are read, and the taps, whatever a teacher's default taps have become since.

    Args:
        cache: the cache's folder.
        request: as the user asks.
        records: frames by which to tell what a network gives, where no column says it.
        rows: of the cache.

    Raises:
        TeacherError: it cannot be told what a network gives.
        CacheIdentityError: other taps or strides are asked for by name; or an unfinished column was begun before outputs
            were told, and took for logits what are none.
    """
    if request.name in NETWORKS and request.readings is None:
        request = replace(request, readings=_settle_readings(cache, request, records, rows))
    root = _held_identity(cache, CacheIdentity)
    if root is None or root.picture_px != request.picture_px:
        return request, ""  # no cache, or another one, which is refused by its identity
    spec = outline_teacher(request)
    begun = find_begun(cache, spec)
    if begun.identity is None or not (held := begun.identity.teacher).taps:
        return request, ""
    names, asked = [tap.name for tap in held.taps], [tap.name for tap in spec.taps]
    network = (spec.name, spec.variant, spec.input_px, spec.weights_digest or held.weights_digest)
    if names == asked or network != (held.name, held.variant, held.input_px, held.weights_digest):
        return request, ""  # there is nothing to take, or it is another network, which is refused by its identity
    if request.taps is not None or request.strides is not None:
        raise CacheIdentityError(
            f"{begun.folder} holds the taps {', '.join(names)}, this run asks for {', '.join(asked)}; "
            "leave out --taps and --strides to continue it, or choose another --cache"
        )
    line = f"{begun.folder} is continued with the taps that it holds: {', '.join(names)}"
    return replace(request, taps=taps_of(held, str(begun.folder))), line


def _settle_readings(
    cache: Path, request: TeacherRequest, records: Sequence[Record], rows: int
) -> tuple[Reading, ...] | None:
    begun = find_begun(cache, outline_teacher(request))
    if begun.identity is None:
        return read_outputs(request, show_records(records))
    readings = held_readings(begun.identity, begun.folder)
    column = teacher_column(begun.identity, begun.label, rows)
    if not readings and len(read_markers(cache, column, skip_unreadable=True)) < column.blocks:
        _refuse_misread(begun, begun.identity, request, records)
    return readings


def _refuse_misread(
    begun: Begun, identity: TeacherIdentity, request: TeacherRequest, records: Sequence[Record]
) -> None:
    """Raise where features of an old column were taken for logits that, by today's reading, are none."""
    taken = {tap.name.rpartition("@")[0] for tap in identity.taps if tap.kind == "logits"}
    try:
        told = read_outputs(replace(request, taps=tuple(sorted(taken)) or None), show_records(records)) if taken else ()
    except TeacherError:  # it was never clear, and stays as it was begun
        return
    for reading in told or ():
        if reading.output in taken and reading.values != "logits":
            raise CacheIdentityError(
                f"{begun.folder} was begun with output {reading.output!r} taken for logits, as maps of one channel once were; "
                f"now {reading.describe()}. Drop the column with `difom-cache drop` and extract it anew"
            )


def prepare_pictures(
    cache: Path, *, picture_px: int, pads: bool, rows: int, dry: bool, public: bool = False
) -> ColumnWork:
    """Return the column of stored views, with its identity written unless `dry`.

    A column that is complete already is taken as it is, whatever library versions made it.
    """
    widest = picture_px * picture_px * 3
    held = _held_identity(cache / PICTURES, PicturesIdentity)
    identity = PicturesIdentity.build(
        picture_px=picture_px,
        pads=pads,
        block_rows=held.block_rows if held else choose_block_rows(rows, widest, 1),
        compression="none",
        libraries=_render_libraries(),
    )
    if held is not None:
        there = pictures_column(held, rows)
        if len(read_markers(cache, there, skip_unreadable=True)) == there.blocks:
            identity = identity.changed(libraries=held.libraries)
    column = pictures_column(identity, rows)
    return ColumnWork(column, identity if dry else create_column(cache, column, identity, public=public), None)


def prepare_teacher(
    cache: Path, request: TeacherRequest, choices: ColumnChoices, views: Sequence[ViewJob], *, dry: bool
) -> ColumnWork:
    """Return the column of one teacher, with its identity written unless `dry`.

    Args:
        cache: the cache's folder.
        request: how the teacher is built.
        choices: the user's.
        views: every row of the cache.
        dry: write nothing and fit nothing; the bases of codecs are then placeholders of the right size.

    Raises:
        CacheIdentityError: the cache holds this teacher with another identity.
    """
    spec = outline_teacher(request) if dry else load_teacher(request).spec
    begun, old = find_begun(cache, spec), choices.old
    held = begun.identity
    before = held or (old.identity if old else None)
    batch = choices.batch or (before.batch if before else None)
    if batch is None:
        batch = 1 if dry else probe_batch(load_teacher(request), request.device)
    if not dry:
        request = choose_backend(request, held, batch)
    specs = describe_taps(spec, begun.label, request.picture_px, choices)
    bases = _find_bases(begun, old, specs, dry=dry)
    new = [each for each in specs if each.codec in BASES and each.name not in bases]
    for each in new:
        refuse_compact(each.codec)
    if dry:
        bases |= {each.name: PackedBasis.placeholder(each.channels) for each in new}
    elif new:
        bases |= _fit_bases(begun.folder, request, new, views, batch)
    codecs = {s.name: build_codec(s.codec, s.channels, basis=bases.get(s.name)) for s in specs}
    widest = max(
        codecs[s.name].code_channels(s.channels) * s.grid**2 * np.dtype(codecs[s.name].code_dtype).itemsize
        for s in specs
    )
    identity = TeacherIdentity.build(
        teacher=identify_teacher(spec, held),
        taps=[describe_tap(s, codecs[s.name]) for s in specs],
        block_rows=held.block_rows if held else choose_block_rows(len(views), widest, batch),
        compression=old.identity.compression if old else "none",
        device=torch.device(request.device).type,
        **({"backend": describe_openvino()} if request.backend == OPENVINO else {}),
        batch=batch,
        threads=held.threads if held else torch.get_num_threads(),
        libraries=_render_libraries(),
    )
    if dry:
        return ColumnWork(teacher_column(identity, begun.label, len(views)), identity, request)
    if old is not None:
        refuse_unlike(identity, old)
    there = offer_identity(begun.folder, identity)  # ours, or that of a job which began at the same time
    if (readings := held_readings(there, begun.folder)) != request.readings:
        request = replace(request, readings=readings)
        identity = identity.changed(teacher=identify_teacher(load_teacher(request).spec, there))
    probed = PROBED if choices.batch is None else ("threads",)
    identity = identity.changed(**{name: getattr(there, name) for name in probed})
    column = teacher_column(identity, begun.label, len(views))
    identity = create_column(cache, column, identity)
    write_source(begun.folder, describe_source(request, spec))
    if spec.seen_masks is not None:
        write_seen_masks(begun.folder, spec.seen_masks)
    return ColumnWork(column, identity, request)


def describe_taps(spec: TeacherSpec, label: str, picture_px: int, choices: ColumnChoices) -> list[TapSpec]:
    """Return what a cache keeps of a teacher: logits always as float16, features in the codec that is chosen.

    Taps of `--like` keep the codecs that they have there.
    """
    there = {tap.name: tap.codec.name for tap in choices.old.identity.taps} if choices.old else {}
    specs = []
    for tap in spec.taps:
        native = spec.native[tap.native]
        usual = "float16" if native.kind == "logits" else resolve_codec(choices.codec, native.channels)
        codec = there.get(tap.name, usual)
        grid = tap.grid(picture_px)
        specs.append(TapSpec(f"{label}/{tap.name}", native.kind, native.channels, grid, tap.stride, codec))
    return specs


def probe_batch(teacher: Teacher, device: str) -> int:
    """Return the batch that a teacher runs with: on CUDA the largest power of two that fits, elsewhere a small one."""
    side = teacher.spec.input_px
    if torch.device(device).type != "cuda":
        return 2 ** int(np.log2(np.clip(4 * 512 * 512 / side**2, 1, 8)))
    free_bytes, batch = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device), 1  # of this process
    while batch < LARGEST_BATCH:
        torch.cuda.reset_peak_memory_stats(device)
        try:
            teacher.features(torch.zeros((2 * batch, 3, side, side), device=device))
            torch.cuda.synchronize(device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        if torch.cuda.max_memory_allocated(device) > MEMORY_FRAC * free_bytes:
            break
        batch *= 2
    torch.cuda.empty_cache()
    return batch


def _held_identity(folder: Path, kind: type[AnyIdentity]) -> AnyIdentity | None:
    return read_identity(folder, kind) if disk.is_there(folder / IDENTITY) else None


def _render_libraries() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "kornia", "pillow")}


def _find_bases(begun: Begun, old: OldColumn | None, specs: Sequence[TapSpec], *, dry: bool) -> dict[str, Basis]:
    """Return the basis of each tap whose codec has one and which lies there, or in the cache of `--like`."""
    found = {}
    for spec in specs:
        if spec.codec not in BASES:
            continue
        tap = spec.name.partition("/")[2]
        if begun.identity is not None and disk.is_there(begun.folder / tap / "basis"):
            found[spec.name] = read_basis(begun.folder / tap, spec.codec)
        elif old is not None:  # codes of two bases could not be mixed
            theirs = read_basis(old.folder / tap, spec.codec)
            found[spec.name] = theirs if dry else write_basis(begun.folder / tap, spec.codec, theirs)
    return found


def _fit_bases(
    folder: Path, request: TeacherRequest, specs: Sequence[TapSpec], views: Sequence[ViewJob], batch: int
) -> dict[str, Basis]:
    """Return a new basis of each tap, and keep it beside the tap."""
    teacher = load_teacher(request)
    kept = {tap.name: tap.native for tap in teacher.spec.taps}
    features: dict[str, list[torch.Tensor]] = {spec.name: [] for spec in specs}
    chosen = choose_fit_views(views)
    for start in range(0, len(chosen), batch):
        part = chosen[start : start + batch]
        frames = [read_frame(view.record, masks=False) for view in part]
        native = teacher.features(render(part, frames, teacher.spec.input_px, batch, torch.device(request.device)))
        for spec in specs:
            feature = native[kept[spec.name.partition("/")[2]]]
            features[spec.name].append(area_pool(feature, spec.grid)[: len(part)].cpu())
    places = {spec.name: folder / spec.name.partition("/")[2] for spec in specs}
    return {spec.name: write_basis(places[spec.name], spec.codec, fit_packed(features[spec.name])) for spec in specs}


def choose_fit_views(views: Sequence[ViewJob]) -> list[ViewJob]:
    """Return view 0 of up to 256 training records, in order of the records' digests."""
    first: dict[str, ViewJob] = {}
    for view in views:
        if view.train:
            first.setdefault(view.record.id, view)
    if not first:
        raise DataError("codec packed is fitted on training records, and there is none; choose --codec int8")
    return sorted(first.values(), key=lambda view: (view.record.image_sha256, view.record.id))[:FIT_RECORDS]
