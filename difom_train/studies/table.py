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
from numpy.typing import NDArray

from difom_cache.base.atomic import write_atomic
from difom_cache.base.text import format_csv, format_markdown, format_table
from difom_train.evaluation.files import read_summary
from difom_train.evaluation.summary import SetScores, counted_sets, mean_label
from difom_train.reporting.bootstrap import Difference, compare_paired
from difom_train.reporting.compare import marks_of
from difom_train.reporting.entries import eval_folder
from difom_train.studies.chart import draw_study
from difom_train.training.masks import UNKNOWN
from difom_train.training.run_folder import find_run, read_run

SCORE = "fixed/dice"
RESAMPLES = 10_000
Scored = Mapping[str, SetScores]
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


class Cost(NamedTuple):
    """What a row costs, mean over its runs; None where it was not measured.

    Attributes:
        train_cpu_s: CPU seconds of a run's training steps, over all threads.
        frame_cpu_ms: CPU milliseconds of a frame while it was scored, over all threads.
        parameters: of the network, with what training alone needs.
    """

    train_cpu_s: float | None
    frame_cpu_ms: float | None
    parameters: float | None


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


@dataclass(frozen=True)
class StudyTable:
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


def build_table(
    rows: Mapping[RowKey, Mapping[RunKey, Path]], scored: Mapping[Path, Scored], beside: Mapping[str, Path]
) -> StudyTable:
    """Return the table of some runs.

    Args:
        rows: each row's finished run folders by labels seed and seed; the first row of a share of the masks is compared with,
            on the seeds that both have, or else on all of both.
        scored: folder to test set to scores; all were scored on the same frames.
        beside: name to folder of what else was scored.
    """
    found: list[Row] = []
    first: dict[float | None, Mapping[RunKey, Path]] = {}
    for key, runs in rows.items():
        folders, reference = list(runs.values()), first.setdefault(key.labels, runs)
        difference = None
        if reference is not runs:
            both = [each for each in runs if each in reference]
            sides = [[side[each] for each in both or side] for side in (runs, reference)]
            ours, theirs = ([scored[each] for each in side] for side in sides)
            difference = _compare(ours, theirs, paired_seeds=bool(both))
        best = [read_run(folder)["best_val_dice"] for folder in folders]
        val_dice = None if None in best else mean(best)
        runs_of = [scored[each] for each in folders]
        found.append(_make_row(key, runs_of, val_dice, difference, "; ".join(marks_of(folders)), _cost_of(folders)))
    for name, place in beside.items():
        mark = read_summary(place).get("mark", UNKNOWN)
        found.append(_make_row(RowKey("-", name, "", None), [scored[place]], None, None, mark, _cost_of([place])))
    return StudyTable(tuple(found))


def write_table(table: StudyTable, folder: Path) -> None:
    """Write study.csv, study.md, study.html and study.svg."""
    lines = table.as_json()
    for name, words in {"csv": format_csv(lines), "md": format_markdown(table.words), "html": table.to_html()}.items():
        write_atomic(folder / f"study.{name}", words.encode())
    draw_study(lines, folder / "study.svg")


def _make_row(
    key: RowKey, runs: Sequence[Scored], val_dice: float | None, difference: Difference | None, masks: str, cost: Cost
) -> Row:
    dice = [{name: float(scores.columns[SCORE].mean()) for name, scores in run.items()} for run in runs]
    means = [mean(run[name] for name in counted_sets(list(run))) for run in dice]
    sets = {name: mean(run[name] for run in dice) for name in dice[0]}
    spread = stdev(means) if len(means) > 1 else 0.0
    return Row(key, len(runs), sets, mean(means), spread, val_dice, difference, masks, cost)


def _cost_of(folders: Sequence[Path]) -> Cost:
    """Return what runs, or what was scored beside them, cost in the mean."""
    runs = [find_run(each) for each in folders]
    summaries = [read_summary(eval_folder(each)) for each in folders]
    frame_s = _mean_of(summaries, "cpu_s_per_frame")
    frame_ms = None if frame_s is None else 1000 * frame_s
    return Cost(_mean_of(runs, "train_cpu_s"), frame_ms, _mean_of(summaries, "parameters"))


def _mean_of(facts: Sequence[Mapping[str, Any]], key: str) -> float | None:
    found = [each.get(key) for each in facts]
    return None if None in found else mean(found)  # type: ignore[type-var]


def _cells_of_cost(cost: Cost) -> list[str]:
    frame = "-" if cost.frame_cpu_ms is None else f"{cost.frame_cpu_ms:.3g}"
    return [
        "-" if cost.train_cpu_s is None else f"{cost.train_cpu_s:.0f}",
        frame,
        "-" if cost.parameters is None else f"{cost.parameters / 1e6:.2f}",
    ]


def _compare(ours: Sequence[Scored], theirs: Sequence[Scored], *, paired_seeds: bool) -> Difference:
    """Return the difference of two rows; frames of one video are drawn together, a frame without a video by itself."""
    counted = counted_sets(list(theirs[0]))
    groups = {name: [frame.group or frame.id for frame in theirs[0][name].frames] for name in counted}
    stacked = _stack(ours, counted), _stack(theirs, counted)
    return compare_paired(*stacked, groups, resamples=RESAMPLES, seed=0, paired_seeds=paired_seeds)


def _stack(runs: Sequence[Scored], names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return test set to Dice of each run and frame, (runs, N)."""
    return {name: np.stack([run[name].columns[SCORE] for run in runs]) for name in names}


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
