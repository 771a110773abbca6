"""The table of all views: which record, which view, which numbers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import CacheFormatError, SettingsError
from difom_cache.data.record import Record
from difom_cache.views.draw import draw_table, policy_named
from difom_cache.views.params import COLUMNS, REPLAY_VERSION, ViewParams

MOST_ROWS = 2**31 - 1  # rows are numbered by int32


@dataclass(frozen=True)
class ViewPlan:
    """All views of a cache, one row each, all views of a record next to each other.

    Attributes:
        record: (R,) int32, index into the manifest.
        view: (R,) int32, view number, from 0.
        params: (R, P) int32, in the order of `COLUMNS`.
        policy: name of the policy that the numbers were drawn with.
        seed: of the draws.
    """

    record: NDArray[np.int32]
    view: NDArray[np.int32]
    params: NDArray[np.int32]
    policy: str
    seed: int

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, row: int) -> ViewParams:
        """Return the numbers of one row as `ViewParams`."""
        return ViewParams.from_row(self.params[row])

    @property
    def wholly_valid(self) -> bool:
        """True where no view of the plan has pixels outside its frame."""
        pad, angle = COLUMNS.index("pad"), COLUMNS.index("angle_mdeg")
        return not bool(((self.params[:, pad] != 0) & (self.params[:, angle] != 0)).any())

    def digest(self) -> str:
        """Return SHA-256 over everything that decides the views: numbers, their meaning, policy and seed."""
        head = {
            "replay": REPLAY_VERSION,
            "columns": COLUMNS,
            "policy": self.policy,
            "seed": self.seed,
            "rows": len(self),
        }
        digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
        for table in (self.record, self.view, self.params):
            digest.update(np.ascontiguousarray(table, dtype="<i4").tobytes())
        return digest.hexdigest()

    @classmethod
    def from_rows(
        cls, record: NDArray[np.int32], view: NDArray[np.int32], params: NDArray[np.int32], *, policy: str, seed: int
    ) -> "ViewPlan":
        """Return the plan that a cache holds.

        Raises:
            CacheFormatError: the tables do not fit together or have other columns.
        """
        if record.shape != view.shape or params.shape != (len(view), len(COLUMNS)):
            raise CacheFormatError(
                f"a view plan of {len(view)} rows needs record ({len(view)},), view ({len(view)},) and params "
                f"({len(view)}, {len(COLUMNS)}), found {record.shape}, {view.shape} and {params.shape}"
            )
        return cls(
            record=np.ascontiguousarray(record, dtype=np.int32),
            view=np.ascontiguousarray(view, dtype=np.int32),
            params=np.ascontiguousarray(params, dtype=np.int32),
            policy=policy,
            seed=seed,
        )


def draw_plan(records: Sequence[Record], *, views: int, seed: int, policy: str = "default") -> ViewPlan:
    """Return the views of all records: `views` of each train record, view 0 alone of every other.

    Args:
        records: in manifest order.
        views: views of a train record, at least 1; view 0 is the plain resize.
        seed: of all draws, with the record's id and the view's number.
        policy: a name in `POLICIES`.

    Raises:
        SettingsError: no such policy, fewer than one view, or more rows than a cache can number.
    """
    if views < 1:
        raise SettingsError(f"a plan needs at least 1 view of each record, found {views}")
    training = sum(record.split == "train" for record in records)
    if training * (views - 1) + len(records) > MOST_ROWS:
        raise SettingsError(
            f"{views} views of {training} training records are more than the {MOST_ROWS} rows that a cache can number; "
            "ask for fewer --views"
        )
    rules = policy_named(policy)
    counts = np.array([views if record.split == "train" else 1 for record in records], dtype=np.int64)
    index = np.repeat(np.arange(len(records)), counts)
    view = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    sizes = np.array([(record.width, record.height) for record in records], dtype=np.int64).reshape(-1, 2)[index]
    ids = [record.id for record in records]
    params = draw_table(rules, sizes, seed, [ids[each] for each in index.tolist()], view)
    return ViewPlan.from_rows(index.astype(np.int32), view.astype(np.int32), params, policy=policy, seed=seed)
