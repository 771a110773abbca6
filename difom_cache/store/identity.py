"""Identities: everything that decides what a cache, or one teacher in it, contains. Written first, never changed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from difom_cache.base.atomic import write_once
from difom_cache.base.errors import CacheFormatError, CacheIdentityError
from difom_cache.store.layout import IDENTITY, Column, canonical
from difom_cache.store.schema import RESTORE, Identity, TeacherIdentity, read_checked

AnyIdentity = TypeVar("AnyIdentity", bound=Identity)


def offer_identity(folder: Path, identity: AnyIdentity) -> AnyIdentity:
    """Write `identity` unless another lies in `folder`; return the one that lies there."""
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
    differing = sorted(name_differences(held.to_dict(), identity.to_dict()), key=_is_digest)
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
    return [] if held == brought else [f"{key}: held {_shorten(held)}, this run {_shorten(brought)}"]


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


def _is_digest(phrase: str) -> bool:
    """Whether a phrase is of a value that says nothing but that something differs; what differs is named before."""
    return phrase.partition(":")[0].endswith(("digest", "sha256"))


def _shorten(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef"):
        return f"{value[:12]}..."
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
