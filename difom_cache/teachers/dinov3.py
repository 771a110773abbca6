"""DINOv3 (Siméoni et al. 2025, arXiv:2508.10104), from transformers; its weights are gated on the hub.

Taps: `block0` and on, each after the final layer norm; `block0.keys` and on; class and register tokens kept out.
Positions are rotary, so any multiple of 16 px is taken as it is; the default of 704 px is twice the grid of a picture of
352 px at stride 16.
"""

from functools import partial
from typing import Any

from transformers import DINOv3ViTConfig, DINOv3ViTModel

from difom_cache.teachers.buffers import COMMON, rope_periods
from difom_cache.teachers.library import Family, Size
from difom_cache.teachers.tokens import TokenTaps

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


HUB = "facebook/dinov3-{}-pretrain-lvd1689m"
FAMILY = Family(
    name="dinov3",
    model_class=DINOv3ViTModel,
    sizes={
        "small": Size(partial(_config, 384, 12, 6, 1536), HUB.format("vits16")),
        "small_plus": Size(partial(_config, 384, 12, 6, 1536, **GATED), HUB.format("vits16plus")),
        "base": Size(partial(_config, 768, 12, 12, 3072), HUB.format("vitb16")),
        "large": Size(partial(_config, 1024, 24, 16, 4096), HUB.format("vitl16")),
        "huge_plus": Size(partial(_config, 1280, 32, 20, 5120, **GATED), HUB.format("vith16plus")),
        "7b": Size(
            partial(_config, 4096, 40, 32, 8192, query_bias=False, value_bias=False, **GATED), HUB.format("vit7b16")
        ),
        "tiny": Size(partial(_config, 32, 4, 2, 64), input_px=352),
    },
    geometry=lambda config: (
        *(config.hidden_size, config.num_hidden_layers, config.patch_size),
        *(config.use_gated_mlp, config.num_register_tokens),
    ),
    read=lambda model, _: TokenTaps(model, model.model.layer, model.norm, prefix_tokens=1 + REGISTERS),
    default="base",
    input_px=704,
    licence="DINOv3 License (accept on the hub)",
    computed=COMMON | {"periods": rope_periods},  # Meta's own files hold them
)
