"""The table of rows: which record and view each row of every array belongs to."""

import csv
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.errors import CacheIncompleteError
from difom_cache.store.layout import RECORDS, SPLITS
from difom_cache.store.writer import RowTable


class Table:
    """One entry for each row; numbers are mapped from disk, texts are read when first asked for.

    `record` counts in `records`, `view` is the view number, `split` is 0 train, 1 val, 2 test, `group` is a number that
    rows of one group share, `labelled` is 1 where the record has a mask, `params` holds the view's integers.
    """

    def __init__(self, cache: Path, rows: int, param_names: int) -> None:
        self._cache, self._rows = cache, rows
        self.record = self._map("record", np.int32)
        self.view = self._map("view", np.int32)
        self.split = self._map("split", np.uint8)
        self.group = self._map("group", np.int32)
        self.labelled = self._map("labelled", np.uint8)
        self.params = self._map("params", np.int32, param_names)

    def __len__(self) -> int:
        return self._rows

    @cached_property
    def records(self) -> list[dict[str, str]]:
        """Every record's line of records.csv, in the order that `record` counts in."""
        path = self._cache / RECORDS
        try:
            with path.open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise _refuse_half(path, error) from None

    @cached_property
    def ids(self) -> list[str]:
        """Every record's id, in the order that `record` counts in."""
        return [line["id"] for line in self.records]

    def as_rows(self) -> RowTable:
        """Return the numbers as they were written."""
        return RowTable(self.record, self.view, self.split, self.group, self.labelled, self.params)

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

    def _map(self, name: str, dtype: type[np.generic], width: int = 0) -> NDArray[Any]:
        path = self._cache / "rows" / name / ("c.0.0" if width else "c.0")
        shape = (self._rows, width) if width else (self._rows,)
        try:
            return np.memmap(path, dtype=dtype, mode="r", shape=shape)
        except (FileNotFoundError, ValueError) as error:
            raise _refuse_half(path, error) from None


def _refuse_half(path: Path, error: Exception) -> CacheIncompleteError:
    return CacheIncompleteError(
        f"{path} cannot be read ({error}): the cache was not written or copied whole; "
        "run `difom-cache extract` with the same arguments, or copy it again"
    )
