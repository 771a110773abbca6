"""A study: recipes x shares of the masks x seeds from one cache, scored on test sets, in one command that resumes."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from difom_cache import format_table, guard_line, read_object, write_atomic
from difom_cache.errors import RunError, SettingsError
from difom_train.evaluation.evaluate import evaluate
from difom_train.evaluation.files import file_name
from difom_train.evaluation.study_chart import draw_study
from difom_train.evaluation.summary import counted_sets
from difom_train.training.run import train
from difom_train.training.run_folder import RUN_FILE, read_run

SCORE = "fixed/dice"
BUDGET_FILE = "study.json"


@dataclass(frozen=True)
class Budget:
    """What every run of a study has in common."""

    student: str
    width: int | None
    input_size: int
    batch_size: int
    epochs: int
    changes: tuple[str, ...]
    teachers: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One run: its recipe, the share of the masks it sees, its seed."""

    recipe: str
    labels: float
    seed: int

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        return f"{Path(self.recipe).stem}-labels{self.labels:g}-seed{self.seed}"


def study(
    cache: str | Path | Sequence[str | Path],
    data: str | Path,
    out: str | Path,
    *,
    recipes: Sequence[str] = ("baseline", "difom", "difom-multiscale"),
    labels: Sequence[float] = (0.1, 1.0),
    seeds: Sequence[int] = (0, 1, 2),
    teachers: Sequence[str] | None = None,
    also: Sequence[str] = (),
    student: str = "unet",
    width: int | None = 16,
    input_size: int = 128,
    batch_size: int = 16,
    epochs: int = 16,
    device: str | None = None,
    changes: Sequence[str] = (),
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Train and score every cell that is not finished yet; return one line for each recipe and share of the masks.

    All runs have equal steps. Scores are Dice at threshold 0.5 at the ground truth's size, averaged over frames, then over
    test sets (a set that lies inside another one is shown, but left out of the mean).

    Args:
        cache: one cache, or several.
        data: test sets.
        out: folder of the runs; also gets study.csv and study.svg.
        recipes: names or TOML files.
        labels: shares of the training masks.
        seeds: runs of each cell.
        teachers: labels in the cache to learn from.
        also: more to score beside the runs: run folders, or "teacher:SPEC".
        student, width, input_size, batch_size, epochs: of every run.
        device: where all of them are trained and scored; None = as the recipe says, and "auto" for scoring.
        changes: `dotted.key=value` changes of any setting, for every run.
        limit: frames of each test set, chosen as `evaluate` chooses them.

    Raises:
        RunError: `out` holds a study of another budget, or a run that cannot be read.
        SettingsError: two cells would share a folder.
    """
    budget = Budget(student, width, input_size, batch_size, epochs, tuple(changes), tuple(teachers or ()))
    folder = Path(out)
    cells = [Cell(recipe, share, seed) for share in labels for seed in seeds for recipe in recipes]
    places = {name: folder / file_name(name) for name in also}
    _refuse_shared([cell.folder for cell in cells] + [place.name for place in places.values()])
    _fix_budget(folder, budget)
    for cell in cells:
        run_cell(cell, budget, cache, folder / cell.folder, device)
    scored = {cell: score(folder / cell.folder, None, data, limit, device) for cell in cells}
    lines = [summarise_cells(recipe, share, scored) for share in labels for recipe in recipes]
    for name, place in places.items():
        lines.append({"recipe": name, "labels": "", "runs": 1} | means_of([score(name, place, data, limit, device)]))
    write_table(lines, folder / "study.csv")
    draw_study(lines, folder / "study.svg")
    return lines


def run_cell(
    cell: Cell, budget: Budget, cache: str | Path | Sequence[str | Path], folder: Path, device: str | None
) -> None:
    """Train one cell, or go on with it, unless it is finished."""
    if (folder / RUN_FILE).exists() and read_run(folder).get("status") == "finished":
        return
    options = asdict(budget) | {"teachers": budget.teachers or None, "labels": cell.labels, "seed": cell.seed}
    train(cache=cache, recipe=cell.recipe, out=folder, resume=True, device=device, **options)


def score(
    source: str | Path, out: Path | None, data: str | Path, limit: int | None, device: str | None
) -> dict[str, float]:
    """Return the mean Dice at 0.5 of each test set; what was scored before is taken while it is the same."""
    found = evaluate(source, data, limit=limit, device=device or "auto", out=out, reuse=True)
    return {name: scores.summarise()[SCORE] for name, scores in found.sets.items()}


def summarise_cells(recipe: str, share: float, scored: dict[Cell, dict[str, float]]) -> dict[str, Any]:
    """Return one line of the table: means over seeds, and the spread of the mean over sets."""
    own = [dice for cell, dice in scored.items() if cell.recipe == recipe and cell.labels == share]
    return {"recipe": recipe, "labels": share, "runs": len(own)} | means_of(own)


def means_of(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean over runs for each set, the mean over sets, and its standard deviation over runs."""
    over_sets = [mean(dice[name] for name in counted_sets(list(dice))) for dice in scores]
    line = {name: mean(dice[name] for dice in scores) for name in scores[0]}
    return line | {"mean": mean(over_sets), "std": stdev(over_sets) if len(over_sets) > 1 else 0.0}


def write_table(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the table as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(guard_line(line) for line in lines)
    write_atomic(path, text.getvalue().encode())


def format_study(lines: Sequence[dict[str, Any]]) -> str:
    """Return the table as text."""
    rows = [
        [f"{v:.3f}" if isinstance(v, float) and k != "labels" else str(v) for k, v in line.items()] for line in lines
    ]
    return format_table([list(lines[0]), *rows])


def _fix_budget(folder: Path, budget: Budget) -> None:
    """Write down what every run of the study has in common, or refuse what would not be comparable."""
    path, ours = folder / BUDGET_FILE, json.loads(json.dumps(asdict(budget)))
    if path.exists():
        held = read_object(path, RunError, "remove it if its runs are those of this command")
        try:
            differences = [f"{key} {held[key]!r} there, {ours[key]!r} here" for key in ours if held[key] != ours[key]]
        except KeyError as error:
            raise RunError(
                f"{path} is damaged (no {error}); remove it if its runs are those of this command"
            ) from error
        if differences:
            raise RunError(f"{folder} holds a study of another budget: {'; '.join(differences)}; choose another --out")
    write_atomic(path, (json.dumps(ours, indent=1) + "\n").encode())


def _refuse_shared(folders: Sequence[str]) -> None:
    twice = sorted({name for name in folders if folders.count(name) > 1})
    if twice:
        raise SettingsError(
            f"two runs of the study would share {', '.join(twice)}; name each recipe, seed and run once"
        )
