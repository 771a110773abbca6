"""Every teacher by name, built late, so that naming one loads no library of another."""

import re
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from importlib.metadata import entry_points

import torch

from difom_cache.errors import SettingsError, name_nearest
from difom_cache.teachers.base import Precision, Teacher, TeacherBuilder, TeacherOrder, TeacherSpec

ENTRY_POINTS = "difom.teachers"
MODULES = {
    "sam": "difom_cache.teachers.sam",
    "dinov2": "difom_cache.teachers.dinov2",
    "oneformer": "difom_cache.teachers.oneformer",
    "mask2former": "difom_cache.teachers.mask2former",
    "dinov3": "difom_cache.teachers.dinov3",
    "dinov3_convnext": "difom_cache.teachers.dinov3_convnext",
    "sam2": "difom_cache.teachers.sam2",
    "sam3": "difom_cache.teachers.sam3",
    "radio": "difom_cache.teachers.radio",
    "clip": "difom_cache.teachers.clip",
    "hf": "difom_cache.teachers.hf",
    "onnx": "difom_cache.teachers.onnx",
}

OWN_WEIGHTS = ("onnx", "student")  # what is named after the colon holds the weights too
_CODE = re.compile(r"(?P<place>.+)#(?P<code>[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)")


def build_teacher(
    spec: str,
    *,
    weights: str = "hub",
    taps: Sequence[str] | None = None,
    device: str = "cpu",
    precision: Precision | None = None,
    picture_px: int = 352,
    strides: Sequence[int] | None = None,
    compile: bool = False,
) -> Teacher:
    """Return the teacher that `spec` names, with its weights, on `device`.

    Args:
        spec: `NAME[:VARIANT][@PX]`, such as "sam", "dinov2:large@518", "onnx:FILE", "student:RUN", or
            "student:RUN#package.module:Factory" for a run of your own student.
        weights: "hub", "random" or the path of a file or folder.
        taps: see `TeacherOrder`.
        device: "cpu", "cuda" or "cuda:N".
        precision: None for bfloat16 autocast on CUDA and float32 elsewhere.
        picture_px: side of the stored pictures, which strides refer to.
        strides: in picture px.
        compile: run the network through torch.compile.

    Raises:
        SettingsError: an unknown teacher or variant, naming the nearest.
        TeacherError: an input size or tap that the teacher does not have.
        WeightsError: weights that are missing, damaged or another network's.
        DeviceError: the device is absent.
    """
    name, variant, input_px = parse_teacher(spec)
    order = TeacherOrder(
        variant=variant,
        input_px=input_px,
        weights=weights,
        taps=None if taps is None else tuple(taps),
        strides=None if strides is None else tuple(strides),
        picture_px=picture_px,
        device=device,
        precision=precision,
        compile=compile,
    )
    return find_builder(name)(order)


def outline_teacher(
    spec: str,
    *,
    weights: str = "hub",
    taps: Sequence[str] | None = None,
    precision: Precision | None = None,
    picture_px: int = 352,
    strides: Sequence[int] | None = None,
) -> TeacherSpec:
    """Return a teacher's specification without its weights: the same label, taps and native places, and no digest.

    The network is made by the same builder, on a device that holds no numbers. A teacher that another package
    registered, and one that lies in a file of its own, are built as they are.

    Args, errors: as `build_teacher`; `weights` only tells whether they are random.
    """
    outlined = parse_teacher(spec)[0] in MODULES.keys() - set(OWN_WEIGHTS)
    with torch.device("meta") if outlined else nullcontext():
        return build_teacher(
            spec,
            weights=weights,
            taps=taps,
            precision=precision,
            picture_px=picture_px,
            strides=strides,
        ).spec


def parse_teacher(spec: str) -> tuple[str, str, int | None]:
    """Return (name, variant, input px or None) of `NAME[:VARIANT][@PX]`; a variant may be a path.

    Raises:
        SettingsError: there is no name.
    """
    found = re.fullmatch(r"(?P<name>[^:@]+)(?::(?P<variant>.*?))?(?:@(?P<px>\d+))?", spec)
    if found is None:
        raise SettingsError(f"expected a teacher as NAME[:VARIANT][@PX], found {spec!r}")
    px = found["px"]
    return found["name"], found["variant"] or "", int(px) if px else None


def split_code(variant: str) -> tuple[str, str | None]:
    """Return a run folder and the code of its student, of "RUN#package.module:Factory"; None where no code is named.

    Code is imported, so it comes from whoever gives the command, never from a file: notes in caches leave it out.
    """
    found = _CODE.fullmatch(variant)
    return (found["place"], found["code"]) if found else (variant, None)


def find_builder(name: str) -> TeacherBuilder:
    """Return the builder of a teacher of this package, or of one that another package registered."""
    if name in MODULES:
        builder: TeacherBuilder = import_module(MODULES[name]).build
        return builder
    registered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in registered:
        registered_builder: TeacherBuilder = registered[name].load()
        return registered_builder
    raise SettingsError(name_nearest("teacher", name, [*MODULES, *registered]))
