"""How long the teachers of a run will take on this machine, by two batches of noise each."""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from difom_cache.base.text import count_of, format_bytes, format_seconds
from difom_cache.extraction.begun import held_identity
from difom_cache.extraction.prepare import ColumnWork
from difom_cache.extraction.teacher_column import probe_batch
from difom_cache.extraction.teachers import choose_backend, load_teacher
from difom_cache.store.schema import TeacherIdentity


def measure_teachers(
    cache: Path, works: Sequence[ColumnWork], missing_blocks: Sequence[int], chosen_batch: int | None
) -> Iterator[str]:
    """Yield a line a teacher: seconds of a view, of all that are missing, and the memory that was taken.

    The first batch compiles, so that the second is counted. Rendering and writing run beside the teacher.

    Args:
        cache: where they shall lie.
        works: the columns of a run.
        missing_blocks: how many blocks of each are still to be computed.
        chosen_batch: the user's, None where a column's own or a trial decides.

    Raises:
        DifomError: as `build_teacher`.
    """
    for work, blocks in zip(works, missing_blocks, strict=True):
        if work.request is None or not isinstance(work.identity, TeacherIdentity):
            continue
        device, px = work.request.device, work.identity.teacher.input_px
        held = held_identity(cache / work.column.folder, TeacherIdentity)
        batch = chosen_batch or (held.batch if held else probe_batch(load_teacher(work.request), device))
        teacher = load_teacher(choose_backend(work.request, held, batch))
        pixels = torch.rand((batch, 3, px, px), generator=torch.Generator().manual_seed(0)).to(device)
        for _ in range(2):
            begun_s = time.perf_counter()
            for value in teacher.features(pixels).values():
                value.cpu()  # what a GPU has not computed yet is waited for
            view_s = (time.perf_counter() - begun_s) / batch
        views = min(blocks * work.column.block_rows, work.column.rows)
        unit_bytes = 1 if sys.platform == "darwin" else 1024
        resident = unit_bytes * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        taken = torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else resident
        yield (
            f"{work.column.folder}: {view_s:.3g} s a view in batches of {batch} on {device}, so about "
            f"{format_seconds(view_s * views)} for {count_of(views, 'view')}; {format_bytes(taken)} of memory"
        )
