"""OneFormer (Jain et al. 2023, arXiv:2211.06220), from transformers: its pixel-level module (pixel_level.py).

The authors published Swin-T and Swin-L; their DiNAT-L needs the natten package and is not offered here.
"""

from functools import partial
from typing import Any

from transformers import OneFormerConfig, OneFormerForUniversalSegmentation

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


def _config(swin: str, **further: Any) -> OneFormerConfig:
    channels = SWINS[swin].decoder_channels
    return OneFormerConfig(
        backbone_config=SWINS[swin].config(), conv_dim=channels, mask_dim=channels, hidden_dim=channels, **further
    )


def _never_training(config: Any) -> Any:
    """Return the configuration with `is_training` off: by it, not by `eval()`, the library's pixel decoder drops out."""
    config.is_training = False
    return config


TINY = {
    "encoder_layers": 1,
    "num_attention_heads": 2,
    "encoder_feedforward_dim": 64,
    "decoder_layers": 2,
    "dim_feedforward": 64,
    "num_queries": 4,
    "text_encoder_width": 64,
    "text_encoder_num_layers": 1,
}

FAMILY = Family(
    name="oneformer",
    model_class=OneFormerForUniversalSegmentation,
    part=pixel_level_part,
    prefix="model.pixel_level_module.",
    configs={
        "tiny": partial(_config, "tiny", **TINY),
        "swin_t": partial(_config, "swin_t"),
        "swin_l": partial(_config, "swin_l"),
    },
    repositories={
        "tiny": "",
        "swin_t": "shi-labs/oneformer_ade20k_swin_tiny",
        "swin_l": "shi-labs/oneformer_ade20k_swin_large",
    },
    geometry=backbone_geometry,
    adapt=_never_training,
    others=("model.transformer_module.", "model.task_encoder.", "model.text_mapper.", "criterion."),
    computed=COMPUTED,
    unused=UNUSED,
)


def build(request: TeacherRequest) -> NetworkTeacher:
    """Return the OneFormer that `request` asks for."""
    return build_pixel_level(request, FAMILY, DEFAULT_VARIANT, LICENCE)


def describe() -> list[Description]:
    """Return every variant."""
    return describe_pixel_level(FAMILY, DEFAULT_VARIANT, LICENCE)
