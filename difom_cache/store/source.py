"""Where a teacher and its weights were found: a note beside the identity, so that `verify --recompute` finds them again.

It decides nothing, is in no digest, and a cache without it is whole.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import CacheFormatError
from difom_cache.store.layout import SOURCE, canonical
from difom_cache.store.schema import SourceHeld, read_checked


@dataclass(frozen=True)
class TeacherSource:
    """What built a teacher.

    Attributes:
        teacher: "NAME[:VARIANT]@PX"; a file or run folder by its whole path.
        weights: as they were asked for: "hub", "random" or a whole path.
        found: where they were then found.
    """

    teacher: str
    weights: str
    found: str


def write_source(folder: Path, source: TeacherSource) -> None:
    """Make the column in `folder` say where its teacher was last found."""
    if read_source(folder) != source:
        write_atomic(folder / SOURCE, canonical(asdict(source)))


def read_source(folder: Path) -> TeacherSource | None:
    """Return where the teacher of a column was found, or None where no readable note of it lies there."""
    try:
        held = read_checked(folder / SOURCE, SourceHeld, CacheFormatError, "it may be removed")
    except (OSError, CacheFormatError):
        return None
    return TeacherSource(held["teacher"], held["weights"], held["found"])
