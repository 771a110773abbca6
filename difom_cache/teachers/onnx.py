"""Any ONNX network as a teacher: `onnx:FILE[@PX]`, run by onnxruntime.

Default taps: the output that is the answer, as logits kept at stride 2, every other map of several channels that the
graph gives out, and `inner8`, `inner16` and `inner32`: for each of these strides of the stored picture the last tensor of
the coarsest grid that is fine enough. `--taps ALIAS=/tensor/name[@STRIDE]` names others.

`FILE.json` beside the file may hold `size`, `mean` and `std`; without it the graph's own size and ImageNet's mean and std
are taken. What the answer is, graph and real frames tell (outputs.py), or FILE.json does: `output` (its name), `values`
and `channel`, or `logits`, a list of outputs that are logits.
"""

import hashlib
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difom_cache.base.errors import DeviceError, SettingsError, TeacherError, WeightsError, install_extra, name_nearest
from difom_cache.base.hardware import is_out_of_memory, resolve_device
from difom_cache.teachers.base import (
    NativeTap,
    TapRequest,
    TeacherRequest,
    TeacherSpec,
    Weights,
    choose_taps,
    reached_strides,
    versions,
)
from difom_cache.teachers.outputs import (
    KEYS,
    PROBED_FRAMES,
    Frames,
    Reading,
    Values,
    as_maps,
    choose_output,
    span_of,
    tell_by_range,
)
from difom_cache.teachers.places import read_json
from difom_cache.teachers.preprocess import IMAGENET_MEAN, IMAGENET_STD, Triple, check_pixels, normalise

try:
    import onnx
    import onnxruntime

    from difom_cache.teachers.onnx_values import tell_by_graph
except ImportError as err:
    raise SettingsError(f"onnx: teachers need onnx and onnxruntime; {install_extra('onnx')}") from err

LOGITS_STRIDE = 2
INNER_STRIDES = (8, 16, 32)
LARGEST_PX = 1 << 14
STRIDES = (LOGITS_STRIDE, 4, *INNER_STRIDES)
INPUTS = {
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.DOUBLE: np.float64,
}


@dataclass(frozen=True)
class Place:
    """One map of the graph: the tensor to read, the shape it has, whether it is logits, and how it becomes them."""

    tensor: str
    channels: int
    grid: int
    is_logits: bool = False
    is_default: bool = True
    reading: Reading | None = None


@dataclass(frozen=True)
class Preprocessing:
    """What FILE.json says, or what stands in for it."""

    size: int | None
    mean: Triple
    std: Triple
    logits: tuple[str, ...] | None
    output: str | None
    values: Values | None
    channel: int | None
    file: Path | None


@dataclass(frozen=True)
class Graph:
    """A file that was read: the graph, its input, and its maps (channels, grid), inner ones and outputs apart."""

    path: Path
    model: Any
    prepared: Preprocessing
    input_name: str
    input_px: int
    batch: int | None
    shapes: dict[str, tuple[int, int]]
    outputs: dict[str, tuple[int, int]]


class OnnxTeacher:
    """An ONNX graph with its specification; it stands on the CPU, or on CUDA where onnxruntime can."""

    def __init__(self, spec: TeacherSpec, graph: Graph, places: Mapping[str, Place]) -> None:
        self.spec = spec
        self.places = {tap.native: places[tap.native] for tap in spec.taps}
        self.batch = graph.batch
        self.device = torch.device("cpu")
        self._bytes = _with_outputs(graph.model, [place.tensor for place in self.places.values()])
        self._dtype = INPUTS[_input_of(graph.model)[0].type.tensor_type.elem_type]
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

    def _run(self, names: list[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return tensors of the graph; where memory is too small, raise as PyTorch does, so that one place explains both."""
        try:
            return self._session.run(names, feed)  # type: ignore[no-any-return]
        except Exception as error:  # onnxruntime's errors share no family
            if is_out_of_memory(error):
                raise torch.OutOfMemoryError(str(error)) from error
            raise

    @torch.no_grad()
    def features(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return float32 maps (B, C, h, w) of float32 pixels (B, 3, S, S) in [0, 1], by native tap name."""
        check_pixels(pixels, self.spec.input_px)
        if self.threads != torch.get_num_threads():  # a worker sets what its cache recorded, after the teacher is built
            self.threads = torch.get_num_threads()
            self._session = open_session(self._bytes, self.device)
        array = normalise(pixels.float(), self.spec.mean, self.spec.std).cpu().numpy().astype(self._dtype)
        feed = self._session.get_inputs()[0].name
        step = self.batch or len(array)
        if len(array) % step:
            raise TeacherError(f"{self.spec.label}: the graph takes batches of {step}, found {len(array)} pictures")
        names = list(dict.fromkeys(place.tensor for place in self.places.values()))
        parts = [self._run(names, {feed: array[i : i + step]}) for i in range(0, len(array), step)]
        maps = {}
        for name, part in zip(names, zip(*parts, strict=True), strict=True):
            maps[name] = np.concatenate([value if (found := as_maps(value, step)) is None else found for value in part])
        taps = {tap: self._read(maps[place.tensor], place) for tap, place in self.places.items()}
        return {tap: torch.from_numpy(values).to(pixels.device).float() for tap, values in taps.items()}

    def _read(self, maps: NDArray[Any], place: Place) -> NDArray[Any]:
        return maps if place.reading is None else place.reading.to_logits(maps, self.spec.label)


def build(request: TeacherRequest) -> OnnxTeacher:
    """Return the ONNX network that `request` asks for; `request.variant` is the file."""
    graph = read_graph(request)
    places = default_places(graph, request)
    places |= _named_places(request.taps or (), graph, places)
    return OnnxTeacher(_specify(request, graph, places), graph, places).to(request.device)


def read_graph(request: TeacherRequest) -> Graph:
    """Return what lies in the file `request.variant`, and what it computes at the size that is asked for."""
    path = Path(request.variant)
    model = read_model(path)
    if request.weights != "hub":
        raise WeightsError(f"onnx:{path} holds its own weights; leave out --weights {request.weights}")
    prepared = read_preprocessing(path)
    if request.precision == "bfloat16":
        raise SettingsError(
            f"onnx:{path} computes in the precision of its graph; leave out --precision bfloat16, or extract it by itself"
        )
    input_name, graph_px, batch = _input_shape(model, path)
    input_px = _choose_input_px(request.input_px, prepared.size, graph_px, path)
    shapes, outputs = probe_shapes(model, input_name, input_px, batch or 1, path)
    unknown = [name for name in (*(prepared.logits or ()), prepared.output) if name and name not in outputs]
    if unknown:
        key = "logits" if prepared.logits else "output"
        raise SettingsError(f"{prepared.file}: {key}: {name_nearest('output', unknown[0], list(outputs))}")
    return Graph(path, model, prepared, input_name, input_px, batch, shapes, outputs)


def read_outputs(request: TeacherRequest, frames: Frames | None) -> tuple[Reading, ...]:
    """Return what the outputs that are wanted as logits are: the one that is the answer, or those that are named.

    Args:
        request: with `taps`, the outputs among them are read; FILE.json may name others.
        frames: real ones, looked at where the graph does not say; None where there are none.

    Raises:
        TeacherError: it cannot be told; the message names the keys of FILE.json that decide.
    """
    graph = read_graph(request)
    told = told_readings(graph)
    named = {text.partition("@")[0] for text in request.taps or ()}
    readings = {name: told[name] for name in told if request.taps is None or name in named}
    is_choice = len(readings) > 1 and request.taps is None and graph.prepared.logits is None
    if not is_choice and None not in readings.values():
        return tuple(filter(None, readings.values()))
    where = f"onnx:{graph.path}"
    if frames is None:
        raise TeacherError(f"{where}: its graph alone does not say what it gives, and no real frames are here; {KEYS}")
    places = {name: replace(_place_of(graph, name, reading), reading=None) for name, reading in readings.items()}
    spec = _specify(replace(request, taps=tuple(f"{name}@native" for name in places)), graph, places)
    teacher = OnnxTeacher(spec, graph, places).to(request.device)
    maps: dict[str, list[NDArray[Any]]] = {name: [] for name in places}
    masks = []
    for pixels, mask in islice(frames(graph.input_px), PROBED_FRAMES):
        shown = pixels.to(request.device)[None].expand(graph.batch or 1, -1, -1, -1)
        for name, found_maps in teacher.features(shown).items():
            maps[name].append(found_maps[0].cpu().numpy())
        masks.append(None if mask is None else mask.numpy().astype(bool))
    if not masks:
        raise TeacherError(f"{where}: there are no frames to tell by what it gives; {KEYS}")
    for name, seen in maps.items():
        span, reading = span_of(seen), readings[name]
        if reading is None:
            values = tell_by_range(seen, graph.prepared.channel)
            if values is None:
                raise TeacherError(
                    f"{where}: output {name!r} gives values from {span[0]:.3g} to {span[1]:.3g} on {len(seen)} frames, "
                    f"neither logits nor probabilities for certain; {KEYS}"
                )
            reading = Reading(name, values, _polyp_channel(len(seen[0]), graph.prepared), "frames")
        low, high = (float(f"{value:.3g}") for value in span)
        readings[name] = replace(reading, span=(low, high), frames=len(seen))
    found = {name: reading for name, reading in readings.items() if reading is not None}
    if is_choice and len(found) > 1:
        logits = {
            name: [reading.to_logits(each[None], where)[0, 0] for each in maps[name]] for name, reading in found.items()
        }
        return (found[choose_output(logits, masks, where)],)
    return tuple(found.values())


def told_readings(graph: Graph) -> dict[str, Reading | None]:
    """Return each output that may be a map of polyps with what FILE.json and the graph say of it, None where that is not all.

    These are outputs of one or two channels, or those that FILE.json speaks of.
    """
    prepared, told = graph.prepared, {}
    for output, (channels, _) in graph.outputs.items():
        name, channel = _tap_name(output), _polyp_channel(channels, prepared)
        if prepared.logits is not None:
            if output in prepared.logits and channels == 1:
                told[name] = _reading_of(graph, output, channels, Reading(name, "logits", None, "FILE.json"))
        elif prepared.output in (None, output) and (channels <= 2 or prepared.channel is not None):
            if (channel or prepared.channel or 0) >= channels:
                raise SettingsError(
                    f"{prepared.file}: channel {prepared.channel}: {output!r} has {channels}, from 0; add output"
                )
            stated = prepared.values and Reading(name, prepared.values, channel, "FILE.json")
            told[name] = _reading_of(graph, output, channels, stated or None)
    return told


def _reading_of(graph: Graph, output: str, channels: int, stated: Reading | None) -> Reading | None:
    """Return `stated`, or what the graph says of an output where nothing is.

    Raises:
        SettingsError: logits are stated of what cannot be any.
    """
    name, bare = _tap_name(output), _before_sigmoid(graph.model, output) != output
    values = "logits" if bare and channels == 1 else tell_by_graph(graph.model, output, channels)
    if stated is not None:
        if stated.values == "logits" and values not in ("logits", None):
            raise SettingsError(
                f"{graph.prepared.file}: output {output!r} gives no logits: its graph ends them as {values}"
            )
        return stated
    return values and Reading(name, values, _polyp_channel(channels, graph.prepared), "graph")


def _polyp_channel(channels: int, prepared: Preprocessing) -> int | None:
    """Return the channel that FILE.json names, else the second of two, which are background and polyp; None of one."""
    return None if channels == 1 else 1 if prepared.channel is None else prepared.channel


def read_model(path: Path) -> Any:
    """Return the graph in `path`, with what lies in external files.

    Whether it can be run the runtime decides: converters write graphs that `onnx.checker` does not like.
    """
    if not path.is_file():
        raise WeightsError(f"onnx:{path}: there is no such file; expected onnx:FILE[@PX]")
    try:
        return onnx.load(path)
    except Exception as err:  # the parser raises what a garbled file leads it to
        line = (str(err).splitlines() or [type(err).__name__])[0][:120]
        if type(err).__name__ == "DecodeError" and _runs(
            path
        ):  # never a graph with weights in places that onnx refuses
            raise WeightsError(
                f"{path}: onnxruntime loads it, but its graph cannot be read ({line}); save it as a plain ONNX file"
            ) from err
        raise WeightsError(f"{path}: not a whole ONNX file ({line})") from err


def _runs(path: Path) -> bool:
    try:
        open_session(str(path), torch.device("cpu"))
    except Exception:  # onnxruntime's errors share no family
        return False
    return True


def read_preprocessing(path: Path) -> Preprocessing:
    """Return size, mean, std and logits from `FILE.json` beside the file, or what stands in for them."""
    beside = next((p for p in (Path(f"{path}.json"), path.with_suffix(".json")) if p.is_file()), None)
    held = read_json(beside) if beside else {}
    known = ["size", "mean", "std", "logits", "output", "values", "channel"]
    for key in held:
        if key not in known:
            raise SettingsError(f"{beside}: {name_nearest('setting', key, known)}")
    size, logits = held.get("size"), held.get("logits")
    output, values, channel = held.get("output"), held.get("values"), held.get("channel")
    if size is not None and (type(size) is not int or not 1 <= size <= LARGEST_PX):
        raise SettingsError(f"{beside}: size must be a whole number of px up to {LARGEST_PX}, found {size!r}")
    if logits is not None and not (isinstance(logits, list) and all(isinstance(name, str) for name in logits)):
        raise SettingsError(f"{beside}: logits must be a list of outputs' names, found {logits!r}")
    if logits is not None and {"output", "values", "channel"} & held.keys():
        raise SettingsError(
            f"{beside}: logits is a list of outputs that are logits; leave it out beside output and values"
        )
    if output is not None and not isinstance(output, str):
        raise SettingsError(f"{beside}: output must be the name of one, found {output!r}")
    if values not in (None, *get_args(Values)):
        raise SettingsError(f"{beside}: values must be one of {', '.join(get_args(Values))}, found {values!r}")
    if channel is not None and (type(channel) is not int or channel < 0):
        raise SettingsError(f"{beside}: channel must be a number from 0, found {channel!r}")
    return Preprocessing(
        size=size,
        mean=_triple(held.get("mean", IMAGENET_MEAN), "mean", beside),
        std=_triple(held.get("std", IMAGENET_STD), "std", beside),
        logits=None if logits is None else tuple(logits),
        output=output,
        values=values,
        channel=channel,
        file=beside,
    )


def _triple(values: Any, key: str, path: Path | None) -> Triple:
    numbers = isinstance(values, list | tuple) and all(type(v) in (int, float) and math.isfinite(v) for v in values)
    numbers = numbers and len(values) == 3
    if not numbers or (key == "std" and min(values) <= 0):
        raise SettingsError(f"{path}: {key} must be three numbers for pixels in [0, 1], found {values!r}")
    return float(values[0]), float(values[1]), float(values[2])


def _input_of(model: Any) -> list[Any]:
    held = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in held]


def _input_shape(model: Any, path: Path) -> tuple[str, int | None, int | None]:
    """Return the input's name, its fixed side in px and its fixed batch; None where they are free."""
    inputs = _input_of(model)
    dims = [d.dim_value or None for d in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    kind = inputs[0].type.tensor_type.elem_type if inputs else None
    if len(inputs) == 1 and kind not in INPUTS:
        name = onnx.TensorProto.DataType.Name(kind).lower() if kind in onnx.TensorProto.DataType.values() else kind
        raise TeacherError(f"{path}: its input {inputs[0].name!r} takes {name}, expected float (16, 32 or 64 bits)")
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


def probe_shapes(
    model: Any, input_name: str, input_px: int, batch: int, path: Path
) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
    """Return (channels, grid) of every square map in the graph, in the order they are computed, and of those it gives out.

    The graph is run once on grey pixels, since free sizes defeat shape inference.
    """
    names = [name for node in model.graph.node for name in node.output if name]
    dtype = INPUTS[_input_of(model)[0].type.tensor_type.elem_type]
    try:
        session = open_session(_with_outputs(model, names), torch.device("cpu"))
        grey = np.zeros((batch, 3, input_px, input_px), dtype)
        values = dict(zip(names, session.run(names, {input_name: grey}), strict=True))
    except Exception as err:  # onnxruntime's errors share no family
        line = str(err).splitlines()[0][:160]
        raise TeacherError(f"onnx:{path} cannot be run on an input of {input_px} px: {line}") from err
    shapes = {}
    for name, value in values.items():
        if isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float16) and value.ndim == 4:
            _, channels, height, width = value.shape
            if height == width > 1:
                shapes[name] = (channels, height)
    given = {value.name: as_maps(values.get(value.name), batch) for value in model.graph.output}
    return shapes, {name: maps.shape[1:3] for name, maps in given.items() if maps is not None}


def default_places(graph: Graph, request: TeacherRequest) -> dict[str, Place]:
    """Return the graph's outputs and the last inner tensor for each stride, by tap name."""
    places, shapes = {}, graph.shapes
    if request.readings is not None:
        _refuse_contradiction(graph, request.readings)
    told = told_readings(graph) if request.readings is None else {each.output: each for each in request.readings}
    for output, (channels, grid) in graph.outputs.items():
        name, logits = _tap_name(output), graph.prepared.logits
        if told.get(name) is not None:
            places[name] = _place_of(graph, name, told[name])
        elif request.readings == () and output not in shapes:
            continue
        elif output in (logits or ()) or (channels == 1 and logits is None and not request.readings):
            places[name] = Place(_before_sigmoid(graph.model, output), channels, grid, is_logits=True)
        else:
            another = bool(request.readings) and channels <= 2 and logits is None
            places[name] = Place(output, channels, grid, is_default=not another)
    inner = {name: shape for name, shape in shapes.items() if name not in graph.outputs and shape[0] > 1}
    for stride in request.strides or INNER_STRIDES:
        fine = [grid for _, grid in inner.values() if grid * stride >= request.picture_px]
        if fine and request.picture_px % stride == 0:
            tensor = [name for name, (_, grid) in inner.items() if grid == min(fine)][-1]
            places[f"inner{stride}"] = Place(tensor, *inner[tensor])
    return places


def _refuse_contradiction(graph: Graph, readings: Sequence[Reading]) -> None:
    """Raise where FILE.json says something else than what features were begun with."""
    for key in ("output", "values", "channel"):
        value = getattr(graph.prepared, key)
        value = _tap_name(value) if value and key == "output" else value
        begun = [getattr(each, key) or 0 for each in readings]
        if value is not None and set(begun) != {value}:
            held = ", ".join(map(str, begun)) or "logits wherever there is one channel"
            raise SettingsError(
                f"{graph.prepared.file}: {key} is {value!r}, but these features were begun with {held}; put it back, or "
                "extract into another cache"
            )


def _place_of(graph: Graph, name: str, reading: Reading | None) -> Place:
    """Return where an output's map is read: before its sigmoid, where that is the last that is done to logits."""
    output = next(each for each in graph.outputs if _tap_name(each) == name)
    channels, grid = graph.outputs[output]
    is_bare = reading is not None and reading.values == "logits" and channels == 1
    return Place(_before_sigmoid(graph.model, output) if is_bare else output, 1, grid, True, reading=reading)


def _before_sigmoid(model: Any, output: str) -> str:
    producer = next(node for node in model.graph.node if output in node.output)
    before: str = producer.input[0] if producer.op_type == "Sigmoid" else output
    return before


def _named_places(taps: tuple[str, ...], graph: Graph, known: Mapping[str, Place]) -> dict[str, Place]:
    places = {}
    for text in taps:
        alias, equals, place = text.partition("=")
        if not equals:
            continue
        tensor = place.partition("@")[0]
        if alias in known and known[alias].tensor == tensor:
            continue
        if tensor not in graph.shapes:
            raise TeacherError(f"onnx:{graph.path}: {name_nearest('square map', tensor, list(graph.shapes))}")
        if _tap_name(alias) != alias:
            raise SettingsError(f"tap {text!r}: an alias is letters, digits, '.', '_' and '-', found {alias!r}")
        places[alias] = Place(tensor, *graph.shapes[tensor])
    return places


def _tap_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "tap"


def _specify(request: TeacherRequest, graph: Graph, places: Mapping[str, Place]) -> TeacherSpec:
    path, input_px = graph.path, graph.input_px
    if request.taps is None:  # the inner taps were chosen for the strides already
        request = replace(request, strides=None)
    native = {
        name: NativeTap(name, p.channels, input_px / p.grid, "logits" if p.is_logits else "feature")
        for name, p in places.items()
    }
    defaults = []
    for name, place in places.items():
        usual = STRIDES if place.is_logits else INNER_STRIDES
        own = reached_strides(place.grid, request.picture_px, usual)[0]
        if place.is_default:
            defaults.append(TapRequest(name, int(name.removeprefix("inner")) if name.startswith("inner") else own))
    taps = choose_taps(request, native, defaults, input_px)
    kept = {tap.native: places[tap.native] for tap in sorted(taps, key=lambda tap: tap.name)}
    options: dict[str, Any] = {"tensors": {name: place.tensor for name, place in kept.items()}}
    if readings := {name: place.reading.identity() for name, place in kept.items() if place.reading is not None}:
        options["outputs"] = readings
    return TeacherSpec(
        label=f"onnx-{_tap_name(path.stem)}",
        name="onnx",
        variant=path.stem,
        input_px=input_px,
        weights=Weights(str(path), digest_file(path)),
        mean=graph.prepared.mean,
        std=graph.prepared.std,
        native=native,
        taps=taps,
        licence="the file's own",
        libraries={**versions("onnx"), "onnxruntime": onnxruntime.__version__},  # of whichever package brought it
        options=options,
    )


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


def place_session() -> torch.device:
    """Return the device that "auto" means for a graph: CUDA where both PyTorch and onnxruntime can use it, else the CPU."""
    chosen = resolve_device("auto")
    if chosen.type == "cuda":
        x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
        graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "same", [x], [y])
        opsets = [onnx.helper.make_opsetid("", 13)]
        same = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
        try:
            open_session(same.SerializeToString(), chosen)
        except DeviceError as error:
            print(f"NOTE: ONNX files run on the CPU ({error})", file=sys.stderr)
            return torch.device("cpu")
    return chosen


def open_session(model: bytes | str, device: torch.device) -> Any:
    """Return an onnxruntime session on `device`, with as many threads as PyTorch uses.

    Raises:
        DeviceError: onnxruntime has no CUDA, or falls back to the CPU.
    """
    available = onnxruntime.get_available_providers()
    if device.type != "cpu" and "CUDAExecutionProvider" not in available:
        raise DeviceError(
            f"--device {device}: this onnxruntime has {', '.join(available)}; install onnxruntime-gpu in place of "
            "onnxruntime, or use --device cpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised, and said once
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        cuda = {"device_id": device.index or 0, "use_tf32": 0}  # the identity says float32
        providers = [("CUDAExecutionProvider", cuda), *providers]
    # Its fallback would say on stdout what went wrong, and compute elsewhere than was asked for.
    session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    if device.type == "cuda" and "CUDAExecutionProvider" not in session.get_providers():  # its libraries did not load
        raise DeviceError(
            f"--device {device}: onnxruntime {onnxruntime.__version__} cannot use this GPU and would run on the CPU; install "
            "the CUDA and cuDNN that it was built for, or use --device cpu"
        )
    return session
