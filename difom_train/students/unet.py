"""U-Net (arXiv 1505.04597) with bilinear upsampling, as the published polyp baselines count it: 7.85 M parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from difom_train.students.base import BOTTLENECK, EncoderDecoder, Level, StudentSettings
from difom_train.students.necks import build_neck, decoder_input_channels

DEFAULT_WIDTH = 32  # widths 32, 64, 128, 256, 512


class ConvBlock(nn.Sequential):
    """Twice 3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def double(features: Tensor) -> Tensor:
    """Return features at twice the grid, bilinear: (B, C, h, w) -> (B, C, 2h, 2w)."""
    return interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)


def list_widths(width: int) -> list[int]:
    """Return the channels of the five scales, finest first."""
    return [width * 2**scale for scale in range(5)]


def list_levels(widths: Sequence[int]) -> dict[str, Level]:
    """Return the levels that U-Net and U-Net++ share: encoder1..4, bottleneck, decoder1..4 (coarse to fine)."""
    levels = {f"encoder{scale + 1}": Level(widths[scale], 2**scale) for scale in range(4)}
    levels[BOTTLENECK] = Level(widths[4], 16)
    levels |= {f"decoder{4 - scale}": Level(widths[scale], 2**scale) for scale in (3, 2, 1, 0)}
    return levels


class UNet(EncoderDecoder):
    """Five scales, skip connections, one output."""

    def __init__(self, settings: StudentSettings) -> None:
        widths = list_widths(settings.width or DEFAULT_WIDTH)
        super().__init__(settings, list_levels(widths), neck=build_neck(settings.neck, widths[4]))
        deep = decoder_input_channels(settings.neck, widths[4])
        below = [widths[1], widths[2], widths[3], deep]  # channels that come up into decoder scale 0..3
        self.encoder = nn.ModuleList(
            ConvBlock(in_channels, width) for in_channels, width in zip([3, *widths[:4]], widths, strict=True)
        )
        self.decoder = nn.ModuleList(ConvBlock(widths[scale] + below[scale], widths[scale]) for scale in range(4))
        self.head = nn.Conv2d(widths[0], 1, kernel_size=1)

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = {}
        for scale, block in enumerate(self.encoder):
            pixels = block(pixels if scale == 0 else max_pool2d(pixels, 2))
            features[BOTTLENECK if scale == 4 else f"encoder{scale + 1}"] = pixels
        return features

    def decode(self, features: dict[str, Tensor], size: Sequence[int]) -> tuple[list[Tensor], dict[str, Tensor]]:
        levels: dict[str, Tensor] = {}
        below = features[BOTTLENECK]
        for scale in (3, 2, 1, 0):
            below = self.decoder[scale](torch.cat([features[f"encoder{scale + 1}"], double(below)], dim=1))
            levels[f"decoder{4 - scale}"] = below
        return [self.head(below)], levels

    def encoder_modules(self) -> list[nn.Module]:
        return [self.encoder]
