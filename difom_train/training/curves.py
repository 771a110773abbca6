"""curves.png: what logs say, at one look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from difom_train.keywords import CurvesKeywords

from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import RunError
from difom_cache.base.options import read_call
from difom_cache.base.outputs import check_out_file
from difom_train.commands import CurvesConfig
from difom_train.training.run_folder import read_log

LOSSES, DICE, VARIANCES = "loss", "validation Dice at 0.5", "variances"
LEARNT = {  # what was learnt of each tap; runs of earlier versions logged no cosine
    "distill/cosine/": "cosine to each tap (validation)",
    "distill/explained/": "variance explained of each tap (validation)",
}
TARGET_VAR, STUDENT_VAR = "distill/target_var/", "distill/student_var/"
_TEACHER_COLOURS = ("#00798c", "#d1495b", "#5a7d2a", "#7b4fa3", "#c77700", "#3b6fb6", "#8d6e63")
_OWN_COLOURS = ("#263238", "#78909c", "#b0a000")  # what belongs to no teacher: loss, mask loss, Dice
STYLES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
_PANEL_IN, _PLOT_IN, _LEGEND_LINE_IN = 4.6, 3.0, 0.22


@dataclass(frozen=True)
class Curve:
    """One line of a panel."""

    label: str
    key: str
    colour: str
    style: Any


def curves(
    runs: Sequence[str | Path] | CurvesConfig, out: str | Path | None = None, /, **options: Unpack[CurvesKeywords]
) -> Path:
    """Draw loss, validation Dice, explained fractions and variances of runs, a row each.

    Args:
        runs: run folders, or the config of the call.
        out: the PNG or SVG to write.
        **options: as the signature lists them.

    Raises:
        RunError: a folder holds no finished epoch, or two have one name.
        SettingsError: `out` cannot be written, or is there.
    """
    config = read_call(CurvesConfig, {"out": out, **options}, runs=runs)
    check_out_file(config.out, endings=(".png", ".svg"), force=config.force)
    logs = {run.name: read_log(run) for run in config.runs}
    for run in config.runs:
        if not logs[run.name]:
            raise RunError(f"{run}: holds no finished epoch; give the folder of a run")
    if len(logs) < len(config.runs):
        raise RunError("two of the run folders have one name; rename one of them")
    draw_curves(logs, config.out)
    return config.out


def draw_curves(logs: Mapping[str, Sequence[dict[str, Any]]], path: Path) -> None:
    """Write the curves of runs to a picture, a row each; panels without any value are left out.

    Args:
        logs: title to log.
        path: where the picture goes; .png or .svg.
    """
    if path.suffix not in (".png", ".svg"):
        raise RunError(f"{path}: curves are written as .png or .svg; name such a file")
    figure = plot_curves(logs)
    from matplotlib import rc_context

    content = BytesIO()
    with rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(content, format=path.suffix[1:], dpi=100)
    write_atomic(path, content.getvalue())


def plot_curves(logs: Mapping[str, Sequence[dict[str, Any]]]) -> Figure:
    """Return the figure that `draw_curves` writes."""
    # A run starts without matplotlib, which takes most of a second to load and is wanted at the run's end.
    from matplotlib.figure import Figure

    rows = {title: list_panels(log) for title, log in logs.items()}
    widest = max(1, *(len(panels) for panels in rows.values()))
    lines = [max((len(curves) for curves in panels.values()), default=0) for panels in rows.values()]
    heights = [_PLOT_IN + 0.9 + _LEGEND_LINE_IN * count for count in lines]
    figure = Figure(figsize=(_PANEL_IN * widest, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(rows), height_ratios=heights, squeeze=False)[:, 0]
    for part, (title, panels) in zip(parts, rows.items(), strict=True):
        part.suptitle(title, fontsize=12, fontweight="bold")
        for place, (name, found) in enumerate(panels.items()):
            axes = part.add_subplot(1, len(panels), place + 1)
            _draw_panel(axes, logs[title], found, name)
    return figure


def list_panels(log: Sequence[dict[str, Any]]) -> dict[str, list[Curve]]:
    """Return the curves of each panel that has any: a colour for each teacher, a line style for each of its taps."""
    keys = list(dict.fromkeys(key for line in log for key, value in line.items() if value is not None))
    learnt = next((kind for kind in LEARNT if any(key.startswith(kind) for key in keys)), "")
    taps = [key.removeprefix(TARGET_VAR) for key in keys if key.startswith(TARGET_VAR)]
    taps = taps or [key.removeprefix(learnt) for key in keys if learnt and key.startswith(learnt) and ":" not in key]
    looks = dict(_look_of(taps))
    own = dict(zip(("loss", "segmentation", "val_dice"), _OWN_COLOURS, strict=True))
    panels = {
        LOSSES: [
            Curve({"loss": "all terms"}.get(key, "on masks"), key, own[key], "-") for key in own if key != "val_dice"
        ],
        DICE: [Curve("validation Dice", "val_dice", own["loss"], "-")],
        LEARNT.get(learnt, ""): [Curve(format_tap(tap), f"{learnt}{tap}", *looks[tap]) for tap in taps],
        VARIANCES: [
            *(Curve(f"target: {format_tap(tap)}", f"{TARGET_VAR}{tap}", *looks[tap]) for tap in taps),
            *(
                Curve(f"student: {key.removeprefix(STUDENT_VAR)}", key, "#90a4ae", STYLES[number % len(STYLES)])
                for number, key in enumerate(key for key in keys if key.startswith(STUDENT_VAR))
            ),
        ],
    }
    kept = {name: [curve for curve in found if curve.key in keys] for name, found in panels.items()}
    return {name: found for name, found in kept.items() if found}


def format_tap(name: str) -> str:
    """Return "dinov2/block11@16" as people say it; "low" and "high" are bands of the fused teachers."""
    teacher, slash, place = name.rpartition("/")
    if not slash:
        return {"low": "low frequencies", "high": "high frequencies"}.get(name, name)
    tap, _, stride = place.partition("@")
    return f"{teacher}, {tap} at stride {stride}" if stride else f"{teacher}, {tap}"


def _look_of(taps: Sequence[str]) -> Iterator[tuple[str, tuple[str, Any]]]:
    teachers = list(dict.fromkeys(tap.rpartition("/")[0] for tap in taps))
    for tap in taps:
        teacher = tap.rpartition("/")[0]
        place = [each for each in taps if each.rpartition("/")[0] == teacher].index(tap)
        colour = _TEACHER_COLOURS[teachers.index(teacher) % len(_TEACHER_COLOURS)]
        yield tap, (colour, STYLES[place % len(STYLES)])


def _draw_panel(axes: Axes, log: Sequence[dict[str, Any]], found: Sequence[Curve], name: str) -> None:
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    for curve in found:
        points = [(line["epoch"] + 1, line[curve.key]) for line in log if line.get(curve.key) is not None]
        alone = "o" if len(points) == 1 else ""
        axes.plot(
            *zip(*points, strict=True), color=curve.colour, linestyle=curve.style, marker=alone, label=curve.label
        )
    values = [line[curve.key] for line in log for curve in found if line.get(curve.key) is not None]
    if name == VARIANCES and max(values) > 0:
        axes.set_yscale("log")
    elif (
        name in LEARNT.values() and min(values) < -1
    ):  # a collapsed target has errors of thousands of times its variance
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set_title(name, fontsize=11)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        loc="upper left", bbox_to_anchor=(0, -0.17), fontsize=8, frameon=False, borderaxespad=0, handlelength=3.2
    )
