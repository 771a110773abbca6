"""Any ONNX network as a teacher: `onnx:FILE[@PX]`, run by onnxruntime.

Default taps: every map the graph gives out (one channel means logits, kept at stride 2), and `inner8`, `inner16` and
`inner32`: for each of these strides of the stored picture the last tensor of the coarsest grid that is fine enough.
`--taps ALIAS=/tensor/name[@STRIDE]` names others. `FILE.json` beside the file may hold `size`, `mean`, `std` and
`logits` (a list of output names); without it the graph's own size and ImageNet's mean and std are taken.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difom_cache.errors import DeviceError, SettingsError, TeacherError, WeightsError, name_nearest
from difom_cache.hardware import resolve_device
from difom_cache.teachers.base import Description, NativeTap, TapRequest, TeacherRequest, TeacherSpec, choose_taps
from difom_cache.teachers.preprocess import IMAGENET_MEAN, IMAGENET_STD, Triple, check_pixels, normalise
from difom_cache.teachers.weights import read_json

try:
    import onnx
    import onnxruntime
except ImportError as err:
    raise SettingsError("onnx: teachers need onnx and onnxruntime; install difom[onnx]") from err

LOGITS_STRIDE = 2
INNER_STRIDES = (8, 16, 32)
LARGEST_PX = 1 << 14
STRIDES = (LOGITS_STRIDE, 4, *INNER_STRIDES)


@dataclass(frozen=True)
class Place:
    """One map of the graph: the tensor to read, and the shape it has."""

    tensor: str
    channels: int
    grid: int
    is_logits: bool = False


@dataclass(frozen=True)
class Preprocessing:
    """What FILE.json says, or what stands in for it."""

    size: int | None
    mean: Triple
    std: Triple
    logits: tuple[str, ...] | None
    file: Path | None


class OnnxTeacher:
    """An ONNX graph with its specification; it stands on the CPU, or on CUDA where onnxruntime can."""

    def __init__(self, spec: TeacherSpec, model: Any, tensors: Mapping[str, str], batch: int | None) -> None:
        self.spec = spec
        self.tensors = {tap.native: tensors[tap.native] for tap in spec.taps}
        self.batch = batch
        self.device = torch.device("cpu")
        self._bytes = _with_outputs(model, list(self.tensors.values()))
        self.threads = torch.get_num_threads()
        self._session = open_session(self._bytes, self.device)

    def to(self, device: str | torch.device) -> "OnnxTeacher":
        """Move the session to `device` and return the teacher.

        Raises:
            DeviceError: onnxruntime cannot use it.
        """
        chosen = resolve_device(device)
        if chosen != self.device:
            self._session = open_session(self._bytes, chosen)
            self.device = chosen
        return self

    @torch.no_grad()
    def features(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return float32 maps (B, C, h, w) of float32 pixels (B, 3, S, S) in [0, 1], by native tap name."""
        check_pixels(pixels, self.spec.input_px)
        if self.threads != torch.get_num_threads():  # a worker sets what its cache recorded, after the teacher is built
            self.threads = torch.get_num_threads()
            self._session = open_session(self._bytes, self.device)
        array = normalise(pixels.float(), self.spec.mean, self.spec.std).cpu().numpy()
        feed = self._session.get_inputs()[0].name
        step = self.batch or len(array)
        if len(array) % step:
            raise TeacherError(f"{self.spec.label}: the graph takes batches of {step}, found {len(array)} pictures")
        names = list(dict.fromkeys(self.tensors.values()))
        parts = [self._session.run(names, {feed: array[i : i + step]}) for i in range(0, len(array), step)]
        maps = dict(zip(names, (np.concatenate(part) for part in zip(*parts, strict=True)), strict=True))
        return {tap: torch.from_numpy(maps[tensor]).to(pixels.device).float() for tap, tensor in self.tensors.items()}


def build(request: TeacherRequest) -> OnnxTeacher:
    """Return the ONNX network that `request` asks for; `request.variant` is the file."""
    path = Path(request.variant)
    model = read_model(path)
    if request.weights != "hub":
        raise WeightsError(f"onnx:{path} holds its own weights; leave out --weights {request.weights}")
    prepared = read_preprocessing(path)
    if request.precision == "bfloat16":
        raise SettingsError(
            f"onnx:{path} computes in the precision of its graph; leave out --precision bfloat16, or extract it by itself"
        )
    channels_first, graph_px, batch = _input_shape(model, path)
    input_px = _choose_input_px(request.input_px, prepared.size, graph_px, path)
    shapes = probe_shapes(model, channels_first, input_px, batch or 1, path)
    places = default_places(model, shapes, prepared, request.strides or INNER_STRIDES, request.picture_px)
    named = _named_places(request.taps or (), shapes, path)
    places |= {alias: p for alias, p in named.items() if alias not in places or places[alias].tensor != p.tensor}
    spec = _specify(request, path, input_px, prepared, places)
    teacher = OnnxTeacher(spec, model, {name: place.tensor for name, place in places.items()}, batch)
    return teacher.to(request.device)


def read_model(path: Path) -> Any:
    """Return the graph in `path`, with what lies in external files."""
    if not path.is_file():
        raise WeightsError(f"onnx:{path}: there is no such file; expected onnx:FILE[@PX]")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as err:  # parser and checker raise what a garbled file leads them to
        line = (str(err).splitlines() or [type(err).__name__])[0][:120]
        raise WeightsError(f"{path}: not a whole ONNX file ({line})") from err
    return model


def read_preprocessing(path: Path) -> Preprocessing:
    """Return size, mean, std and logits from `FILE.json` beside the file, or what stands in for them."""
    beside = next((p for p in (Path(f"{path}.json"), path.with_suffix(".json")) if p.is_file()), None)
    held = read_json(beside) if beside else {}
    known = ["size", "mean", "std", "logits"]
    for key in held:
        if key not in known:
            raise SettingsError(f"{beside}: {name_nearest('setting', key, known)}")
    size, logits = held.get("size"), held.get("logits")
    if size is not None and (type(size) is not int or not 1 <= size <= LARGEST_PX):
        raise SettingsError(f"{beside}: size must be a whole number of px up to {LARGEST_PX}, found {size!r}")
    if logits is not None and not (isinstance(logits, list) and all(isinstance(name, str) for name in logits)):
        raise SettingsError(f"{beside}: logits must be a list of outputs' names, found {logits!r}")
    return Preprocessing(
        size=size,
        mean=_triple(held.get("mean", IMAGENET_MEAN), "mean", beside),
        std=_triple(held.get("std", IMAGENET_STD), "std", beside),
        logits=None if logits is None else tuple(logits),
        file=beside,
    )


def _triple(values: Any, key: str, path: Path | None) -> Triple:
    numbers = isinstance(values, list | tuple) and all(type(v) in (int, float) and math.isfinite(v) for v in values)
    numbers = numbers and len(values) == 3
    if not numbers or (key == "std" and min(values) <= 0):
        raise SettingsError(f"{path}: {key} must be three numbers for pixels in [0, 1], found {values!r}")
    return float(values[0]), float(values[1]), float(values[2])


def _input_shape(model: Any, path: Path) -> tuple[str, int | None, int | None]:
    """Return the input's name, its fixed side in px and its fixed batch; None where they are free."""
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in held]
    dims = [d.dim_value or None for d in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    kind = inputs[0].type.tensor_type.elem_type if inputs else None
    if len(inputs) == 1 and kind != onnx.TensorProto.FLOAT:
        name = onnx.TensorProto.DataType.Name(kind).lower() if kind in onnx.TensorProto.DataType.values() else kind
        raise TeacherError(f"{path}: its input {inputs[0].name!r} takes {name}, expected float (32 bits); export it so")
    if len(dims) != 4 or dims[1] not in (3, None) or dims[2] != dims[3]:
        found = ", ".join(value.name for value in inputs)
        raise TeacherError(f"{path}: expected one input of shape (B, 3, S, S), found {found} {dims}")
    return inputs[0].name, dims[2], dims[0]


def _choose_input_px(asked: int | None, stated: int | None, graph_px: int | None, path: Path) -> int:
    if asked and graph_px and asked != graph_px:
        raise TeacherError(f"onnx:{path} takes inputs of {graph_px} px, not {asked} px; the nearest is @{graph_px}")
    chosen = asked or stated or graph_px
    if not chosen:
        raise TeacherError(
            f"onnx:{path}: the graph takes any size; name one (onnx:{path}@224), or put size in FILE.json"
        )
    return chosen


def probe_shapes(model: Any, input_name: str, input_px: int, batch: int, path: Path) -> dict[str, tuple[int, int]]:
    """Return (channels, grid) of every square map in the graph, in the order they are computed.

    The graph is run once on grey pixels, since free sizes defeat shape inference.
    """
    names = [name for node in model.graph.node for name in node.output if name]
    try:
        session = open_session(_with_outputs(model, names), torch.device("cpu"))
        grey = np.zeros((batch, 3, input_px, input_px), np.float32)
        values = session.run(names, {input_name: grey})
    except Exception as err:  # onnxruntime's errors share no family
        line = str(err).splitlines()[0][:160]
        raise TeacherError(f"onnx:{path} cannot be run on an input of {input_px} px: {line}") from err
    shapes = {}
    for name, value in zip(names, values, strict=True):
        if isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float16) and value.ndim == 4:
            _, channels, height, width = value.shape
            if height == width > 1:
                shapes[name] = (channels, height)
    return shapes


def default_places(
    model: Any,
    shapes: Mapping[str, tuple[int, int]],
    prepared: Preprocessing,
    strides: tuple[int, ...],
    picture_px: int,
) -> dict[str, Place]:
    """Return the graph's outputs and the last inner tensor for each stride, by tap name."""
    outputs = [value.name for value in model.graph.output if value.name in shapes]
    logits = prepared.logits
    unknown = [name for name in logits or () if name not in outputs]
    if unknown:
        raise SettingsError(f"{prepared.file}: logits: {name_nearest('output', unknown[0], outputs)}")
    places = {}
    for name in outputs:
        channels, grid = shapes[name]
        is_logits = name in logits if logits is not None else channels == 1
        places[_tap_name(name)] = Place(_before_sigmoid(model, name) if is_logits else name, channels, grid, is_logits)
    inner = {name: shape for name, shape in shapes.items() if name not in outputs and shape[0] > 1}
    for stride in strides:
        fine = [grid for _, grid in inner.values() if grid * stride >= picture_px]
        if fine and picture_px % stride == 0:
            tensor = [name for name, (_, grid) in inner.items() if grid == min(fine)][-1]
            places[f"inner{stride}"] = Place(tensor, *inner[tensor])
    return places


def _before_sigmoid(model: Any, output: str) -> str:
    producer = next(node for node in model.graph.node if output in node.output)
    return producer.input[0] if producer.op_type == "Sigmoid" else output


def _named_places(taps: tuple[str, ...], shapes: Mapping[str, tuple[int, int]], path: Path) -> dict[str, Place]:
    places = {}
    for text in taps:
        alias, equals, place = text.partition("=")
        if not equals:
            continue
        tensor = place.partition("@")[0]
        if tensor not in shapes:
            raise TeacherError(f"onnx:{path}: {name_nearest('square map', tensor, list(shapes))[:400]}")
        if _tap_name(alias) != alias:
            raise SettingsError(f"tap {text!r}: an alias is letters, digits, '.', '_' and '-', found {alias!r}")
        places[alias] = Place(tensor, *shapes[tensor])
    return places


def _tap_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "tap"


def _specify(
    request: TeacherRequest, path: Path, input_px: int, prepared: Preprocessing, places: Mapping[str, Place]
) -> TeacherSpec:
    if request.taps is None:  # the inner taps were chosen for the strides already
        request = replace(request, strides=None)
    native = {
        name: NativeTap(name, p.channels, input_px / p.grid, "logits" if p.is_logits else "feature")
        for name, p in places.items()
    }
    defaults = [
        TapRequest(
            name, int(name.removeprefix("inner")) if name.startswith("inner") else _stride(p, request.picture_px)
        )
        for name, p in places.items()
    ]
    taps = choose_taps(request, native, defaults, input_px)
    return TeacherSpec(
        label=f"onnx-{_tap_name(path.stem)}",
        name="onnx",
        variant=path.stem,
        input_px=input_px,
        weights_digest=digest_file(path),
        weights_source=str(path),
        mean=prepared.mean,
        std=prepared.std,
        interpolation="bilinear",
        taps=taps,
        native=native,
        libraries={name: version(name) for name in ("onnx", "onnxruntime")},
        licence="the file's own",
        options={"tensors": {tap.native: places[tap.native].tensor for tap in sorted(taps, key=lambda tap: tap.name)}},
    )


def _stride(place: Place, picture_px: int) -> float:
    """Return the finest usual stride that the map reaches: from 2 for logits, from 8 for features."""
    usual = STRIDES if place.is_logits else INNER_STRIDES
    reached = [s for s in usual if picture_px % s == 0 and picture_px // s <= place.grid]
    return reached[0] if reached else picture_px / place.grid


def digest_file(path: Path) -> str:
    """Return the SHA-256 over the graph's file and the external files it names, in order of name."""
    total = hashlib.sha256(path.read_bytes())
    graph = onnx.load(path, load_external_data=False).graph
    locations = {e.value for tensor in graph.initializer for e in tensor.external_data if e.key == "location"}
    for location in sorted(locations):
        total.update((path.parent / location).read_bytes())
    return total.hexdigest()


def _with_outputs(model: Any, names: list[str]) -> bytes:
    """Return the graph, serialised, giving out exactly the tensors in `names`."""
    edited = onnx.ModelProto()
    edited.CopyFrom(model)
    del edited.graph.output[:]
    edited.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    serialised: bytes = edited.SerializeToString()
    return serialised


def open_session(model: bytes, device: torch.device) -> Any:
    """Return an onnxruntime session on `device`, with as many threads as PyTorch uses."""
    available = onnxruntime.get_available_providers()
    if device.type != "cpu" and "CUDAExecutionProvider" not in available:
        raise DeviceError(f"--device {device}: this onnxruntime has {', '.join(available)}; use --device cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised, and said once
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        cuda = {"device_id": device.index or 0, "use_tf32": 0}  # the identity says float32
        providers = [("CUDAExecutionProvider", cuda), *providers]
    return onnxruntime.InferenceSession(model, options, providers=providers)


def describe() -> list[Description]:
    """Return the one entry of this teacher; what it is depends on the file."""
    return [Description("onnx", "FILE", False, None, None, {}, (), "", "the file's own")]
