"""The rows of a cache: every view of every record, as a table that is written before anything is computed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from difom_cache.base import disk
from difom_cache.base.files import read_plain
from difom_cache.data.record import Record, reading_of, refuse_other_reading
from difom_cache.extraction.jobs import ViewJob
from difom_cache.store.identity import read_identity
from difom_cache.store.layout import IDENTITY, RECORDS, SPLITS
from difom_cache.store.schema import CacheIdentity
from difom_cache.store.table import parse_records
from difom_cache.store.writer import RowTable, create_cache, format_records
from difom_cache.views.params import COLUMNS, REPLAY_VERSION
from difom_cache.views.plan import ViewPlan


class ViewList(Sequence[ViewJob]):
    """Every row of a plan with its record, made when it is asked for: a million views are more than one start needs."""

    def __init__(self, records: Sequence[Record], plan: ViewPlan) -> None:
        self.records, self.plan = records, plan

    def __len__(self) -> int:
        return len(self.plan)

    @overload
    def __getitem__(self, row: int) -> ViewJob: ...

    @overload
    def __getitem__(self, row: slice) -> list[ViewJob]: ...

    def __getitem__(self, row: int | slice) -> ViewJob | list[ViewJob]:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        record = self.records[self.plan.record[row]]
        return ViewJob(record, self.plan[row], record.split == "train", int(self.plan.view[row]))


def start_cache(
    cache: Path, records: Sequence[Record], plan: ViewPlan, *, views: int, picture_px: int
) -> CacheIdentity:
    """Make `cache` hold its identity and table of rows, or refuse where it holds another's."""
    formatted, reading = format_records(map(_describe, records)), reading_of(records)
    if disk.is_there(cache / IDENTITY):
        refuse_other_reading(read_identity(cache, CacheIdentity).reading, records, cache)
    identity = CacheIdentity.build(
        replay=REPLAY_VERSION,
        picture_px=picture_px,
        rows=len(plan),
        records=len(records),
        records_sha256=hashlib.sha256(formatted).hexdigest(),
        plan={
            **{"policy": plan.policy, "seed": plan.seed, "views": views},
            **{"digest": plan.digest(), "params": list(COLUMNS)},
        },
        **({} if reading is None else {"reading": reading}),
    )
    create_cache(cache, identity, formatted, tabulate(records, plan))
    return identity


def held_splits(cache: Path) -> dict[str, tuple[str, str]]:
    """Return (split, group) of each record that a cache was begun with; nothing where there is none, or it is damaged."""
    if not (disk.is_file(cache / IDENTITY) and disk.is_file(cache / RECORDS)):
        return {}
    content = read_plain(cache / RECORDS)
    if hashlib.sha256(content).hexdigest() != read_identity(cache, CacheIdentity).records_sha256:
        return {}
    return {line["id"]: (line["split"], line["group"]) for line in parse_records(content)}


def _describe(record: Record) -> dict[str, str | int]:
    """Return a record's line of records.csv."""
    names = ("id", "dataset", "split", "group", "labelled", "width", "height", "image_sha256", "mask_sha256")
    return {name: getattr(record, name) for name in names} | {"labelled": int(record.labelled)}


def tabulate(records: Sequence[Record], plan: ViewPlan) -> RowTable:
    """Return the table of rows; records without a group are each a group of their own."""
    names = {record.group or f"\n{record.id}": None for record in records}
    numbers = {name: number for number, name in enumerate(names)}
    groups = np.array([numbers[r.group or f"\n{r.id}"] for r in records], dtype=np.int32)
    splits = np.array([SPLITS.index(r.split) for r in records], dtype=np.uint8)
    labelled = np.array([r.labelled for r in records], dtype=np.uint8)
    of = plan.record
    return RowTable(plan.record, plan.view, splits[of], groups[of], labelled[of], plan.params)
