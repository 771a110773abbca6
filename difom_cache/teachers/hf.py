"""Any transformers network that gives hidden states: `hf:MODEL[@PX]`, MODEL a hub id or a local folder.

Taps: `state0` (the embeddings or stem) and on, as the library numbers `hidden_states`. Tokens become maps without
their class and register tokens; four-dimensional states are taken as they are. Channels and strides are found by
running one grey picture; no code that comes with a model is ever run. A folder of timm's is read by timm's own network.
"""

import inspect
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_MAPPING

from difom_cache.base.errors import DifomError, SettingsError, TeacherError, WeightsError
from difom_cache.teachers.base import (
    NativeTap,
    TapRequest,
    TeacherRequest,
    TeacherSpec,
    Weights,
    reached_strides,
    versions,
)
from difom_cache.teachers.download import PROCESSOR
from difom_cache.teachers.hub import Repository, find_published
from difom_cache.teachers.library import Family, Size, load_part, read_config
from difom_cache.teachers.network import NetworkTeacher, TapNetwork, assemble
from difom_cache.teachers.places import CONFIG, MAIN, folder_name, read_json, read_revision
from difom_cache.teachers.preprocess import Triple

DEFAULT_INPUT_PX = 224
OWN_TEACHERS = {  # by the library's type of model: these are read at better places than their hidden states
    **{"oneformer": "oneformer", "mask2former": "mask2former", "sam": "sam"},
    **{"sam2": "sam2", "sam2_video": "sam2", "sam3": "sam3", "sam3_video": "sam3"},
}


class StateTaps(TapNetwork):
    """A library model read at its hidden states."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        takes_any_size = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
        self.call = {"interpolate_pos_encoding": True} if takes_any_size else {}

    def states(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return every state that is a square map (B, C, h, h), of normalised pixels (B, 3, S, S)."""
        given = self.model(pixels, output_hidden_states=True, **self.call)
        states = given.get("reshaped_hidden_states") or given.get("hidden_states") or ()
        maps = {f"state{i}": _as_map(state) for i, state in enumerate(states)}
        return {name: state for name, state in maps.items() if state is not None}

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the map (B, C, h, w) of each kept tap, of normalised pixels (B, 3, S, S)."""
        states = self.states(pixels)
        return {tap: states[tap] for tap in self.taps}


def _as_map(state: Tensor) -> Tensor | None:
    """Return a state as a square map, or None if it is none; tokens in front of the largest square are left out."""
    if state.ndim == 4:
        return state if state.shape[2] == state.shape[3] else None
    side = math.isqrt(state.shape[1])
    if side < 2:
        return None
    patches = state[:, state.shape[1] - side * side :]  # (B, h*w, C)
    return patches.transpose(1, 2).unflatten(2, (side, side))  # (B, C, h, w)


def build(request: TeacherRequest) -> NetworkTeacher:
    """Return the transformers model that `request` asks for; `request.variant` is its hub id or folder."""
    if not request.variant:
        raise SettingsError("hf: needs a model: --teacher hf:MODEL, MODEL a hub id or a local folder")
    folder, recorded = find_folder(request.variant, request.weights)
    whole = read_config(folder)
    if whole.model_type in OWN_TEACHERS:
        raise WeightsError(
            f"{folder}: hf: cannot read a {whole.model_type} model at its hidden states; "
            f"use --teacher {OWN_TEACHERS[whole.model_type]} --weights {folder}"
        )
    config = _vision_config(whole)
    if type(config) not in MODEL_MAPPING:
        raise WeightsError(f"{folder}: transformers has no model for a configuration of type {config.model_type}")
    mean, std = read_mean_std(folder)
    from_hub = read_revision(request.weights) is not None
    family = Family(
        name="hf",
        model_class=MODEL_MAPPING[type(config)],
        sizes={request.variant: Size(lambda: config, request.variant)},
        geometry=lambda own: own.model_type,
        read=lambda part, _: StateTaps(part),
        part=_without_pooler,
        adapt=_vision_config,
        unused=("pooler.", "head."),
        any_head=True,
    )
    part, _, found = load_part(family, request.variant, str(folder) if from_hub else request.weights)
    network = StateTaps(part)
    usual_px = _image_px(config)
    input_px = request.input_px or usual_px
    native = probe_taps(network, input_px, request.variant)
    spec = TeacherSpec(
        label=f"hf-{folder_name(Path(request.variant).name)}",
        name="hf",
        variant=Path(request.variant).name,
        input_px=input_px,
        weights=Weights(recorded, found.digest) if from_hub else found,
        mean=mean,
        std=std,
        native=native,
        taps=_default_taps(native, input_px, request.picture_px),
        licence="the model's own",
        usual_px=usual_px,
        libraries=versions("transformers"),
    )
    return assemble(request, spec, network)


def find_folder(model: str, weights: str) -> tuple[Path, str]:
    """Return the local folder of a hub id or folder, and what to record as its source."""
    if Path(model).is_dir():
        return Path(model), model
    fetched = Path(weights) / folder_name(f"hf:{model}")
    if fetched.is_dir():
        return fetched, str(fetched)
    repository = Repository(model, read_revision(weights) or MAIN, needs=((CONFIG,), PROCESSOR))
    return find_published(f"hf:{model}", repository)


def _vision_config(config: Any) -> Any:
    return getattr(config, "vision_config", config)


class Unread(torch.nn.Module):
    """Stands for what comes after the states: checkpoints with another head lack it, and nobody reads it."""

    def forward(self, states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return what it is given."""
        return states


def _without_pooler(model: Any) -> Any:
    for name in ("pooler", "head"):
        if isinstance(getattr(model, name, None), torch.nn.Module):
            setattr(model, name, Unread())
    return model


def _image_px(config: Any) -> int:
    trained = getattr(config, "pretrained_cfg", None) or {}  # of a network of timm's
    size = trained["input_size"][-1] if "input_size" in trained else getattr(config, "image_size", None)
    return int(size) if isinstance(size, int) else DEFAULT_INPUT_PX


@torch.no_grad()
def probe_taps(network: StateTaps, input_px: int, model: str) -> dict[str, NativeTap]:
    """Return the native taps that one grey picture of `input_px` shows.

    Raises:
        TeacherError: the model cannot take this size, or gives no square maps.
    """
    try:
        states = network.eval().states(torch.zeros(1, 3, input_px, input_px))
    except DifomError:
        raise
    except Exception as err:  # a library model may raise anything at a size that it cannot take
        line = (str(err).splitlines() or [type(err).__name__])[0][:160]
        raise TeacherError(f"hf:{model} cannot take an input of {input_px} px ({line}); try its own, or @PX") from err
    if not states:
        raise TeacherError(f"hf:{model} gives no hidden states that are square maps; it cannot be a teacher")
    return {name: NativeTap(name, s.shape[1], input_px / s.shape[2]) for name, s in states.items()}


def _default_taps(native: dict[str, NativeTap], input_px: int, picture_px: int) -> tuple[TapRequest, ...]:
    """Return the middle state and the last one, each at the finest of the strides 8, 16 and 32 that it reaches.

    The last state is the deeper, so it is kept coarser: at the next of these strides, or the middle one on its own grid.
    """
    names = list(native)
    middle, last = names[len(names) // 2], names[-1]
    fine, coarse = (reached_strides(native[name].grid(input_px), picture_px) for name in (middle, last))
    deeper = next((stride for stride in coarse if stride > fine[0]), coarse[-1])
    stride = fine[0] if fine[0] < deeper else picture_px / native[middle].grid(input_px)
    return (TapRequest(middle, stride), TapRequest(last, deeper))[middle == last :]


def read_mean_std(folder: Path) -> tuple[Triple, Triple]:
    """Return mean and std from the processor's settings in `folder`.

    Raises:
        WeightsError: there are none, or they do not say; guessing would change the features without a trace.
    """
    found = next((folder / name for name in PROCESSOR if (folder / name).is_file()), None)
    held = read_json(found) if found else {}
    held = held.get("image_processor", held)
    if held.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    timm = read_json(folder / CONFIG).get("pretrained_cfg") if (folder / CONFIG).is_file() else None
    held |= {f"image_{key}": timm.get(key) for key in ("mean", "std")} if isinstance(timm, dict) else {}
    mean, std = held.get("image_mean"), held.get("image_std")
    if not (_is_triple(mean) and _is_triple(std)):
        raise WeightsError(
            f"{found or folder}: expected image_mean and image_std, three numbers each, in {PROCESSOR[0]}; "
            f"copy the file from the model's page, or write it with the numbers of its training"
        )
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _is_triple(held: Any) -> bool:
    return isinstance(held, list) and len(held) == 3 and all(isinstance(value, int | float) for value in held)
