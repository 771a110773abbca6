"""The two distilled layers between encoder and decoder (arXiv 2512.09307); they run at inference too."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from difom_cache.base.errors import SettingsError, name_nearest

NECK_CHANNELS = 256  # L1 and L2 of the paper
KEEPS_CHANNELS = (None, "residual")  # necks behind which the decoder gets as many channels as without one


class Neck(nn.Module, ABC):
    """Two layers z1 and z2 that are compared with the low and the high band of the teachers."""

    @abstractmethod
    def forward(self, bottleneck: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what the decoder receives (B, `decoder_input_channels`, h, w), and "z1" and "z2" as they are compared."""


class DifomNeck(Neck):
    """z1 = 1x1(x), z2 = 1x1([x, ReLU(z1)]); both are compared before any ReLU and the decoder gets z1 + z2.

    Students of earlier `difom` runs have it.

    The paper's chain cannot do what its losses ask: a 1x1 layer makes E_high from nothing but E_low, and the output of
    a ReLU cannot equal a target of both signs. Here both bands are linear in x and their sum is the whole target.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.low = nn.Conv2d(channels, NECK_CHANNELS, kernel_size=1)
        self.high = nn.Conv2d(channels + NECK_CHANNELS, NECK_CHANNELS, kernel_size=1)

    def forward(self, bottleneck: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z1 = self.low(bottleneck)
        z2 = self.high(torch.cat([bottleneck, z1.relu()], dim=1))
        return z1 + z2, {"z1": z1, "z2": z2}


class ResidualNeck(DifomNeck):
    """The layers of `DifomNeck` beside the path to the decoder, which gets x + add(z1 + z2), with `add` zero at first.

    Where the sum stands alone, all that the decoder learns of the picture has to pass what is taught; here the teachers add
    to it, as much as the masks ask for.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.add = nn.Conv2d(NECK_CHANNELS, channels, kernel_size=1)
        nn.init.zeros_(self.add.weight)
        nn.init.zeros_(self.add.bias)  # type: ignore[arg-type]

    def forward(self, bottleneck: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        both, shown = super().forward(bottleneck)
        return bottleneck + self.add(both), shown


class PaperNeck(Neck):
    """The literal wiring of the paper's figure: L1 = 1x1 + ReLU, L2 = 1x1 of L1, the decoder gets L2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.low = nn.Conv2d(channels, NECK_CHANNELS, kernel_size=1)
        self.high = nn.Conv2d(NECK_CHANNELS, NECK_CHANNELS, kernel_size=1)

    def forward(self, bottleneck: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z1 = self.low(bottleneck).relu()
        z2 = self.high(z1)
        return z2, {"z1": z1, "z2": z2}


NECKS: dict[str, type[DifomNeck] | type[PaperNeck]] = {"difom": DifomNeck, "paper": PaperNeck, "residual": ResidualNeck}


def build_neck(name: str | None, channels: int) -> Neck | None:
    """Return the neck called `name` over a bottleneck of `channels`, or None for no neck."""
    if name is None:
        return None
    if name not in NECKS:
        raise SettingsError(name_nearest("neck", name, list(NECKS)))
    return NECKS[name](channels)


def decoder_input_channels(neck: str | None, channels: int) -> int:
    """Return how many channels the decoder receives at the bottleneck."""
    return channels if neck in KEEPS_CHANNELS else NECK_CHANNELS
