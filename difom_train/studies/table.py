"""The table of a study: a row for all seeds of one setting, beside the first row of its share of the masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from difom_cache.base.atomic import write_atomic
from difom_cache.base.text import Shown, count_of, format_csv, format_markdown, format_table
from difom_train.evaluation.summary import counted_sets, mean_label
from difom_train.reporting.bootstrap import Difference, compare_paired
from difom_train.studies.chart import draw_study
from difom_train.studies.results import Cost, RunResult

RESAMPLES = 10_000
RunKey = tuple[int, int]
"The labels seed and the seed of a run."


class RowKey(NamedTuple):
    """What the runs of a row have in common.

    Attributes:
        student: the network's name.
        recipe: its name.
        teachers: labels in the cache joined by commas, as they were asked for; "" = as the recipe says.
        labels: share of the masks; None for what was scored beside the runs.
    """

    student: str
    recipe: str
    teachers: str
    labels: float | None


@dataclass(frozen=True)
class Row:
    """One setting.

    Attributes:
        key: what its runs have in common.
        runs: how many seeds.
        sets: test set to Dice at 0.5, mean over frames and runs.
        mean: of the sets that are counted.
        spread: standard deviation of the mean over runs; 0 for one run.
        val_dice: validation Dice of the epoch that is kept, mean over runs; None for what was not trained here.
        difference: to the first row of its share of the masks; None for that row itself.
        masks: what a reader must know of masks that its teachers saw; empty where nothing leaks.
        cost: CPU seconds of a training run, CPU ms of a frame, and parameters; None for what was not measured.
    """

    key: RowKey
    runs: int
    sets: Mapping[str, float]
    mean: float
    spread: float
    val_dice: float | None
    difference: Difference | None
    masks: str
    cost: Cost

    def as_json(self) -> dict[str, Any]:
        """Return the row for a program."""
        found = self.difference
        return {
            **self.key._asdict(),
            "runs": self.runs,
            **self.sets,
            "mean": self.mean,
            "std": self.spread,
            "val_dice": self.val_dice,
            "gain": found and found.mean,
            "gain_low": found and found.low,
            "gain_high": found and found.high,
            "p": found and found.p,
            "masks": self.masks,
            **self.cost._asdict(),
        }


@dataclass(frozen=True, repr=False)
class StudyTable(Shown):
    """Rows of a study; those of a share of the masks stand together."""

    rows: tuple[Row, ...]

    @property
    def head(self) -> list[str]:
        """Column titles."""
        sets = list(self.rows[0].sets)
        return [
            "student", "recipe", "teachers", "masks", "seeds", *sets, mean_label(sets), "spread", "validation",
            "gain in points, 95 % interval", "leak", "CPU s to train", "CPU ms a frame", "M parameters",
        ]  # fmt: skip

    def cells(self, row: Row) -> list[str]:
        """Return a row as words."""
        key = row.key
        return [
            key.student,
            key.recipe,
            key.teachers or "-",
            "-" if key.labels is None else f"{100 * key.labels:g} %",
            str(row.runs),
            *(f"{dice:.3f}" for dice in row.sets.values()),
            f"{row.mean:.3f}",
            f"{row.spread:.3f}" if row.runs > 1 else "-",
            "-" if row.val_dice is None else f"{row.val_dice:.3f}",
            "-" if row.difference is None else row.difference.render(),
            row.masks or "none",
            *_cells_of_cost(row.cost),
        ]

    @property
    def words(self) -> list[list[str]]:
        """The head and every row."""
        return [self.head, *map(self.cells, self.rows)]

    def _line(self) -> str:
        return f"{count_of(len(self.rows), 'row')}, {count_of(sum(row.runs for row in self.rows), 'run')}, Dice at 0.5"

    def _table(self) -> list[list[str]]:
        return self.words

    def render(self) -> str:
        """Return the table for a terminal."""
        return format_table(self.words, left=3)

    def to_html(self) -> str:
        """Return the table as one page with nothing to load from anywhere."""
        page = files("difom_train.reporting").joinpath("page")
        template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(_PAGE)
        style = Markup(page.joinpath("page.css").read_text(encoding="utf-8"))
        return template.render(style=style, head=self.head, rows=self.words[1:], note=_NOTE)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the rows for a program."""
        return [row.as_json() for row in self.rows]


def build_table(rows: Mapping[RowKey, Mapping[RunKey, RunResult]], beside: Mapping[str, RunResult]) -> StudyTable:
    """Return the table of some runs, all scored on the same frames.

    Args:
        rows: each row's runs by labels seed and seed; the first row of a share of the masks is compared with, on the seeds
            that both have, or else on all of both.
        beside: what else was scored, by name.
    """
    found: list[Row] = []
    first: dict[float | None, Mapping[RunKey, RunResult]] = {}
    for key, runs in rows.items():
        reference = first.setdefault(key.labels, runs)
        difference = None
        if reference is not runs:
            both = [each for each in runs if each in reference]
            ours, theirs = ([side[each] for each in both or side] for side in (runs, reference))
            difference = _compare(ours, theirs, paired_seeds=bool(both))
        found.append(_make_row(key, list(runs.values()), difference))
    found += [_make_row(RowKey("-", name, "", None), [result], None) for name, result in beside.items()]
    return StudyTable(tuple(found))


def write_table(table: StudyTable, folder: Path) -> None:
    """Write study.csv, study.md, study.html and study.svg."""
    lines = table.as_json()
    for name, words in {"csv": format_csv(lines), "md": format_markdown(table.words), "html": table.to_html()}.items():
        write_atomic(folder / f"study.{name}", words.encode())
    draw_study(lines, folder / "study.svg")


def _make_row(key: RowKey, runs: Sequence[RunResult], difference: Difference | None) -> Row:
    dice = [{name: float(values.mean()) for name, values in run.dice.items()} for run in runs]
    means = [mean(run[name] for name in counted_sets(list(run))) for run in dice]
    sets = {name: mean(run[name] for run in dice) for name in dice[0]}
    spread = stdev(means) if len(means) > 1 else 0.0
    kept = [run.val_dice for run in runs if run.val_dice is not None]
    val_dice = mean(kept) if len(kept) == len(runs) else None
    masks = "; ".join(dict.fromkeys(run.mark for run in runs if run.mark))
    cost = Cost.mean_of([run.cost for run in runs])
    return Row(key, len(runs), sets, mean(means), spread, val_dice, difference, masks, cost)


def _cells_of_cost(cost: Cost) -> list[str]:
    frame = "-" if cost.frame_cpu_ms is None else f"{cost.frame_cpu_ms:.3g}"
    return [
        "-" if cost.train_cpu_s is None else f"{cost.train_cpu_s:.0f}",
        frame,
        "-" if cost.parameters is None else f"{cost.parameters / 1e6:.2f}",
    ]


def _compare(ours: Sequence[RunResult], theirs: Sequence[RunResult], *, paired_seeds: bool) -> Difference:
    """Return the difference of two rows; frames of one video are drawn together, a frame without a video by itself."""
    counted = counted_sets(list(theirs[0].dice))
    our_dice, their_dice = (
        {name: np.stack([run.dice[name] for run in runs]) for name in counted} for runs in (ours, theirs)
    )
    groups = {name: theirs[0].groups[name] for name in counted}
    return compare_paired(our_dice, their_dice, groups, resamples=RESAMPLES, seed=0, paired_seeds=paired_seeds)


_NOTE = (
    "Dice at threshold 0.5, at the ground truth's size, averaged over frames, then over test sets. The gain is against the "
    "first row of the same share of the masks, with a 95 % interval from a paired bootstrap over videos (a frame without a "
    "video stands by itself), training seeds nested. The last column says whether a teacher learnt from masks that the run "
    "itself may not see."
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Study</title>
<style>{{ style }}</style>
</head>
<body>
<header><h1>Study</h1><p class="lead">{{ note }}</p></header>
<main><section aria-label="Table"><div class="scroll" tabindex="0" role="region" aria-label="Table"><table>
<thead><tr>{% for word in head %}<th scope="col">{{ word }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}
<tr>{% for word in row %}<td>{{ word }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div></section></main>
</body>
</html>
"""
