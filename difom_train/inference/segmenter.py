"""A network as its users see it: pictures of any size in, probabilities of the same size out."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from difom_cache import ViewParams, load_probe, replay_image
from difom_cache.base.errors import RunError, SettingsError, TeacherError
from difom_cache.base.hardware import is_out_of_memory, resolve_device, upload
from difom_cache.base.progress import say
from difom_cache.probing import LiveProbe
from difom_cache.teachers import Frames
from difom_train.inference.folded import fold_for_cpu
from difom_train.students.base import Student
from difom_train.students.outside import StudentSources
from difom_train.students.saved import load_student
from difom_train.students.seen_masks import Seen, read_run_masks

TEACHER_PREFIX, PROBE_PREFIX = "teacher:", "probe:"
MANY = 1 << 30


def is_named(run: Path | str) -> bool:
    """Whether a network is named by "teacher:SPEC" or "probe:CACHE/LABEL", and so has no folder of its own."""
    return str(run).startswith((TEACHER_PREFIX, PROBE_PREFIX))


class Segmenter(Protocol):
    """What turns pictures into logits."""

    name: str
    input_px: int
    device: str
    fits: int
    "Most pictures that a forward pass takes; less once a GPU was too small for more."

    def logits(self, pixels: Tensor) -> Tensor:
        """Return (B, 1, h, w) float32 logits of pixels (B, 3, input_px, input_px) in [0, 1], on the device."""
        ...


class StudentSegmenter:
    """The student of a run, at the input size it was trained with."""

    fits = MANY

    def __init__(self, student: Student, *, name: str, device: str) -> None:
        self.student = student
        self.name = name
        input_px = student.meta.get("input_px") if isinstance(student.meta, dict) else None
        if type(input_px) is not int or input_px < 1:
            raise RunError(
                f"{name}: student.json says input_px {input_px!r}, expected a number of px; copy the run again"
            )
        self.input_px = input_px
        self.device = device
        self._network = fold_for_cpu(student) if device == "cpu" else student

    def logits(self, pixels: Tensor) -> Tensor:
        if self.device == "cpu":
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self._network(pixels)
        return logits.float()


class TeacherSegmenter:
    """A teacher that has a logits tap of its own, such as `onnx:FILE` or `student:RUN`."""

    fits = MANY

    def __init__(self, spec: str, *, device: str, frames: Frames | None = None) -> None:
        from difom_cache import build_teacher  # late: they bring the teacher's own library
        from difom_cache.teachers import parse_teacher, place_teacher, read_outputs

        device = place_teacher(parse_teacher(spec).name, device)
        readings = read_outputs(spec, frames, device=device)
        known = build_teacher(spec, device=device, readings=readings).spec
        taps = [tap for tap in known.native.values() if tap.kind == "logits" and tap.channels == 1]
        if not taps:
            raise TeacherError(
                f"{spec} gives no polyp logits (its taps: {', '.join(known.native)}), so it cannot be scored; "
                'foundation models need a student on top, and an ONNX file of several classes the "channel" of polyps in its '
                "FILE.json"
            )
        self.tap = taps[0].name
        self.teacher = build_teacher(spec, device=device, taps=[f"{self.tap}@native"], readings=readings)
        self.reading = next((each for each in readings or () if each.output == self.tap), None)
        if self.reading is not None:
            say(f"{spec}: {self.reading.describe()}")
        self.name = known.label
        self.input_px = known.input_px
        self.device = device

    def logits(self, pixels: Tensor) -> Tensor:
        return self.teacher.features(pixels)[self.tap].float()


class ProbeSegmenter:
    """A probe of a cache with the teachers that it reads."""

    fits = MANY

    def __init__(self, place: str, *, device: str) -> None:
        cache, _, label = place.rstrip("/").rpartition("/")
        if not cache:
            raise SettingsError(
                f"{PROBE_PREFIX}{place}: expected {PROBE_PREFIX}CACHE/LABEL, such as probe:feats/dinov2-probe-l10-s0"
            )
        self.probe: LiveProbe = load_probe(cache, label, device=device)
        self.name, self.input_px, self.device = label, self.probe.input_px, self.probe.device

    def logits(self, pixels: Tensor) -> Tensor:
        return self.probe.logits(pixels)


def load_segmenter(
    spec: Path | str, *, device: str = "auto", student: StudentSources = None, frames: Frames | None = None
) -> Segmenter:
    """Return the student of a run folder, the teacher that "teacher:SPEC" names, or the probe of "probe:CACHE/LABEL".

    Args:
        spec: the folder, the teacher or the probe.
        device: where it runs.
        student: of a run of your own student (see `load_student`).
        frames: real ones, which show what a teacher from an ONNX file gives where its graph does not say.

    Raises:
        RunError: the folder holds no trained student, or one of your own, which is not given.
        TeacherError: the teacher gives no logits, or nothing tells what it gives.
        CacheError: there is no such cache or probe, or its teachers cannot be built again.
        DeviceError: the device is not there.
    """
    chosen = str(resolve_device(device))
    if str(spec).startswith(TEACHER_PREFIX):
        return TeacherSegmenter(str(spec).removeprefix(TEACHER_PREFIX), device=device, frames=frames)
    if str(spec).startswith(PROBE_PREFIX):
        return ProbeSegmenter(str(spec).removeprefix(PROBE_PREFIX), device=device)
    folder = Path(spec)
    return StudentSegmenter(load_student(folder, chosen, student=student), name=folder.resolve().name, device=chosen)


def choose_batch(segmenter: Segmenter, batch_size: int | None) -> int:
    """Return how many pictures make a forward pass: what was asked for, else 1 on a CPU, where more gains nothing, and 8.

    Raises:
        SettingsError: fewer than one was asked for.
    """
    if batch_size is None:
        return 1 if segmenter.device == "cpu" else 8
    if batch_size < 1:
        raise SettingsError(f"--batch-size is at least 1 picture, found {batch_size}")
    return batch_size


def identify(segmenter: Segmenter, run: Path | str) -> dict[str, Any]:
    """Return what decides a network's logits: its weights and input size; of an ONNX file how it is shown frames and read."""
    own: dict[str, Any] = {}
    if isinstance(segmenter, ProbeSegmenter):
        source, digest = "probe", segmenter.probe.digest
    elif isinstance(segmenter, TeacherSegmenter):
        spec, reading = segmenter.teacher.spec, segmenter.reading
        source, digest = "teacher", spec.weights_digest
        if reading is not None:
            own = {"reading": list(reading.said), "mean": list(spec.mean), "std": list(spec.std)}
    else:
        source, digest = "student", hashlib.sha256((Path(run) / "student.safetensors").read_bytes()).hexdigest()
    return {"source": source, "weights_sha256": digest, "input_px": segmenter.input_px, **own}


def find_random_teachers(segmenter: Segmenter) -> tuple[str, ...]:
    """Return the teachers whose random weights a network has, if it is one of them, or learnt from."""
    if isinstance(segmenter, ProbeSegmenter):
        return (segmenter.name,) if segmenter.probe.is_random else ()
    if isinstance(segmenter, TeacherSegmenter):
        return (segmenter.teacher.spec.label,) if segmenter.teacher.spec.is_random else ()
    if isinstance(segmenter, StudentSegmenter):
        return tuple(segmenter.student.meta.get("random_teachers", ()))
    return ()


def find_seen_masks(segmenter: Segmenter, run: Path | str) -> Seen:
    """Return the SHA-256 of every mask file that a network has learnt from; None where nobody knows."""
    if isinstance(segmenter, ProbeSegmenter):
        return segmenter.probe.masks
    if isinstance(segmenter, TeacherSegmenter):
        return segmenter.teacher.spec.seen_masks
    return read_run_masks(Path(run))


def render_picture(picture: NDArray[np.uint8], input_px: int) -> Tensor:
    """Return a picture as the network gets it, equal to view 0 of a cache.

    Args:
        picture: (H, W, 3) uint8 RGB.
        input_px: side of the network's input.

    Returns:
        (3, input_px, input_px) float32 in [0, 1].
    """
    height, width = picture.shape[:2]
    pixels = torch.tensor(picture).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    return replay_image(pixels, whole_frame(width, height), input_px)


def whole_frame(width: int, height: int) -> ViewParams:
    """Return view 0 of a frame of this size: all of it, unturned."""
    return ViewParams(top=0, left=0, height=height, width=width)


@torch.inference_mode()
def segment(segmenter: Segmenter, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return the logits of some pictures, whatever their sizes: (B, h, w) float32.

    A GPU that is too small for all of them gets half as many at a time, from then on.
    """
    pixels = torch.stack([render_picture(picture, segmenter.input_px) for picture in pictures])
    found: list[NDArray[np.float32]] = []
    while len(rest := pixels[sum(map(len, found)) :]):
        part = rest[: segmenter.fits]
        try:
            found.append(segmenter.logits(upload(part, torch.device(segmenter.device)))[:, 0].cpu().numpy())
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(part) == 1:
                raise
            segmenter.fits = len(part) // 2
            say(f"{segmenter.device} has too little memory for {len(part)} images at a time: now {segmenter.fits}")
    return np.concatenate(found)


@torch.inference_mode()
def prob_at_size(logits: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return the probability at a picture's own size: logits resized bilinearly, then the sigmoid.

    Args:
        logits: (h, w).
        height: rows wanted.
        width: columns wanted.

    Returns:
        (height, width) in [0, 1].

    Source: DengPingFan/PraNet @ 160e495, MyTest.py.
    """
    grid = torch.from_numpy(np.ascontiguousarray(logits, dtype=np.float32))[None, None]
    sized = functional.interpolate(grid, (height, width), mode="bilinear", align_corners=False)
    return torch.sigmoid_(sized)[0, 0].numpy()
