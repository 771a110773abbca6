"""What a network's outputs are stands in its column's identity: the first worker's decision, which all others follow."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from difom_cache.base.errors import CacheIdentityError, TeacherError
from difom_cache.data.record import Record
from difom_cache.extraction.frames import show_records
from difom_cache.extraction.prepare import choose_label
from difom_cache.extraction.teachers import NETWORKS, held_readings
from difom_cache.store.columns import teacher_column
from difom_cache.store.identity import read_identity
from difom_cache.store.layout import IDENTITY, teacher_folder
from difom_cache.store.ledger import read_markers
from difom_cache.store.schema import TeacherIdentity
from difom_cache.teachers.base import TeacherRequest
from difom_cache.teachers.catalogue import outline_teacher, read_outputs


def settle_outputs(cache: Path, request: TeacherRequest, records: Sequence[Record], rows: int) -> TeacherRequest:
    """Return the request with what its network's outputs are: as its column was begun with, else as they are told now.

    Raises:
        TeacherError: it cannot be told.
        CacheIdentityError: an unfinished column was begun before outputs were told, and took for logits what are none.
    """
    if request.name not in NETWORKS or request.readings is not None:
        return request
    label = choose_label(cache, outline_teacher(request))
    folder = cache / teacher_folder(label)
    if not (folder / IDENTITY).exists():
        return replace(request, readings=read_outputs(request, show_records(records)))
    identity = read_identity(folder, TeacherIdentity)
    readings = held_readings(identity, folder)
    column = teacher_column(identity, label, rows)
    if not readings and len(read_markers(cache, column, skip_unreadable=True)) < column.blocks:
        _refuse_misread(folder, identity, request, records)
    return replace(request, readings=readings)


def _refuse_misread(
    folder: Path, identity: TeacherIdentity, request: TeacherRequest, records: Sequence[Record]
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
                f"{folder} was begun with output {reading.output!r} taken for logits, as maps of one channel once were; now "
                f"{reading.describe()}. Drop the column with `difom-cache drop` and extract it anew"
            )
