"""Every teacher by name, built late, so that naming one loads no library of another; as a table; and its weights fetched."""

import json
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difom_cache.base.errors import SettingsError, name_nearest
from difom_cache.base.hardware import settle_device
from difom_cache.base.text import format_table
from difom_cache.teachers.base import (
    RANDOM,
    NativeTap,
    Precision,
    TapRequest,
    Teacher,
    TeacherBuilder,
    TeacherRequest,
    TeacherSpec,
    Weights,
    check_input_px,
    choose_variant,
    complete_spec,
    parse_teacher,
)

if TYPE_CHECKING:
    from difom_cache.teachers.outputs import Frames, Reading

ENTRY_POINTS = "difom.teachers"
TEACHERS = {
    "sam": "sam",
    "dinov2": "dinov2:FAMILY",
    "dinov2_reg": "dinov2:REGISTERED",
    "oneformer": "pixel_level:ONEFORMER",
    "mask2former": "pixel_level:MASK2FORMER",
    "dinov3": "dinov3:FAMILY",
    "dinov3_convnext": "dinov3_convnext:FAMILY",
    "sam2": "sam2:FAMILY",
    "sam3": "sam3:FAMILY",
    "radio": "radio:FAMILY",
    "clip": "clip:FAMILY",
    "hf": "hf",
    "onnx": "onnx",
}
"""Name to the file here, and the object in it, whose `build` makes the teacher."""

TABLE = Path(__file__).with_name("teachers.json")
"""What there is to know of each before anything of it is loaded; `tests/teachers/teacher_table.py` writes it anew."""

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
    readings: "Sequence[Reading] | None" = None,
) -> Teacher:
    """Return the teacher that `spec` names, with its weights, on `device`.

    Args:
        spec: `NAME[:VARIANT][@PX]`, such as "sam", "dinov2:large@518", "onnx:FILE", "student:RUN", or
            "student:RUN#package.module:Factory" for a run of your own student.
        weights: "hub", "random" or the path of a file or folder.
        taps: see `TeacherRequest`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: None for bfloat16 autocast on CUDA and float32 elsewhere.
        picture_px: side of the stored pictures, which strides refer to.
        strides: in picture px.
        compile: run the network through torch.compile.
        readings: what an ONNX network's outputs are, as `read_outputs` tells; without them what its graph does not say is
            left as it is.

    Raises:
        SettingsError: an unknown teacher or variant, naming the nearest.
        TeacherError: an input size or tap that the teacher does not have.
        WeightsError: weights that are missing, damaged or another network's.
        DeviceError: the device is absent.
    """
    asked = parse_teacher(spec)
    request = replace(
        asked,
        weights=weights,
        taps=None if taps is None else tuple(taps),
        strides=None if strides is None else tuple(strides),
        picture_px=picture_px,
        device=place_teacher(asked.name, device),
        precision=precision,
        compile=compile,
        readings=None if readings is None else tuple(readings),
    )
    return build_requested(request)


def read_outputs(
    spec: "str | TeacherRequest", frames: "Frames | None" = None, *, device: str = "cpu"
) -> "tuple[Reading, ...] | None":
    """Return what the outputs of an ONNX network are, None for any other teacher: those know it.

    Args:
        spec: as `build_teacher` takes it.
        frames: real ones for where the graph does not say: called with the input's side S, they give pixels (3, S, S) in
            [0, 1] with their masks (S, S), or None for these. The first 16 are looked at.
        device: where the network is run on them.

    Raises:
        TeacherError: it cannot be told; the message names the keys of FILE.json that decide.
    """
    request = spec if isinstance(spec, TeacherRequest) else replace(parse_teacher(spec), device=device)
    if request.name != "onnx":
        return None
    from difom_cache.teachers.onnx import read_outputs as read

    return read(request, frames)


def place_teacher(name: str, device: str) -> str:
    """Return where the teacher `name` stands: `device`, or what "auto" means for what runs it.

    Raises:
        DeviceError: the device is absent.
    """
    chosen = settle_device(device)
    if name == "onnx" and device == "auto" and chosen == "cuda":
        from difom_cache.teachers.onnx import place_session

        chosen = str(place_session())
    return chosen


def build_requested(request: TeacherRequest) -> Teacher:
    """Return the teacher of a request, its weights loaded; errors as `build_teacher`."""
    return find_builder(request.name)(request)


def outline_teacher(request: TeacherRequest) -> TeacherSpec:
    """Return a teacher's specification without its weights: the same label, taps and native places; no digest, no options.

    A teacher of this package is read from the table. One of `hf:` is made by its builder, on a device that holds no
    numbers; one that lies in a file of its own, or that another package registered, is built as it is.

    Args:
        request: its weights only tell whether they are random; its device is not touched.

    Raises:
        DifomError: as `build_teacher`.
    """
    request = replace(request, device="cpu", compile=False)
    variant, sizes = _choose_size(request)
    if not sizes:
        import torch

        with torch.device("meta") if request.name == "hf" else nullcontext():
            return build_requested(request).spec
    teacher = f"{request.name}:{variant}"
    held = sizes[teacher]
    input_px = request.input_px or held["input_px"]
    check_input_px(input_px, held["multiple_px"], teacher)
    spec = TeacherSpec(
        label=request.name if held["default"] else f"{request.name}-{variant}",
        name=request.name,
        variant=variant,
        input_px=input_px,
        weights=Weights(RANDOM if request.weights == RANDOM else "", ""),
        mean=tuple(held["mean"]),
        std=tuple(held["std"]),
        native={name: NativeTap(name, channels, stride) for name, channels, stride in held["taps"]},
        taps=tuple(map(_read_default, held["default_taps"])),
        licence=held["licence"],
        usual_px=held["input_px"],
    )
    return complete_spec(request, spec)


def _choose_size(request: TeacherRequest) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the size that is asked for, and the table's entries of all sizes of that teacher, none where it has no sizes.

    Raises:
        SettingsError: there is no such size, naming the nearest.
    """
    sizes = {each["teacher"]: each for each in _read_table() if each["teacher"].startswith(f"{request.name}:")}
    default = next((teacher for teacher, entry in sizes.items() if entry["default"]), None)
    if default is None:
        return request.variant, {}
    names = [teacher.partition(":")[2] for teacher in sizes]
    return choose_variant(request.name, request.variant or default.partition(":")[2], names), sizes


def _read_default(tap: str) -> TapRequest:
    native, _, stride = tap.partition("@")
    return TapRequest(native, float(stride))


def split_code(variant: str) -> tuple[str, str | None]:
    """Return a run folder and the code of its student, of "RUN#package.module:Factory"; None where no code is named.

    Code is imported, so it comes from whoever gives the command, never from a file: notes in caches leave it out.
    """
    found = _CODE.fullmatch(variant)
    return (found["place"], found["code"]) if found else (variant, None)


def find_builder(name: str) -> TeacherBuilder:
    """Return the builder of a teacher of this package, or of one that another package registered."""
    if name in TEACHERS:
        file, _, family = TEACHERS[name].partition(":")
        held = import_module(f"difom_cache.teachers.{file}")
        builder: TeacherBuilder = (getattr(held, family) if family else held).build
        return builder
    registered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in registered:
        registered_builder: TeacherBuilder = registered[name].load()
        return registered_builder
    raise SettingsError(name_nearest("teacher", name, [*TEACHERS, *registered]))


def describe_teachers(picture_px: int = 352) -> list[dict[str, Any]]:
    """Return one entry, ready for JSON, for every teacher and variant; no network is built.

    Args:
        picture_px: side of the stored pictures, which strides refer to.

    Returns:
        Entries with `teacher` ("sam:vit_b"), `default` (its name alone means this variant), `parameters`, `input_px`,
        `multiple_px` (of every input's side), `mean` and `std` (of the channels), `taps` (`name`, `channels`,
        `stride_native`, `grid`), `default_taps`, `view_bytes` (default taps under int8: a byte a value, and a float32
        scale a channel), `weights` (hub model), `licence` and `here` (the weights are on this machine). None where only
        a file can tell.
    """
    from difom_cache.teachers.hub import is_here

    entries = _read_table()
    for point in entry_points(group=ENTRY_POINTS):
        unknown = dict.fromkeys(entries[0]) | {"default": False, "taps": [], "default_taps": [], "licence": ""}
        entries.append(unknown | {"teacher": f"{point.name}:..."})
    for entry in entries:
        channels = {tap: count for tap, count, _ in entry["taps"]}
        taps = map(_read_default, entry["default_taps"])
        entry["view_bytes"] = sum(channels[tap.native] * (tap.grid(picture_px) ** 2 + 4) for tap in taps) or None
        entry["here"] = is_here(entry["teacher"], entry["weights"]) if entry["weights"] else None
        entry["taps"] = [
            {"name": tap, "channels": count, "stride_native": stride, "grid": round(entry["input_px"] / stride)}
            for tap, count, stride in entry["taps"]
        ]
    return entries


def _read_table() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(TABLE.read_text("utf-8"))
    return entries


def format_teachers(entries: list[dict[str, Any]], *, everything: bool = False) -> str:
    """Return what `describe_teachers` gave as a table of 80 columns, the default variant of each name marked with a star.

    Args:
        entries: of the table.
        everything: whether taps and weights are shown, and the tiny variants that tests use.
    """
    head = ["teacher", "weights", "px", "MB", "here", "licence", *(["kept by default", "from"] if everything else [])]
    shown = [entry for entry in entries if everything or not entry["teacher"].endswith((":tiny", ":tiny_gelu"))]
    table = format_table([head, *(_as_line(entry, everything=everything) for entry in shown)], left=None)
    more = "--json lists every tap with channels and stride"
    more = more if everything else "--all shows taps, whole licences and where weights are from"
    return f"{table}\n\n* what the name alone means; MB of a view's default taps, as int8\n{more}"


def _as_line(entry: dict[str, Any], *, everything: bool) -> tuple[str, ...]:
    return (
        entry["teacher"] + ("*" if entry["default"] else ""),
        f"{entry['parameters'] / 1e6:.1f} M" if entry["parameters"] else "-",
        str(entry["input_px"] or "-"),
        f"{entry['view_bytes'] / 1e6:.2f}" if entry["view_bytes"] else "-",
        {True: "yes", False: "no", None: "-"}[entry["here"]],
        (entry["licence"] if everything else entry["licence"].partition(" (")[0].removesuffix(" License")) or "-",
        *((" ".join(entry["default_taps"]) or "-", entry["weights"] or "-") if everything else ()),
    )


def fetch_weights(teacher: str, to: Path, revision: str = "main") -> Path:
    """Download a teacher's published weights below `to`, and return the folder they are in.

    Args:
        teacher: "NAME[:VARIANT]", or "hf:MODEL".
        revision: branch, tag or commit of the hub model.
        to: set DIFOM_WEIGHTS to it where there is no network, or pass the returned folder as weights.

    Raises:
        SettingsError: an unknown teacher or variant, or one without published weights.
        WeightsError: the hub cannot be reached, has no such model, or wants a token for it.
    """
    from difom_cache.teachers.download import download
    from difom_cache.teachers.hub import Repository
    from difom_cache.teachers.places import folder_name

    asked = parse_teacher(teacher)
    variant, sizes = _choose_size(asked)
    full, repository = teacher, ""
    if asked.name == "hf":
        full, repository = f"hf:{asked.variant}", asked.variant
    elif sizes:
        full = f"{asked.name}:{variant}"
        repository = sizes[full]["weights"]
    else:
        find_builder(asked.name)
    if not repository:
        raise SettingsError(f"{full} has no published weights to fetch")
    return download(full, Repository(repository, revision), to / folder_name(full))
