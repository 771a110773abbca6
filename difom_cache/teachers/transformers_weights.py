"""Weights of the teachers that come from transformers: through the library's own renaming, but read and checked here."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from difom_cache.base.errors import WeightsError
from difom_cache.teachers.buffers import COMMON, Compute, drop_computed
from difom_cache.teachers.checkpoint import SETS, WRAPPERS, only_file, read_tensors
from difom_cache.teachers.hub import locate
from difom_cache.teachers.layouts import NETWORKS, Layout, below, find_wrapper, to_own_layout
from difom_cache.teachers.weights import (
    Weights,
    digest_tensors,
    fill_random,
    is_outline,
    outline_weights,
    read_json,
    refuse_mismatch,
)


@dataclass(frozen=True)
class Family:
    """What one teacher's sizes have in common.

    Attributes:
        name: of the teacher in the catalogue.
        model_class: the library's class, which its checkpoints were saved from.
        part: gives the part of the model that the teacher uses; the digest is over this part.
        prefix: of that part's tensors inside the model, "" for all of it.
        configs: variant to a function that returns its published configuration.
        repositories: variant to the hub model, "" where no weights are published.
        geometry: gives what tells one variant's configuration from another's.
        adapt: gives the used part's configuration of a whole checkpoint's.
        inside: prefixes under which the checkpoint of a larger model holds this model's tensors.
        others: prefixes of tensors that checkpoints also hold and the teacher does not use: heads, a text side.
        computed: buffers that older checkpoints hold and the network computes, by the last part of their names.
        unused: pieces of names of tensors that nothing reads, so that they may be missing.
        any_head: a checkpoint may hold a head that the model lacks, as the library allows.
        check: raises where a checkpoint in another library's layout is, or may be, of another configuration.
    """

    name: str
    model_class: Any
    part: Callable[[Any], Any]
    prefix: str
    configs: Mapping[str, Callable[[], PretrainedConfig]]
    repositories: Mapping[str, str]
    geometry: Callable[[PretrainedConfig], object]
    adapt: Callable[[Any], Any] = lambda config: config
    inside: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    computed: Mapping[str, Compute] = field(default_factory=lambda: COMMON)
    unused: tuple[str, ...] = ()
    any_head: bool = False
    check: Callable[[PretrainedConfig, Layout, Mapping[str, Tensor], Path], None] = lambda *_: None


def load_part(family: Family, variant: str, weights: str) -> tuple[Any, Any, Weights]:
    """Return the used part of `family`'s `variant` with `weights` in it, its configuration, and which weights these are.

    Args:
        family: the teacher's sizes.
        variant: one of `family.configs`.
        weights: "hub", "hub@REVISION", "random", or the path of a folder in the library's format or of one weights file.
    """
    teacher = f"{family.name}:{variant}"
    config = family.configs[variant]()
    if is_outline():
        return family.part(empty_model(family.model_class, config)), config, outline_weights(weights)
    if weights == "random":
        part = family.part(empty_model(family.model_class, config))
        fill_random(part, teacher)
        return part, config, Weights("random", digest_tensors(part.state_dict()))
    found, recorded = locate(weights, teacher, family.repositories[variant])
    source = only_file(found)
    if source.is_dir():
        config = family.adapt(read_config(source))
        _refuse_other_variant(family, variant, config, source)
    model = fill_model(family, config, source, teacher)
    part = family.part(model)
    return part, config, Weights(recorded, digest_tensors(part.state_dict()))


def empty_model(model_class: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """Return the library's model with undecided weights; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]), quiet():
        return model_class(config)


def count_parameters(family: Family, variant: str) -> int:
    """Return the parameters of the used part of a variant, without allocating them."""
    with torch.device("meta"):
        part = family.part(empty_model(family.model_class, family.configs[variant]()))
    return sum(parameter.numel() for parameter in part.parameters())


def read_config(folder: Path) -> PretrainedConfig:
    """Return the configuration in `folder`, without running any code that came with it.

    Raises:
        WeightsError: there is none, or transformers does not know the network.
    """
    path = folder / "config.json"
    if not {"model_type", "architecture"} & read_json(path).keys():  # the latter in timm's, which transformers wraps
        raise WeightsError(f"{path}: expected the configuration of a transformers model, found no model_type")
    try:
        with quiet():
            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError, TypeError) as err:
        line = str(err).strip().splitlines()[0][:160]
        raise WeightsError(f"{path}: transformers cannot read it without running foreign code ({line})") from err


def _refuse_other_variant(family: Family, variant: str, config: PretrainedConfig, source: Path) -> None:
    expected = family.model_class.config_class
    if not isinstance(config, expected):
        raise WeightsError(
            f"{source}: holds a {config.model_type} model, expected {expected.model_type} for {family.name}:{variant}"
        )
    own = family.geometry(config)
    if own == family.geometry(family.configs[variant]()):
        return
    held = next((name for name, make in family.configs.items() if family.geometry(make()) == own), None)
    way = f"holds {family.name}:{held} (use --teacher {family.name}:{held})" if held else f"has geometry {own}"
    raise WeightsError(
        f"{source}: {way}, but {family.name}:{variant} was asked for; other networks: --teacher hf:{source}"
    )


def fill_model(family: Family, config: PretrainedConfig, source: Path, teacher: str) -> Any:
    """Return the library's model of `config` holding exactly the tensors at `source` that the teacher uses."""
    network = family.model_class.config_class.model_type
    found, layout = _own_layout(family, config, read_tensors(source, teacher), source, teacher)
    held = {_own_name(k, family): v for k, v in found.items() if not k.startswith(family.others)}
    exact = not family.any_head or (layout is not None and layout.becomes[network] is not None)
    tensors = drop_computed(held, family.computed, source) if exact else held
    _refuse_other_size(family, config, tensors, source, teacher)
    _fit_positions(config, tensors)
    model: Any
    info: dict[str, Any]
    with torch.random.fork_rng(devices=[]), quiet():
        model, info = family.model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
    missing = [k for k in info["missing_keys"] if k.startswith(family.prefix) and not _contains(k, family.unused)]
    refuse_mismatch(
        source,
        teacher,
        missing=sorted(missing),
        unexpected=sorted(info["unexpected_keys"]) if exact else [],
        shapes={key: (tuple(found), tuple(own)) for key, found, own in sorted(info["mismatched_keys"])},
    )
    return model


def _own_layout(
    family: Family, config: PretrainedConfig, held: dict[str, Tensor], source: Path, teacher: str
) -> tuple[dict[str, Tensor], Layout | None]:
    """Return a checkpoint's tensors in the layout of the hub's files, and the layout that they were in, if it is known."""
    network = family.model_class.config_class.model_type
    if network in NETWORKS:
        tensors, layout = to_own_layout(held, network, source, teacher, inside=family.inside)
        if layout is not None:
            family.check(config, layout, held, source)
        return tensors, layout
    with torch.device("meta"):
        own = empty_model(family.model_class, config).state_dict()
    wrapper = find_wrapper(held, own, source)
    if not set(wrapper.split(".")) <= {"", *SETS, *WRAPPERS}:  # a part of the library's own name
        return held, None
    return below(held, wrapper), None


def _refuse_other_size(family: Family, config: Any, tensors: Mapping[str, Tensor], source: Path, teacher: str) -> None:
    """Raise where a plain vision transformer is of another variant's width and depth, and name that one."""
    token = next((v for k, v in tensors.items() if re.search(r"embeddings\.(cls_token|class_embedding)$", k)), None)
    if token is None or len(family.configs) == 1:
        return
    depth = len({found[1] for key in tensors if (found := re.search(r"\blayers?\.(\d+)\.", key))})
    size = (token.shape[-1], depth)
    if size == (config.hidden_size, config.num_hidden_layers):
        return
    others: dict[str, Any] = {name: make() for name, make in family.configs.items()}
    for name, other in others.items():
        if size == (other.hidden_size, other.num_hidden_layers):
            raise WeightsError(
                f"{source}: holds {family.name}:{name} (use --teacher {family.name}:{name}), but {teacher} was asked for"
            )


def _fit_positions(config: PretrainedConfig, tensors: Mapping[str, Tensor]) -> None:
    """Let the model have as many positions as the file, from training at another size; the library interpolates either."""
    positions = tensors.get("embeddings.position_embeddings")
    side = 0 if positions is None or positions.ndim != 3 else isqrt(positions.shape[1] - 1)
    if positions is not None and side and side * side == positions.shape[1] - 1 and isinstance(config.patch_size, int):
        config.image_size = side * config.patch_size


def _own_name(key: str, family: Family) -> str:
    prefix = next((prefix for prefix in family.inside if key.startswith(prefix)), "")
    return key.removeprefix(prefix)


def _contains(key: str, pieces: tuple[str, ...]) -> bool:
    return any(piece in key for piece in pieces)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own reports and bars off the terminal; what is wrong is raised here as an error."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
