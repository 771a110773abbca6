"""DINOv3's ConvNeXts (Siméoni et al. 2025, arXiv:2508.10104), from transformers; their weights are gated on the hub.

Taps: `stage1` to `stage4` at strides 4 to 32, the last after the network's norm, as the authors'
`get_intermediate_layers` does. Inputs are multiples of 32 px; the default of 704 px puts 22 cells at stride 32, the grid of
a picture of 352 px at stride 16.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from difom_cache.teachers.base import Description, NativeTap, TapRequest, TeacherRequest, choose_variant, label_variant
from difom_cache.teachers.network import NetworkFacts, NetworkTeacher, TapNetwork, assemble
from difom_cache.teachers.preprocess import IMAGENET_MEAN, IMAGENET_STD, check_input_px
from difom_cache.teachers.transformers_weights import Family, count_parameters, load_part

MULTIPLE_PX = 32
INPUT_PX = 704
TINY_INPUT_PX = 352
DEFAULT_VARIANT = "convnext_base"
DEFAULT_TAPS = (TapRequest("stage3", 16), TapRequest("stage4", 32))
LICENCE = "DINOv3 License (accept on the hub)"


def _config(depths: tuple[int, int, int, int], width: int) -> DINOv3ConvNextConfig:
    return DINOv3ConvNextConfig(depths=list(depths), hidden_sizes=[width * 2**i for i in range(4)])


FAMILY = Family(
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
)


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


def build(request: TeacherRequest) -> NetworkTeacher:
    """Return the ConvNeXt that `request` asks for."""
    variant = choose_variant(FAMILY.name, request.variant or DEFAULT_VARIANT, FAMILY.configs)
    input_px = request.input_px or _input_px(variant)
    check_input_px(input_px, MULTIPLE_PX, f"{FAMILY.name}:{variant}")
    model, config, weights = load_part(FAMILY, variant, request.weights)
    facts = NetworkFacts(
        label=label_variant(FAMILY.name, variant, DEFAULT_VARIANT),
        name=FAMILY.name,
        variant=variant,
        input_px=input_px,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        native=native_taps(config),
        default_taps=DEFAULT_TAPS,
        packages=("transformers",),
        licence=LICENCE,
        weights=weights,
        options={},
    )
    return assemble(request, facts, StageTaps(model))


def _input_px(variant: str) -> int:
    return TINY_INPUT_PX if variant == "tiny" else INPUT_PX


def describe() -> list[Description]:
    """Return every variant."""
    return [
        Description(
            name=FAMILY.name,
            variant=variant,
            is_default=variant == DEFAULT_VARIANT,
            parameters=count_parameters(FAMILY, variant),
            input_px=_input_px(variant),
            native=native_taps(make()),
            default_taps=DEFAULT_TAPS,
            repository=FAMILY.repositories[variant],
            licence=LICENCE,
        )
        for variant, make in FAMILY.configs.items()
    ]
