"""Students by name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from difom_cache.base.errors import SettingsError
from difom_train.students import weights as sources
from difom_train.students.base import Student, StudentSettings
from difom_train.students.outside import build_outside, find_factory
from difom_train.students.smp import PREFIX, SmpStudent
from difom_train.students.unet import UNet
from difom_train.students.unetpp import UNetPlusPlus


def _build_pranet(settings: StudentSettings) -> Student:
    from difom_train.students.pranet import PraNet  # timm takes a second to load

    return PraNet(settings)


STUDENTS: dict[str, Callable[[StudentSettings], Student]] = {
    "unet": UNet,
    "unet++": UNetPlusPlus,
    "pranet": _build_pranet,
}
NAMES = [*STUDENTS, f"{PREFIX}ARCH/ENCODER"]
NO_FILE = ("imagenet", "random", "own")
"Where weights come from that lie in no file."
IMAGENET_FILE = "imagenet:"
"Before a file whose weights were trained on ImageNet, by the word of who names it: they have learnt from no mask."


def is_built_in(name: str) -> bool:
    """Whether the student called `name` is of this package."""
    return name in STUDENTS or name.startswith(PREFIX)


def default_weights(name: str) -> str:
    """Return where the student called `name` starts from unless told: "imagenet", "random" or its "own" weights."""
    if not is_built_in(name):
        return "own"
    return "imagenet" if name == "pranet" or name.startswith(PREFIX) else "random"


def resolve_weights(name: str, weights: str) -> str:
    """Return where the student called `name` starts from; "auto" is its own default."""
    return default_weights(name) if weights == "auto" else weights


def build_student(
    name: str,
    *,
    width: int | None = None,
    weights: str | None = None,
    neck: str | None = None,
    deep_supervision: bool = False,
    seed: int | None = None,
) -> Student:
    """Return a new student.

    Args:
        name: unet, unet++, pranet, smp:ARCH/ENCODER, one that is installed under an entry point, or package.module:Factory,
            which is imported.
        width: channels of the finest scale (unet, unet++: 32 unless told) or behind PraNet's receptive fields (32).
        weights: "random", "imagenet", "own" for those that a student of yours comes with, a path, or None for
            `default_weights(name)`.
        neck: None, "residual", "difom" or "paper".
        deep_supervision: one output per nested decoder (unet++ only).
        seed: of the random weights, drawn without touching the global generator; None draws from the global one.

    Raises:
        SettingsError: an unknown name, or an option that this student does not have.
        WeightsError: the weights cannot be had, or are another network's.
    """
    settings = StudentSettings(name=name, width=width, neck=neck, deep_supervision=deep_supervision)
    check_settings(settings)
    source = weights or default_weights(name)
    with seeded(seed):
        student = _build(settings, source)
    if source not in NO_FILE:
        _load(student, source)
    return student


def give_weights(student: Student, source: str) -> None:
    """Put the weights of a file or run folder into a student that was handed in; "own" and "random" leave it as it is.

    Raises:
        SettingsError: its ImageNet weights are asked for, which only its maker knows.
    """
    if source == "imagenet":
        raise SettingsError(
            f"this package has no ImageNet weights of {student.name}: build it with them, or pass a path"
        )
    if source not in NO_FILE:
        _load(student, source)


def check_settings(settings: StudentSettings) -> None:
    """Return if a student can be built from `settings`, as far as this package knows; raise SettingsError otherwise."""
    name = settings.name
    if not is_built_in(name):
        return
    if settings.deep_supervision and name != "unet++":
        raise SettingsError(f"deep supervision is an option of unet++; {name} does not have it")
    if settings.width is not None and name.startswith(PREFIX):
        raise SettingsError(f"{name} has no --width; choose a smaller encoder instead")
    if settings.width is not None and settings.width < 1:
        raise SettingsError(f"--width is at least 1, found {settings.width}")


def _build(settings: StudentSettings, source: str) -> Student:
    if not is_built_in(settings.name):
        outside = build_outside(find_factory(settings.name, NAMES), settings)
        if source == "imagenet":
            give_weights(outside, source)
        return outside
    if settings.name.startswith(PREFIX):
        if source != "imagenet":
            return SmpStudent(settings)
        student: Student = sources.fetch(settings.name, lambda: SmpStudent(settings, encoder_weights="imagenet"))
        return student
    student = STUDENTS[settings.name](settings)
    if source == "imagenet":
        if settings.name != "pranet":
            raise SettingsError(f"{settings.name} has no ImageNet weights; pass --student-weights random or a path")
        student.load_imagenet()  # type: ignore[operator]
    return student


def _load(student: Student, source: str) -> None:
    sources.load_file_into(student, Path(source.removeprefix(IMAGENET_FILE)))


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from a generator of one's own while inside; None draws from the global one."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
