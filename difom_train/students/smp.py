"""Any model of segmentation_models_pytorch as a student: `smp:ARCH/ENCODER`, for example smp:fpn/resnet18."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from difom_cache.base.errors import SettingsError, install_extra, name_nearest
from difom_train.students.base import BOTTLENECK, EncoderDecoder, Level, StudentSettings
from difom_train.students.necks import KEEPS_CHANNELS, NECK_CHANNELS, build_neck

PREFIX = "smp:"
INPUT = "input"
# DPT is left out: its decoder takes tokens, not a pyramid.
ARCHITECTURES = (
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
    "pan",
    "upernet",
    "segformer",
)
PROBE_PX = 256  # side of the zeros from which levels are read; large enough for every architecture


class SmpStudent(EncoderDecoder):
    """Encoder, decoder and head of the library, the neck (if any) widened back to what the decoder was built for."""

    def __init__(self, settings: StudentSettings, *, encoder_weights: str | None = None) -> None:
        network = _create(settings.name, encoder_weights)
        channels = int(network.encoder.out_channels[-1])
        super().__init__(settings, _read_levels(network), neck=build_neck(settings.neck, channels))
        self.pyramid_length = len(network.encoder.out_channels)
        self.encoder: nn.Module = network.encoder
        self.decoder: nn.Module = network.decoder
        self.head: nn.Module = network.segmentation_head
        kept = settings.neck in KEEPS_CHANNELS
        self.widen = nn.Identity() if kept else nn.Conv2d(NECK_CHANNELS, channels, kernel_size=1)

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        return _name_encoder_levels(self.encoder(pixels))

    def decode(self, features: dict[str, Tensor], size: Sequence[int]) -> tuple[list[Tensor], dict[str, Tensor]]:
        batch = features[BOTTLENECK].shape[0]
        pyramid = [
            features[name] if name in features else features[BOTTLENECK].new_zeros(batch, 0, *_grid(index, size))
            for index, name in enumerate(_level_names(self.pyramid_length))
        ]
        pyramid[-1] = self.widen(pyramid[-1])
        decoded = self.decoder(pyramid)
        logits = self.head(decoded)
        if logits.shape[-2:] != tuple(size):
            logits = interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
        return [logits], {"decoder1": decoded}

    def encoder_modules(self) -> list[nn.Module]:
        return [self.encoder]


def _library() -> Any:
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise SettingsError(
            f"students called smp:ARCH/ENCODER need segmentation_models_pytorch: {install_extra('smp')}"
        ) from error
    return segmentation_models_pytorch


def _create(name: str, encoder_weights: str | None) -> Any:
    library = _library()
    arch, separator, encoder = name.removeprefix(PREFIX).partition("/")
    if not separator or not encoder:
        raise SettingsError(f"expected smp:ARCH/ENCODER such as smp:fpn/resnet18, found {name!r}")
    if arch.lower() not in ARCHITECTURES:
        raise SettingsError(name_nearest("smp architecture", arch, list(ARCHITECTURES)))
    if encoder not in library.encoders.encoders and not encoder.startswith("tu-"):
        raise SettingsError(name_nearest("smp encoder", encoder, list(library.encoders.encoders)))
    try:
        return library.create_model(
            arch.lower(), encoder_name=encoder, encoder_weights=encoder_weights, in_channels=3, classes=1
        )
    except (ValueError, KeyError, NotImplementedError) as error:
        raise SettingsError(f"segmentation_models_pytorch cannot build {name}: {error}") from error


def _level_names(count: int) -> list[str]:
    """Return the names of the encoder's `count` maps; the first is the input itself."""
    return [INPUT, *(f"encoder{index}" for index in range(1, count - 1)), BOTTLENECK]


def _name_encoder_levels(pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the maps by level name, without the input and placeholders of no channels (transformers have one)."""
    named = zip(_level_names(len(pyramid)), pyramid, strict=True)
    return {name: x for name, x in named if name != INPUT and x.shape[1] > 0}


def _grid(index: int, size: Sequence[int]) -> tuple[int, int]:
    return size[0] // 2**index, size[1] // 2**index


def _read_levels(network: Any) -> dict[str, Level]:
    training = network.training
    network.eval()
    with torch.no_grad():
        pyramid = network.encoder(torch.zeros(1, 3, PROBE_PX, PROBE_PX))
        maps = {**_name_encoder_levels(pyramid), "decoder1": network.decoder(list(pyramid))}
    network.train(training)
    return {name: Level(x.shape[1], PROBE_PX // x.shape[-1]) for name, x in maps.items()}
