"""The students that there are, as a table."""

from importlib.metadata import entry_points
from typing import Any

from difom_cache.base.text import format_table
from difom_train.students.base import count_parameters
from difom_train.students.catalogue import STUDENTS, build_student, default_weights
from difom_train.students.smp import PREFIX

GROUP = "difom.students"


def describe_students() -> list[dict[str, Any]]:
    """Return one entry for each student of this package at its own width, and one for each that others have installed.

    What others have installed is named, not built.
    """
    entries: list[dict[str, Any]] = []
    for name in STUDENTS:
        student = build_student(name, weights="random", seed=0)
        entries.append(
            {
                "student": name,
                "parameters": count_parameters(student),
                "levels": {
                    level: {"channels": at.channels, "stride_px": at.stride} for level, at in student.levels.items()
                },
                "starts_from": default_weights(name),
                "loss": student.loss_name,
                "from": "difom",
            }
        )
    smp = {"student": f"{PREFIX}ARCH/ENCODER", "starts_from": "imagenet", "from": "segmentation-models-pytorch"}
    found = [{"student": each.name, "from": each.value} for each in sorted(entry_points(group=GROUP))]
    return [*entries, smp, *found]


def format_students(entries: list[dict[str, Any]]) -> str:
    """Return what `describe_students` gave as a table: parameters in millions, levels with their stride in px."""
    rows = [("student", "parameters", "levels @ stride in px", "starts from", "mask loss", "from")]
    for entry in entries:
        levels = " ".join(f"{name}@{at['stride_px']}" for name, at in entry.get("levels", {}).items())
        parameters = f"{entry['parameters'] / 1e6:.1f} M" if "parameters" in entry else "-"
        rows.append(
            (
                entry["student"],
                parameters,
                levels or "-",
                entry.get("starts_from", "-"),
                entry.get("loss", "-"),
                entry["from"],
            )
        )
    return f"{format_table(rows, left=None)}\n\nat their own width; --width changes that of unet, unet++ and pranet"
