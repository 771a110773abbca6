"""The pixel-level module that Mask2Former and OneFormer share: a Swin backbone and a deformable pixel decoder.

It needs no text, tokenizer or queries. Taps: `stage1` to `stage4` (backbone, strides 4 to 32), `pixel32`, `pixel16`
and `pixel8` (decoder), `pixel4` (the mask features). Inputs are multiples of 32 px; the default of 704 px puts 22
cells at stride 32, the grid of a picture of 352 px at stride 16.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig, SwinConfig

from difom_cache.teachers import buffers
from difom_cache.teachers.base import Description, NativeTap, TapRequest, TeacherRequest, choose_variant, label_variant
from difom_cache.teachers.network import NetworkFacts, NetworkTeacher, TapNetwork, assemble
from difom_cache.teachers.preprocess import IMAGENET_MEAN, IMAGENET_STD, check_input_px
from difom_cache.teachers.transformers_weights import Family, count_parameters, load_part

MULTIPLE_PX = 32
INPUT_PX = 704
TINY_INPUT_PX = 352
STAGES = ("stage1", "stage2", "stage3", "stage4")
DECODER_TAPS = ("pixel32", "pixel16", "pixel8")  # in the order the decoder gives them
DEFAULT_TAPS = (TapRequest("pixel16", 16), TapRequest("pixel32", 32))
UNUSED = ("encoder.swin.layernorm.",)  # the backbone norms each stage by itself; this one's result is thrown away
COMPUTED = buffers.COMMON | {"relative_position_index": buffers.relative_position_index}


@dataclass(frozen=True)
class Swin:
    """One size of the backbone, as the authors published it."""

    width: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int
    decoder_channels: int = 256

    def config(self) -> SwinConfig:
        """Return transformers' configuration of this backbone, every stage given out."""
        settings: dict[str, Any] = {
            "embed_dim": self.width,
            "depths": list(self.depths),
            "num_heads": list(self.heads),
            "window_size": self.window,
            "out_features": list(STAGES),
        }
        return SwinConfig(**settings)


SWINS = {
    "swin_t": Swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "swin_s": Swin(96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "swin_b": Swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
    "swin_l": Swin(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
    "tiny": Swin(16, (1, 1, 1, 1), (1, 2, 4, 8), 7, decoder_channels=64),
}


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
            decoded = self.module.decoder(stages)
            maps |= dict(zip(DECODER_TAPS, decoded.multi_scale_features, strict=True))
            maps["pixel4"] = decoded.mask_features
        return {tap: maps[tap] for tap in self.taps}


def pixel_level_part(model: Any) -> Any:
    """Return the pixel-level module of a whole Mask2Former or OneFormer, without the norm that nothing reads."""
    module = model.model.pixel_level_module
    module.encoder.swin.layernorm = nn.Identity()
    return module


def backbone_geometry(config: PretrainedConfig) -> object:
    """Return what tells one backbone size from another."""
    return config.backbone_config.embed_dim, tuple(config.backbone_config.depths)


def native_taps(swin: Swin) -> dict[str, NativeTap]:
    """Return every place that the module can be read at."""
    taps = [NativeTap(name, swin.width * 2**i, 4 * 2**i) for i, name in enumerate(STAGES)]
    taps += [
        NativeTap(name, swin.decoder_channels, int(name.removeprefix("pixel"))) for name in (*DECODER_TAPS, "pixel4")
    ]
    return {tap.name: tap for tap in taps}


def describe_pixel_level(family: Family, default_variant: str, licence: str) -> list[Description]:
    """Return what every variant of the family is, without loading any weights; arguments as `build_pixel_level`."""
    return [
        Description(
            name=family.name,
            variant=variant,
            is_default=variant == default_variant,
            parameters=count_parameters(family, variant),
            input_px=TINY_INPUT_PX if variant == "tiny" else INPUT_PX,
            native=native_taps(SWINS[variant]),
            default_taps=DEFAULT_TAPS,
            repository=family.repositories[variant],
            licence=licence,
        )
        for variant in family.configs
    ]


def build_pixel_level(request: TeacherRequest, family: Family, default_variant: str, licence: str) -> NetworkTeacher:
    """Return the pixel-level module that `request` asks for as a teacher.

    Args:
        request: what the user asks for.
        family: the teacher's sizes.
        default_variant: where the request names none.
        licence: of the weights.
    """
    variant = choose_variant(family.name, request.variant or default_variant, family.configs)
    input_px = request.input_px or (TINY_INPUT_PX if variant == "tiny" else INPUT_PX)
    check_input_px(input_px, MULTIPLE_PX, f"{family.name}:{variant}")
    module, _, weights = load_part(family, variant, request.weights)
    facts = NetworkFacts(
        label=label_variant(family.name, variant, default_variant),
        name=family.name,
        variant=variant,
        input_px=input_px,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        native=native_taps(SWINS[variant]),
        default_taps=DEFAULT_TAPS,
        packages=("transformers",),
        licence=licence,
        weights=weights,
        options={},
    )
    return assemble(request, facts, PixelLevelTaps(module))
