"""curves.png: what the log says, at one look."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_PANELS = (
    ("loss, one number a picture", ("loss", "segmentation"), False),
    ("validation Dice at 0.5", ("val_dice",), False),
    ("target variance explained (validation)", ("distill/explained/",), False),
    ("variance of targets and projections", ("distill/target_var/", "distill/student_var/"), True),
)


def draw_curves(log: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Write the curves of a run's log to a PNG; panels without any value are left out."""
    panels = [(name, _keys_of(log, starts), in_logs) for name, starts, in_logs in _PANELS]
    panels = [panel for panel in panels if panel[1]]
    figure = Figure(figsize=(4.2 * max(1, len(panels)), 3.6), layout="constrained")
    figure.suptitle(title)
    for place, (name, keys, in_logs) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        _draw_panel(axes, log, keys, in_logs=in_logs)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("epoch")
    FigureCanvasAgg(figure).print_png(str(path))


def _draw_panel(axes: Axes, log: Sequence[dict[str, Any]], keys: Sequence[str], *, in_logs: bool) -> None:
    for key in keys:
        points = [(line["epoch"] + 1, line[key]) for line in log if line.get(key) is not None]
        dashed = "--" if key.startswith("distill/target_var/") else "-"
        axes.plot(*zip(*points, strict=True), dashed, label=key.removeprefix("distill/"), linewidth=1.2)
    if in_logs and any(line.get(key, 0) > 0 for line in log for key in keys):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6)


def _keys_of(log: Sequence[dict[str, Any]], starts: Sequence[str]) -> list[str]:
    found = dict.fromkeys(key for line in log for key, value in line.items() if value is not None)
    return [
        key for key in found if any(key == start or (start.endswith("/") and key.startswith(start)) for start in starts)
    ]
