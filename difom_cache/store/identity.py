"""Identities: everything that decides what a cache, or one teacher in it, contains. Written first, never changed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from difom_cache.errors import CacheFormatError, CacheIdentityError
from difom_cache.store.atomic import write_once
from difom_cache.store.layout import FORMAT_VERSION, IDENTITY, Column, canonical
from difom_cache.store.schema import IDENTITIES, check_value, read_checked

Identity = dict[str, Any]


_RESTORE = "restore it from a copy of the cache"


def offer_identity(folder: Path, identity: Identity, kind: str = "cache") -> Identity:
    """Write `identity` unless another lies in `folder`; return the one that lies there."""
    write_once(folder / IDENTITY, [canonical(identity)])
    return read_identity(folder, kind)


def fix_identity(folder: Path, identity: Identity, *, hint: str, kind: str = "cache") -> Identity:
    """Make `folder` hold `identity`, or refuse when it holds another one.

    Args:
        folder: the cache, or the folder of one column.
        identity: what this run would write there; JSON values only.
        hint: one sentence that tells the user what to do when the two differ.
        kind: as of `read_identity`.

    Returns:
        The identity that lies there, equal to `identity`.

    Raises:
        CacheIdentityError: another identity lies there; every differing value is named with both its values.
    """
    held = offer_identity(folder, identity, kind)
    differing = sorted(name_differences(held, json.loads(canonical(identity))), key=_is_digest)
    if differing:
        raise CacheIdentityError(f"{folder} holds something else than this run brings: {'; '.join(differing)}. {hint}")
    return held


def read_identity(folder: Path, kind: str = "cache") -> Identity:
    """Return the identity that lies in `folder`.

    Args:
        folder: the cache, or the folder of one column.
        kind: what the folder is: "cache", "pictures" or "teacher".

    Raises:
        CacheFormatError: there is none, it is of another format version, or a value in it cannot be.
    """
    path = folder / IDENTITY
    try:
        identity = read_checked(path, dict[str, Any], CacheFormatError, _RESTORE)
    except (FileNotFoundError, NotADirectoryError):
        raise CacheFormatError(
            f"{folder} is not a cache: {path.name} is missing. Make one with `difom-cache extract --cache {folder}`"
        ) from None
    return check_identity(identity, str(path), kind)


def check_identity(identity: Identity, where: str, kind: str) -> Identity:
    """Return an identity that was read from `where` if this difom can read what it describes.

    Raises:
        CacheFormatError: it is of another format version, or a value in it cannot be.
    """
    if identity.get("format") != FORMAT_VERSION:
        raise CacheFormatError(
            f"{where} is of format version {identity.get('format')}, this difom reads version {FORMAT_VERSION}; "
            "use the difom version that wrote it, or extract again into a new folder"
        )
    return dict(check_value(identity, IDENTITIES[kind], where, CacheFormatError, _RESTORE))


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


def list_random(teachers: Mapping[str, Identity]) -> list[str]:
    """Return the labels of those teachers whose weights are random, as their identities say."""
    return [label for label, identity in teachers.items() if identity["teacher"].get("weights") == "random"]


def format_random_warning(labels: Sequence[str]) -> str:
    """Return the one line that warns of features, and of whatever was learnt from them, that no trained teacher gave."""
    verb = "has" if len(labels) == 1 else "have"
    return f"warning: {', '.join(labels)} {verb} random weights: good for trying things out, never for results"


def digest_identity(identity: Identity) -> str:
    """Return the SHA-256 of an identity's one spelling."""
    return hashlib.sha256(canonical(identity)).hexdigest()


def content_digest(identity: Identity, column: Column, markers: dict[int, Any]) -> str:
    """Return one digest for what a column contains; equal contents have equal digests, whoever wrote them and when."""
    files = {
        str(block): {path: digest.sha256 for path, digest in marker.files.items()}
        for block, marker in sorted(markers.items())
    }
    return digest_identity({"identity": identity, "folder": column.folder, "files": files})


def _is_digest(phrase: str) -> bool:
    """Whether a phrase is of a value that says nothing but that something differs; what differs is named before."""
    return phrase.partition(":")[0].endswith(("digest", "sha256"))


def _shorten(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef"):
        return f"{value[:12]}..."
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
