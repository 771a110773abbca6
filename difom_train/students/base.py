"""What every student is: a network with named levels, one of them its bottleneck, where a distilled neck may stand."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from difom_cache.base.errors import SettingsError
from difom_cache.teachers import IMAGENET_MEAN, IMAGENET_STD
from difom_train.students.necks import Neck

BOTTLENECK = "bottleneck"


@dataclass(frozen=True)
class Level:
    """A named place in a student: how many channels it has, and how many input pixels one of its cells spans."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Wrap:
    """How a module of any kind became a student; with the module itself, enough to do it again."""

    strides: dict[str, int]
    "Module name to stride in input px, of the modules whose outputs are levels."
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    input_px: int = 256
    "Side of the picture of the dry forward pass."


@dataclass(frozen=True)
class StudentSettings:
    """Everything that rebuilds a student's architecture; of one from outside this package, beside its code."""

    name: str
    width: int | None = None
    neck: str | None = None
    deep_supervision: bool = False
    wrap: Wrap | None = None


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
    """A network from pictures (B, 3, H, W) in [0, 1] to logits (B, 1, H, W); it normalises its input itself.

    Attributes:
        settings: its name and options.
        levels: name to channels and stride of what it shows; `bottleneck` is among them.
        loss_name: of the mask loss that it was published with.
        pretrained: whether its encoder comes with weights worth keeping, and so moves at a rate of its own.
        meta: what its run folder says of it.
    """

    mean: Tensor
    std: Tensor
    pretrained = False

    def __init__(
        self,
        settings: StudentSettings,
        levels: dict[str, Level],
        *,
        neck: Neck | None,
        loss_name: str = "dice_bce",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.levels = levels
        self.loss_name = loss_name
        self.meta: dict[str, Any] = {}
        self.neck = neck
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def largest_stride(self) -> int:
        return max(level.stride for level in self.levels.values())

    @abstractmethod
    def forward_train(self, pictures: Tensor) -> StudentOutput:
        """Return all logits, levels and neck features of pictures (B, 3, H, W) in [0, 1]."""

    @abstractmethod
    def encoder_modules(self) -> list[nn.Module]:
        """Return the modules to freeze when a phase trains the decoder only (neck excluded)."""

    def weights_home(self) -> nn.Module:
        """Return the module that a file of weights from elsewhere fills."""
        return self.encoder_modules()[0]

    def normalise(self, pictures: Tensor) -> Tensor:
        """Return pictures (B, 3, H, W) in [0, 1] as the network takes them, whose sides have been checked."""
        if not torch.compiler.is_compiling():  # an exported graph has been checked before
            check_sides(self, int(pictures.shape[-2]), int(pictures.shape[-1]))
        return (pictures - self.mean) / self.std

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the main logits (B, 1, H, W)."""
        return self.forward_train(pictures).logits[0]


class EncoderDecoder(Student):
    """A student in two halves, between which the neck stands."""

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

    def forward_train(self, pictures: Tensor) -> StudentOutput:
        encoded = self.encode(self.normalise(pictures))
        features = dict(encoded)
        shown: dict[str, Tensor] = {}
        if self.neck is not None:
            features[BOTTLENECK], shown = self.neck(encoded[BOTTLENECK])
        logits, decoded = self.decode(features, pictures.shape[-2:])
        return StudentOutput(logits=logits, levels={**encoded, **decoded}, neck=shown)


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
