"""`student:RUN`: a trained student teaches another one. Its taps are its levels and its logits."""

from pathlib import Path

from torch import Tensor

from difom_cache import Teacher
from difom_cache.base.errors import TeacherError
from difom_cache.teachers import (
    NativeTap,
    TapNetwork,
    TapRequest,
    TeacherRequest,
    TeacherSpec,
    Weights,
    assemble,
    digest_tensors,
    split_code,
    versions,
)
from difom_train.students.base import BOTTLENECK, Student, check_sides
from difom_train.students.catalogue import is_built_in
from difom_train.students.outside import find_packages
from difom_train.students.saved import build_saved, is_outside, load_student, read_student_settings
from difom_train.students.seen_masks import Seen, read_run_masks
from difom_train.students.smp import PREFIX
from difom_train.students.weights import load_file_into

LOGITS = "logits"
LOGITS_STRIDE = 2
FEATURE_STRIDES = (8, 16, 32)
DEFAULT_INPUT_PX = 352
NO_CHANGE_MEAN = (0.0, 0.0, 0.0)  # the student normalises by itself
NO_CHANGE_STD = (1.0, 1.0, 1.0)


class StudentTaps(TapNetwork):
    """A student read at its levels and its main logits."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the map (B, C, h, w) of each kept tap, of pixels (B, 3, S, S) in [0, 1]."""
        output = self.student.forward_train(pixels)
        maps = {**output.levels, LOGITS: output.logits[0]}
        return {name: maps[name] for name in self.taps}


def build(request: TeacherRequest) -> Teacher:
    """Return the student of the run folder `request.variant` as a teacher; of your own student, "RUN#package.module:Factory".

    Its input is the size that it was trained at, unless the request names another.

    Raises:
        TeacherError: the request names no run folder, or no code for a student of your own.
        RunError: the folder holds no trained student.
        SettingsError: the input size does not divide by the student's largest stride.
    """
    if not request.variant:
        raise TeacherError("the teacher `student` needs a run folder: --teacher student:RUN")
    place, code = split_code(request.variant)
    run = Path(place)
    student = _load(run, request.weights, code)
    input_px = request.input_px or int(student.meta.get("input_px", DEFAULT_INPUT_PX))
    check_sides(student, input_px, input_px)
    native = {name: NativeTap(name, level.channels, level.stride) for name, level in student.levels.items()}
    native[LOGITS] = NativeTap(LOGITS, 1, 1, kind="logits")
    spec = TeacherSpec(
        label=f"student-{run.resolve().name}",
        name="student",
        variant=f"{student.name}-{run.resolve().name}",
        input_px=input_px,
        weights=Weights(_name_source(run, student, request.weights), digest_tensors(student.state_dict())),
        mean=NO_CHANGE_MEAN,
        std=NO_CHANGE_STD,
        native=native,
        taps=_default_taps(student, input_px, request.picture_px),
        licence=str(student.meta.get("licence", "as the data and weights that the run was trained from")),
        libraries=versions(*_packages(student.name)),
        seen_masks=_read_masks(run, request.weights),
    )
    teacher: Teacher = assemble(request, spec, StudentTaps(student))
    return teacher


def _name_source(run: Path, student: Student, weights: str) -> str:
    """Return where the weights in use come from; what random teachers taught is as little worth as they are."""
    taught_by_random = weights == "hub" and student.meta.get("random_teachers")
    return "random" if weights == "random" or taught_by_random else str(run)


def _read_masks(run: Path, weights: str) -> Seen:
    """Return what the weights in use have learnt from: the run's masks, none, or nobody knows."""
    return read_run_masks(run) if weights == "hub" else frozenset() if weights == "random" else None


def _load(run: Path, weights: str, code: str | None) -> Student:
    settings = read_student_settings(run)
    if code is None and is_outside(settings):
        raise TeacherError(
            f"the student of {run} is {settings.name}, from outside this package, and a run folder names no code to import: "
            f"--teacher student:{run}#package.module:Factory"
        )
    student = load_student(run, student=code)
    if weights == "random":
        fresh = build_saved(run, settings, code)
        fresh.meta = student.meta
        student = fresh
    elif weights != "hub":
        load_file_into(student, Path(weights))
    return student.eval()


def _default_taps(student: Student, input_px: int, picture_px: int) -> tuple[TapRequest, ...]:
    """Return the deepest level at each of the strides 8, 16 and 32, and the logits at 2.

    Strides count picture px; where the student's own grid is coarser than that, the tap keeps the own grid.
    """
    deepest = {level.stride: name for name, level in student.levels.items() if not name.startswith("decoder")}
    deepest[student.levels[BOTTLENECK].stride] = BOTTLENECK
    wanted = [(deepest[stride], stride) for stride in FEATURE_STRIDES if stride in deepest]
    taps = []
    for name, stride in [*wanted, (LOGITS, LOGITS_STRIDE)]:
        own_grid = input_px // (1 if name == LOGITS else student.levels[name].stride)
        fits = picture_px % stride == 0 and picture_px // stride <= own_grid
        taps.append(TapRequest(name, stride if fits else picture_px / own_grid))
    return tuple(taps)


def _packages(name: str) -> tuple[str, ...]:
    if not is_built_in(name):
        return find_packages(name)
    if name.startswith(PREFIX):
        return ("timm", "segmentation-models-pytorch")
    return ("timm",) if name == "pranet" else ()
