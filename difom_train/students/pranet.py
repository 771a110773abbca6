"""PraNet (arXiv 2006.11392): Res2Net encoder, partial decoder, three reverse-attention stages, four outputs."""

from collections.abc import Sequence

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from difom_train.students.base import BOTTLENECK, EncoderDecoder, Level, StudentSettings
from difom_train.students.necks import build_neck, decoder_input_channels
from difom_train.students.unet import double
from difom_train.students.weights import fetch

ENCODER = "res2net50d"  # timm's Res2Net50-v1b-26w-4s
ENCODER_CHANNELS = (64, 256, 512, 1024, 2048)  # strides 2, 4, 8, 16, 32
DEFAULT_WIDTH = 32  # channels behind the receptive-field blocks


class ConvNorm(nn.Sequential):
    """Convolution and batch norm, without a ReLU: PraNet places those by hand."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int | tuple[int, int] = 1, *, dilation: int = 1
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size=(height, width),
                padding=(dilation * (height // 2), dilation * (width // 2)),
                dilation=dilation,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
        )


class ReceptiveField(nn.Module):
    """Four branches of growing reach (kernels 1, 3, 5, 7, each dilated by its size) beside a residual 1x1."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvNorm(in_channels, width)])
        for kernel in (3, 5, 7):
            self.branches.append(
                nn.Sequential(
                    ConvNorm(in_channels, width),
                    ConvNorm(width, width, (1, kernel)),
                    ConvNorm(width, width, (kernel, 1)),
                    ConvNorm(width, width, 3, dilation=kernel),
                )
            )
        self.merge = ConvNorm(4 * width, width, 3)
        self.shortcut = ConvNorm(in_channels, width)

    def forward(self, features: Tensor) -> Tensor:
        merged = self.merge(torch.cat([branch(features) for branch in self.branches], dim=1))
        return relu(merged + self.shortcut(features))


class PartialDecoder(nn.Module):
    """Aggregates the three deep levels into one coarse map at stride 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.deep_to_middle = ConvNorm(width, width, 3)
        self.deep_to_fine = ConvNorm(width, width, 3)
        self.middle_to_fine = ConvNorm(width, width, 3)
        self.deep_beside_middle = ConvNorm(width, width, 3)
        self.middle_beside_fine = ConvNorm(2 * width, 2 * width, 3)
        self.join_middle = ConvNorm(2 * width, 2 * width, 3)
        self.join_fine = ConvNorm(3 * width, 3 * width, 3)
        self.last = ConvNorm(3 * width, 3 * width, 3)
        self.head = nn.Conv2d(3 * width, 1, kernel_size=1)

    def forward(self, deep: Tensor, middle: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coarse logits (B, 1, h, w) and the features (B, 3 * width, h, w) that they come from."""
        middle_gated = self.deep_to_middle(double(deep)) * middle
        fine_gated = self.deep_to_fine(double(double(deep))) * self.middle_to_fine(double(middle)) * fine
        joined = self.join_middle(torch.cat([middle_gated, self.deep_beside_middle(double(deep))], dim=1))
        joined = self.join_fine(torch.cat([fine_gated, self.middle_beside_fine(double(joined))], dim=1))
        features = self.last(joined)
        return self.head(features), features


class ReverseAttention(nn.Module):
    """Looks where the coarser map saw nothing, and corrects it there."""

    def __init__(self, in_channels: int, channels: int, *, kernel: int, layers: int, head_kernel: int) -> None:
        super().__init__()
        self.enter = ConvNorm(in_channels, channels)
        self.layers = nn.ModuleList(ConvNorm(channels, channels, kernel) for _ in range(layers))
        self.head = ConvNorm(channels, 1, head_kernel)

    def forward(self, features: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Return the corrected logits (B, 1, h, w) and the features behind them."""
        features = self.enter((1 - coarse.sigmoid()) * features)
        for layer in self.layers:
            features = relu(layer(features))
        return self.head(features) + coarse, features


class PraNet(EncoderDecoder):
    """Four outputs, main first: reverse attention at strides 8, 16, 32, then the partial decoder's."""

    def __init__(self, settings: StudentSettings) -> None:
        width = settings.width or DEFAULT_WIDTH
        levels = {f"encoder{i + 1}": Level(channels, 2 ** (i + 1)) for i, channels in enumerate(ENCODER_CHANNELS[:4])}
        levels[BOTTLENECK] = Level(ENCODER_CHANNELS[4], 32)
        levels |= {"decoder1": Level(3 * width, 8), "decoder2": Level(256, 32)}
        levels |= {"decoder3": Level(64, 16), "decoder4": Level(64, 8)}
        super().__init__(settings, levels, neck=build_neck(settings.neck, ENCODER_CHANNELS[4]), loss_name="structure")
        deep = decoder_input_channels(settings.neck, ENCODER_CHANNELS[4])
        self.encoder = timm.create_model(ENCODER, pretrained=False, features_only=True)
        self.fields = nn.ModuleList(ReceptiveField(channels, width) for channels in (512, 1024, deep))
        self.partial = PartialDecoder(width)
        self.reverse4 = ReverseAttention(deep, 256, kernel=5, layers=3, head_kernel=1)
        self.reverse3 = ReverseAttention(1024, 64, kernel=3, layers=2, head_kernel=3)
        self.reverse2 = ReverseAttention(512, 64, kernel=3, layers=2, head_kernel=3)

    def load_imagenet(self) -> None:
        """Give the encoder timm's ImageNet weights.

        Raises:
            WeightsError: they are neither cached nor reachable.
        """
        trained = fetch(ENCODER, lambda: timm.create_model(ENCODER, pretrained=True, features_only=True))
        self.encoder.load_state_dict(trained.state_dict())

    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        *shallow, deep = self.encoder(pixels)
        return {**{f"encoder{i + 1}": features for i, features in enumerate(shallow)}, BOTTLENECK: deep}

    def decode(self, features: dict[str, Tensor], size: Sequence[int]) -> tuple[list[Tensor], dict[str, Tensor]]:
        fine, middle, deep = features["encoder3"], features["encoder4"], features[BOTTLENECK]
        reduced = [field(x) for field, x in zip(self.fields, (fine, middle, deep), strict=True)]
        coarse, decoder1 = self.partial(reduced[2], reduced[1], reduced[0])
        map4, decoder2 = self.reverse4(deep, interpolate(coarse, scale_factor=0.25, mode="bilinear"))
        map3, decoder3 = self.reverse3(middle, double(map4))
        map2, decoder4 = self.reverse2(fine, double(map3))
        logits = [
            interpolate(x, size=tuple(size), mode="bilinear", align_corners=False) for x in (map2, map3, map4, coarse)
        ]
        return logits, {"decoder1": decoder1, "decoder2": decoder2, "decoder3": decoder3, "decoder4": decoder4}

    def encoder_modules(self) -> list[nn.Module]:
        return [self.encoder]
