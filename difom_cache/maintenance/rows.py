"""The table of rows against what decides it: records.csv, whose digest the identity holds, and the plan's digest.

Everything in rows/ follows from these two, so it is checked against them, and can be written anew from them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import CacheDamagedError, CacheError
from difom_cache.data.record import Record
from difom_cache.extraction.rows import tabulate
from difom_cache.store.layout import RECORDS, SPLITS, find_difference
from difom_cache.store.schema import CacheIdentity
from difom_cache.store.table import COPY_AGAIN, Table, parse_records, read_records
from difom_cache.store.writer import RowTable, describe_root, describe_rows, write_skeleton
from difom_cache.views.params import COLUMNS
from difom_cache.views.plan import ViewPlan, draw_plan

MEND = "`difom-cache verify --repair`, or `difom-cache extract` with the same arguments, writes it anew"


def read_lines(cache: Path, identity: CacheIdentity) -> list[dict[str, str]]:
    """Return the lines of a cache's records.csv, which are those that its identity speaks of.

    Raises:
        CacheDamagedError: they are not.
    """
    return _parse_lines(cache / RECORDS, read_records(cache, identity), identity)


def _parse_lines(path: Path, content: bytes, identity: CacheIdentity) -> list[dict[str, str]]:
    try:
        lines = parse_records(content)
    except ValueError as error:
        raise CacheDamagedError(f"{path}: {error}; {COPY_AGAIN}") from None
    if len(lines) != identity.records:
        raise CacheDamagedError(f"{path}: holds {len(lines)} records, the identity says {identity.records}")
    for number, line in enumerate(lines):
        if line["split"] not in SPLITS or line["labelled"] not in ("0", "1"):
            raise CacheDamagedError(
                f"{path}, record {number}: expected a split of {', '.join(SPLITS)} and labelled 0 or 1"
            )
    return lines


def check_metadata(described: Mapping[Path, bytes]) -> Iterator[str]:
    """Yield which zarr.json means something else than it should."""
    for path, wanted in described.items():
        difference = find_difference(path, wanted)
        if difference:
            yield f"{path}: {difference}; {MEND}"


def check_rows(cache: Path, identity: CacheIdentity) -> Iterator[str]:
    """Yield what is wrong with a cache's records, its table of rows and their metadata."""
    yield from check_metadata({**describe_root(cache, identity), **describe_rows(cache, identity)})
    try:
        lines = read_lines(cache, identity)
        table = Table(cache, identity.rows, len(identity.plan.params))
    except CacheError as error:  # nothing of a file system that cannot say
        yield str(error)
        return
    for name, due in derive_columns(identity, lines).items():
        held = getattr(table, name)
        if held.shape != due.shape:
            yield f"{cache / 'rows'}: {len(held)} rows, while {RECORDS} and the plan make {len(due)}"
            return
        wrong = np.flatnonzero(held != due)
        if len(wrong):
            yield (
                f"{cache / 'rows' / name}: row {wrong[0]} holds {held[wrong[0]]} and should hold {due[wrong[0]]}, "
                f"{len(wrong)} of {len(held)} rows differ from {RECORDS}; {MEND}"
            )
    digest = plan_digest(identity, table.as_rows())
    if digest != identity.plan.digest:
        yield (
            f"{cache / 'rows' / 'params'}: the plan's digest is {digest[:12]}…, the identity says "
            f"{identity.plan.digest[:12]}…: the views' numbers were changed; {MEND}"
        )


def derive_columns(identity: CacheIdentity, lines: Sequence[Mapping[str, str]]) -> dict[str, NDArray[Any]]:
    """Return all that rows/ holds but the views' numbers: each training record has all views, others view 0 alone."""
    views = np.array([identity.plan.views if line["split"] == "train" else 1 for line in lines], np.int64)
    record = np.repeat(np.arange(len(lines), dtype=np.int32), views)
    view = (np.arange(len(record)) - np.repeat(np.cumsum(views) - views, views)).astype(np.int32)
    plan = ViewPlan(record, view, np.zeros((len(record), len(COLUMNS)), np.int32), "", 0)
    derived = vars(tabulate([_record_of(line) for line in lines], plan))
    return {name: values for name, values in derived.items() if name != "params"}


def plan_digest(identity: CacheIdentity, rows: RowTable) -> str:
    """Return the digest of the plan that a table of rows holds; "" where its numbers have other columns."""
    plan = identity.plan
    if tuple(plan.params) != tuple(COLUMNS):
        return ""
    return ViewPlan(rows.record, rows.view, rows.params, plan.policy, plan.seed).digest()


def restore_rows(cache: Path, identity: CacheIdentity) -> None:
    """Write what is wrong in rows/ and its metadata anew, the views' numbers drawn again.

    Raises:
        CacheDamagedError: records.csv is not that of the identity; or the plan drawn here is another one.
    """
    content = read_records(cache, identity)
    records = [_record_of(line) for line in _parse_lines(cache / RECORDS, content, identity)]
    held = identity.plan
    plan = draw_plan(records, views=held.views, seed=held.seed, policy=held.policy)
    if plan.digest() != held.digest or len(plan) != identity.rows:
        raise CacheDamagedError(
            f"{cache}: the views drawn here are not those of the identity (plan digest {plan.digest()[:12]}… where "
            f"{held.digest[:12]}… is held); use the difom version that wrote the cache"
        )
    write_skeleton(cache, identity, content, tabulate(records, plan))


def _record_of(line: Mapping[str, str]) -> Record:
    """Return what the plan and the table need of a record; it has no files."""
    mask, size = Path() if line["labelled"] == "1" else None, (int(line["width"]), int(line["height"]))
    digests = line["image_sha256"], line["mask_sha256"]
    return Record(line["id"], line["dataset"], line["split"], Path(), mask, *size, *digests, line["group"])
