"""The table of rows: which record and view each row of every array belongs to."""

import csv
import io
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.base import disk
from difom_cache.base.errors import CacheDamagedError, CacheIncompleteError
from difom_cache.base.files import explain, read_held, read_plain, refuse_special
from difom_cache.base.text import unguard_cell
from difom_cache.store.layout import RECORDS, SPLITS
from difom_cache.store.schema import CacheIdentity
from difom_cache.store.writer import RECORD_FIELDS, ROWS, RowTable

COPY_AGAIN = "copy it again from another copy, or run `difom-cache extract` with the same arguments"


def read_records(cache: Path, identity: CacheIdentity) -> bytes:
    """Return a cache's records.csv, which is the one that its identity speaks of.

    Raises:
        CacheDamagedError: it is not.
    """
    path = cache / RECORDS
    content = read_held(path, CacheDamagedError, COPY_AGAIN)
    found = sha256(content).hexdigest()
    if found != identity.records_sha256:
        raise CacheDamagedError(
            f"{path}: its digest {found[:12]}… is not the identity's {identity.records_sha256[:12]}…; {COPY_AGAIN}"
        )
    return content


class Table(RowTable):
    """One entry for each row; numbers are read, or `mapped` from a local disk, texts are read when first asked for.

    `record` counts in `records`, `view` is the view number, `split` is 0 train, 1 val, 2 test, `group` is a number that
    rows of one group share, `labelled` is 1 where the record has a mask, `params` holds the view's integers.
    """

    def __init__(self, cache: Path, rows: int, param_names: int, *, mapped: bool = False) -> None:
        self._cache, self._rows, self._mapped = cache, rows, mapped
        widths = {name: param_names if len(dimensions) > 1 else 0 for name, (_, dimensions) in ROWS.items()}
        super().__init__(**{name: self._map(name, ROWS[name][0], width) for name, width in widths.items()})

    def __len__(self) -> int:
        return self._rows

    @cached_property
    def records(self) -> list[dict[str, str]]:
        """Every record's line of records.csv, in the order that `record` counts in."""
        path = self._cache / RECORDS
        try:
            return parse_records(read_plain(path))
        except (OSError, ValueError) as error:
            raise _refuse_half(path, explain(error) if isinstance(error, OSError) else str(error)) from None

    @cached_property
    def ids(self) -> list[str]:
        """Every record's id, in the order that `record` counts in."""
        return [line["id"] for line in self.records]

    def as_rows(self) -> RowTable:
        """Return the numbers as they were written."""
        return RowTable(**{name: getattr(self, name) for name in ROWS})

    def rows_of(
        self, *, split: str | None = None, view: int | None = None, labelled: bool | None = None
    ) -> NDArray[np.int64]:
        """Return the rows that fit every condition given, in order."""
        keep = np.ones(self._rows, dtype=bool)
        if split is not None:
            keep &= self.split == SPLITS.index(split)
        if view is not None:
            keep &= self.view == view
        if labelled is not None:
            keep &= self.labelled == int(labelled)
        return np.flatnonzero(keep)

    def _map(self, name: str, dtype: str, width: int) -> NDArray[Any]:
        path = self._cache / "rows" / name / ("c.0.0" if width else "c.0")
        shape = (self._rows, width) if width else (self._rows,)
        wanted_bytes = self._rows * (width or 1) * np.dtype(dtype).itemsize
        try:
            found_bytes = disk.ask(path, refuse_special(path).stat).st_size
            if found_bytes != wanted_bytes:
                raise _refuse_half(path, f"it has {found_bytes} bytes and should have {wanted_bytes}")
            if self._mapped:
                return disk.ask(path, lambda: np.memmap(path, dtype=dtype, mode="r", shape=shape))
            return np.frombuffer(read_plain(path, most_bytes=wanted_bytes), dtype).reshape(shape)
        except OSError as error:
            raise _refuse_half(path, explain(error)) from None


def parse_records(content: bytes) -> list[dict[str, str]]:
    """Return the lines of a records.csv.

    Raises:
        ValueError: it is not UTF-8, has other columns, or a line has more or fewer values.
    """
    lines = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
    try:
        if tuple(lines.fieldnames or ()) != RECORD_FIELDS:
            raise ValueError(f"expected the columns {','.join(RECORD_FIELDS)}")
        records = [{name: unguard_cell(value) if value else value for name, value in line.items()} for line in lines]
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if any(None in line or None in line.values() for line in records):
        raise ValueError(f"expected {len(RECORD_FIELDS)} values a line")
    return records


def _refuse_half(path: Path, what: str) -> CacheIncompleteError:
    return CacheIncompleteError(
        f"{path} cannot be read ({what}): the cache was not written or copied whole; "
        "`difom-cache verify --repair` writes rows/ anew, or run `difom-cache extract` with the same arguments"
    )
