"""A teacher as a user would write it with the library alone: what `bench` compares with."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from difom_cache.teachers.base import Teacher, choose_variant, parse_teacher
from difom_cache.teachers.catalogue import build_requested, find_builder

PlainForward = Callable[[Any, Tensor], list[Tensor]]


def build_plain(teacher: str, weights: str, device: torch.device) -> tuple[nn.Module, PlainForward]:
    """Return the library's own network and a function that gives its feature maps of normalised pixels.

    Only the part that makes features is taken: no prompts, queries or text. Teachers without a library of their own
    (onnx, hf, student) are themselves.

    Args:
        teacher: "NAME[:VARIANT][@PX]".
        weights: "hub", "random" or a path.
        device: of a teacher that is itself; a library's network is for the caller to move.
    """
    request = replace(parse_teacher(teacher), weights=weights, device=str(device), precision="float32")
    if request.name in PLAIN:
        return PLAIN[request.name](request.name, request.variant, weights)
    own = build_requested(request)
    return TeacherModule(own), lambda network, pixels: network(pixels)


class TeacherModule(nn.Module):
    """A teacher of ours in the place of a library's network."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return every map of pixels (B, 3, S, S)."""
        return list(self.teacher.features(pixels.float()).values())  # in float32, whatever the other ways take


def _plain_sam(name: str, variant: str, weights: str) -> tuple[nn.Module, PlainForward]:
    sam = import_module("difom_cache.teachers.sam")
    chosen = choose_variant(name, variant or sam.DEFAULT_VARIANT, sam.VARIANTS)
    encoder = sam.plain_encoder(sam.VARIANTS[chosen])
    sam.load_weights(encoder, weights, chosen)
    return encoder, lambda network, pixels: [network(pixels)]


def _load(name: str, variant: str, weights: str) -> Any:
    from difom_cache.teachers.library import load_part

    family: Any = find_builder(name).__self__  # type: ignore[attr-defined]
    return load_part(family, choose_variant(name, variant or family.default, family.sizes), weights)[0]


def _plain_tokens(name: str, variant: str, weights: str) -> tuple[nn.Module, PlainForward]:
    return _load(name, variant, weights), _last_tokens


def _last_tokens(network: Any, pixels: Tensor) -> list[Tensor]:
    extra = {"interpolate_pos_encoding": True} if network.config.model_type == "clip_vision_model" else {}
    return [network(pixels, **extra).last_hidden_state]


def _plain_pixel_level(name: str, variant: str, weights: str) -> tuple[nn.Module, PlainForward]:
    return _load(name, variant, weights), _decoder_levels


def _decoder_levels(network: Any, pixels: Tensor) -> list[Tensor]:
    given = network(pixels)
    levels = given.decoder_features if hasattr(given, "decoder_features") else given.decoder_hidden_states
    return list(levels)


def _plain_encoder(name: str, variant: str, weights: str) -> tuple[nn.Module, PlainForward]:
    return _load(name, variant, weights), _encoder_maps


def _encoder_maps(network: Any, pixels: Tensor) -> list[Tensor]:
    given = network(pixels)
    return list(given.fpn_hidden_states) if "fpn_hidden_states" in given else [given.last_hidden_state]


PLAIN = {
    "sam": _plain_sam,
    "dinov2": _plain_tokens,
    "dinov2_reg": _plain_tokens,
    "dinov3": _plain_tokens,
    "clip": _plain_tokens,
    "radio": _plain_tokens,
    "dinov3_convnext": _plain_encoder,
    "sam2": _plain_encoder,
    "sam3": _plain_encoder,
    "oneformer": _plain_pixel_level,
    "mask2former": _plain_pixel_level,
}
