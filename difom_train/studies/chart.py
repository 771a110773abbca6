"""A study at one look: bars of Dice at 0.5 for each test set and their mean, a panel for each share of the masks."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from difom_cache.base.atomic import write_atomic

COLOURS = ("#90a4ae", "#00798c", "#d1495b", "#5a7d2a", "#7b4fa3", "#c77700", "#3b6fb6", "#8d6e63")
_LABEL = 60  # letters of a row's name in the legend, at most
_OTHER = (
    "student", "recipe", "teachers", "labels", "runs", "mean", "std", "val_dice", "gain", "gain_low", "gain_high", "p", "masks",
    "train_cpu_s", "frame_cpu_ms", "parameters",
)  # fmt: skip


def draw_study(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the chart of a study; the whisker on the mean is one standard deviation over seeds.

    Args:
        lines: rows of the table, as `StudyTable.as_json` gives them.
        path: .svg or .png.
    """
    from matplotlib.figure import Figure

    sets = [name for name in lines[0] if name not in _OTHER]
    shares = list(dict.fromkeys(line["labels"] for line in lines if line["labels"] is not None))
    width_in = 2.2 + 1.15 * (len(sets) + 1)
    figure = Figure(figsize=(width_in, (3.4 + 0.2 * len(lines) / len(shares)) * len(shares)), layout="constrained")
    panels = figure.subplots(len(shares), 1, squeeze=False)[:, 0]
    for axes, share in zip(panels, shares, strict=True):
        shown = [line for line in lines if line["labels"] in (share, None)]
        bar = 0.82 / len(shown)
        for number, line in enumerate(shown):
            places = [place + (number - (len(shown) - 1) / 2) * bar for place in range(len(sets) + 1)]
            values = [*(line[name] for name in sets), line["mean"]]
            seeds = f", {line['runs']} seeds" if line["runs"] > 1 else ""
            taught = f" ({line['teachers']})" if line["teachers"] else ""
            label = f"{line['recipe']}{taught}{seeds}"
            label = label if len(label) <= _LABEL else f"...{label[3 - _LABEL :]}"  # a path would push the bars out
            axes.bar(places, values, bar * 0.92, color=COLOURS[number % len(COLOURS)], label=label)
            axes.errorbar(places[-1], values[-1], line["std"], color="#263238", capsize=3, linewidth=1.2)
            for place, value in zip(places, values, strict=True):
                above = value + 0.015 + (line["std"] if place == places[-1] else 0)
                axes.text(place, above, f"{value:.2f}".removeprefix("0"), fontsize=8, ha="center")
        axes.set_xticks(range(len(sets) + 1), [*sets, "mean"], fontsize=9)
        axes.set_ylim(0, 1)
        axes.set_ylabel("Dice at 0.5")
        axes.set_title(f"{100 * share:g} % of the masks", loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        columns = 1 if any(line["teachers"] for line in shown) else min(4, len(shown))
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.08), ncols=columns, fontsize=8, frameon=False)
    content = BytesIO()
    figure.savefig(content, format=path.suffix[1:])
    write_atomic(path, content.getvalue())
