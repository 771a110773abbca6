"""A trained student on disk: `student.safetensors` and a small `student.json`, and nothing of its distillation."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save

from difom_cache import read_object, write_atomic
from difom_cache.errors import RunError, SettingsError, WeightsError
from difom_train.students.base import Student, StudentSettings
from difom_train.students.catalogue import build_student
from difom_train.students.weights import load_file_into

FORMAT_VERSION = 1
_LARGEST_INPUT_PX = 1 << 14
WEIGHTS_FILE = "student.safetensors"
SETTINGS_FILE = "student.json"


def save_student(student: Student, folder: Path, meta: dict[str, Any]) -> None:
    """Write `student` into `folder`; each file appears whole, the weights first.

    Args:
        folder: exists or is made.
        meta: JSON-able; what a user of the student needs to know, `input_px` at least.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
    write_atomic(folder / WEIGHTS_FILE, save(state))
    description = {"format": FORMAT_VERSION, "student": asdict(student.settings), "meta": meta}
    write_atomic(folder / SETTINGS_FILE, (json.dumps(description, indent=2) + "\n").encode())


def load_student(run: Path | str, device: str = "cpu") -> Student:
    """Return the student of a run folder, in eval mode, with `.meta` as it was saved.

    Raises:
        RunError: the folder holds no finished student, or one of another format.
        WeightsError: its weights are damaged.
    """
    folder = Path(run)
    description = _read_description(folder)
    try:
        settings = StudentSettings(**description["student"])
        student = build_student(
            settings.name,
            width=settings.width,
            weights="random",
            neck=settings.neck,
            deep_supervision=settings.deep_supervision,
            seed=0,  # every number is replaced below; the global generator stays untouched
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RunError(f"{folder / SETTINGS_FILE} does not describe a student ({error}); train it again") from error
    except SettingsError as error:
        raise RunError(f"the student of {folder} cannot be built here: {error}") from error
    load_file_into(student, folder)
    student.meta = description.get("meta", {})
    return student.eval().to(device)


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
