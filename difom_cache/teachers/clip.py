"""CLIP's picture side (Radford et al. 2021, arXiv:2103.00020), from transformers.

Taps: `block0` and on, as the residual stream leaves the block: CLIP's last norm was trained for the class token alone;
`block0.keys` and on.
Trained at 224 px (336 px for `large_336`); the default inputs give the 22 cells of a picture of 352 px at stride 16,
with positions interpolated by the library.
"""

from functools import partial
from typing import Any

from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from difom_cache.teachers.base import Description, TeacherRequest
from difom_cache.teachers.library import LibraryTeacher, build_library, describe_library
from difom_cache.teachers.network import NetworkTeacher
from difom_cache.teachers.preprocess import CLIP_MEAN, CLIP_STD
from difom_cache.teachers.tokens import TokenTaps
from difom_cache.teachers.transformers_weights import Family


def _config(width: int, depth: int, heads: int, patch_px: int, image_px: int = 224) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        patch_size=patch_px,
        image_size=image_px,
    )


def _blocks_only(model: Any) -> Any:
    model.post_layernorm = nn.Identity()  # of the class token, which is not read
    return model


FAMILY = LibraryTeacher(
    family=Family(
        name="clip",
        model_class=CLIPVisionModel,
        part=_blocks_only,
        prefix="",
        configs={
            "base": partial(_config, 768, 12, 12, 16),
            "large": partial(_config, 1024, 24, 16, 14),
            "large_336": partial(_config, 1024, 24, 16, 14, 336),
            "tiny": partial(_config, 32, 4, 2, 16),
        },
        repositories={
            "base": "openai/clip-vit-base-patch16",
            "large": "openai/clip-vit-large-patch14",
            "large_336": "openai/clip-vit-large-patch14-336",
            "tiny": "",
        },
        geometry=lambda config: (config.hidden_size, config.num_hidden_layers, config.patch_size, config.image_size),
        adapt=lambda config: getattr(config, "vision_config", config),
        others=("text_model.", "text_projection.", "visual_projection.", "logit_scale"),
        unused=("post_layernorm.",),
    ),
    default_variant="base",
    input_px={"large": 308, "large_336": 308},
    usual_input_px=352,
    mean=CLIP_MEAN,
    std=CLIP_STD,
    licence="MIT",
    read=lambda model, _: TokenTaps(
        model,
        model.encoder.layers,
        nn.Identity(),
        prefix_tokens=1,
        key_projection=lambda block: block.self_attn.k_proj,
        call={"interpolate_pos_encoding": True},
    ),
)


def build(request: TeacherRequest) -> NetworkTeacher:
    """Return the CLIP that `request` asks for; inputs are multiples of the patch, 16 or 14 px."""
    return build_library(FAMILY, request)


def describe() -> list[Description]:
    """Return every variant."""
    return describe_library(FAMILY)
