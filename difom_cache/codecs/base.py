"""What every codec agrees on: a feature goes in, a code and perhaps a scale come out, and back.

Nothing here needs torch to be imported: tensors bring their own methods, and decoding takes NumPy arrays as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import CodecError

if TYPE_CHECKING:
    from torch import Tensor

ArrayOrTensor = TypeVar("ArrayOrTensor", np.ndarray, "Tensor")


class UncodableFeatureError(CodecError):
    """A feature holds NaN, an infinity, or a value beyond the code's range.

    Attributes:
        row: place in the batch of the first such picture, so that the caller can name the record.
        channel: its first such code channel.
        problem: what was found and expected there, without the batch's coordinates.
    """

    def __init__(self, row: int, channel: int, problem: str) -> None:
        super().__init__(row, channel, problem)
        self.row, self.channel, self.problem = row, channel, problem

    def __str__(self) -> str:
        return f"picture {self.row} of the batch, channel {self.channel}: {self.problem}"


class Basis:
    """What a codec has learnt of one tap, stored beside it: a frozen dataclass of these arrays, and what they keep.

    Attributes:
        ARRAYS: name on the disk to field, names of dimensions and type, in the order that the digest takes them in.
        directions: (C, k) float32.
        kept_variance: the share of the variance of the fitted sample that lies in the stored directions, in [0, 1].
    """

    ARRAYS: ClassVar[dict[str, tuple[str, tuple[str, ...], str]]]
    directions: NDArray[np.float32]
    kept_variance: float

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what decides codes and targets."""
        total = hashlib.sha256(repr(self.directions.shape).encode())
        for field, _, kind in self.ARRAYS.values():
            total.update(np.ascontiguousarray(getattr(self, field), dtype=kind).tobytes())
        return total.hexdigest()

    def arrays(self) -> dict[str, tuple[NDArray[Any], tuple[str, ...]]]:
        """Return what is stored: name to array and names of its dimensions."""
        held = {name: (getattr(self, field), dimensions) for name, (field, dimensions, _) in self.ARRAYS.items()}
        return held | {"basis_kept_variance": (np.array([self.kept_variance]), ("one",))}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the basis of what `arrays` gave."""
        held = {field: arrays[name].astype(kind) for name, (field, _, kind) in cls.ARRAYS.items()}
        return cls(**held, kept_variance=float(arrays["basis_kept_variance"][0]))  # type: ignore[call-arg]


class Codec(Protocol):
    """Feature <-> code for one tap.

    A picture's code depends on that picture alone, bit for bit: not on its neighbours in the batch.
    """

    name: str
    code_dtype: str
    """NumPy's name of the code's type: `int8`, `uint8` or `float16`."""
    has_scale: bool
    code_units: str
    """Unit of the code, for readers of the arrays; "" where it is the feature's own."""
    decoded: str
    """How a target follows from the stored arrays, for readers of them."""

    def code_channels(self, channels: int) -> int:
        """Return the number of code channels for a feature of so many channels."""

    def scale_channels(self, channels: int) -> int:
        """Return how many numbers a row's scale has for a feature of so many channels; 0 where there is no scale."""

    def encode(self, feature: Tensor, *, check: bool = True) -> tuple[Tensor, Tensor | None]:
        """Return the code and its scale, on the feature's device.

        Args:
            feature: (B, C, h, w) float32.
            check: refuse features that cannot be coded. It waits for the device; a caller that does not want to wait
                says False, and calls `check_code` on what arrived.

        Returns:
            code (B, code_channels, h, w) of `code_dtype`, and scale (B, scale_channels) float32 or None.

        Raises:
            UncodableFeatureError: the feature holds NaN, an infinity or a value beyond the code's range.
        """

    def check_code(self, code: Any, scale: Any) -> None:
        """Refuse what `encode(check=False)` made of a feature that cannot be coded (tensors or arrays).

        Raises:
            UncodableFeatureError: as in `encode`.
        """

    def decode(self, code: ArrayOrTensor, scale: Any) -> ArrayOrTensor:
        """Return the (B, C, h, w) float32 feature that `code` stands for; arrays give arrays, tensors give tensors.

        Raises:
            CodecError: the scale is missing, of another shape than the code, or the code has other channels.
        """

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the code's bytes, fit for JSON."""


def to_array(x: Any) -> np.ndarray:
    """Return a NumPy array of a tensor on any device, or of an array."""
    return x if isinstance(x, np.ndarray) else x.detach().cpu().numpy()


def first_not_finite(x: Any) -> tuple[int, int] | None:
    """Return (row, channel) of the first value that is not finite, or None.

    Args:
        x: (B, C, ...), array or tensor.
    """
    if not isinstance(x, np.ndarray):
        # Infinity minus itself is NaN, so this one sum tells without a mask as large as the feature.
        if bool(((x - x) == 0).all()):
            return None
        x = to_array(x)
    bad = ~np.isfinite(x)
    if not bad.any():
        return None
    row, channel = np.argwhere(bad)[0][:2]
    return int(row), int(channel)


def refuse_no_scale(codec: str, code: Any, scale: Any) -> None:
    """Raise a CodecError where `scale` is missing, or is an array where `code` is a tensor."""
    if scale is None:
        raise CodecError(f"codec {codec}: expected a scale beside the code of shape {tuple(code.shape)}, found none")
    if isinstance(code, np.ndarray) != isinstance(scale, np.ndarray):
        raise CodecError(f"codec {codec}: code is a {type(code).__name__} but scale a {type(scale).__name__}")


def refuse_wrong_scale(codec: str, code: Any, scale: Any) -> None:
    """Refuse a scale that does not belong to the code.

    Raises:
        CodecError: `scale` is missing, of another batch or channel count than `code`, or of another kind.
    """
    refuse_no_scale(codec, code, scale)
    if tuple(scale.shape) != tuple(code.shape[:2]):
        raise CodecError(
            f"codec {codec}: a code of shape {tuple(code.shape)} needs a scale of shape {tuple(code.shape[:2])}, "
            f"found {tuple(scale.shape)}"
        )


def principal_directions(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the variances (C,) along the principal directions, the columns of (C, C), the strongest first.

    Each direction's largest entry is positive: a matrix has either sign alike, and libraries differ in which they give.
    """
    variance, directions = np.linalg.eigh(covariance)
    strongest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[strongest, np.arange(len(directions))])
    return variance[::-1].clip(min=0), directions[:, ::-1]
