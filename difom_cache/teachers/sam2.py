"""Segment Anything 2.1's image encoder (Ravi et al. 2024, arXiv:2408.00714), from transformers.

Taps: `stage1` to `stage4` of Hiera at strides 4 to 32, and the 256-channel maps that the mask decoder and the memory
read, `neck4`, `neck8` and `neck16`. Inputs are multiples of 32 px; positions are interpolated by the library for any
size. The authors squash a picture to a square as we do. Checkpoints may be of the video model, as the hub has them.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Sam2HieraDetConfig, Sam2VisionConfig, Sam2VisionModel

from difom_cache.teachers.base import NativeTap, TapRequest
from difom_cache.teachers.library import Family, Size
from difom_cache.teachers.network import TapNetwork

STAGES = ("stage1", "stage2", "stage3", "stage4")
NECK = ("neck4", "neck8", "neck16")


def _config(
    width: int, heads: int, blocks: tuple[int, ...], attend_all: tuple[int, ...], *, window: int = 14, **further: Any
) -> Sam2VisionConfig:
    """Return transformers' configuration of one size.

    Args:
        width: channels of the first stage.
        heads: of the first stage.
        blocks: of each stage.
        attend_all: blocks that attend over the whole picture.
        window: of the third stage, cells a side; half of it in the last.
        further: `cells` a side of the coarse positions, 7 by default; the rest is of the neck.
    """
    cells = further.pop("cells", 7)
    hiera = Sam2HieraDetConfig(
        hidden_size=width,
        embed_dim_per_stage=[width * 2**i for i in range(4)],
        num_attention_heads_per_stage=[heads * 2**i for i in range(4)],
        blocks_per_stage=list(blocks),
        global_attention_blocks=list(attend_all),
        window_size_per_stage=[8, 4, window, window // 2],
        window_positional_embedding_background_size=[cells, cells],
    )
    channels = [width * 2**i for i in range(3, -1, -1)]
    return Sam2VisionConfig(backbone_config=hiera, backbone_channel_list=channels, **further)


class NoPositions(nn.Module):
    """Stands for the neck's position maps, which the decoder adds later and no tap holds."""

    def forward(self, shape: torch.Size, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return nothing."""
        return torch.empty(0, device=device, dtype=dtype)


class Sam2Taps(TapNetwork):
    """The library's encoder, read after Hiera's stages and in its neck."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.model.neck.position_encoding = NoPositions()

    def keep(self, taps: tuple[str, ...]) -> None:
        """Give these taps from now on, and drop the neck and the stages where nobody asks for them."""
        super().keep(taps)
        if not set(taps) & set(NECK):
            self.model.neck = nn.Identity()
            deepest = max(STAGES.index(tap) for tap in taps)
            del self.model.backbone.blocks[self.model.backbone.stage_ends[deepest] + 1 :]

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the map (B, C, h, w) of each kept tap, of normalised pixels (B, 3, S, S)."""
        stages = self.model.backbone(pixels).intermediate_hidden_states  # each (B, h, w, C)
        maps = {name: stage.permute(0, 3, 1, 2) for name, stage in zip(STAGES, stages, strict=False)}
        if set(self.taps) & set(NECK):
            levels, _ = self.model.neck(stages)  # from stride 32 to stride 4
            maps |= dict(zip(NECK, reversed(levels[1:]), strict=True))
        return {tap: maps[tap] for tap in self.taps}


def native_taps(config: Any) -> dict[str, NativeTap]:
    """Return every place that the encoder can be read at."""
    hiera = config.backbone_config
    taps = [NativeTap(name, hiera.embed_dim_per_stage[i], 4 * 2**i) for i, name in enumerate(STAGES)]
    taps += [NativeTap(name, config.fpn_hidden_size, int(name.removeprefix("neck"))) for name in NECK]
    return {tap.name: tap for tap in taps}


FAMILY = Family(
    name="sam2",
    model_class=Sam2VisionModel,
    sizes={
        "hiera_t": Size(partial(_config, 96, 1, (1, 2, 7, 2), (5, 7, 9)), "facebook/sam2.1-hiera-tiny"),
        "hiera_s": Size(partial(_config, 96, 1, (1, 2, 11, 2), (7, 10, 13)), "facebook/sam2.1-hiera-small"),
        "hiera_b_plus": Size(
            partial(_config, 112, 2, (2, 3, 16, 3), (12, 16, 20), cells=14), "facebook/sam2.1-hiera-base-plus"
        ),
        "hiera_l": Size(
            partial(_config, 144, 2, (2, 6, 36, 4), (23, 33, 43), window=16), "facebook/sam2.1-hiera-large"
        ),
        "tiny": Size(partial(_config, 16, 1, (1, 1, 2, 1), (3,), fpn_hidden_size=32), input_px=352),
    },
    geometry=lambda config: (config.backbone_config.hidden_size, tuple(config.backbone_config.blocks_per_stage)),
    read=lambda model, _: Sam2Taps(model),
    default="hiera_b_plus",
    input_px=1024,
    licence="Apache-2.0",
    multiple_px=lambda config: 32,
    native=native_taps,
    default_taps=lambda config: (TapRequest("neck16", 16), TapRequest("stage4", 32)),
    adapt=lambda config: getattr(config, "vision_config", config),
    inside=("vision_encoder.",),
    others=(
        *("mask_decoder.", "mask_downsample.", "memory_", "no_memory_", "no_object_pointer", "object_pointer_proj."),
        *("occlusion_spatial_embedding_parameter", "prompt_encoder.", "shared_image_embedding."),
        "temporal_positional_encoding_projection_layer.",
    ),
)
