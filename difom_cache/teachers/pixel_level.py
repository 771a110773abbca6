"""Mask2Former (Cheng et al. 2022, arXiv:2112.01527) and OneFormer (Jain et al. 2023, arXiv:2211.06220), from transformers.

What is read is the pixel-level module that both share, a Swin backbone and a deformable pixel decoder; it needs no text,
tokenizer or queries. Taps: `stage1` to `stage4` (backbone, strides 4 to 32), `pixel32`, `pixel16` and `pixel8` (decoder),
`pixel4` (the mask features). Inputs are multiples of 32 px; the default of 704 px puts 22 cells at stride 32, the grid of
a picture of 352 px at stride 16. OneFormer's DiNAT-L needs the natten package and is not offered here.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    OneFormerConfig,
    OneFormerForUniversalSegmentation,
    SwinConfig,
)

from difom_cache.teachers import buffers
from difom_cache.teachers.base import NativeTap, TapRequest
from difom_cache.teachers.library import Family, Size
from difom_cache.teachers.network import TapNetwork

STAGES = ("stage1", "stage2", "stage3", "stage4")
DECODER_TAPS = ("pixel32", "pixel16", "pixel8")  # in the order the decoder gives them


@dataclass(frozen=True)
class Swin:
    """One size of the backbone, as the authors published it."""

    width: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int
    decoder_channels: int = 256


SWINS = {
    "swin_t": Swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "swin_s": Swin(96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "swin_b": Swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
    "swin_l": Swin(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
    "tiny": Swin(16, (1, 1, 1, 1), (1, 2, 4, 8), 7, decoder_channels=64),
}
TINY = {
    **{"encoder_layers": 1, "num_attention_heads": 2, "encoder_feedforward_dim": 64},
    **{"decoder_layers": 2, "dim_feedforward": 64, "num_queries": 4},
}


def _config(config_class: Any, channels: tuple[str, ...], size: str, **further: Any) -> Any:
    """Return transformers' configuration of a size, every stage of its backbone given out; `channels` are the decoder's."""
    swin = SWINS[size]
    settings: dict[str, Any] = {
        **{"embed_dim": swin.width, "depths": list(swin.depths), "num_heads": list(swin.heads)},
        **{"window_size": swin.window, "out_features": list(STAGES)},
    }
    backbone = SwinConfig(**settings)
    return config_class(backbone_config=backbone, **dict.fromkeys(channels, swin.decoder_channels), **further)


class KeptConstants(TorchFunctionMode):
    """Numbers of which the library makes a tensor on a GPU, such as the sizes of maps, are brought there once.

    Each such copy waits for all that the GPU was given before. Nothing writes into these tensors.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and isinstance(args[0], list):
            return _constant(tuple(map(tuple, args[0])), **options)
        return func(*args, **options)


@lru_cache(maxsize=64)
def _constant(rows: tuple[tuple[int, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(rows, dtype=dtype, device=device)


class PixelLevelTaps(TapNetwork):
    """The library's backbone and pixel decoder, read at chosen levels."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def keep(self, taps: tuple[str, ...]) -> None:
        """Give these taps from now on, and drop the mask features where nobody asks for them.

        They cost a 3x3 convolution at stride 4, the largest single layer of the decoder.
        """
        super().keep(taps)
        if "pixel4" not in taps:
            self.module.decoder.num_fpn_levels = 0
            self.module.decoder.mask_projection = nn.Identity()

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the map (B, C, h, w) of each kept tap, of normalised pixels (B, 3, S, S)."""
        stages = self.module.encoder(pixels).feature_maps
        maps = dict(zip(STAGES, stages, strict=True))
        if not set(self.taps) <= set(STAGES):
            keeps = pixels.is_cuda and not torch.compiler.is_compiling()
            constants: Any = KeptConstants() if keeps else nullcontext()
            with constants:
                decoded = self.module.decoder(stages)
            maps |= dict(zip(DECODER_TAPS, decoded.multi_scale_features, strict=True))
            maps["pixel4"] = decoded.mask_features
        return {tap: maps[tap] for tap in self.taps}


def _part(model: Any) -> Any:
    """Return the pixel-level module of a whole Mask2Former or OneFormer, without the norm that nothing reads."""
    module = model.model.pixel_level_module
    module.encoder.swin.layernorm = nn.Identity()
    return module


def native_taps(config: Any) -> dict[str, NativeTap]:
    """Return every place that the module can be read at."""
    width = config.backbone_config.embed_dim
    taps = [NativeTap(name, width * 2**i, 4 * 2**i) for i, name in enumerate(STAGES)]
    decoded = (*DECODER_TAPS, "pixel4")
    taps += [NativeTap(name, config.hidden_dim, int(name.removeprefix("pixel"))) for name in decoded]
    return {tap.name: tap for tap in taps}


def _never_training(config: Any) -> Any:
    """Return the configuration with `is_training` off: by it, not by `eval()`, OneFormer's pixel decoder drops out."""
    config.is_training = False
    return config


_mask2former = partial(_config, Mask2FormerConfig, ("feature_size", "mask_feature_size", "hidden_dim"))
_oneformer = partial(_config, OneFormerConfig, ("conv_dim", "mask_dim", "hidden_dim"))
MASK2FORMER = Family(
    name="mask2former",
    model_class=Mask2FormerForUniversalSegmentation,
    sizes={
        "tiny": Size(partial(_mask2former, "tiny", **TINY), input_px=352),
        "swin_t": Size(partial(_mask2former, "swin_t"), "facebook/mask2former-swin-tiny-coco-panoptic"),
        "swin_s": Size(partial(_mask2former, "swin_s"), "facebook/mask2former-swin-small-coco-panoptic"),
        "swin_b": Size(partial(_mask2former, "swin_b"), "facebook/mask2former-swin-base-coco-panoptic"),
        "swin_l": Size(partial(_mask2former, "swin_l"), "facebook/mask2former-swin-large-coco-panoptic"),
    },
    geometry=lambda config: (config.backbone_config.embed_dim, tuple(config.backbone_config.depths)),
    read=lambda module, _: PixelLevelTaps(module),
    default="swin_l",
    input_px=704,
    licence="MIT",
    multiple_px=lambda config: 32,
    native=native_taps,
    default_taps=lambda config: (TapRequest("pixel16", 16), TapRequest("pixel32", 32)),
    part=_part,
    prefix="model.pixel_level_module.",
    others=("model.transformer_module.", "class_predictor.", "criterion."),
    computed=buffers.COMMON | {"relative_position_index": buffers.relative_position_index},
    unused=("encoder.swin.layernorm.",),  # the backbone norms each stage by itself; this one's result is thrown away
)
ONEFORMER = replace(
    MASK2FORMER,
    name="oneformer",
    model_class=OneFormerForUniversalSegmentation,
    sizes={
        "tiny": Size(
            partial(_oneformer, "tiny", **TINY, text_encoder_width=64, text_encoder_num_layers=1), input_px=352
        ),
        "swin_t": Size(partial(_oneformer, "swin_t"), "shi-labs/oneformer_ade20k_swin_tiny"),
        "swin_l": Size(partial(_oneformer, "swin_l"), "shi-labs/oneformer_ade20k_swin_large"),
    },
    adapt=_never_training,
    others=("model.transformer_module.", "model.task_encoder.", "model.text_mapper.", "criterion."),
)
