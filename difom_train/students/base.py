"""What every student is: an encoder with named levels, a decoder, and perhaps a distilled neck between them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from difom_cache import IMAGENET_MEAN, IMAGENET_STD
from difom_cache.errors import SettingsError
from difom_train.students.necks import Neck

BOTTLENECK = "bottleneck"


@dataclass(frozen=True)
class Level:
    """A named place in a student: how many channels it has, and how many input pixels one of its cells spans."""

    channels: int
    stride: int


@dataclass(frozen=True)
class StudentSettings:
    """Everything that rebuilds a student's architecture."""

    name: str
    width: int | None = None
    neck: str | None = None
    deep_supervision: bool = False


@dataclass
class StudentOutput:
    """What a student shows while it is trained.

    Attributes:
        logits: each (B, 1, H, W) at input size, the main one first.
        levels: level name -> (B, C, h, w); `bottleneck` is the encoder's own, before any neck.
        neck: "z1" and "z2", each (B, 256, h, w) at the bottleneck's grid; empty without a neck.
    """

    logits: list[Tensor]
    levels: dict[str, Tensor]
    neck: dict[str, Tensor] = field(default_factory=dict)


class Student(nn.Module, ABC):
    """A network from pictures (B, 3, H, W) in [0, 1] to logits (B, 1, H, W); it normalises its input itself."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, settings: StudentSettings, levels: dict[str, Level], *, neck: Neck | None, loss_name: str = "dice_bce"
    ) -> None:
        super().__init__()
        self.settings = settings
        self.levels = levels
        self.loss_name = loss_name
        self.meta: dict[str, Any] = {}
        self.neck = neck
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def largest_stride(self) -> int:
        return max(level.stride for level in self.levels.values())

    @abstractmethod
    def encode(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the encoder's levels, `bottleneck` among them, of normalised pixels (B, 3, H, W)."""

    @abstractmethod
    def decode(self, features: dict[str, Tensor], size: Sequence[int]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return every logits map at `size` (H, W), main first, and the decoder's levels.

        Args:
            features: as `encode` gave them; with a neck, `bottleneck` is the neck's result.
            size: height and width of the input in px.
        """

    @abstractmethod
    def encoder_modules(self) -> list[nn.Module]:
        """Return the modules to freeze when a phase trains the decoder only (neck excluded)."""

    def forward_train(self, pictures: Tensor) -> StudentOutput:
        """Return all logits, levels and neck features of pictures (B, 3, H, W) in [0, 1]."""
        size = pictures.shape[-2:]
        if not torch.compiler.is_compiling():  # an exported graph has been checked before
            check_sides(self, int(size[0]), int(size[1]))
        encoded = self.encode((pictures - self.mean) / self.std)
        features = dict(encoded)
        shown: dict[str, Tensor] = {}
        if self.neck is not None:
            features[BOTTLENECK], shown = self.neck(encoded[BOTTLENECK])
        logits, decoded = self.decode(features, size)
        return StudentOutput(logits=logits, levels={**encoded, **decoded}, neck=shown)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the main logits (B, 1, H, W)."""
        return self.forward_train(pictures).logits[0]


def check_sides(student: Student, height_px: int, width_px: int) -> None:
    """Return if both sides divide by the student's largest stride.

    Raises:
        SettingsError: they do not; names the nearest sizes that would.
    """
    stride = student.largest_stride
    for side_px in (height_px, width_px):
        if side_px < stride or side_px % stride:
            raise SettingsError(
                f"{student.name} takes input sides that divide by {stride}, found {side_px} px; "
                f"the nearest is {nearest_side_px(side_px, stride)} px (--input-size)"
            )


def nearest_side_px(side_px: int, stride: int) -> int:
    """Return the multiple of `stride`, at least one of it, that lies nearest to `side_px`."""
    return max(1, int(side_px / stride + 0.5)) * stride


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers `module` learns or could learn (buffers left out)."""
    return sum(parameter.numel() for parameter in module.parameters())
