"""The charts of the report as SVG pictures that carry all they need, so that the page loads nothing."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

from difom_train.training.curves import STYLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DASHES = (
    "none",
    "6 3",
    "2 3",
    "8 3 2 3",
    "9 2 2 2 2 2",
    "2 6",
)  # `training.curves.STYLES`, as the page's legends draw them
LINES_IN, INTERVALS_IN, ROW_IN = (4.8, 2.7), 4.0, 0.75  # as wide as a phone, on which letters keep their size
NAME_LETTERS = 48  # on a line of `draw_intervals`
LEAST_REACH = 0.1  # points: of an axis on which all differences are nil
SALT = "difom"  # equal charts are equal bytes


@dataclass(frozen=True)
class Line:
    """One curve: its name, its points, its colour, and the style that tells lines of one colour apart."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    style: int = 0


@dataclass(frozen=True)
class Interval:
    """One estimate with its interval, and what is written beside it."""

    name: str
    value: float
    low: float
    high: float
    colour: str
    words: str


def draw_lines(lines: Sequence[Line], *, logarithmic: bool = False) -> str:
    """Return a chart of curves over epochs as a data URI, "" where no value can be shown.

    A curve of one point is a dot; values that are not finite, or not positive on a logarithmic axis, are left out.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _new_figure(*LINES_IN)
    axes = figure.add_subplot()
    shown = False
    for line in lines:
        points = [(x, y) for x, y in line.points if math.isfinite(y) and (y > 0 or not logarithmic)]
        if points:
            shown = True
            style, alone = STYLES[line.style % len(STYLES)], "o" if len(points) == 1 else ""
            axes.plot(*zip(*points, strict=True), color=line.colour, linestyle=style, marker=alone)
    if not shown:
        return ""
    axes.set_yscale("log" if logarithmic else "linear")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return _to_uri(figure)


def draw_intervals(intervals: Sequence[Interval]) -> str:
    """Return a chart of estimates with their intervals around a line at zero, as a data URI; the first stands on top."""
    names = [wrap(each.name, NAME_LETTERS) for each in intervals]
    taller = 0.2 * (max(map(len, names)) - 1)  # rows, where a name has several lines
    figure = _new_figure(INTERVALS_IN, 0.7 + ROW_IN * (1 + taller) * len(intervals))
    axes = figure.add_subplot()
    rows = [number * (1 + taller) for number in range(len(intervals))]
    for row, name, each in zip(rows, names, intervals, strict=True):
        axes.plot([each.low, each.high], [row, row], color=each.colour, linewidth=3, solid_capstyle="round")
        axes.plot([each.value], [row], color=each.colour, marker="o", markersize=8)
        for words, above, weight in (("\n".join(name), 0.46, "bold"), (each.words, 0.2, "normal")):
            place = axes.annotate(
                _plain(words), (0, row - above), xycoords=("axes fraction", "data"), fontweight=weight, fontsize=9
            )
            place.set_in_layout(False)
            place.set_bbox(
                {"facecolor": "white", "edgecolor": "none", "pad": 1}
            )  # the line at zero ends below the words
    reach = max(LEAST_REACH, *(abs(end) for each in intervals for end in (each.low, each.high))) * 1.15
    axes.axvline(0, color="0.45", linewidth=1)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(rows[-1] + 0.5, -0.75 - taller)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    return _to_uri(figure)


def _plain(words: str) -> str:
    """Return words in which no dollar starts a formula."""
    return words.replace("$", r"\$")


def _new_figure(width_in: float, height_in: float) -> "Figure":
    from matplotlib.figure import Figure  # late: it takes most of a second to load

    return Figure(figsize=(width_in, height_in), layout="constrained")


def _to_uri(figure: "Figure") -> str:
    from matplotlib import rc_context

    data = io.BytesIO()
    with rc_context({"svg.hashsalt": SALT, "svg.fonttype": "path"}):
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(data.getvalue()).decode()}"
