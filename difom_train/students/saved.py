"""A trained student on disk: `student.safetensors` and a small `student.json`, and nothing of its distillation."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save

from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import RunError, SettingsError, WeightsError
from difom_cache.base.files import read_object
from difom_train.config import names_code
from difom_train.students.base import Student, StudentSettings
from difom_train.students.catalogue import build_student, is_built_in, seeded
from difom_train.students.outside import StudentSources, build_outside, choose_given, find_factory, list_installed
from difom_train.students.weights import load_file_into
from difom_train.students.wrapped import read_wrap

FORMAT_VERSION = 1
_LARGEST_INPUT_PX = 1 << 14
WEIGHTS_FILE = "student.safetensors"
SETTINGS_FILE = "student.json"


def save_student(student: Student, folder: Path | str, meta: dict[str, Any]) -> None:
    """Write `student` into `folder`; each file appears whole, the weights first.

    Args:
        student: trained here, or in a loop of your own.
        folder: exists or is made.
        meta: JSON-able; what a user of the student needs to know, `input_px` (the side of its input) at least.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
    write_atomic(Path(folder) / WEIGHTS_FILE, save(state))
    settings = asdict(student.settings)
    if student.settings.wrap is None:
        del settings["wrap"]
    description = {"format": FORMAT_VERSION, "student": settings, "meta": meta}
    write_atomic(Path(folder) / SETTINGS_FILE, (json.dumps(description, indent=2) + "\n").encode())


def load_student(run: Path | str, device: str = "cpu", *, student: StudentSources = None) -> Student:
    """Return the student of a run folder, in eval mode, with `.meta` as it was saved.

    `student(images)` gives logits (B, 1, H, W) of images (B, 3, H, W), RGB in [0, 1], which were resized to
    `student.meta["input_px"]`; a polyp is where `logits > 0`. `predict` reads files, resizes them and writes masks.

    A run folder never names what is imported. A student from outside this package is one that is installed under an entry
    point, or is given again.

    Args:
        run: the folder.
        device: where it goes.
        student: for a run of your own student: `package.module:Factory`, the module that was wrapped (it stays as it is), or
            what makes it of its settings; of several, the one of the run's name. Runs of built-in students do without.

    Raises:
        RunError: the folder holds no finished student, one of another format, or your own, which is not given.
        WeightsError: its weights are damaged, or another network's.
    """
    folder = Path(run)
    description = _read_description(folder)
    settings = _read_settings(folder, description)
    built = build_saved(folder, settings, student)
    load_file_into(built, folder)
    built.meta = description.get("meta", {})
    return built.eval().to(device)


def build_saved(folder: Path, settings: StudentSettings, given: StudentSources = None) -> Student:
    """Return a run's student with first weights, always the same ones; the global generator stays untouched."""
    return _build_own(folder, settings) if _is_ours(settings) else _build_given(folder, settings, given)


def read_student_settings(run: Path | str) -> StudentSettings:
    """Return what a run folder says of its student's architecture."""
    return _read_settings(Path(run), _read_description(Path(run)))


def is_outside(settings: StudentSettings) -> bool:
    """Whether a run's student comes from outside this package and what is installed, and so has to be given again."""
    return not _is_ours(settings) and (names_code(settings.name) or settings.name not in list_installed())


def _is_ours(settings: StudentSettings) -> bool:
    return is_built_in(settings.name) and settings.wrap is None


def _build_own(folder: Path, settings: StudentSettings) -> Student:
    try:
        return build_student(
            settings.name,
            width=settings.width,
            weights="random",
            neck=settings.neck,
            deep_supervision=settings.deep_supervision,
            seed=0,
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RunError(f"{folder / SETTINGS_FILE} does not describe a student ({error}); train it again") from error
    except SettingsError as error:
        raise RunError(f"the student of {folder} cannot be built here: {error}") from error


def _build_given(folder: Path, settings: StudentSettings, given: StudentSources) -> Student:
    chosen = choose_given(given, settings.name)
    if chosen is None:
        option = settings.name if names_code(settings.name) else "package.module:Factory"
        raise RunError(
            f"the student of {folder} is {settings.name}, from outside this package, and a run folder names no code to import: "
            f"give it again, --student {option} (in Python student=module)"
        )
    try:
        with seeded(0):
            return build_outside(find_factory(chosen, []) if isinstance(chosen, str) else chosen, settings)
    except SettingsError as error:
        raise RunError(f"the student of {folder} cannot be built here: {error}") from error


def _read_settings(folder: Path, description: dict[str, Any]) -> StudentSettings:
    try:
        table = dict(description["student"])
        wrap = table.pop("wrap", None)
        settings = StudentSettings(**table, wrap=None if wrap is None else read_wrap(**wrap))
        if not isinstance(settings.name, str):
            raise TypeError(f"its name is {settings.name!r}")
    except (KeyError, TypeError, ValueError, AttributeError, SettingsError) as error:
        raise RunError(f"{folder / SETTINGS_FILE} does not describe a student ({error}); train it again") from error
    return settings


def _read_description(folder: Path) -> dict[str, Any]:
    file = folder / SETTINGS_FILE
    if not file.is_file() or not (folder / WEIGHTS_FILE).is_file():
        absent = SETTINGS_FILE if not file.is_file() else WEIGHTS_FILE
        raise RunError(f"{folder} holds no trained student ({absent} is absent); pass the folder of a finished run")
    description = read_object(file, WeightsError, "copy the run again")
    if description.get("format") != FORMAT_VERSION:
        found = description.get("format")
        raise RunError(f"{file} has format {found!r}, expected {FORMAT_VERSION}; install the version that wrote it")
    meta = description.get("meta")
    input_px = meta.get("input_px") if isinstance(meta, dict) else None
    if not isinstance(input_px, int) or not 0 < input_px <= _LARGEST_INPUT_PX:
        raise RunError(f"{file} does not describe a student (its input_px is {input_px!r}); copy the run again")
    return description
