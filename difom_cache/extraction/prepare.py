"""Fixing, before the first block, everything that decides a column: its batch, its codecs' bases, its identity."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from difom_cache.base.errors import CacheIdentityError, DataError
from difom_cache.codecs.base import Basis, Codec
from difom_cache.codecs.catalogue import BASES, build_codec, fit_basis, resolve_codec
from difom_cache.extraction.frames import read_frame
from difom_cache.extraction.jobs import ViewJob
from difom_cache.extraction.like import OldColumn, refuse_unlike
from difom_cache.extraction.rebuild import taps_of
from difom_cache.extraction.teacher_blocks import render
from difom_cache.extraction.teachers import (
    OPENVINO,
    choose_backend,
    describe_source,
    held_readings,
    identify_teacher,
    load_teacher,
)
from difom_cache.store.columns import describe_tap, pictures_column, read_basis, teacher_column, write_basis
from difom_cache.store.identity import AnyIdentity, offer_identity, read_identity
from difom_cache.store.layout import (
    IDENTITY,
    PICTURES,
    Column,
    TapSpec,
    choose_block_rows,
    teacher_folder,
)
from difom_cache.store.ledger import read_markers
from difom_cache.store.schema import CacheIdentity, PicturesIdentity, TeacherIdentity
from difom_cache.store.seen_masks import write_seen_masks
from difom_cache.store.source import write_source
from difom_cache.store.writer import create_column
from difom_cache.teachers.base import RANDOM, Teacher, TeacherRequest, TeacherSpec
from difom_cache.teachers.catalogue import outline_teacher
from difom_cache.teachers.openvino_teacher import describe_openvino
from difom_cache.teachers.pooling import area_pool

FIT_RECORDS = 256  # view 0 of so many training records decides a codec's basis
LARGEST_BATCH = 64
MEMORY_FRAC = 0.8  # of a CUDA device, that the probe may fill
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
    label = choose_label(cache, spec)
    folder = cache / teacher_folder(label)
    held = _held_identity(folder, TeacherIdentity)
    old = choices.old
    before = held or (old.identity if old else None)
    batch = choices.batch or (
        before.batch if before else (1 if dry else probe_batch(load_teacher(request), request.device))
    )
    if not dry:
        request = choose_backend(request, held, batch)
    specs = describe_taps(spec, label, request.picture_px, choices.codec)
    if old is not None:
        specs = _take_codecs(specs, old)
    bases = _placeholder_bases(specs) if dry else _fix_bases(folder, held, request, specs, views, batch, old)
    codecs = {s.name: build_codec(s.codec, s.channels, basis=bases.get(s.name)) for s in specs}
    widest = max(_row_bytes(s, codecs[s.name]) for s in specs)
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
    if not dry:
        if old is not None:
            refuse_unlike(identity, old)
        probed = PROBED if choices.batch is None else ("threads",)
        there = offer_identity(folder, identity)  # ours, or that of a job which began at the same time
        if (readings := held_readings(there, folder)) != request.readings:
            request = replace(request, readings=readings)
            identity = identity.changed(teacher=identify_teacher(load_teacher(request).spec, there))
        identity = identity.changed(**{name: getattr(there, name) for name in probed})
    column = teacher_column(identity, label, len(views))
    if not dry:
        identity = create_column(cache, column, identity)
        write_source(folder, describe_source(request, spec))
        if spec.seen_masks is not None:
            write_seen_masks(folder, spec.seen_masks)
    return ColumnWork(column, identity, request)


def continue_taps(cache: Path, request: TeacherRequest) -> tuple[TeacherRequest, str]:
    """Return a request with the taps of the column that it continues, and a line that says so; or as it is, and "".

    A column keeps the taps that its identity holds, whatever a teacher's default taps have become since.

    Raises:
        CacheIdentityError: other taps or strides are asked for by name; says how the column is continued.
    """
    root = _held_identity(cache, CacheIdentity)
    if root is None or root.picture_px != request.picture_px:
        return request, ""  # no cache, or another one, which is refused by its identity
    spec = outline_teacher(request)
    where = cache / teacher_folder(choose_label(cache, spec))
    identity = _held_identity(where, TeacherIdentity)
    if identity is None or not (held := identity.teacher).taps:
        return request, ""
    names, asked = [tap.name for tap in held.taps], [tap.name for tap in spec.taps]
    network = (spec.name, spec.variant, spec.input_px, spec.weights_digest or held.weights_digest)
    if names == asked or network != (held.name, held.variant, held.input_px, held.weights_digest):
        return request, ""  # there is nothing to take, or it is another network, which is refused by its identity
    if request.taps is not None or request.strides is not None:
        raise CacheIdentityError(
            f"{where} holds the taps {', '.join(names)}, this run asks for {', '.join(asked)}; "
            "leave out --taps and --strides to continue it, or choose another --cache"
        )
    line = f"{where} is continued with the taps that it holds: {', '.join(names)}"
    return replace(request, taps=taps_of(held, str(where))), line


def choose_label(cache: Path, spec: TeacherSpec) -> str:
    """Return the folder of a teacher's features: its label, or the name alone where an old cache has just these there.

    Caches once kept every variant, and random weights too, under the teacher's name.
    """
    if (cache / teacher_folder(spec.label) / IDENTITY).exists():
        return spec.label
    for old in {spec.name, spec.label.removesuffix(f"-{RANDOM}")} - {spec.label}:
        held = _held_identity(cache / teacher_folder(old), TeacherIdentity)
        if held is None or (held.teacher.name, held.teacher.variant) != (spec.name, spec.variant):
            continue
        if spec.weights_digest in ("", held.teacher.weights_digest):  # a dry run has not read any
            return old
    return spec.label


def describe_taps(spec: TeacherSpec, label: str, picture_px: int, codec: str) -> list[TapSpec]:
    """Return what a cache keeps of a teacher: logits always as float16, features in `codec`."""
    specs = []
    for tap in spec.taps:
        native = spec.native[tap.native]
        name = f"{label}/{tap.name}"
        chosen = "float16" if native.kind == "logits" else resolve_codec(codec, native.channels)
        specs.append(TapSpec(name, native.kind, native.channels, tap.grid(picture_px), tap.stride, chosen))
    return specs


def _take_codecs(specs: Sequence[TapSpec], old: OldColumn) -> list[TapSpec]:
    """Return the taps with the codecs that they have in another cache; one that it lacks keeps its own."""
    codecs = {tap.name: tap.codec.name for tap in old.identity.taps}
    return [replace(spec, codec=codecs.get(spec.name.partition("/")[2], spec.codec)) for spec in specs]


def probe_batch(teacher: Teacher, device: str) -> int:
    """Return the batch that a teacher runs with: on CUDA the largest power of two that fits, elsewhere a small one."""
    side = teacher.spec.input_px
    if torch.device(device).type != "cuda":
        return 2 ** int(np.log2(np.clip(4 * 512 * 512 / side**2, 1, 8)))
    total_bytes, batch = torch.cuda.get_device_properties(torch.device(device)).total_memory, 1
    while batch < LARGEST_BATCH:
        torch.cuda.reset_peak_memory_stats(device)
        try:
            teacher.features(torch.zeros((2 * batch, 3, side, side), device=device))
            torch.cuda.synchronize(device)
        except torch.cuda.OutOfMemoryError:
            break
        if torch.cuda.max_memory_allocated(device) > MEMORY_FRAC * total_bytes:
            break
        batch *= 2
    torch.cuda.empty_cache()
    return batch


def _held_identity(folder: Path, kind: type[AnyIdentity]) -> AnyIdentity | None:
    return read_identity(folder, kind) if (folder / IDENTITY).exists() else None


def _render_libraries() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "kornia", "pillow")}


def _row_bytes(spec: TapSpec, codec: Codec) -> int:
    return codec.code_channels(spec.channels) * spec.grid**2 * np.dtype(codec.code_dtype).itemsize


def _placeholder_bases(specs: Sequence[TapSpec]) -> dict[str, Basis]:
    return {s.name: BASES[s.codec][0].placeholder(s.channels) for s in specs if s.codec in BASES}


def _fix_bases(
    folder: Path,
    held: TeacherIdentity | None,
    request: TeacherRequest,
    specs: Sequence[TapSpec],
    views: Sequence[ViewJob],
    batch: int,
    old: OldColumn | None,
) -> dict[str, Basis]:
    """Return the basis of each tap whose codec has one: the one that lies there, the other cache's, or a new one."""
    fitted = {s.name: s for s in specs if s.codec in BASES}
    if not fitted:
        return {}
    places = {name: folder / name.partition("/")[2] for name in fitted}
    if held is not None and all((place / "basis").exists() for place in places.values()):
        return {name: read_basis(place, fitted[name].codec) for name, place in places.items()}
    if old is not None:  # codes of two bases could not be mixed
        return {
            name: write_basis(place, codec, read_basis(old.folder / name.partition("/")[2], codec))
            for name, place, codec in ((name, places[name], spec.codec) for name, spec in fitted.items())
        }
    teacher = load_teacher(request)
    kept = {tap.name: tap.native for tap in teacher.spec.taps}
    features: dict[str, list[torch.Tensor]] = {name: [] for name in fitted}
    chosen = choose_fit_views(views)
    for start in range(0, len(chosen), batch):
        part = chosen[start : start + batch]
        frames = [read_frame(view.record, masks=False) for view in part]
        native = teacher.features(render(part, frames, teacher.spec.input_px, batch, torch.device(request.device)))
        for name, spec in fitted.items():
            tap = name.partition("/")[2]
            features[name].append(area_pool(native[kept[tap]], spec.grid)[: len(part)].cpu())
    return {
        name: write_basis(places[name], spec.codec, fit_basis(spec.codec, features[name]))
        for name, spec in fitted.items()
    }


def choose_fit_views(views: Sequence[ViewJob]) -> list[ViewJob]:
    """Return view 0 of up to 256 training records, in order of the records' digests."""
    first: dict[str, ViewJob] = {}
    for view in views:
        if view.train:
            first.setdefault(view.record.id, view)
    if not first:
        raise DataError(
            "codecs compact and packed are fitted on training records, and there is none; choose --codec int8"
        )
    return sorted(first.values(), key=lambda view: (view.record.image_sha256, view.record.id))[:FIT_RECORDS]
