"""CLIP's picture side (Radford et al. 2021, arXiv:2103.00020), from transformers.

Taps: `block0` and on, as the residual stream leaves the block: CLIP's last norm was trained for the class token alone;
`block0.keys` and on.
Trained at 224 px (336 px for `large_336`); the default inputs give the 22 cells of a picture of 352 px at stride 16,
with positions interpolated by the library.

OpenAI trained with QuickGELU, open_clip with GELU unless its settings say otherwise (`base_gelu`, `large_gelu`). A table
of tensors alone does not tell which, so a file in open_clip's or timm's layout is taken for QuickGELU only where it, or
the settings beside it, say so.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from difom_cache.base.errors import WeightsError
from difom_cache.teachers.layouts import Layout
from difom_cache.teachers.library import Family, Size
from difom_cache.teachers.places import read_json
from difom_cache.teachers.preprocess import CLIP_MEAN, CLIP_STD
from difom_cache.teachers.tokens import TokenTaps

QUICK, PLAIN = "quick_gelu", "gelu"
OPEN_CLIP, TIMM = "open_clip_config.json", "config.json"


def _config(
    width: int, depth: int, heads: int, patch_px: int, image_px: int = 224, activation: str = QUICK
) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        patch_size=patch_px,
        image_size=image_px,
        hidden_act=activation,
    )


def _blocks_only(model: Any) -> Any:
    model.post_layernorm = nn.Identity()  # of the class token, which is not read
    return model


def _check_activation(config: Any, layout: Layout, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Raise where a file's network has another activation than `config`, or may have."""
    said = _read_activation(tensors, source) if layout.convert is not None else config.hidden_act
    if said == config.hidden_act or (said is None and config.hidden_act == PLAIN):
        return
    gelu = "where it is GELU, as open_clip trains, name the size with _gelu (--teacher clip:base_gelu)"
    if said is None:
        raise WeightsError(
            f"{source}: does not say whether its network has GELU or QuickGELU, whose features differ; {gelu}; where it is "
            f'QuickGELU, as of OpenAI, DFN and MetaCLIP, write {{"model_cfg": {{"quick_gelu": true}}}} into {OPEN_CLIP} beside it'
        )
    other = "name the size without _gelu (--teacher clip:base)" if said == QUICK else gelu
    raise WeightsError(f"{source}: its network has {said}, expected {config.hidden_act}; {other}")


def _read_activation(tensors: Mapping[str, Tensor], source: Path) -> str | None:
    """Return the activation that a file or the settings beside it name, None where neither does."""
    if "input_resolution" in tensors:  # as OpenAI's archives hold it; their network has no other
        return QUICK
    folder = source if source.is_dir() else source.parent
    if (folder / OPEN_CLIP).is_file():
        model = read_json(folder / OPEN_CLIP).get("model_cfg")
        return QUICK if isinstance(model, dict) and model.get("quick_gelu") is True else PLAIN
    if (folder / TIMM).is_file() and isinstance(named := read_json(folder / TIMM).get("architecture"), str):
        return QUICK if "quickgelu" in named else PLAIN
    return None


FAMILY = Family(
    name="clip",
    model_class=CLIPVisionModel,
    sizes={
        "base": Size(partial(_config, 768, 12, 12, 16), "openai/clip-vit-base-patch16"),
        "large": Size(partial(_config, 1024, 24, 16, 14), "openai/clip-vit-large-patch14", 308),
        "large_336": Size(partial(_config, 1024, 24, 16, 14, 336), "openai/clip-vit-large-patch14-336", 308),
        "tiny": Size(partial(_config, 32, 4, 2, 16)),
        "base_gelu": Size(partial(_config, 768, 12, 12, 16, activation=PLAIN), "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
        "large_gelu": Size(
            partial(_config, 1024, 24, 16, 14, activation=PLAIN), "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", 308
        ),
        "tiny_gelu": Size(partial(_config, 32, 4, 2, 16, activation=PLAIN)),
    },
    geometry=lambda config: (config.hidden_size, config.num_hidden_layers, config.patch_size, config.image_size),
    read=lambda model, _: TokenTaps(
        model,
        model.encoder.layers,
        nn.Identity(),
        prefix_tokens=1,
        key_projection=lambda block: block.self_attn.k_proj,
        call={"interpolate_pos_encoding": True},
    ),
    default="base",
    input_px=352,
    licence="MIT",
    mean=CLIP_MEAN,
    std=CLIP_STD,
    part=_blocks_only,
    adapt=lambda config: getattr(config, "vision_config", config),
    others=("text_model.", "text_projection.", "visual_projection.", "logit_scale"),
    unused=("post_layernorm.",),
    check=_check_activation,
)
