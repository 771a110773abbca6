"""The students that there are, as a table, with no network loaded or built."""

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from difom_cache.base.text import format_table

GROUP = "difom.students"
TABLE = Path(__file__).with_name("students.json")
"""The students of this package at their own width; `tests/students/student_table.py` writes it anew."""


def describe_students() -> list[dict[str, Any]]:
    """Return one entry for each student of this package at its own width, and one for each that others have installed.

    What others have installed is named, not built.
    """
    entries: list[dict[str, Any]] = json.loads(TABLE.read_text("utf-8"))
    return [*entries, *({"student": each.name, "from": each.value} for each in sorted(entry_points(group=GROUP)))]


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
