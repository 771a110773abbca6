"""curves.png: what logs say, at one look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

from difom_cache import draft_of
from difom_cache.errors import RunError
from difom_train.training.run_folder import read_log

_PANELS = (
    ("loss, one number a picture", ("loss", "segmentation"), "linear"),
    ("validation Dice at 0.5", ("val_dice",), "linear"),
    # Logarithmic where it falls below -1: a collapsed target has errors of thousands of times its variance.
    ("target variance explained (validation)", ("distill/explained/",), "symlog"),
    ("variance of targets and projections", ("distill/target_var/", "distill/student_var/"), "log"),
)


def curves(runs: Sequence[str | Path], out: str | Path = "curves.png") -> Path:
    """Draw loss, validation Dice, explained fractions and variances of runs, a row each.

    Args:
        runs: run folders.
        out: the PNG to write.

    Raises:
        RunError: a folder holds no finished epoch, or two have one name.
    """
    logs = {Path(run).name: read_log(Path(run)) for run in runs}
    for run in runs:
        if not logs[Path(run).name]:
            raise RunError(f"{run}: holds no finished epoch; give the folder of a run")
    if len(logs) < len(runs):
        raise RunError("two of the run folders have one name; rename one of them")
    draw_curves(logs, Path(out))
    return Path(out)


def draw_curves(logs: Mapping[str, Sequence[dict[str, Any]]], path: Path) -> None:
    """Write the curves of runs to a PNG, a row each; panels without any value are left out.

    Args:
        logs: title to log.
        path: where the picture goes.
    """
    # A run starts without matplotlib, which takes most of a second to load and is wanted at the run's end.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = {title: [(name, _keys_of(log, keys), scale) for name, keys, scale in _PANELS] for title, log in logs.items()}
    rows = {title: [panel for panel in panels if panel[1]] for title, panels in rows.items()}
    widest = max(1, *(len(panels) for panels in rows.values()))
    figure = Figure(figsize=(4.2 * widest, 3.6 * len(rows)), layout="constrained")
    for part, (title, panels) in zip(figure.subfigures(len(rows), squeeze=False)[:, 0], rows.items(), strict=True):
        part.suptitle(title)
        for place, (name, keys, scale) in enumerate(panels):
            axes = part.add_subplot(1, len(panels), place + 1)
            _draw_panel(axes, logs[title], keys, scale)
            axes.set_title(name, fontsize=10)
            axes.set_xlabel("epoch")
    with draft_of(path) as draft:
        FigureCanvasAgg(figure).print_png(str(draft))


def _draw_panel(axes: Axes, log: Sequence[dict[str, Any]], keys: Sequence[str], scale: str) -> None:
    for key in keys:
        points = [(line["epoch"] + 1, line[key]) for line in log if line.get(key) is not None]
        style = ".--" if key.startswith("distill/target_var/") else ".-"
        axes.plot(*zip(*points, strict=True), style, label=key.removeprefix("distill/"), linewidth=1.2)
    values = [line[key] for line in log for key in keys if line.get(key) is not None]
    if (scale == "log" and max(values) > 0) or (scale == "symlog" and min(values) < -1):
        axes.set_yscale(scale)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6)


def _keys_of(log: Sequence[dict[str, Any]], starts: Sequence[str]) -> list[str]:
    found = dict.fromkeys(key for line in log for key, value in line.items() if value is not None)
    return [
        key for key in found if any(key == start or (start.endswith("/") and key.startswith(start)) for start in starts)
    ]
