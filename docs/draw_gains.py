"""Draw the gains of a study: python docs/draw_gains.py study/study.csv docs/drawings/gains.svg

A bar for each row that the study compares with the first row of its share of the masks: the gain in points of Dice at 0.5,
mean over test sets, and its 95 % interval over videos and seeds. Bars are hatched where teachers have learnt from masks that
the student may not see.
"""

import csv
import io
import re
import sys
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from difom_cache.base.atomic import write_atomic
from difom_cache.base.text import unguard_cell

CLEAN, INK = "#00798c", "#263238"


def read_gains(path: Path) -> list[dict[str, str]]:
    """Return the rows of a study.csv that are compared with another."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = [{key: unguard_cell(value) for key, value in line.items()} for line in csv.DictReader(file)]
    if not lines or "gain" not in lines[0]:
        sys.exit(f"{path} has no column 'gain': give the study.csv of `difom-train study`")
    return [line for line in lines if line["gain"]]


def name_of(line: dict[str, str]) -> str:
    """Return what a bar is called: recipe, teachers, student and share of the masks."""
    teachers = re.sub(
        r"-\w*\{\w+\}", "", line["teachers"]
    )  # what stands for each run's own share and seed of the masks
    taught = f"\nfrom {teachers.replace(',', ' and ')}" if teachers else ""
    return f"{line['recipe']}{taught}\n{line['student']}, {100 * float(line['labels']):g} % of the masks, {line['runs']} seeds"


def draw(lines: list[dict[str, str]]) -> bytes:
    """Return the chart as SVG, whose letters stay letters."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "difom"}):
        figure = Figure(figsize=(7.2, 0.9 + 0.78 * len(lines)), layout="constrained")
        axes = figure.subplots()
        for place, line in enumerate(lines):
            gain, low, high = (100 * float(line[key]) for key in ("gain", "gain_low", "gain_high"))
            leaks = bool(line["masks"])
            axes.barh(
                place,
                gain,
                0.62,
                color=CLEAN,
                alpha=0.5 if leaks else 1,
                hatch="//" if leaks else None,
                edgecolor="white",
            )
            axes.errorbar(gain, place, xerr=[[gain - low], [high - gain]], color=INK, capsize=3, linewidth=1.2)
            axes.annotate(
                f"{gain:+.1f}",
                (max(high, 0), place),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
                color=INK,
            )
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(lines)), [name_of(line) for line in lines], fontsize=9)
        axes.invert_yaxis()
        axes.margins(x=0.16)
        axes.set_xlabel("points of Dice over the first row")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def main(source: str, target: str) -> None:
    """Write the chart of one study.csv."""
    lines = read_gains(Path(source))
    if not lines:
        sys.exit(f"{source} compares nothing: a study of one recipe has no gain")
    write_atomic(Path(target), draw(lines))
    print(target)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
