"""What a teacher is: a specification that decides its features, and one method that gives them.

A teacher takes a square picture and gives maps at native taps, named places in the network. What the cache keeps of a
native tap is a tap: its name with the stride, counted in pixels of the stored picture, that it is pooled to.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from difom_cache.base.errors import SettingsError, TeacherError, name_nearest
from difom_cache.base.hardware import emulates_bfloat16

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from difom_cache.teachers.outputs import Reading

Precision = Literal["float32", "bfloat16"]
Backend = Literal["auto", "torch", "openvino"]
RANDOM = "random"  # where weights come from that nobody trained


def check_precision(precision: str) -> None:
    """Refuse a precision that no teacher computes in.

    Raises:
        SettingsError: names those there are.
    """
    known = get_args(Precision)
    if precision not in known:
        raise SettingsError(f"precision: expected {' or '.join(known)}, found {precision!r}")


@dataclass(frozen=True)
class NativeTap:
    """A named place in a teacher, as the network itself gives it.

    Attributes:
        name: such as "block11", "neck", "pixel16" or "logits".
        channels: of its map.
        stride_native: teacher input px per cell.
        kind: "feature", or "logits" where the values go through a sigmoid to become a mask.
    """

    name: str
    channels: int
    stride_native: float
    kind: Literal["feature", "logits"] = "feature"

    def grid(self, input_px: int) -> int:
        """Return the cells along one side of the map of an input of `input_px`."""
        return round(input_px / self.stride_native)


@dataclass(frozen=True)
class TapRequest:
    """A native tap, and the stride in picture px that it is stored at."""

    native: str
    stride: float

    @property
    def name(self) -> str:
        """Return the tap's name inside its teacher, such as "block11@16"."""
        return f"{self.native}@{self.stride:g}"

    def grid(self, picture_px: int) -> int:
        """Return the cells along one side of the stored map.

        Raises:
            TeacherError: the stride does not divide the picture.
        """
        cells = round(picture_px / self.stride)
        if cells < 1 or abs(cells * self.stride - picture_px) > 1e-6 * picture_px:
            raise TeacherError(
                f"tap {self.name}: a stride of {self.stride:g} px does not divide a picture of {picture_px} px; "
                f"choose a divisor of {picture_px}, such as {_nearest_divisor(picture_px, self.stride)}"
            )
        return cells


def _nearest_divisor(picture_px: int, stride: float) -> int:
    divisors = [d for d in range(1, picture_px + 1) if picture_px % d == 0]
    return min(divisors, key=lambda d: abs(d - stride))


@dataclass(frozen=True)
class TeacherRequest:
    """What is asked of a teacher: what a user typed, a worker is sent and every builder in the catalogue takes.

    Attributes:
        name: in the catalogue; a builder knows its own.
        variant: what follows the colon of the teacher's name: a size, a file, a run, a hub model; "" for the default.
        input_px: side of the teacher's input, None for the teacher's own.
        weights: "hub", "hub@REVISION", "random" or a path.
        taps: "NATIVE", "NATIVE@STRIDE", "NATIVE@native" or "ALIAS=PLACE[@STRIDE]"; None for the default taps.
        strides: in picture px, for the taps that name none; None for the default ones.
        picture_px: side of the stored pictures, which strides refer to.
        device: where the teacher shall stand.
        precision: None for bfloat16 on CUDA that has it and float32 elsewhere.
        compile: True to run the network through torch.compile.
        backend: what runs the network: "torch", "openvino", or "auto" where that is not decided yet.
        readings: what the outputs of a network from elsewhere are; () as caches without any were made, where a map of one
            channel was taken for logits; None where nobody has looked.
    """

    name: str = ""
    variant: str = ""
    input_px: int | None = None
    weights: str = "hub"
    taps: tuple[str, ...] | None = None
    strides: tuple[int, ...] | None = None
    picture_px: int = 352
    device: str = "cpu"
    precision: Precision | None = None
    compile: bool = False
    backend: str = "torch"
    readings: "tuple[Reading, ...] | None" = None

    def __post_init__(self) -> None:
        if self.precision is not None:
            check_precision(self.precision)

    @property
    def spec(self) -> str:
        """What `parse_teacher` reads: NAME[:VARIANT][@PX]."""
        return self.name + (f":{self.variant}" if self.variant else "") + (f"@{self.input_px}" if self.input_px else "")

    @property
    def chosen_precision(self) -> Precision:
        """Return the precision asked for, or the device's own."""
        if self.precision is not None or not self.device.startswith("cuda"):
            return self.precision or "float32"
        return "float32" if emulates_bfloat16(self.device) else "bfloat16"


def parse_teacher(spec: str) -> TeacherRequest:
    """Return the request for `NAME[:VARIANT][@PX]`; a variant may be a path.

    Raises:
        SettingsError: there is no name.
    """
    found = re.fullmatch(r"(?P<name>[^:@]+)(?::(?P<variant>.*?))?(?:@(?P<px>\d+))?", spec)
    if found is None:
        raise SettingsError(f"expected a teacher as NAME[:VARIANT][@PX], found {spec!r}")
    return TeacherRequest(found["name"], found["variant"] or "", int(found["px"]) if found["px"] else None)


@dataclass(frozen=True)
class Weights:
    """Which weights a teacher holds: where they came from, for people, and the digest that decides."""

    source: str
    digest: str


@dataclass(frozen=True)
class TeacherSpec:
    """Everything that decides a teacher's features.

    A teacher's file fills in what it knows of its network; `complete_spec` adds what the request says.

    Attributes:
        label: the teacher's folder in a cache, such as "dinov2", "sam-vit_h", "dinov2-small-112px", "sam-random" or
            "onnx-efficientpolyseg".
        name: in the catalogue.
        variant: the size, file stem or run.
        input_px: side of the square input.
        weights: where they came from, for people (of all sources only "random" enters the identity), and the SHA-256 over
            the names and bytes of the tensors in use, whatever file they came from.
        mean: per channel, subtracted from pixels in [0, 1].
        std: per channel, divided by.
        native: every place this teacher can be read at.
        taps: what is stored; before `complete_spec`, what is stored unless the user says otherwise.
        licence: of the weights.
        libraries: name to version of what computes the features.
        interpolation: how a view is brought to `input_px`; "bilinear" means antialiased bilinear.
        precision: "float32", or "bfloat16" for autocast.
        options: whatever else changes the numbers, such as {"compile": true}.
        seen_masks: SHA-256 of the mask files that the weights were trained on, where somebody kept them.
        usual_px: the input size that the variant has unless another is asked for, which its label then names; None: it has none.
    """

    label: str
    name: str
    variant: str
    input_px: int
    weights: Weights
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    native: Mapping[str, NativeTap]
    taps: tuple[TapRequest, ...]
    licence: str
    libraries: Mapping[str, str] = field(default_factory=dict)
    interpolation: str = "bilinear"
    precision: Precision = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)
    seen_masks: frozenset[str] | None = None
    usual_px: int | None = None

    def __post_init__(self) -> None:
        check_precision(self.precision)

    @property
    def weights_digest(self) -> str:
        """Return the SHA-256 of the weights."""
        return self.weights.digest

    @property
    def weights_source(self) -> str:
        """Return where the weights came from."""
        return self.weights.source

    @property
    def is_random(self) -> bool:
        """Whether nobody trained these weights, so that the features are good for trials alone."""
        return self.weights.source == RANDOM

    def identity(self) -> dict[str, Any]:
        """Return what decides the content of this teacher's features, ready for JSON and without any path.

        `weights` is there for random ones alone: nobody shall take their features for a teacher's.
        """
        return ({"weights": RANDOM} if self.is_random else {}) | {
            "name": self.name,
            "variant": self.variant,
            "input_px": self.input_px,
            "weights_digest": self.weights_digest,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "taps": [
                {
                    "name": tap.name,
                    "channels": self.native[tap.native].channels,
                    "native_grid": self.native[tap.native].grid(self.input_px),
                    "kind": self.native[tap.native].kind,
                }
                for tap in self.taps
            ],
            "libraries": dict(sorted(self.libraries.items())),
            "precision": self.precision,
            "options": dict(sorted(self.options.items())),
        }


class Teacher(Protocol):
    """A frozen network that gives maps of pictures."""

    spec: TeacherSpec

    def to(self, device: "str | torch.device") -> "Teacher":
        """Return the teacher, standing on `device`."""

    def features(self, pixels: "Tensor") -> "dict[str, Tensor]":
        """Return the map of every native tap that `spec.taps` names.

        Args:
            pixels: float32 (B, 3, S, S) in [0, 1], S = `spec.input_px`, on the teacher's device.

        Returns:
            Native tap name to float32 (B, C, h, w).
        """


def reached_strides(grid: int, picture_px: int, strides: Sequence[int] = (8, 16, 32)) -> list[float]:
    """Return those of `strides` that a map of `grid` cells a side is fine enough for, else its own."""
    return [s for s in strides if picture_px % s == 0 and picture_px // s <= grid] or [picture_px / grid]


def choose_variant(teacher: str, variant: str, known: Collection[str]) -> str:
    """Return `variant`, or raise a SettingsError naming the nearest of `known`."""
    if variant not in known:
        raise SettingsError(name_nearest(f"variant of {teacher}", variant, list(known)))
    return variant


def label_variant(teacher: str, variant: str, default: str) -> str:
    """Return the name under which a variant's features are kept: "sam" for the default one, else "sam-vit_h"."""
    return teacher if variant == default else f"{teacher}-{variant}"


def check_input_px(input_px: int, multiple_px: int, teacher: str) -> None:
    """Refuse an input that `teacher` cannot take, naming the nearest that it can.

    Args:
        input_px: side of the square input.
        multiple_px: what it must be a multiple of.
        teacher: named in the message.
    """
    if input_px < multiple_px or input_px % multiple_px:
        nearest_px = max(multiple_px, round(input_px / multiple_px) * multiple_px)
        raise TeacherError(
            f"{teacher} takes inputs that are multiples of {multiple_px} px, not {input_px} px; "
            f"the nearest is {teacher}@{nearest_px}"
        )


def has_openvino() -> bool:
    """Say whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def describe_openvino() -> dict[str, str]:
    """Return what an identity says of the backend."""
    return {"name": "openvino", "version": version("openvino")}


TeacherBuilder = Callable[[TeacherRequest], Teacher]


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each distribution that computes features."""
    return {name: version(name) for name in packages}


def complete_spec(request: TeacherRequest, spec: TeacherSpec) -> TeacherSpec:
    """Return what a teacher's file knows, completed by what was asked: label, taps, precision.

    A label names an input size that is not the usual one; of random weights, which learnt at none, it says "-random".
    """
    label = spec.label
    if spec.is_random:
        label = f"{label}-{RANDOM}"
    elif spec.usual_px not in (None, spec.input_px):
        label = name_size(spec)
    return replace(
        spec,
        label=label,
        taps=choose_taps(request, spec.native, spec.taps, spec.input_px),
        libraries={**versions("torch"), **spec.libraries},
        precision=request.chosen_precision,
        options={**spec.options, **({"compile": True} if request.compile else {})},
    )


def name_size(spec: TeacherSpec) -> str:
    """Return a label with the input size: "dinov2-small-112px", or "dinov2-tiny-56px-random"."""
    plain, size = spec.label.removesuffix(f"-{RANDOM}"), f"-{spec.input_px}px"
    return plain.removesuffix(size) + size + spec.label.removeprefix(plain)


def choose_taps(
    request: TeacherRequest, native: Mapping[str, NativeTap], defaults: Sequence[TapRequest], input_px: int
) -> tuple[TapRequest, ...]:
    """Return the taps that `request` asks for, each checked against the teacher's own grid.

    Without `request.taps` these are `defaults`; with `request.strides` every default tap at each of the strides that its
    own grid is fine enough for. A tap without a stride is kept at `request.strides`, else at its default stride, else
    at 16 or the finest it reaches.

    Raises:
        TeacherError: a tap or stride that this teacher does not have, naming what it has.
    """
    if request.taps is None and request.strides is None:
        chosen = list(defaults)
    elif request.taps is None:
        chosen = _default_taps_at(request, native, defaults, input_px)
    else:
        chosen = [tap for text in request.taps for tap in _read_tap(text, request, native, defaults, input_px)]
    for tap in chosen:
        _check_grid(tap, native, input_px, request.picture_px)
    return tuple(dict.fromkeys(chosen))


def _default_taps_at(
    request: TeacherRequest, native: Mapping[str, NativeTap], defaults: Sequence[TapRequest], input_px: int
) -> list[TapRequest]:
    chosen = []
    for stride in request.strides or ():
        taps = [TapRequest(name, stride) for name in dict.fromkeys(tap.native for tap in defaults)]
        fine = [tap for tap in taps if tap.grid(request.picture_px) <= native[tap.native].grid(input_px)]
        if not fine:
            _check_grid(max(taps, key=lambda t: native[t.native].grid(input_px)), native, input_px, request.picture_px)
        chosen += fine
    return chosen


def _read_tap(
    text: str, request: TeacherRequest, native: Mapping[str, NativeTap], defaults: Sequence[TapRequest], input_px: int
) -> list[TapRequest]:
    name, _, stride = text.partition("@")
    name = name.partition("=")[0]
    if name not in native:
        raise TeacherError(f"there is no tap {name!r} in this teacher; it has {', '.join(native)}")
    own = request.picture_px / native[name].grid(input_px)
    if stride == "native":
        return [TapRequest(name, own)]
    if stride:
        if not stride.replace(".", "", 1).isdecimal() or float(stride) <= 0:
            raise TeacherError(f"tap {text!r}: expected a stride in picture px after the @, found {stride!r}")
        return [TapRequest(name, _whole_cells(float(stride), request.picture_px))]
    if request.strides:
        return [TapRequest(name, stride_px) for stride_px in request.strides]
    for tap in defaults:
        if tap.native == name:
            return [tap]
    return [TapRequest(name, 16 if own <= 16 else own)]


def _whole_cells(stride: float, picture_px: int) -> float:
    """Return the stride that gives whole cells, where `stride` is one as a tap's name shows it, with six digits."""
    exact = picture_px / max(1, round(picture_px / stride))
    return exact if f"{exact:g}" == f"{stride:g}" else stride


def _check_grid(tap: TapRequest, native: Mapping[str, NativeTap], input_px: int, picture_px: int) -> None:
    own = native[tap.native].grid(input_px)
    wanted = tap.grid(picture_px)
    if wanted > own:
        needed_px = round(input_px * wanted / own)
        raise TeacherError(
            f"tap {tap.name} asks for {wanted} x {wanted} cells, but {tap.native} has {own} x {own} at an input of "
            f"{input_px} px; choose a stride of at least {picture_px / own:g}, or an input of {needed_px} px or more "
            f"(NAME:VARIANT@PX)"
        )
