"""Identities: all that decides what a cache, or a teacher in it, contains; written first, never changed; and notes."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from difom_cache.base import disk
from difom_cache.base.atomic import write_atomic, write_once
from difom_cache.base.errors import CacheDamagedError, CacheFormatError, CacheIdentityError
from difom_cache.base.files import read_held
from difom_cache.store.layout import IDENTITY, SEEN_MASKS, SOURCE, Column, canonical, shorten
from difom_cache.store.schema import (
    RESTORE,
    Identity,
    SeenMasks,
    TeacherIdentity,
    TeacherSource,
    read_checked,
    read_model,
)

AnyIdentity = TypeVar("AnyIdentity", bound=Identity)


def offer_identity(folder: Path, identity: AnyIdentity) -> AnyIdentity:
    """Write `identity` unless another lies in `folder`; return the one that lies there."""
    if not disk.is_there(folder / IDENTITY):
        write_once(folder / IDENTITY, [canonical(identity.to_dict())])
    return read_identity(folder, type(identity))


def fix_identity(folder: Path, identity: AnyIdentity, *, hint: str) -> AnyIdentity:
    """Make `folder` hold `identity`, or refuse when it holds another one.

    Args:
        folder: the cache, or the folder of one column.
        identity: what this run would write there.
        hint: one sentence that tells the user what to do when the two differ.

    Returns:
        The identity that lies there, equal to `identity`.

    Raises:
        CacheIdentityError: another identity lies there; every differing value is named with both its values.
    """
    held = offer_identity(folder, identity)
    differing = name_differences(held.to_dict(), identity.to_dict())
    differing.sort(key=lambda phrase: phrase.partition(":")[0].endswith(("digest", "sha256")))  # they say the least
    if differing:
        raise CacheIdentityError(f"{folder} holds something else than this run brings: {'; '.join(differing)}. {hint}")
    return held


def read_identity(folder: Path, kind: type[AnyIdentity]) -> AnyIdentity:
    """Return the identity that lies in `folder`.

    Args:
        folder: the cache, or the folder of one column.
        kind: what the folder is.

    Raises:
        CacheFormatError: there is none, it is of another format version, or a value in it cannot be.
    """
    path = folder / IDENTITY
    try:
        held = read_checked(path, dict[str, Any], CacheFormatError, RESTORE)
    except (FileNotFoundError, NotADirectoryError):
        raise CacheFormatError(
            f"{folder} is not a cache: {path.name} is missing. Make one with `difom-cache extract --cache {folder}`"
        ) from None
    return kind.from_dict(held, str(path))


def name_differences(held: Any, brought: Any, key: str = "") -> list[str]:
    """Return one phrase for each value in which two identities differ, such as "seed: held 0, this run 1"."""
    if isinstance(held, dict) and isinstance(brought, dict):
        names = sorted(held.keys() | brought.keys())
        return [
            phrase
            for name in names
            for phrase in name_differences(held.get(name), brought.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if held == brought else [f"{key}: held {shorten(held)}, this run {shorten(brought)}"]


def list_random(teachers: Mapping[str, TeacherIdentity]) -> list[str]:
    """Return the labels of those teachers whose weights are random, as their identities say."""
    return [label for label, identity in teachers.items() if identity.teacher.weights == "random"]


def format_random_warning(labels: Sequence[str]) -> str:
    """Return the one line that warns of features, and of whatever was learnt from them, that no trained teacher gave."""
    verb = "has" if len(labels) == 1 else "have"
    return f"warning: {', '.join(labels)} {verb} random weights: good for trying things out, never for results"


def digest_identity(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the one spelling of what an identity holds."""
    return hashlib.sha256(canonical(identity)).hexdigest()


def content_digest(identity: Identity, column: Column, markers: dict[int, Any]) -> str:
    """Return one digest for what a column contains; equal contents have equal digests, whoever wrote them and when."""
    files = {
        str(block): {path: digest.sha256 for path, digest in marker.files.items()}
        for block, marker in sorted(markers.items())
    }
    return digest_identity({"identity": identity.to_dict(), "folder": column.folder, "files": files})


PUBLISHED = frozenset({"sam", "dinov2", "dinov3", "clip", "oneformer", "mask2former"})
"""Teachers whose publishers trained them on pictures without polyp masks."""
MAKE_ANEW = "copy it again from another copy, or remove the column with `difom-cache drop` and make it anew"


def write_seen_masks(folder: Path, masks: Iterable[str]) -> None:
    """Keep the digests of the mask files that a column's teacher has learnt from, so that containment can be told."""
    write_once(folder / SEEN_MASKS, [canonical({"masks": sorted(set(masks))})])


def read_seen_masks(folder: Path, identity: TeacherIdentity) -> frozenset[str] | None:
    """Return the digests of the masks that a column's teacher has learnt from; None where nobody knows.

    Raises:
        CacheDamagedError: the list cannot be read.
    """
    try:
        return frozenset(read_model(folder / SEEN_MASKS, SeenMasks, CacheDamagedError, RESTORE).masks)
    except FileNotFoundError:
        return frozenset() if identity.teacher.name in PUBLISHED else None


def write_source(folder: Path, source: TeacherSource) -> None:
    """Make the column in `folder` say where its teacher was last found, so that `verify --recompute` finds it again.

    The note decides nothing, is in no digest, and a cache without it is whole.
    """
    if read_source(folder) != source:
        write_atomic(folder / SOURCE, canonical(source.model_dump()))


def read_source(folder: Path) -> TeacherSource | None:
    """Return where the teacher of a column was found, or None where no readable note of it lies there."""
    try:
        return read_model(folder / SOURCE, TeacherSource, CacheFormatError, "it may be removed")
    except (OSError, CacheFormatError):
        return None


def read_beside(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of those files in a column's folder that are there.

    Raises:
        CacheDamagedError: one is there and cannot be read.
    """
    for name in names:
        if disk.is_there(folder / name):
            yield name, read_held(folder / name, CacheDamagedError, MAKE_ANEW)
