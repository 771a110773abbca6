"""What goes to a worker and what comes back: views, blocks, reports."""

from dataclasses import dataclass
from pathlib import Path

from difom_cache.data.record import Record
from difom_cache.teachers.base import TeacherRequest
from difom_cache.views.params import ViewParams


@dataclass(frozen=True)
class ViewJob:
    """One view to compute: its record, its numbers, whether it counts in the statistics, and its number."""

    record: Record
    params: ViewParams
    train: bool
    view: int


@dataclass(frozen=True)
class BlockJob:
    """One block to compute; it can be sent to another process or machine that sees the cache and the data.

    `request` is None for the pictures; `rows` is the number of rows of the cache.
    """

    cache: Path
    folder: str
    block: int
    rows: int
    views: tuple[ViewJob, ...]
    request: TeacherRequest | None


@dataclass(frozen=True)
class BlockReport:
    """What became of a block: where it was computed, how many views, seconds by stage; `skipped` if it was there."""

    folder: str
    block: int
    views: int
    seconds: dict[str, float]
    worker: str
    skipped: bool = False
