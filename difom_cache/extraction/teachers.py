"""The teachers of this process: each built once, at most one of them on a GPU, and checked against its identity."""

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from difom_cache.base.errors import DeviceError, EngineError, RunError, SettingsError, TeacherError, WeightsError
from difom_cache.extraction.begun import AUTO, BACKENDS, OPENVINO, TORCH, backend_of, identify_teacher
from difom_cache.extraction.requests import tell_place
from difom_cache.store.identity import name_differences
from difom_cache.store.schema import TeacherIdentity, TeacherSource
from difom_cache.teachers.base import RANDOM, Teacher, TeacherRequest, TeacherSpec, has_openvino
from difom_cache.teachers.catalogue import OWN_WEIGHTS, build_requested, place_teacher, split_code
from difom_cache.teachers.openvino_teacher import OpenVinoTeacher
from difom_cache.teachers.places import HUB

MOST_HELD = 4  # teachers of a run are few; more would only take memory


_held: dict[TeacherRequest, Teacher] = {}  # of this process; where they stand is decided here alone
_parked: set[TeacherRequest] = set()


def load_teacher(request: TeacherRequest) -> Teacher:
    """Return the teacher that `request` describes, built once, with every other one moved off its GPU.

    A teacher's batch is found by filling the GPU: what else lies there would make it smaller.
    """
    request = request if request.backend == OPENVINO else replace(request, backend=TORCH)
    for other in _held.keys() - _parked - {request}:
        if torch.device(other.device).type != "cpu":
            _held[other].to("cpu")
            _parked.add(other)
            _free_memory()
    if request in _parked:
        _held[request].to(request.device)
        _parked.discard(request)
    if request not in _held:
        while len(_held) >= MOST_HELD:
            _drop(next(iter(_held)))
        _held[request] = _build(request)
    return _held[request]


def load_all(requests: Mapping[str, TeacherRequest]) -> None:
    """Build every teacher once, so that what is missing is known before hours are spent.

    Raises:
        WeightsError: names all that cannot be found, each with the option that says where it is.
    """
    lost = []
    for label, request in requests.items():
        try:
            load_teacher(request)
        except (WeightsError, RunError) as error:
            lost.append(f"{tell_place(label, request.name)}: {error}")
    if lost:
        raise WeightsError(f"these teachers cannot be built again: {'; '.join(lost)}")


def _build(request: TeacherRequest) -> Teacher:
    if request.backend == OPENVINO:
        plain = replace(request, backend=TORCH)
        return OpenVinoTeacher(_held.pop(plain) if plain in _held else _build(plain))
    return build_requested(request)


def choose_backend(request: TeacherRequest, held: TeacherIdentity | None, batch: int) -> TeacherRequest:
    """Return `request` with the backend that its column is computed by.

    "auto" takes what a begun column holds; for a new one on a CPU it takes OpenVINO, where that is installed and gives this
    teacher's features, else PyTorch.

    Raises:
        SettingsError: the backend is not known, or not installed.
        TeacherError: OpenVINO was asked for, and cannot take this teacher or gives other features.
    """
    if request.backend not in BACKENDS:
        raise SettingsError(f"--backend: expected {', '.join(BACKENDS)}, found {request.backend!r}")
    if held is not None:
        return replace(request, backend=backend_of(held)) if request.backend == AUTO else request
    fits = has_openvino() and torch.device(request.device).type == "cpu" and not request.compile
    if request.backend == TORCH or (request.backend == AUTO and not fits):
        return replace(request, backend=TORCH)
    chosen = replace(request, backend=OPENVINO)
    try:
        load_teacher(chosen).check(batch)  # type: ignore[attr-defined]
    except (SettingsError, TeacherError) as error:
        if request.backend == OPENVINO:
            raise
        print(f"PyTorch runs this teacher: {error}", file=sys.stderr)
        return replace(request, backend=TORCH)
    return chosen


def describe_source(request: TeacherRequest, spec: TeacherSpec) -> TeacherSource:
    """Return how to build the teacher of `request` again from another folder: what is a path is whole."""
    name, asked = request.name, request.variant
    variant = asked if name == "hf" else spec.variant
    if name in OWN_WEIGHTS or (name == "hf" and Path(asked).is_dir()):
        place = split_code(asked)[0] if name == "student" else asked
        variant = str(Path(place).resolve())
    is_path = request.weights not in (HUB, RANDOM) and Path(request.weights).exists()
    weights = str(Path(request.weights).resolve()) if is_path else request.weights
    return TeacherSource(teacher=f"{name}:{variant}@{spec.input_px}", weights=weights, found=spec.weights_source)


@contextmanager
def own_teachers() -> Iterator[None]:
    """Let a run hold teachers, and release them at its end."""
    try:
        yield
    finally:
        release_teachers()


def release_teachers() -> None:
    """Hold no teacher, and no memory of a GPU.

    A process that only hands out work does so at once, and a run at its end: files may change before the next.
    """
    for request in list(_held):
        _drop(request)


def settle(request: TeacherRequest, held: TeacherIdentity | None, column: Path) -> TeacherRequest:
    """Return the request with the device of this process: what is asked for of a worker, only the worker can tell.

    Args:
        request: as it was sent.
        held: of the column, where one is begun.
        column: its folder.

    Raises:
        EngineError: the column was begun on a device of another kind.
    """
    try:
        device = place_teacher(request.name, request.device)
    except DeviceError:
        if held is None:
            raise
        device = "cpu"
    kind = torch.device(device).type
    if held is not None and kind != held.device:
        raise EngineError(
            f"worker {name_worker()} computes on {kind}, but {column} was begun on {held.device}, and features of two kinds of "
            "device are not mixed; start workers of one kind, or say which with --device"
        )
    return replace(request, device=device)


def assert_same_teacher(identity: TeacherIdentity, spec: TeacherSpec, column: Path) -> None:
    """Refuse to work with a teacher that would give other features than those in the cache.

    Args:
        identity: of the column.
        spec: of the teacher that was built here.
        column: the folder of its features.

    Raises:
        EngineError: names every difference.
    """
    differing = name_differences(identity.to_dict()["teacher"], identify_teacher(spec, identity))
    if differing:
        raise EngineError(
            f"worker {name_worker()} would write other features into {column} than it was begun with: "
            f"{'; '.join(differing)}. Give every worker the same weights and library versions"
        )


def name_worker() -> str:
    """Return what this process is called in reports."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _drop(request: TeacherRequest) -> None:
    del _held[request]
    _parked.discard(request)
    _free_memory()


def _free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
