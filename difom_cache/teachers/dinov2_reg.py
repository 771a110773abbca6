"""DINOv2 with registers (Darcet et al. 2023, arXiv:2309.16588), from transformers.

Taps and inputs are DINOv2's (dinov2.py); class and register tokens are kept out.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from difom_cache.teachers import dinov2
from difom_cache.teachers.base import Description, TeacherRequest
from difom_cache.teachers.library import build_library, describe_library
from difom_cache.teachers.network import NetworkTeacher
from difom_cache.teachers.tokens import TokenTaps

REGISTERS = 4


def _config(plain: Callable[[], Any]) -> Dinov2WithRegistersConfig:
    held = plain()
    return Dinov2WithRegistersConfig(
        hidden_size=held.hidden_size,
        num_hidden_layers=held.num_hidden_layers,
        num_attention_heads=held.num_attention_heads,
        image_size=held.image_size,
        patch_size=held.patch_size,
        use_swiglu_ffn=held.use_swiglu_ffn,
        num_register_tokens=REGISTERS,
    )


SIZES = dinov2.FAMILY.family
FAMILY = replace(
    dinov2.FAMILY,
    family=replace(
        SIZES,
        name="dinov2_reg",
        model_class=Dinov2WithRegistersModel,
        configs={size: partial(_config, plain) for size, plain in SIZES.configs.items()},
        repositories={
            size: repo.replace("dinov2", "dinov2-with-registers") for size, repo in SIZES.repositories.items()
        },
    ),
    read=lambda model, _: TokenTaps(
        model,
        model.encoder.layer,
        model.layernorm,
        prefix_tokens=1 + REGISTERS,
        key_projection=lambda block: block.attention.k_proj,
    ),
)


def build(request: TeacherRequest) -> NetworkTeacher:
    """Return the DINOv2 with registers that `request` asks for; inputs are multiples of 14 px."""
    return build_library(FAMILY, request)


def describe() -> list[Description]:
    """Return every variant."""
    return describe_library(FAMILY)
