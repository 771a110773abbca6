"""Which masks a teacher has learnt from, as a list beside its column's identity, so that containment can be told."""

from collections.abc import Iterable
from pathlib import Path

from difom_cache.base.atomic import write_once
from difom_cache.base.errors import CacheDamagedError
from difom_cache.store.layout import SEEN_MASKS, canonical
from difom_cache.store.schema import SeenMasksHeld, TeacherIdentity, read_checked

PUBLISHED = frozenset({"sam", "dinov2", "dinov3", "clip", "oneformer", "mask2former"})
"""Teachers whose publishers trained them on pictures without polyp masks."""


def write_seen_masks(folder: Path, masks: Iterable[str]) -> None:
    """Keep the digests of the mask files that a column's teacher has learnt from."""
    write_once(folder / SEEN_MASKS, [canonical({"masks": sorted(set(masks))})])


def read_seen_masks(folder: Path, identity: TeacherIdentity) -> frozenset[str] | None:
    """Return the digests of the masks that a column's teacher has learnt from; None where nobody knows.

    Raises:
        CacheDamagedError: the list cannot be read.
    """
    try:
        held = read_checked(
            folder / SEEN_MASKS, SeenMasksHeld, CacheDamagedError, "restore it from a copy of the cache"
        )
    except FileNotFoundError:
        return frozenset() if identity.teacher.name in PUBLISHED else None
    return frozenset(held["masks"])
