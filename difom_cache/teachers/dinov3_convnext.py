"""DINOv3's ConvNeXts (Siméoni et al. 2025, arXiv:2508.10104), from transformers; their weights are gated on the hub.

Taps: `stage1` to `stage4` at strides 4 to 32, the last after the network's norm, as the authors'
`get_intermediate_layers` does. Inputs are multiples of 32 px; the default of 704 px puts 22 cells at stride 32, the grid of
a picture of 352 px at stride 16.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from difom_cache.teachers.base import NativeTap, TapRequest
from difom_cache.teachers.library import Family, Size
from difom_cache.teachers.network import TapNetwork


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
        del self.model.model.stages[max(int(tap.removeprefix("stage")) for tap in taps) :]
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


def native_taps(config: Any) -> dict[str, NativeTap]:
    """Return every place that the network can be read at."""
    taps = [NativeTap(f"stage{i + 1}", channels, 4 * 2**i) for i, channels in enumerate(config.hidden_sizes)]
    return {tap.name: tap for tap in taps}


HUB = "facebook/dinov3-convnext-{}-pretrain-lvd1689m"
FAMILY = Family(
    name="dinov3_convnext",
    model_class=DINOv3ConvNextModel,
    sizes={
        "convnext_tiny": Size(partial(_config, (3, 3, 9, 3), 96), HUB.format("tiny")),
        "convnext_small": Size(partial(_config, (3, 3, 27, 3), 96), HUB.format("small")),
        "convnext_base": Size(partial(_config, (3, 3, 27, 3), 128), HUB.format("base")),
        "convnext_large": Size(partial(_config, (3, 3, 27, 3), 192), HUB.format("large")),
        "tiny": Size(partial(_config, (1, 1, 2, 1), 16), input_px=352),
    },
    geometry=lambda config: (tuple(config.depths), tuple(config.hidden_sizes)),
    read=lambda model, _: StageTaps(model),
    default="convnext_base",
    input_px=704,
    licence="DINOv3 License (accept on the hub)",
    multiple_px=lambda config: 32,
    native=native_taps,
    default_taps=lambda config: (TapRequest("stage3", 16), TapRequest("stage4", 32)),
)
