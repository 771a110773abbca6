"""Which weights each teacher of a run gets: `--weights` names them one by one, or for all the rest at once."""

import re
from collections.abc import Sequence
from pathlib import Path

from difom_cache.base.errors import SettingsError
from difom_cache.teachers.base import parse_teacher
from difom_cache.teachers.catalogue import OWN_WEIGHTS

HUB = "hub"
_NAMED = re.compile(r"(?P<teacher>[\w.-]+(:[^=]+)?)=(?P<weights>.+)")


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
    named, rest = split_weights(given, [key for teacher in teachers for key in keys_of(teacher)])
    chosen = []
    for teacher in teachers:
        own = next((named[key] for key in keys_of(teacher) if key in named), None)
        bare = HUB if parse_teacher(teacher).name in OWN_WEIGHTS else rest or HUB
        chosen.append(own or bare)
    return chosen


def keys_of(teacher: str) -> list[str]:
    """Return what a teacher may be called in `--weights`, the narrowest first: "sam:vit_h", "sam-vit_h", "sam"."""
    asked = parse_teacher(teacher)
    name, variant = asked.name, asked.variant
    narrow = [f"{name}:{variant}", f"{name}-{Path(variant).stem}"] if variant else []
    return [*narrow, name]


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
        elif match["teacher"] not in known:
            raise SettingsError(
                f"--weights {text}: there is no teacher {match['teacher']!r} here; name one of {', '.join(dict.fromkeys(known))}"
            )
        elif match["teacher"] in named:
            raise SettingsError(
                f"--weights names {match['teacher']} twice: {named[match['teacher']]} and {match['weights']}"
            )
        else:
            named[match["teacher"]] = match["weights"]
    if len(rest) > 1:
        raise SettingsError(
            f"--weights takes one value for all teachers, found {' and '.join(rest)}; say whose each is: --weights NAME=PATH"
        )
    return named, rest[0] if rest else None
