"""How the teachers of a cache are built again: its identities and notes say what they were."""

from collections.abc import Mapping, Sequence
from typing import cast, get_args

from difom_cache.base.errors import CacheFormatError, RunError, WeightsError
from difom_cache.extraction.teachers import backend_of, held_readings, load_teacher
from difom_cache.extraction.weights import HUB, split_weights
from difom_cache.store.layout import teacher_folder
from difom_cache.store.reader import Cache
from difom_cache.store.schema import SpecHeld
from difom_cache.store.source import read_source
from difom_cache.teachers.base import RANDOM, Precision, TeacherRequest, parse_teacher
from difom_cache.teachers.catalogue import OWN_WEIGHTS, split_code

PLACES = {"onnx": "FILE", "student": "RUN", "hf": "MODEL"}  # teachers whose variant is where they lie


def requests_of(
    cache: Cache, specs: Sequence[str], weights: str | Sequence[str], device: str
) -> dict[str, TeacherRequest]:
    """Return how to build the teachers of a cache again, by label; probes are no teachers that see pictures.

    Args:
        cache: whose identities, and notes of where teachers were found, say how.
        specs: "NAME[:VARIANT][@PX]" of the teachers that are wanted; none means all.
        weights: "LABEL=WEIGHTS" (for an ONNX file, a run or a hub model: where it lies now), or a bare value for the
            rest; none means as `extract` had them.
        device: they shall stand on.

    Raises:
        CacheFormatError: the cache holds none of the teachers wanted.
        WeightsError: nobody knows where some of them lie; each is named with the option that says it.
    """
    held = {label: identity.teacher for label, identity in cache.teachers.items() if identity.probe is None}
    known = [key for label, t in held.items() for key in (label, f"{t.name}:{t.variant}", t.name)]
    named, rest = split_weights(weights, known)
    requests, lost = {}, []
    for label, teacher in held.items():
        name, variant = teacher.name, teacher.variant
        meant = [asked for asked in map(parse_teacher, specs) if _is_meant(asked, name, variant)]
        if specs and not meant:
            continue
        asked = meant[0] if meant else TeacherRequest()
        source = read_source(cache.path / teacher_folder(label))
        own = next((named[key] for key in (label, f"{name}:{variant}", name) if key in named), None)
        before = parse_teacher(source.teacher).variant if source else None
        if name in PLACES:
            noted = split_code(before)[0] if name == "student" and before else before  # a note names no code to import
            place, own = asked.variant or own or noted, None
        else:
            place = asked.variant or variant
        if not place:
            lost.append(_where(label, name))
            continue
        as_before = RANDOM if teacher.weights == RANDOM else source.weights if source else HUB
        chosen = own or (as_before if as_before == RANDOM or rest is None else rest)
        requests[label] = TeacherRequest(
            name=name,
            variant=place,
            input_px=asked.input_px or teacher.input_px,
            weights=HUB if name in OWN_WEIGHTS and chosen != RANDOM else chosen,
            taps=taps_of(teacher, f"{cache.path}: teacher {label}"),
            strides=None,
            device=device,
            precision=_precision_of(teacher, f"{cache.path}: teacher {label}"),
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


def _is_meant(asked: TeacherRequest, name: str, variant: str) -> bool:
    return asked.name == name and (name in PLACES or asked.variant in ("", variant))


def _precision_of(teacher: SpecHeld, where: str) -> Precision:
    for precision in get_args(Precision):
        if precision == teacher.precision:
            return cast(Precision, precision)
    raise CacheFormatError(
        f"{where} computed in {teacher.precision}; this difom computes in {', '.join(get_args(Precision))}"
    )


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


def _where(label: str, name: str) -> str:
    return f"{label} (give --weights {label}={PLACES.get(name, 'PATH')})"


def load_all(requests: Mapping[str, TeacherRequest]) -> None:
    """Build every teacher once, so that what is missing is known before hours are spent.

    Raises:
        WeightsError: names all that cannot be found, each with the option that says where it is.
    """
    lost = []
    for label, request in requests.items():
        try:
            load_teacher(request)
        except (WeightsError, RunError) as error:
            lost.append(f"{_where(label, request.name)}: {error}")
    if lost:
        raise WeightsError(f"these teachers cannot be built again: {'; '.join(lost)}")
