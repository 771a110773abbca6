"""Mask2Former (Cheng et al. 2022, arXiv:2112.01527), from transformers: its pixel-level module (pixel_level.py)."""

from functools import partial
from typing import Any

from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from difom_cache.teachers.base import Description, TeacherRequest
from difom_cache.teachers.network import NetworkTeacher
from difom_cache.teachers.pixel_level import (
    COMPUTED,
    SWINS,
    UNUSED,
    backbone_geometry,
    build_pixel_level,
    describe_pixel_level,
    pixel_level_part,
)
from difom_cache.teachers.transformers_weights import Family

DEFAULT_VARIANT = "swin_l"
LICENCE = "MIT"


def _config(swin: str, **further: Any) -> Mask2FormerConfig:
    channels = SWINS[swin].decoder_channels
    return Mask2FormerConfig(
        backbone_config=SWINS[swin].config(),
        feature_size=channels,
        mask_feature_size=channels,
        hidden_dim=channels,
        **further,
    )


TINY = {
    "encoder_layers": 1,
    "num_attention_heads": 2,
    "encoder_feedforward_dim": 64,
    "decoder_layers": 2,
    "dim_feedforward": 64,
    "num_queries": 4,
}

FAMILY = Family(
    name="mask2former",
    model_class=Mask2FormerForUniversalSegmentation,
    part=pixel_level_part,
    prefix="model.pixel_level_module.",
    configs={"tiny": partial(_config, "tiny", **TINY)}
    | {name: partial(_config, name) for name in SWINS if name != "tiny"},
    repositories={
        "tiny": "",
        "swin_t": "facebook/mask2former-swin-tiny-coco-panoptic",
        "swin_s": "facebook/mask2former-swin-small-coco-panoptic",
        "swin_b": "facebook/mask2former-swin-base-coco-panoptic",
        "swin_l": "facebook/mask2former-swin-large-coco-panoptic",
    },
    geometry=backbone_geometry,
    others=("model.transformer_module.", "class_predictor.", "criterion."),
    computed=COMPUTED,
    unused=UNUSED,
)


def build(request: TeacherRequest) -> NetworkTeacher:
    """Return the Mask2Former that `request` asks for."""
    return build_pixel_level(request, FAMILY, DEFAULT_VARIANT, LICENCE)


def describe() -> list[Description]:
    """Return every variant."""
    return describe_pixel_level(FAMILY, DEFAULT_VARIANT, LICENCE)
