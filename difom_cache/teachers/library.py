"""Teachers that are a model of transformers: which weights, which input and which taps its sizes have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from difom_cache.teachers.base import (
    Description,
    NativeTap,
    TapRequest,
    TeacherRequest,
    choose_variant,
    label_variant,
)
from difom_cache.teachers.block_taps import default_token_taps, token_taps
from difom_cache.teachers.network import NetworkFacts, NetworkTeacher, TapNetwork, assemble
from difom_cache.teachers.preprocess import Triple, check_input_px
from difom_cache.teachers.transformers_weights import Family, count_parameters, load_part


@dataclass(frozen=True)
class LibraryTeacher:
    """A teacher in all its sizes; taps are by default those of a plain vision transformer.

    Attributes:
        family: its sizes and where their weights come from.
        default_variant: where the user names none.
        input_px: variant to default input, where it is not the usual one.
        usual_input_px: default input of the others.
        mean: per channel.
        std: per channel.
        licence: of the weights.
        read: gives the network with taps of the library's model, for an input of so many px.
        multiple_px: of the input's side, by configuration.
        native: every place that a network of a configuration can be read at.
        default_taps: what is stored of it unless the user says otherwise.
    """

    family: Family
    default_variant: str
    input_px: Mapping[str, int]
    usual_input_px: int
    mean: Triple
    std: Triple
    licence: str
    read: Callable[[Any, int], TapNetwork]
    multiple_px: Callable[[Any], int] = lambda config: int(config.patch_size)
    native: Callable[[Any], dict[str, NativeTap]] = token_taps
    default_taps: Callable[[Any], tuple[TapRequest, ...]] = default_token_taps


def build_library(teacher: LibraryTeacher, request: TeacherRequest) -> NetworkTeacher:
    """Return the network that `request` asks for."""
    family = teacher.family
    variant = choose_variant(family.name, request.variant or teacher.default_variant, family.configs)
    input_px = request.input_px or teacher.input_px.get(variant, teacher.usual_input_px)
    check_input_px(input_px, teacher.multiple_px(family.configs[variant]()), f"{family.name}:{variant}")
    model, config, weights = load_part(family, variant, request.weights)
    facts = NetworkFacts(
        label=label_variant(family.name, variant, teacher.default_variant),
        name=family.name,
        variant=variant,
        input_px=input_px,
        mean=teacher.mean,
        std=teacher.std,
        native=teacher.native(config),
        default_taps=teacher.default_taps(config),
        packages=("transformers",),
        licence=teacher.licence,
        weights=weights,
        options={},
    )
    return assemble(request, facts, teacher.read(model, input_px))


def describe_library(teacher: LibraryTeacher) -> list[Description]:
    """Return what every variant is, without loading any weights."""
    family = teacher.family
    return [
        Description(
            name=family.name,
            variant=variant,
            is_default=variant == teacher.default_variant,
            parameters=count_parameters(family, variant),
            input_px=teacher.input_px.get(variant, teacher.usual_input_px),
            native=teacher.native(config),
            default_taps=teacher.default_taps(config),
            repository=family.repositories[variant],
            licence=teacher.licence,
        )
        for variant, config in ((variant, make()) for variant, make in family.configs.items())
    ]
