"""What a cache holds of a teacher already: its column, what runs its network, and what its outputs were read as."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from difom_cache.base import disk
from difom_cache.base.errors import CacheFormatError
from difom_cache.store.identity import AnyIdentity, read_identity
from difom_cache.store.layout import IDENTITY, teacher_folder
from difom_cache.store.schema import RESTORE, OutputHeld, TeacherIdentity, check_model, check_value
from difom_cache.teachers.base import RANDOM, Backend, TeacherSpec, name_size
from difom_cache.teachers.outputs import Reading

AUTO, TORCH, OPENVINO = BACKENDS = get_args(Backend)
NETWORKS = ("onnx",)  # teachers that do not know what their outputs are


@dataclass(frozen=True)
class Begun:
    """The column that a cache has for a teacher, or would have: its label, its folder, and its identity once it is begun."""

    label: str
    folder: Path
    identity: TeacherIdentity | None


def find_begun(cache: Path, spec: TeacherSpec, like: str | None = None) -> Begun:
    """Return a teacher's column: under its label, or under a shorter one where an old cache has just these features there.

    Caches once kept every variant, every input size, and random weights too, under the teacher's name.

    Args:
        cache: the cache's folder.
        spec: the teacher.
        like: label of a new column, as another cache has it; by default the teacher's, with the size where another size has that.
    """
    sized = name_size(spec)
    plain = spec.label.removesuffix(f"-{spec.input_px}px")
    for label in dict.fromkeys((spec.label, sized, plain, spec.name, spec.label.removesuffix(f"-{RANDOM}"))):
        folder = cache / teacher_folder(label)
        held = held_identity(folder, TeacherIdentity)
        if held is None or held.teacher.input_px != spec.input_px:
            continue
        is_same = (held.teacher.name, held.teacher.variant) == (spec.name, spec.variant)
        if label == spec.label or (is_same and spec.weights_digest in ("", held.teacher.weights_digest)):
            return Begun(label, folder, held)  # a dry run has read no weights
    is_taken = disk.is_there(cache / teacher_folder(spec.label) / IDENTITY)
    label = like or (sized if is_taken else spec.label)
    return Begun(label, cache / teacher_folder(label), None)


def held_identity(folder: Path, kind: type[AnyIdentity]) -> AnyIdentity | None:
    """Return the identity in `folder`, None where nothing was begun there."""
    return read_identity(folder, kind) if disk.is_there(folder / IDENTITY) else None


def backend_of(identity: TeacherIdentity) -> str:
    """Return what runs the network of a column."""
    return TORCH if identity.backend is None else identity.backend.name


def held_readings(identity: TeacherIdentity, folder: Path) -> tuple[Reading, ...] | None:
    """Return what the outputs of a column's network were read as; () where it was begun before this was told.

    None for a teacher that knows its own.

    Raises:
        CacheFormatError: what the identity says cannot be.
    """
    if identity.teacher.name not in NETWORKS:
        return None
    outputs, where = identity.teacher.options.get("outputs", {}), f"{folder / IDENTITY}: teacher.options.outputs"
    readings = []
    for name, value in check_value(outputs, dict[str, Any], where, CacheFormatError, RESTORE).items():
        held = check_model(value, OutputHeld, where, CacheFormatError, RESTORE)
        span = None if held.span is None else (held.span[0], held.span[1])
        readings.append(Reading(name, held.values, held.channel, held.by, span, held.frames))
    return tuple(readings)


def identify_teacher(spec: TeacherSpec, held: TeacherIdentity | None) -> dict[str, Any]:
    """Return what decides a teacher's features, in the words of the identity that a cache holds of it, if any.

    Identities did not always say that weights are random; the digest tells the same.
    """
    identity = spec.identity()
    if held is not None and held.teacher.weights is None:
        identity.pop("weights", None)
    return identity
