"""Segment Anything 3's image encoder (Carion et al. 2025, arXiv:2511.16719), from transformers; gated on the hub.

Taps: `block0` and on (the tokens after a block; four blocks attend over the whole picture, the others over windows of
24 x 24), `block0.keys` and on, and the 256-channel maps that the detector reads: `neck` at the tokens' own stride of
14 px, `neck_x2` and `neck_x4` at twice and four times that resolution. Inputs are multiples of 14 px; the rotary
positions of blocks that see the whole picture are stretched over another size than 1008 px as over that one.
Checkpoints may be of the video model, as the hub has them.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import Sam3VisionConfig, Sam3VisionModel, Sam3ViTConfig

from difom_cache.teachers.base import NativeTap, TapRequest
from difom_cache.teachers.library import Family, Size
from difom_cache.teachers.network import TapNetwork
from difom_cache.teachers.preprocess import HALF_MEAN, HALF_STD
from difom_cache.teachers.tokens import block_number, block_taps

PATCH_PX = 14
NECK = {"neck_x4": 4.0, "neck_x2": 2.0, "neck": 1.0}  # the library makes one of half the resolution too, unread


def _config(width: int, depth: int, heads: int, mlp: int, neck: int = 256, **further: Any) -> Sam3VisionConfig:
    vit = Sam3ViTConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=mlp, **further
    )
    return Sam3VisionConfig(backbone_config=vit, fpn_hidden_size=neck)


TINY = {"global_attn_indexes": [1, 3], "window_size": 4, "image_size": 308, "pretrain_image_size": 112}
DETECTOR = ("text_encoder.", "text_projection.", "geometry_encoder.", "detr_", "mask_decoder.", "dot_product_scoring.")


def _vision_config(config: Any) -> Any:
    config = getattr(config, "detector_config", config)  # of the video model
    return getattr(config, "vision_config", config)


class Sam3Taps(TapNetwork):
    """The library's encoder, read after chosen blocks, at their keys and in its neck.

    Args:
        model: the library's encoder.
        input_px: side of the input.
    """

    def __init__(self, model: Any, input_px: int) -> None:
        super().__init__()
        self.backbone, self.neck = model.backbone, model.neck
        self.backbone.config.image_size = input_px
        for block in self.backbone.layers:  # the library works positions out once, for the size of the configuration
            block.position_ids = block.precompute_positions(self.backbone.config, block.window_size)

    def keep(self, taps: tuple[str, ...]) -> None:
        """Give these taps from now on, and drop the blocks after the deepest and the levels that nobody asks for."""
        super().keep(taps)
        levels = zip(self.neck.config.scale_factors, self.neck.fpn_layers, strict=True)
        self.neck = nn.ModuleDict({name: level for s, level in levels for name in taps if NECK.get(name) == s})
        if not len(self.neck):
            del self.backbone.layers[max(block_number(tap) for tap in taps) + 1 :]

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the map (B, C, h, w) of each kept tap, of normalised pixels (B, 3, S, S)."""
        side = pixels.shape[-1] // PATCH_PX
        x = self.backbone.embeddings(pixels).unflatten(1, (side, side))  # (B, h, w, C)
        x = self.backbone.layer_norm(x)
        maps: dict[str, Tensor] = {}
        for number, block in enumerate(self.backbone.layers):
            if f"block{number}.keys" in self.taps:  # of the whole picture, also where the block attends over windows
                maps[f"block{number}.keys"] = block.attention.k_proj(block.layer_norm1(x)).permute(0, 3, 1, 2)
            x = block(x)
            maps[f"block{number}"] = x.permute(0, 3, 1, 2)
        for name, level in self.neck.items():
            maps[name] = level(x.permute(0, 3, 1, 2))
        return {tap: maps[tap] for tap in self.taps}


def native_taps(config: Any) -> dict[str, NativeTap]:
    """Return every place that the encoder can be read at."""
    vit = config.backbone_config
    neck = {name: NativeTap(name, config.fpn_hidden_size, PATCH_PX / scale) for name, scale in NECK.items()}
    return block_taps(vit.num_hidden_layers, vit.hidden_size, PATCH_PX) | neck


def default_taps(config: Any) -> tuple[TapRequest, ...]:
    """Return the last but one of the blocks that attend over the whole picture and, deeper and so coarser, the neck."""
    vit = config.backbone_config
    return TapRequest(f"block{vit.global_attn_indexes[-2]}", 16), TapRequest("neck", 32)


FAMILY = Family(
    name="sam3",
    model_class=Sam3VisionModel,
    sizes={
        "large": Size(partial(_config, 1024, 32, 16, 4736), "facebook/sam3"),
        "tiny": Size(partial(_config, 32, 4, 2, 64, 32, **TINY), input_px=308),
    },
    geometry=lambda config: (config.backbone_config.hidden_size, config.backbone_config.num_hidden_layers),
    read=Sam3Taps,
    default="large",
    input_px=1008,
    licence="SAM License (accept on the hub)",
    mean=HALF_MEAN,
    std=HALF_STD,
    multiple_px=lambda config: PATCH_PX,
    native=native_taps,
    default_taps=default_taps,
    adapt=_vision_config,
    inside=("detector_model.vision_encoder.", "vision_encoder."),
    others=("tracker_model.", "tracker_neck.", *DETECTOR, *(f"detector_model.{part}" for part in DETECTOR)),
)
