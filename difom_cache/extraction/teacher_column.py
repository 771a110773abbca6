"""A teacher's column made ready for its blocks: its batch found, its codecs fitted, its identity written."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from difom_cache.base.errors import DataError
from difom_cache.base.hardware import is_out_of_memory
from difom_cache.base.progress import explain_wait
from difom_cache.codecs.base import Basis
from difom_cache.codecs.catalogue import refuse_compact
from difom_cache.codecs.packed import fit_packed
from difom_cache.extraction.begun import find_begun, held_readings, identify_teacher
from difom_cache.extraction.frames import read_frame
from difom_cache.extraction.jobs import ViewJob
from difom_cache.extraction.passes import render
from difom_cache.extraction.prepare import ColumnChoices, ColumnWork, draft_column, find_bases
from difom_cache.extraction.requests import OldColumn, refuse_unlike
from difom_cache.extraction.teachers import choose_backend, describe_source, load_all, load_teacher, settle
from difom_cache.store.columns import teacher_column, write_basis
from difom_cache.store.identity import offer_identity, write_seen_masks, write_source
from difom_cache.store.layout import TapSpec
from difom_cache.store.writer import create_column
from difom_cache.teachers.base import Teacher, TeacherRequest
from difom_cache.teachers.catalogue import outline_teacher
from difom_cache.teachers.pooling import area_pool

FIT_RECORDS = 256  # view 0 of so many training records decides a codec's basis
LARGEST_BATCH = 64
MEMORY_FRAC = 0.8  # of the memory of a CUDA device that is free, which the probe may fill
PROBED = ("batch", "threads", "block_rows")  # what a job finds out by itself, and takes over where another was first


def load_teachers(
    cache: Path, asked: Sequence[tuple[TeacherRequest, OldColumn | None]], codec: str, *, quiet: bool
) -> None:
    """Build every teacher once, so that what is missing or cannot be begun is known before anything is written.

    Raises:
        DifomError: as `build_teacher`; of a cache that `--like` names, all that cannot be found are named.
        SettingsError: a column would be begun in a codec that is only finished.
    """
    load_all({old.folder.name: request for request, old in asked if old is not None})
    for request, _ in asked:
        with explain_wait(f"loading {request.spec}", quiet=quiet):
            spec = load_teacher(request).spec
        if codec == "compact" and find_begun(cache, spec).identity is None:
            refuse_compact(codec)


def prepare_teacher(
    cache: Path, request: TeacherRequest, choices: ColumnChoices, views: Sequence[ViewJob]
) -> ColumnWork:
    """Return the column of one teacher, with its identity written.

    Args:
        cache: the cache's folder.
        request: how the teacher is built.
        choices: the user's.
        views: every row of the cache.

    Raises:
        CacheIdentityError: the cache holds this teacher with another identity.
    """
    draft = draft_column(cache, request, choices, load_teacher(request).spec)
    spec, begun, old = draft.spec, draft.begun, choices.old
    batch = draft.batch or probe_batch(load_teacher(request), request.device)
    request = choose_backend(request, begun.identity, batch)
    draft = replace(draft, request=request)
    bases = find_bases(begun, old, draft.taps, dry=False)
    if new := draft.lacks(bases):
        bases |= fit_bases(begun.folder, request, new, views, batch)
    identity = draft.identify(bases, len(views), batch, torch.get_num_threads())
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


def prepare_elsewhere(
    cache: Path, request: TeacherRequest, choices: ColumnChoices, views: Sequence[ViewJob]
) -> ColumnWork:
    """Return what `prepare_teacher` does, from the worker that comes first: its device, precision and batch are the column's.

    The request in it names the device that was asked for, as each worker has to find its own.
    """
    begun = find_begun(cache, outline_teacher(request))
    work = prepare_teacher(cache, settle(request, begun.identity, begun.folder), choices, views)
    return replace(work, request=replace(work.request or request, device=request.device))


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


def fit_bases(
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
