"""What teachers there are, as a list and as a table; nothing of them is loaded but their libraries."""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from difom_cache.teachers.base import Description
from difom_cache.teachers.catalogue import ENTRY_POINTS, MODULES
from difom_cache.teachers.hub import is_here
from difom_cache.text import format_table


def describe_teachers(picture_px: int = 352) -> list[dict[str, Any]]:
    """Return one entry, ready for JSON, for every teacher and variant; no weights are loaded.

    Args:
        picture_px: side of the stored pictures, which strides refer to.

    Returns:
        Entries with `teacher` ("sam:vit_b"), `default` (its name alone means this variant), `parameters`, `input_px`,
        `taps` (`name`, `channels`, `stride_native`, `grid`), `default_taps`, `view_bytes` (default taps under int8),
        `weights` (hub model), `licence` and `here` (the weights are on this machine). None where only a file can tell.
    """
    own = [entry for module in MODULES.values() for entry in import_module(module).describe()]
    registered = [point.name for point in entry_points(group=ENTRY_POINTS)]
    others = [Description(name, "...", False, None, None, {}, (), "", "") for name in registered]
    return [_as_entry(description, picture_px) for description in [*own, *others]]


def _as_entry(description: Description, picture_px: int) -> dict[str, Any]:
    input_px = description.input_px
    teacher = f"{description.name}:{description.variant}"
    native = description.native.values()
    return {
        "teacher": teacher,
        "default": description.is_default,
        "parameters": description.parameters,
        "input_px": input_px,
        "taps": [
            {"name": t.name, "channels": t.channels, "stride_native": t.stride_native, "grid": t.grid(input_px or 0)}
            for t in native
        ],
        "default_taps": [tap.name for tap in description.default_taps],
        "view_bytes": _view_bytes(description, picture_px) if description.default_taps else None,
        "weights": description.repository or None,
        "licence": description.licence,
        "here": is_here(teacher, description.repository) if description.repository else None,
    }


def _view_bytes(description: Description, picture_px: int) -> int:
    """Return the bytes that the default taps of one view take: a byte a value, and a float32 scale a channel."""
    return sum(
        description.native[tap.native].channels * (tap.grid(picture_px) ** 2 + 4) for tap in description.default_taps
    )


def format_teachers(entries: list[dict[str, Any]]) -> str:
    """Return what `describe_teachers` gave as a table, the default variant of each name marked with a star."""
    head = ("teacher", "parameters", "input", "kept by default", "bytes a view", "weights", "here", "licence")
    table = format_table([head, *(_as_line(entry) for entry in entries)], left=None)
    return f"{table}\n\n* what the name alone means; --json lists every tap with channels and stride"


def _as_line(entry: dict[str, Any]) -> tuple[str, ...]:
    here = {True: "yes", False: "no", None: "-"}[entry["here"]]
    return (
        entry["teacher"] + ("*" if entry["default"] else ""),
        f"{entry['parameters'] / 1e6:.1f} M" if entry["parameters"] else "-",
        f"{entry['input_px']} px" if entry["input_px"] else "-",
        " ".join(entry["default_taps"]) or "-",
        f"{entry['view_bytes']:,}" if entry["view_bytes"] else "-",
        entry["weights"] or "-",
        here,
        entry["licence"] or "-",
    )
