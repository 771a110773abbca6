"""Teachers that are a network of transformers: their sizes, and weights through the library's own renaming, checked here."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from difom_cache.base.errors import WeightsError
from difom_cache.teachers.base import (
    NativeTap,
    TapRequest,
    TeacherRequest,
    TeacherSpec,
    Weights,
    check_input_px,
    choose_variant,
    label_variant,
    versions,
)
from difom_cache.teachers.buffers import COMMON, Compute, drop_computed
from difom_cache.teachers.checkpoint import SETS, WRAPPERS, only_file, read_tensors
from difom_cache.teachers.hub import locate
from difom_cache.teachers.layouts import NETWORKS, Layout, below, find_wrapper, to_own_layout
from difom_cache.teachers.network import NetworkTeacher, TapNetwork, assemble
from difom_cache.teachers.places import read_json
from difom_cache.teachers.preprocess import IMAGENET_MEAN, IMAGENET_STD, Triple
from difom_cache.teachers.tokens import default_token_taps, token_taps
from difom_cache.teachers.weights import digest_tensors, fill_random, is_outline, outline_weights, refuse_mismatch


class Size(NamedTuple):
    """One size of a network: its published configuration, hub model ("" for none), and input where it is not the usual."""

    config: Callable[[], PretrainedConfig]
    repository: str = ""
    input_px: int | None = None


@dataclass(frozen=True)
class Family:
    """A network of transformers in all its sizes; by default a plain vision transformer, normalised as on ImageNet.

    Attributes:
        name: of the teacher in the catalogue.
        model_class: the library's class, which its checkpoints were saved from.
        sizes: variant to what it is.
        geometry: gives what tells one variant's configuration from another's.
        read: gives the network with taps of the part that is used, for an input of so many px.
        default: the variant where the user names none.
        input_px: usual side of the input.
        licence: of the weights.
        mean: per channel.
        std: per channel.
        multiple_px: of the input's side, by configuration.
        native: every place that a network of a configuration can be read at.
        default_taps: what is stored of it unless the user says otherwise.
        part: gives the part of the model that the teacher uses; the digest is over this part.
        prefix: of that part's tensors inside the model, "" for all of it.
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
    sizes: dict[str, Size]
    geometry: Callable[[Any], object]
    read: Callable[[Any, int], TapNetwork]
    default: str = ""
    input_px: int = 0
    licence: str = ""
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    multiple_px: Callable[[Any], int] = lambda config: int(config.patch_size)
    native: Callable[[Any], dict[str, NativeTap]] = token_taps
    default_taps: Callable[[Any], tuple[TapRequest, ...]] = default_token_taps
    part: Callable[[Any], Any] = lambda model: model
    prefix: str = ""
    adapt: Callable[[Any], Any] = lambda config: config
    inside: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    computed: Mapping[str, Compute] = field(default_factory=lambda: COMMON)
    unused: tuple[str, ...] = ()
    any_head: bool = False
    check: Callable[[PretrainedConfig, Layout, Mapping[str, Tensor], Path], None] = lambda *_: None

    @property
    def network(self) -> str:
        """Return transformers' name for this type of model."""
        return str(self.model_class.config_class.model_type)

    def build(self, request: TeacherRequest) -> NetworkTeacher:
        """Return the size that `request` asks for, as a teacher."""
        variant = choose_variant(self.name, request.variant or self.default, self.sizes)
        size = self.sizes[variant]
        usual_px = size.input_px or self.input_px
        input_px = request.input_px or usual_px
        check_input_px(input_px, self.multiple_px(size.config()), f"{self.name}:{variant}")
        part, config, weights = load_part(self, variant, request.weights)
        spec = TeacherSpec(
            label=label_variant(self.name, variant, self.default),
            name=self.name,
            variant=variant,
            input_px=input_px,
            weights=weights,
            mean=self.mean,
            std=self.std,
            native=self.native(config),
            taps=self.default_taps(config),
            licence=self.licence,
            usual_px=usual_px,
            libraries=versions("transformers"),
        )
        return assemble(request, spec, self.read(part, input_px))


def load_part(family: Family, variant: str, weights: str) -> tuple[Any, Any, Weights]:
    """Return the used part of `family`'s `variant` with `weights` in it, its configuration, and which weights these are.

    Args:
        family: the teacher's sizes.
        variant: one of `family.sizes`.
        weights: "hub", "hub@REVISION", "random", or the path of a folder in the library's format or of one weights file.
    """
    teacher = f"{family.name}:{variant}"
    size = family.sizes[variant]
    config: Any = size.config()
    if is_outline() or weights == "random":
        part = family.part(empty_model(family.model_class, config))
        if is_outline():
            return part, config, outline_weights(weights)
        fill_random(part, teacher)
        return part, config, Weights("random", digest_tensors(part.state_dict()))
    found, recorded = locate(weights, teacher, size.repository)
    source = only_file(found)
    if source.is_dir():
        config = family.adapt(read_config(source))
        _refuse_other_variant(family, variant, config, source)
    part = family.part(_fill_model(family, config, source, teacher))
    return part, config, Weights(recorded, digest_tensors(part.state_dict()))


def empty_model(model_class: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """Return the library's model with undecided weights; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]), quiet():
        return model_class(config)


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
    asked = f"{family.name}:{variant}"
    if not isinstance(config, family.model_class.config_class):
        raise WeightsError(f"{source}: holds a {config.model_type} model, expected {family.network} for {asked}")
    geometries = {name: family.geometry(size.config()) for name, size in family.sizes.items()}
    own = family.geometry(config)
    if own == geometries[variant]:
        return
    held = next((name for name, geometry in geometries.items() if geometry == own), None)
    way = f"holds {family.name}:{held} (use --teacher {family.name}:{held})" if held else f"has geometry {own}"
    raise WeightsError(f"{source}: {way}, but {asked} was asked for; other networks: --teacher hf:{source}")


def _fill_model(family: Family, config: PretrainedConfig, source: Path, teacher: str) -> Any:
    """Return the library's model of `config` holding exactly the tensors at `source` that the teacher uses."""
    found, layout = _own_layout(family, config, read_tensors(source, teacher), source, teacher)
    used = {key: value for key, value in found.items() if not key.startswith(family.others)}
    ends = {key: next((end for end in family.inside if key.startswith(end)), "") for key in used}
    held = {key.removeprefix(ends[key]): value for key, value in used.items()}
    exact = not family.any_head or (layout is not None and layout.convert is not None)
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
    needed = (k for k in info["missing_keys"] if k.startswith(family.prefix))
    refuse_mismatch(
        source,
        teacher,
        missing=sorted(k for k in needed if not any(piece in k for piece in family.unused)),
        unexpected=sorted(info["unexpected_keys"]) if exact else [],
        shapes={key: (tuple(found), tuple(own)) for key, found, own in sorted(info["mismatched_keys"])},
    )
    return model


def _own_layout(
    family: Family, config: PretrainedConfig, held: dict[str, Tensor], source: Path, teacher: str
) -> tuple[dict[str, Tensor], Layout | None]:
    """Return a checkpoint's tensors in the layout of the hub's files, and the layout that they were in, if it is known."""
    if family.network in NETWORKS:
        tensors, layout = to_own_layout(held, family.network, source, teacher, inside=family.inside)
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
    if token is None or len(family.sizes) == 1:
        return
    depth = len({found[1] for key in tensors if (found := re.search(r"\blayers?\.(\d+)\.", key))})
    held = (token.shape[-1], depth)
    if held == (config.hidden_size, config.num_hidden_layers):
        return
    for name, size in family.sizes.items():
        other: Any = size.config()
        if held == (other.hidden_size, other.num_hidden_layers):
            own = f"{family.name}:{name}"
            raise WeightsError(f"{source}: holds {own} (use --teacher {own}), but {teacher} was asked for")


def _fit_positions(config: PretrainedConfig, tensors: Mapping[str, Tensor]) -> None:
    """Let the model have as many positions as the file, from training at another size; the library interpolates either."""
    positions = tensors.get("embeddings.position_embeddings")
    side = 0 if positions is None or positions.ndim != 3 else isqrt(positions.shape[1] - 1)
    if positions is not None and side and side * side == positions.shape[1] - 1 and isinstance(config.patch_size, int):
        config.image_size = side * config.patch_size


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
