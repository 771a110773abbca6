"""DINOv3's ConvNeXts (Siméoni et al. 2025, arXiv:2508.10104), from transformers; their weights are gated on the hub.

Taps: `stage1` to `stage4` at strides 4 to 32, the last after the network's norm, as the authors'
`get_intermediate_layers` does. Inputs are multiples of 32 px; the default of 704 px puts 22 cells at stride 32, the grid of
a picture of 352 px at stride 16.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from difom_cache.teachers.base import Description, NativeTap, TapRequest, TeacherRequest
from difom_cache.teachers.library import LibraryTeacher, build_library, describe_library
from difom_cache.teachers.network import NetworkTeacher, TapNetwork
from difom_cache.teachers.preprocess import IMAGENET_MEAN, IMAGENET_STD
from difom_cache.teachers.transformers_weights import Family


def _config(depths: tuple[int, int, int, int], width: int) -> DINOv3ConvNextConfig:
    return DINOv3ConvNextConfig(depths=list(depths), hidden_sizes=[width * 2**i for i in range(4)])


class StageTaps(TapNetwork):
    """The library's stages, read after each."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def keep(self, taps: tuple[str, ...]) -> None:
        """Give these taps from now on, and drop the stages after the deepest."""
        super().keep(taps)
        del self.model.model.stages[max(_stage_number(tap) for tap in taps) :]
        if "stage4" not in taps:
            self.model.layer_norm = nn.Identity()

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the map (B, C, h, w) of each kept tap, of normalised pixels (B, 3, S, S)."""
        maps, x = {}, pixels
        for number, stage in enumerate(self.model.model.stages, start=1):
            x = stage(x)
            maps[f"stage{number}"] = x
        if "stage4" in self.taps:
            maps["stage4"] = self.model.layer_norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return {tap: maps[tap] for tap in self.taps}


def _stage_number(tap: str) -> int:
    return int(tap.removeprefix("stage"))


def native_taps(config: Any) -> dict[str, NativeTap]:
    """Return every place that the network can be read at."""
    taps = [NativeTap(f"stage{i + 1}", channels, 4 * 2**i) for i, channels in enumerate(config.hidden_sizes)]
    return {tap.name: tap for tap in taps}


FAMILY = LibraryTeacher(
    family=Family(
        name="dinov3_convnext",
        model_class=DINOv3ConvNextModel,
        part=lambda model: model,
        prefix="",
        configs={
            "convnext_tiny": partial(_config, (3, 3, 9, 3), 96),
            "convnext_small": partial(_config, (3, 3, 27, 3), 96),
            "convnext_base": partial(_config, (3, 3, 27, 3), 128),
            "convnext_large": partial(_config, (3, 3, 27, 3), 192),
            "tiny": partial(_config, (1, 1, 2, 1), 16),
        },
        repositories={
            "convnext_tiny": "facebook/dinov3-convnext-tiny-pretrain-lvd1689m",
            "convnext_small": "facebook/dinov3-convnext-small-pretrain-lvd1689m",
            "convnext_base": "facebook/dinov3-convnext-base-pretrain-lvd1689m",
            "convnext_large": "facebook/dinov3-convnext-large-pretrain-lvd1689m",
            "tiny": "",
        },
        geometry=lambda config: (tuple(config.depths), tuple(config.hidden_sizes)),
    ),
    default_variant="convnext_base",
    input_px={"tiny": 352},
    usual_input_px=704,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    licence="DINOv3 License (accept on the hub)",
    read=lambda model, _: StageTaps(model),
    multiple_px=lambda config: 32,
    native=native_taps,
    default_taps=lambda config: (TapRequest("stage3", 16), TapRequest("stage4", 32)),
)


def build(request: TeacherRequest) -> NetworkTeacher:
    """Return the ConvNeXt that `request` asks for."""
    return build_library(FAMILY, request)


def describe() -> list[Description]:
    """Return every variant."""
    return describe_library(FAMILY)
