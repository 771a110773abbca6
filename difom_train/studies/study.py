"""A study: recipes x teacher sets x shares of the masks x seeds under one budget, in one command that resumes."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from difom_cache.base.atomic import build_folder, write_atomic
from difom_cache.base.errors import RunError, SettingsError
from difom_cache.base.files import read_object
from difom_cache.base.options import read_call
from difom_cache.base.outputs import check_out_folder
from difom_train.commands import StudyConfig
from difom_train.config import (
    FREE,
    SETTINGS_FILE,
    TrainConfig,
    compose_keywords,
    find_differences,
    names_code,
    read_recipe,
    read_settings,
    write_settings,
)
from difom_train.evaluation.evaluate import evaluate
from difom_train.evaluation.files import file_name
from difom_train.evaluation.summary import SetScores
from difom_train.reporting.entries import eval_folder
from difom_train.studies.results import (
    RESULTS_FILE,
    RunResult,
    differ,
    read_results,
    refuse_other_frames,
    refuse_other_run,
    result_of,
    write_results,
)
from difom_train.studies.table import RowKey, RunKey, StudyTable, build_table, write_table
from difom_train.training.run import FIRST_ROUND_FOLDER, compose_first_round, train
from difom_train.training.run_folder import find_run, open_folder, refuse_other_settings

if TYPE_CHECKING:
    from difom_train.keywords import StudyKeywords

BUDGET_FILE = "study.json"
CELL_FILE = "cell.json"
BUDGET = ("width", "input_size", "batch_size", "epochs", "changes")
"""Options that every run of a study has in common."""
_START_AGAIN = "remove the run's folder, and run the study again"


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        student: the network's name.
        recipe: a name, or a TOML file.
        teachers: labels in the cache, as they were asked for (`{percent}` and `{labels_seed}` stand for the cell's own);
            () = as the recipe says.
        labels: share of the masks.
        labels_seed: of the choice of these masks.
        seed: of the run.
    """

    student: str
    recipe: str
    teachers: tuple[str, ...]
    labels: float
    labels_seed: int
    seed: int

    @property
    def own_teachers(self) -> tuple[str, ...]:
        """Labels in the cache, with this cell's share and seed of the masks filled in."""
        own = {"percent": f"{100 * self.labels:g}", "labels_seed": self.labels_seed}
        try:
            return tuple(teacher.format(**own) for teacher in self.teachers)
        except (KeyError, IndexError, ValueError) as error:
            raise SettingsError(
                f"--teachers {','.join(self.teachers)}: {{percent}} and {{labels_seed}} can be filled in, found {error}"
            ) from error

    @property
    def row(self) -> RowKey:
        """The row of the table that this run is one seed of."""
        return RowKey(self.student, Path(self.recipe).stem, ",".join(self.teachers), self.labels)

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        return re.sub(r"[^\w.+=-]+", "-", self._words)

    def place(self, out: Path) -> Path:
        """Return its run folder in a study's; one that an earlier version named, with %3A and %2F, is kept."""
        before = out / file_name(self._words)
        return before if before.is_dir() else out / self.folder

    @property
    def _words(self) -> str:
        taught = ["+".join(self.own_teachers)] if self.teachers else []
        masks = f"labels{self.labels:g}-masks{self.labels_seed}"
        return "-".join([self.student, Path(self.recipe).stem, *taught, masks, f"seed{self.seed}"])


def study(
    cache: str | Path | Sequence[str | Path] | StudyConfig | None = None,
    data: str | Path | None = None,
    out: str | Path | None = None,
    /,
    **options: "Unpack[StudyKeywords]",
) -> StudyTable:
    """Train and score every run that is not finished yet; write the table of all runs of the folder.

    All runs have equal steps. Scores are Dice at threshold 0.5 at the ground truth's size, averaged over frames, then over
    test sets (a set that lies inside another one is shown, but left out of the mean). Each row is compared with the first
    one of its share of the masks by a paired bootstrap over groups, seeds nested.

    A folder can grow: a later command with other recipes, teachers, shares or seeds adds its rows to the table. Commands
    with different runs may work on one folder at the same time.

    Args:
        cache: one cache, or several; or the config of the call.
        data: test sets.
        out: folder of the runs; also gets study.csv, study.md, study.html and study.svg, and results.json, which carries the
            runs to the same study on another machine.
        **options: as the signature lists them; every recipe that learns from teachers is run with each of the `teachers`.

    Raises:
        RunError: `out` holds a study of another budget, or a run that cannot be read.
        SettingsError: two runs would share a folder, or no such recipe.
    """
    config = read_call(StudyConfig, {"data": data, "out": out, **options}, cache=cache)
    folder = config.out
    config.describe_source(config.data)  # before anything is trained
    check_out_folder(folder)
    cells = list_cells(config)
    places = {name: folder / file_name(name) for name in config.also}
    _refuse_shared([cell.folder for cell in cells] + [place.name for place in places.values()])
    budget = {name: getattr(config, name) for name in BUDGET}
    joined: dict[str, RunResult] = {}
    beside: dict[str, RunResult] = {}
    for path in config.results:
        runs, others = read_results(path, json.loads(json.dumps(budget)))
        by_cell = {_cell_of(result.cell or {}, path): result for result in runs.values()}
        joined, beside = joined | {cell.folder: result for cell, result in by_cell.items()}, beside | others
        for cell in cells:
            if cell in by_cell and not _is_finished(cell.place(folder)):
                refuse_other_run(path, cell.folder, by_cell[cell], compose_cell(cell, budget, config))
    _fix_budget(folder, budget)
    _refuse_other_runs(cells, budget, config)  # before anything is trained
    for cell in cells:
        if cell.folder not in joined or _is_finished(cell.place(folder)):
            run_cell(cell, budget, config)
    for each in finished_cells(folder):
        joined[each.folder] = result_of(each.place(folder), score(config, each.place(folder), None), asdict(each))
    beside |= {name: result_of(place, score(config, name, place)) for name, place in places.items()}
    refuse_other_frames(joined | beside)
    whole = {name: _cell_of(result.cell or {}, Path(name)) for name, result in joined.items()}
    joined = {name: joined[name] for name in sorted(whole, key=lambda name: _place_of(whole[name], cells))}
    write_results(folder / RESULTS_FILE, budget, joined, beside)
    table = tabulate(joined, beside)
    write_table(table, folder)
    return table


def tabulate(runs: Mapping[str, RunResult], beside: Mapping[str, RunResult]) -> StudyTable:
    """Return the table of a study's runs, by name, whose rows stand as they come, and of what was scored beside them."""
    rows: dict[RowKey, dict[RunKey, RunResult]] = {}
    for name, result in runs.items():
        cell = _cell_of(result.cell or {}, Path(name))
        rows.setdefault(cell.row, {})[cell.labels_seed, cell.seed] = result
    return build_table(rows, beside)


def list_cells(config: StudyConfig) -> list[Cell]:
    """Return every run that is asked for; a recipe that learns from no teacher is run once, not for each set of them."""
    sets = [tuple(filter(None, each.split(","))) for each in config.teachers] or [()]
    learns = {recipe: read_recipe(recipe).needs_teachers for recipe in config.recipes}
    rows = [(s, r, each) for s in config.students for r in config.recipes for each in (sets if learns[r] else [()])]
    masks = [(seed, other) for seed in config.seeds for other in (config.labels_seeds or [seed])]
    return [Cell(*row, share, labels, seed) for share, (seed, labels), row in product(config.labels, masks, rows)]


def run_cell(cell: Cell, budget: Mapping[str, Any], config: StudyConfig) -> None:
    """Train one run, or go on with it, unless it is finished; its cell.json says which run of the study it is."""
    folder = cell.place(config.out)
    if not _is_finished(folder):
        _take_first_round(folder, compose_cell(cell, budget, config))
        train(cell.student, **_options_of(cell, budget, config))
    write_atomic(folder / CELL_FILE, (json.dumps(asdict(cell), indent=1) + "\n").encode())


def _take_first_round(folder: Path, settings: TrainConfig) -> None:
    """Copy a finished run of the study that is the first of two rounds, so that it is not trained again."""
    first = folder / FIRST_ROUND_FOLDER
    if settings.distill.rounds == 1 or first.exists():
        return
    alone = compose_first_round(settings, folder)
    for run in (cell.place(folder.parent) for cell in finished_cells(folder.parent)):
        held = read_settings(run / SETTINGS_FILE)
        if held.distill.kind == "none" and not find_differences(held, alone, ignore=(*FREE, "distill.")):
            open_folder(folder, settings)
            with build_folder(first) as draft:
                without = shutil.ignore_patterns(CELL_FILE, eval_folder(run).name)
                shutil.copytree(run, draft, ignore=without, dirs_exist_ok=True)
                write_settings(alone, draft / SETTINGS_FILE)
            return


def _options_of(cell: Cell, budget: Mapping[str, Any], config: StudyConfig) -> dict[str, Any]:
    """Return the keywords of `train`, but for the student."""
    return {
        "cache": config.cache,
        "recipe": cell.recipe,
        "out": cell.place(config.out),
        "resume": True,
        "device": config.device,
        "teachers": cell.own_teachers or None,
        "labels": cell.labels,
        "labels_seed": cell.labels_seed,
        "seed": cell.seed,
        **budget,
    }


def _refuse_other_runs(cells: Iterable[Cell], budget: Mapping[str, Any], config: StudyConfig) -> None:
    """Raise RunError if a finished run was given other settings, such as those of a recipe that has changed since."""
    for cell in cells:
        folder = cell.place(config.out)
        if _is_finished(folder):
            refuse_other_settings(folder, compose_cell(cell, budget, config))


def compose_cell(cell: Cell, budget: Mapping[str, Any], config: StudyConfig) -> TrainConfig:
    """Return the settings of a run of the study."""
    return compose_keywords(student=cell.student, **_options_of(cell, budget, config))


def finished_cells(folder: Path) -> list[Cell]:
    """Return the finished runs of a study's folder.

    Raises:
        RunError: a run's cell.json is damaged.
    """
    paths = [path for path in sorted(folder.glob(f"*/{CELL_FILE}")) if _is_finished(path.parent)]
    return [_cell_of(read_object(path, RunError, _START_AGAIN), path) for path in paths]


def score(config: StudyConfig, source: str | Path, out: Path | None) -> dict[str, SetScores]:
    """Return the scores on each test set; what was scored before is taken while it is the same."""
    own = tuple(filter(names_code, config.students))  # what a folder says is not imported
    data = config.describe_source(config.data)
    found = evaluate(source, data, limit=config.limit, device=config.device, out=out, reuse=True, student=own)
    return found.sets


def _cell_of(held: Mapping[str, Any], path: Path) -> Cell:
    try:
        return Cell(**{**held, "teachers": tuple(held["teachers"])})
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}); {_START_AGAIN}") from error


def _is_finished(folder: Path) -> bool:
    return find_run(folder).get("status") == "finished"


def _place_of(cell: Cell, asked: Sequence[Cell]) -> tuple[float, int, RowKey, int]:
    """Return where a run stands: by share of the masks, then as it was asked for, then what earlier commands ran."""
    rows = list(dict.fromkeys(each.row for each in asked))
    return cell.labels, rows.index(cell.row) if cell.row in rows else len(rows), cell.row, cell.seed


def _fix_budget(folder: Path, budget: Mapping[str, Any]) -> None:
    """Write down what every run of the study has in common, or refuse what would not be comparable."""
    path, ours = folder / BUDGET_FILE, json.loads(json.dumps(budget))
    if path.exists():
        held = read_object(path, RunError, "remove it if its runs are those of this command")
        try:
            differences = differ(held, ours)
        except KeyError as error:
            raise RunError(
                f"{path} is damaged (no {error}); remove it if its runs are those of this command"
            ) from error
        if differences:
            raise RunError(f"{folder} holds a study of another budget: {'; '.join(differences)}; choose another --out")
    write_atomic(path, (json.dumps(ours, indent=1) + "\n").encode())


def _refuse_shared(folders: Iterable[str]) -> None:
    names = list(folders)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(
            f"two runs of the study would share {', '.join(twice)}; name each recipe, seed and run once"
        )
