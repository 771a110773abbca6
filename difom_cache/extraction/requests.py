"""Which teachers a run has and how each is built: as its options say, or as a cache was made."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from difom_cache.base.errors import CacheFormatError, CacheIdentityError, SettingsError, WeightsError
from difom_cache.extraction.begun import AUTO, backend_of, held_readings
from difom_cache.extraction.options import ExtractConfig
from difom_cache.store.identity import name_differences, read_source
from difom_cache.store.layout import teacher_folder
from difom_cache.store.reader import Cache, open_cache
from difom_cache.store.schema import SpecHeld, TeacherIdentity
from difom_cache.teachers.base import RANDOM, Precision, TeacherRequest, parse_teacher
from difom_cache.teachers.catalogue import OWN_WEIGHTS, place_teacher, split_code
from difom_cache.teachers.places import HUB

PLACES = {"onnx": "FILE", "student": "RUN", "hf": "MODEL"}  # teachers whose variant is where they lie
_NAMED = re.compile(r"(?P<teacher>[\w.-]+(:[^=]+)?)=(?P<weights>.+)")
_OF_TEACHERS = ("strides", "codec", "taps", "precision", "compile", "backend")
"""Options that each teacher of `--like OLD` has its own value of."""


@dataclass(frozen=True)
class OldColumn:
    """A teacher of the cache that `--like` names: its identity, and its folder, where the bases of codecs lie."""

    identity: TeacherIdentity
    folder: Path


def adopt_settings(config: ExtractConfig) -> ExtractConfig:
    """Return the config with the views, sizes and columns of the cache that `--like` names.

    An option that is given as well must say the same, as two caches with different settings are no use to each other.

    Raises:
        CacheFormatError: `--like` names no cache.
        SettingsError: an option says something else, or belongs to a teacher, or both caches are one.
    """
    if config.like is None:
        return config
    if config.like.resolve() == config.cache.resolve():
        raise SettingsError(f"--like {config.like} is the cache to fill; give another --cache for the new records")
    old = open_cache(config.like)
    plan = old.identity.plan
    held: dict[str, Any] = {
        **{"views": plan.views, "seed": plan.seed, "plan": plan.policy},
        **{"input_size": old.picture_px, "pictures": old.has_pictures},
    }
    for name in held:
        if name in config.model_fields_set and (given := getattr(config, name)) != held[name]:
            option = f"--{name.replace('_', '-')}"
            if name == "pictures":
                has = "pictures" if held[name] else "no pictures"
                raise SettingsError(
                    f"--like {config.like} holds {has}, and this run asks for the contrary; leave {option} out"
                )
            raise SettingsError(
                f"{option} {given}: --like {config.like} has {held[name]}; leave {option} out, or extract without --like"
            )
    for name in _OF_TEACHERS:
        if name in config.model_fields_set:
            raise SettingsError(f"--{name} comes from --like {config.like}, teacher by teacher; leave it out")
    return config.model_copy(update=held)


def request_teachers(config: ExtractConfig, device: str) -> list[TeacherRequest]:
    """Return how each teacher that `--teacher` names is built."""
    teachers = config.teacher or ()
    return [
        replace(
            asked,
            weights=weights,
            taps=config.taps,
            strides=config.strides,
            device=place_teacher(asked.name, device),
            precision=config.precision,
            picture_px=config.input_size,
            compile=config.compile,
            backend=config.backend or os.environ.get("DIFOM_BACKEND", AUTO),
        )
        for asked, weights in zip(map(parse_teacher, teachers), choose_weights(config.weights, teachers), strict=True)
    ]


def request_like(config: ExtractConfig, device: str) -> list[tuple[TeacherRequest, OldColumn]]:
    """Return how each teacher of the cache that `--like` names is built, or those of them that --teacher names.

    Raises:
        CacheFormatError: it has none of the teachers that are named.
        WeightsError: nobody knows where a teacher's weights lie.
    """
    old = open_cache(config.like or Path())
    if config.teacher == ():
        return []
    weights = config.weights if "weights" in config.model_fields_set else ()
    requests = requests_of(old, config.teacher or (), weights, device)
    folders = {label: old.path / teacher_folder(label) for label in requests}
    return [(request, OldColumn(old.teachers[label], folders[label])) for label, request in requests.items()]


def refuse_unlike(identity: TeacherIdentity, old: OldColumn) -> None:
    """Raise where a column's features could not be mixed with the other cache's; library versions may differ.

    Raises:
        CacheIdentityError: names every differing value with both.
    """
    one, other = ({key: each.to_dict()[key] for key in ("teacher", "taps")} for each in (old.identity, identity))
    other["teacher"]["libraries"] = one["teacher"].get("libraries")
    if differing := name_differences(one, other):
        raise CacheIdentityError(
            f"{old.folder} was made otherwise than this run would: {'; '.join(differing)}. Give the same weights with "
            "--weights, or extract without --like"
        )


def requests_of(
    cache: Cache, specs: Sequence[str], weights: str | Sequence[str], device: str
) -> dict[str, TeacherRequest]:
    """Return how to build the teachers of a cache again, by label; probes are no teachers that see pictures.

    Args:
        cache: whose identities, and notes of where teachers were found, say how.
        specs: "NAME[:VARIANT][@PX]" of the teachers that are wanted; none means all.
        weights: "LABEL=WEIGHTS" (for an ONNX file, a run or a hub model: where it lies now), or a bare value for the
            rest; none means as `extract` had them.
        device: they shall stand on; with "auto" each where it can.

    Raises:
        CacheFormatError: the cache holds none of the teachers wanted.
        WeightsError: nobody knows where some of them lie; each is named with the option that says it.
    """
    held = {label: identity.teacher for label, identity in cache.teachers.items() if identity.probe is None}
    names = {label: (label, f"{t.name}:{t.variant}", t.name) for label, t in held.items()}  # what each may be called
    named, rest = split_weights(weights, [name for each in names.values() for name in each])
    requests, lost = {}, []
    for label, teacher in held.items():
        meant = (asked for asked in map(parse_teacher, specs) if _is_meant(asked, teacher))
        asked = next(meant, None if specs else TeacherRequest())
        if asked is None:
            continue
        given = next((named[name] for name in names[label] if name in named), None)
        place, chosen = _find_again(cache, label, teacher, given, rest)
        if not (asked.variant or place):
            lost.append(tell_place(label, teacher.name))
            continue
        where = f"{cache.path}: teacher {label}"
        requests[label] = TeacherRequest(
            name=teacher.name,
            variant=asked.variant or place,
            input_px=asked.input_px or teacher.input_px,
            weights=chosen,
            taps=taps_of(teacher, where),
            device=place_teacher(teacher.name, device),
            precision=_precision_of(teacher, where),
            picture_px=cache.picture_px,
            compile=bool(teacher.options.get("compile")),
            backend=backend_of(cache.teachers[label]),
            readings=held_readings(cache.teachers[label], cache.path / teacher_folder(label)),
        )
    if lost:
        raise WeightsError(f"{cache.path} does not say where these teachers lie: {'; '.join(lost)}")
    if not requests and not cache.teachers.keys() & set(specs) and specs:
        raise CacheFormatError(
            f"{cache.path} holds none of the teachers {', '.join(specs)}; it has {', '.join(cache.teachers)}"
        )
    return requests


def _is_meant(asked: TeacherRequest, teacher: SpecHeld) -> bool:
    is_size = asked.input_px in (None, teacher.input_px)
    return is_size and asked.name == teacher.name and (asked.name in PLACES or asked.variant in ("", teacher.variant))


def _find_again(cache: Cache, label: str, teacher: SpecHeld, given: str | None, rest: str | None) -> tuple[str, str]:
    """Return the variant of a teacher ("" where nobody knows where it lies) and its weights: as given, else as noted."""
    source = read_source(cache.path / teacher_folder(label))
    before = RANDOM if teacher.weights == RANDOM else source.weights if source else HUB
    weights = before if rest is None or before == RANDOM else rest
    if teacher.name not in PLACES:
        return teacher.variant, given or weights
    place = parse_teacher(source.teacher).variant if source else ""
    if teacher.name == "student":
        place = split_code(place)[0]  # a note names no code to import
    return given or place, HUB if teacher.name in OWN_WEIGHTS and weights != RANDOM else weights


def _precision_of(teacher: SpecHeld, where: str) -> Precision:
    known = get_args(Precision)
    if teacher.precision not in known:
        raise CacheFormatError(f"{where} computed in {teacher.precision}; this difom computes in {', '.join(known)}")
    return cast(Precision, teacher.precision)


def taps_of(teacher: SpecHeld, where: str) -> tuple[str, ...]:
    """Return every tap that a teacher was built with, as `--taps` takes them.

    Raises:
        CacheFormatError: its identity lists none.
    """
    if not teacher.taps:
        raise CacheFormatError(
            f"{where} cannot be built again: its identity does not list the taps that it was built with"
        )
    tensors = teacher.options.get("tensors", {})
    names = [tap.name.rpartition("@") for tap in teacher.taps]
    return tuple(f"{n}={tensors[n]}@{stride}" if n in tensors else f"{n}@{stride}" for n, _, stride in names)


def tell_place(label: str, name: str) -> str:
    """Return a teacher's label with the option that says where its weights lie."""
    return f"{label} (give --weights {label}={PLACES.get(name, 'PATH')})"


def choose_weights(given: str | Sequence[str], teachers: Sequence[str]) -> list[str]:
    """Return the weights of each of `teachers`.

    A teacher that holds its own weights (an ONNX file, a run) takes no bare value, only what is said of itself.

    Args:
        given: "TEACHER=WEIGHTS", TEACHER as "sam", "sam:vit_h" or "sam-vit_h", or one bare value for the rest; weights
            are "hub", "random" or a path.
        teachers: each as "NAME[:VARIANT][@PX]".

    Raises:
        SettingsError: a value for a teacher that is not here, two for one teacher, or two bare ones.
    """
    asked = [parse_teacher(teacher) for teacher in teachers]
    keys = [
        [*((f"{a.name}:{a.variant}", f"{a.name}-{Path(a.variant).stem}") if a.variant else ()), a.name] for a in asked
    ]  # what each may be called, the narrowest first
    named, rest = split_weights(given, [key for each in keys for key in each])
    bare = [HUB if each.name in OWN_WEIGHTS else rest or HUB for each in asked]
    return [next((named[key] for key in own if key in named), usual) for own, usual in zip(keys, bare, strict=True)]


def split_weights(given: str | Sequence[str], known: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """Return the weights by the teacher they are given for, and the bare value, None where there is none.

    Args:
        given: as `choose_weights` takes it.
        known: what teachers may be called.

    Raises:
        SettingsError: as `choose_weights`.
    """
    named: dict[str, str] = {}
    rest: list[str] = []
    for text in [given] if isinstance(given, str) else given:
        match = _NAMED.fullmatch(text)
        if match is None or (match["teacher"] not in known and Path(text).exists()):  # a path may hold "=" too
            rest.append(text)
            continue
        teacher = match["teacher"]
        if teacher not in known:
            names = ", ".join(dict.fromkeys(known))
            raise SettingsError(f"--weights {text}: there is no teacher {teacher!r} here; name one of {names}")
        if teacher in named:
            raise SettingsError(f"--weights names {teacher} twice: {named[teacher]} and {match['weights']}")
        named[teacher] = match["weights"]
    if len(rest) > 1:
        raise SettingsError(
            f"--weights takes one value for all teachers, found {' and '.join(rest)}; say whose each is: --weights NAME=PATH"
        )
    return named, rest[0] if rest else None
