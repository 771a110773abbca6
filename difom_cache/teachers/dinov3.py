"""DINOv3 (Siméoni et al. 2025, arXiv:2508.10104), from transformers; its weights are gated on the hub.

Taps: `block0` and on, each after the final layer norm; `block0.keys` and on; class and register tokens kept out.
Positions are rotary, so any multiple of 16 px is taken as it is; the default of 704 px is twice the grid of a picture of
352 px at stride 16.
"""

from functools import partial
from typing import Any

from transformers import DINOv3ViTConfig, DINOv3ViTModel

from difom_cache.teachers.base import Description, TeacherRequest
from difom_cache.teachers.buffers import COMMON, rope_periods
from difom_cache.teachers.library import LibraryTeacher, build_library, describe_library
from difom_cache.teachers.network import NetworkTeacher
from difom_cache.teachers.preprocess import IMAGENET_MEAN, IMAGENET_STD
from difom_cache.teachers.tokens import TokenTaps
from difom_cache.teachers.transformers_weights import Family

PATCH_PX = 16
REGISTERS = 4
GATED = {"use_gated_mlp": True, "hidden_act": "silu"}  # SwiGLU


def _config(width: int, depth: int, heads: int, mlp: int, **further: Any) -> DINOv3ViTConfig:
    return DINOv3ViTConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=mlp,
        patch_size=PATCH_PX,
        num_register_tokens=REGISTERS,
        **further,
    )


FAMILY = LibraryTeacher(
    family=Family(
        name="dinov3",
        model_class=DINOv3ViTModel,
        part=lambda model: model,
        prefix="",
        configs={
            "small": partial(_config, 384, 12, 6, 1536),
            "small_plus": partial(_config, 384, 12, 6, 1536, **GATED),
            "base": partial(_config, 768, 12, 12, 3072),
            "large": partial(_config, 1024, 24, 16, 4096),
            "huge_plus": partial(_config, 1280, 32, 20, 5120, **GATED),
            "7b": partial(_config, 4096, 40, 32, 8192, query_bias=False, value_bias=False, **GATED),
            "tiny": partial(_config, 32, 4, 2, 64),
        },
        repositories={
            "small": "facebook/dinov3-vits16-pretrain-lvd1689m",
            "small_plus": "facebook/dinov3-vits16plus-pretrain-lvd1689m",
            "base": "facebook/dinov3-vitb16-pretrain-lvd1689m",
            "large": "facebook/dinov3-vitl16-pretrain-lvd1689m",
            "huge_plus": "facebook/dinov3-vith16plus-pretrain-lvd1689m",
            "7b": "facebook/dinov3-vit7b16-pretrain-lvd1689m",
            "tiny": "",
        },
        geometry=lambda config: (
            config.hidden_size,
            config.num_hidden_layers,
            config.patch_size,
            config.use_gated_mlp,
            config.num_register_tokens,
        ),
        computed=COMMON | {"periods": rope_periods},  # Meta's own files hold them
    ),
    default_variant="base",
    input_px={"tiny": 352},
    usual_input_px=704,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    licence="DINOv3 License (accept on the hub)",
    read=lambda model, _: TokenTaps(
        model,
        model.model.layer,
        model.norm,
        prefix_tokens=1 + REGISTERS,
        key_projection=lambda block: block.attention.k_proj,
    ),
)


def build(request: TeacherRequest) -> NetworkTeacher:
    """Return the DINOv3 that `request` asks for; inputs are multiples of 16 px."""
    return build_library(FAMILY, request)


def describe() -> list[Description]:
    """Return every variant."""
    return describe_library(FAMILY)
