"""`--like OLD`: another cache's settings for new records, so that both can be trained on together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difom_cache.base.errors import CacheIdentityError, SettingsError
from difom_cache.extraction.options import ExtractConfig
from difom_cache.extraction.rebuild import load_all, requests_of
from difom_cache.store.identity import name_differences
from difom_cache.store.layout import teacher_folder
from difom_cache.store.reader import open_cache
from difom_cache.store.schema import TeacherIdentity
from difom_cache.teachers.base import TeacherRequest

_OF_TEACHERS = ("strides", "codec", "taps", "precision", "compile", "backend")
"""Options that each teacher of OLD has its own value of."""


@dataclass(frozen=True)
class OldColumn:
    """A teacher of the other cache: its identity, and its folder, where the bases of compact codecs lie."""

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
        "views": plan.views,
        "seed": plan.seed,
        "plan": plan.policy,
        "input_size": old.picture_px,
        "pictures": old.has_pictures,
    }
    for name, value in held.items():
        if name in config.model_fields_set and getattr(config, name) != value:
            raise SettingsError(_contradiction(config, name, value))
    for name in _OF_TEACHERS:
        if name in config.model_fields_set:
            raise SettingsError(f"--{name} comes from --like {config.like}, teacher by teacher; leave it out")
    return config.model_copy(update=held)


def request_like(config: ExtractConfig, device: str) -> list[tuple[TeacherRequest, OldColumn]]:
    """Return how each teacher of the cache that `--like` names is built, or those of them that --teacher names.

    Raises:
        CacheFormatError: it has none of the teachers that are named.
        WeightsError: nobody knows where a teacher's weights lie, or they are gone.
    """
    old = open_cache(config.like or Path())
    weights: Sequence[str] = config.weights if "weights" in config.model_fields_set else ()
    if config.teacher == ():
        return []
    requests = requests_of(old, config.teacher or (), weights, device)
    if not config.dry_run:
        load_all(requests)
    return [
        (request, OldColumn(old.teachers[label], old.path / teacher_folder(label)))
        for label, request in requests.items()
    ]


def refuse_unlike(identity: TeacherIdentity, old: OldColumn) -> None:
    """Raise where a column's features could not be mixed with the other cache's, whatever the reason.

    Raises:
        CacheIdentityError: names every differing value with both.
    """
    differing = name_differences(_deciding(old.identity), _deciding(identity))
    if differing:
        raise CacheIdentityError(
            f"{old.folder} was made otherwise than this run would: {'; '.join(differing)}. Give the same weights with "
            "--weights, or extract without --like"
        )


def _deciding(identity: TeacherIdentity) -> dict[str, Any]:
    """Return what must be equal for features to be mixed; library versions may differ."""
    held = identity.to_dict()
    about = {key: value for key, value in held["teacher"].items() if key != "libraries"}
    return {"teacher": about, "taps": held["taps"]}


def _contradiction(config: ExtractConfig, name: str, value: object) -> str:
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        held = name if value else f"no {name}"
        return f"--like {config.like} holds {held}, and this run asks for the contrary; leave {option} out"
    return f"{option} {getattr(config, name)}: --like {config.like} has {value}; leave {option} out, or extract without --like"
