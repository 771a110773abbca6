"""curves.png: what logs say, at one look."""

from collections.abc import Mapping, Sequence
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


def draw_curves(logs: Mapping[str, Sequence[dict[str, Any]]], path: Path) -> None:
    """Write the curves of runs to a PNG, a row each; panels without any value are left out.

    Args:
        logs: title to log.
        path: where the picture goes.
    """
    rows = {title: [(name, _keys_of(log, keys), scale) for name, keys, scale in _PANELS] for title, log in logs.items()}
    rows = {title: [panel for panel in panels if panel[1]] for title, panels in rows.items()}
    widest = max(1, *(len(panels) for panels in rows.values()))
    figure = Figure(figsize=(4.2 * widest, 3.6 * len(rows)), layout="constrained")
    for part, (title, panels) in zip(figure.subfigures(len(rows), squeeze=False)[:, 0], rows.items(), strict=True):
        part.suptitle(title)
        for place, (name, keys, in_logs) in enumerate(panels):
            axes = part.add_subplot(1, len(panels), place + 1)
            _draw_panel(axes, logs[title], keys, in_logs=in_logs)
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
