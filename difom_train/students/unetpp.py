"""U-Net++ (arXiv 1807.10165): nested decoders with dense skips, 9.16 M parameters at width 32."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from difom_train.students.base import BOTTLENECK, EncoderDecoder, StudentSettings
from difom_train.students.necks import build_neck, decoder_input_channels
from difom_train.students.unet import DEFAULT_WIDTH, ConvBlock, double, list_levels, list_widths


class UNetPlusPlus(EncoderDecoder):
    """Node (i, j) at scale i takes all earlier nodes of its row and the doubled node (i + 1, j - 1) below it."""

    def __init__(self, settings: StudentSettings) -> None:
        widths = list_widths(settings.width or DEFAULT_WIDTH)
        super().__init__(settings, list_levels(widths), neck=build_neck(settings.neck, widths[4]))
        deep = decoder_input_channels(settings.neck, widths[4])
        self.encoder = nn.ModuleList(
            ConvBlock(in_channels, width) for in_channels, width in zip([3, *widths[:4]], widths, strict=True)
        )
        self.nodes = nn.ModuleDict()
        for depth in range(1, 5):
            for scale in range(5 - depth):
                below = deep if scale + 1 == 4 else widths[scale + 1]
                self.nodes[f"{scale}_{depth}"] = ConvBlock(widths[scale] * depth + below, widths[scale])
        outputs = 4 if settings.deep_supervision else 1
        self.heads = nn.ModuleList(nn.Conv2d(widths[0], 1, kernel_size=1) for _ in range(outputs))

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = {}
        for scale, block in enumerate(self.encoder):
            pixels = block(pixels if scale == 0 else max_pool2d(pixels, 2))
            features[BOTTLENECK if scale == 4 else f"encoder{scale + 1}"] = pixels
        return features

    def decode(self, features: dict[str, Tensor], size: Sequence[int]) -> tuple[list[Tensor], dict[str, Tensor]]:
        rows = [[features[f"encoder{scale + 1}"]] for scale in range(4)] + [[features[BOTTLENECK]]]
        for depth in range(1, 5):
            for scale in range(5 - depth):
                parts = [*rows[scale], double(rows[scale + 1][depth - 1])]
                rows[scale].append(self.nodes[f"{scale}_{depth}"](torch.cat(parts, dim=1)))
        levels = {f"decoder{4 - scale}": rows[scale][-1] for scale in (3, 2, 1, 0)}
        deepest_first = reversed(rows[0][1:])  # main output: the node behind the whole network
        return [head(node) for head, node in zip(self.heads, deepest_first, strict=False)], levels

    def encoder_modules(self) -> list[nn.Module]:
        return [self.encoder]
