"""What a table needs of a run, and the file that carries it to another machine: Dice by frame, neither networks nor images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import RunError
from difom_cache.base.files import read_object
from difom_train.config import FREE, SETTINGS_FILE, TrainConfig, find_differences, read_settings, to_table, validate
from difom_train.distill.catalogue import revision_of
from difom_train.evaluation.files import read_summary
from difom_train.evaluation.summary import SetScores
from difom_train.reporting.compare import marks_of
from difom_train.reporting.entries import eval_folder
from difom_train.training.masks import UNKNOWN
from difom_train.training.run_folder import find_run

RESULTS_FILE = "results.json"
SCORE = "fixed/dice"
_DIGITS = 5  # of a frame's Dice
_HINT = "name a results.json that `difom-train study` wrote"


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

    @classmethod
    def mean_of(cls, costs: Sequence["Cost"]) -> Self:
        """Return the mean of some runs' costs."""
        return cls(*(None if None in each else mean(each) for each in zip(*costs, strict=True)))  # type: ignore[type-var]


@dataclass(frozen=True)
class RunResult:
    """One run, or a network scored beside the runs.

    Attributes:
        dice: test set to Dice at 0.5 of each frame, (N,).
        groups: test set to the group of each frame: its video, or the frame itself.
        val_dice: validation Dice of the epoch that is kept; None where nobody knows.
        mark: what a reader must know of masks that its teachers saw; empty where nothing leaks.
        cost: CPU seconds of its training, CPU ms of a frame, and parameters.
        made: the processor and the versions that trained it; of another machine costs compare badly.
        settings: of its run.json, but for paths; None for what was not trained by the study.
        cell: which run of the study it is; None likewise.
    """

    dice: Mapping[str, NDArray[np.float64]]
    groups: Mapping[str, tuple[str, ...]]
    val_dice: float | None
    mark: str
    cost: Cost
    made: Mapping[str, Any]
    settings: Mapping[str, Any] | None = None
    cell: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what `read_results` reads, but for the groups, which all runs have in common."""
        dice = {name: [round(value, _DIGITS) for value in values.tolist()] for name, values in self.dice.items()}
        facts = {"val_dice": self.val_dice, "mark": self.mark, "cost": self.cost._asdict(), "made": dict(self.made)}
        return facts | {"cell": self.cell, "settings": self.settings, "dice": dice}


def result_of(folder: Path, scores: Mapping[str, SetScores], cell: Mapping[str, Any] | None = None) -> RunResult:
    """Return the result of a run folder, or of a folder of scores; `cell` says which run of the study it is."""
    facts, summary = find_run(folder), read_summary(eval_folder(folder))
    frame_s, settings = summary.get("cpu_s_per_frame"), None
    if facts:
        mark = "; ".join(marks_of([folder]))
        settings = {
            name: each for name, each in to_table(read_settings(folder / SETTINGS_FILE)).items() if name != "run"
        }
    else:
        mark = summary.get("mark", UNKNOWN)
    return RunResult(
        dice={name: each.columns[SCORE] for name, each in scores.items()},
        groups={name: tuple(frame.group or frame.id for frame in each.frames) for name, each in scores.items()},
        val_dice=facts.get("best_val_dice"),
        mark=mark,
        cost=Cost(facts.get("train_cpu_s"), None if frame_s is None else 1000 * frame_s, summary.get("parameters")),
        made={"revision": facts.get("revision", 1), **facts["hardware"], **facts["versions"]} if facts else {},
        settings=settings,
        cell=cell,
    )


def write_results(
    path: Path, budget: Mapping[str, Any], runs: Mapping[str, RunResult], beside: Mapping[str, RunResult]
) -> None:
    """Write what a later study of the same budget, perhaps on another machine, can join to its own runs.

    Args:
        path: of the file.
        budget: what all runs have in common.
        runs: name of each run's folder to its result.
        beside: name to result of what was scored beside them.
    """
    groups = next(iter([*runs.values(), *beside.values()])).groups
    held = {"budget": dict(budget), "groups": {name: list(each) for name, each in groups.items()}}
    for part, results in {"runs": runs, "beside": beside}.items():
        held[part] = {name: result.as_json() for name, result in results.items()}
    write_atomic(path, (json.dumps(held) + "\n").encode())


def read_results(
    path: Path, budget: Mapping[str, Any] | None = None
) -> tuple[dict[str, RunResult], dict[str, RunResult]]:
    """Return the runs, and what was scored beside them, of a file that `write_results` wrote.

    Args:
        path: of the file.
        budget: what its runs must have in common; None takes any.

    Raises:
        RunError: it is damaged, or of a study of another budget.
    """
    held = read_object(path, RunError, _HINT)
    try:
        differences = differ(held["budget"], held["budget"] if budget is None else budget)
        groups = {name: tuple(each) for name, each in held["groups"].items()}
        parts = [{name: _read(each, groups) for name, each in held[part].items()} for part in ("runs", "beside")]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path} is damaged ({type(error).__name__}: {error}); {_HINT}") from error
    if differences:
        raise RunError(f"{path} holds a study of another budget: {'; '.join(differences)}")
    return parts[0], parts[1]


def differ(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return one line for each part of a budget that another one has otherwise."""
    return [f"{key} {there[key]!r} there, {here[key]!r} here" for key in here if there[key] != here[key]]


def refuse_other_run(path: Path, name: str, found: RunResult, asked: TrainConfig) -> None:
    """Raise RunError if the run of that name, found in a file, had settings that give other weights."""
    there = validate(TrainConfig, dict(found.settings or {}), where=f"{path}: {name}")
    differences = find_differences(there, asked, ignore=FREE)
    before, now = found.made.get("revision", 1), revision_of(asked)
    if before != now:
        differences.append(f"revision {before} there, {now} here")
    if differences:
        raise RunError(f"{path}: {name} had other settings: {'; '.join(differences)}; leave the file out of --results")


def refuse_other_frames(results: Mapping[str, RunResult]) -> None:
    """Raise RunError unless all results are of the same frames."""
    first, *others = results.items()
    for name, result in others:
        if result.groups != first[1].groups:
            raise RunError(
                f"{name} and {first[0]} were scored on other frames; score both on the same --data and --limit"
            )


def _read(held: Mapping[str, Any], groups: Mapping[str, tuple[str, ...]]) -> RunResult:
    dice = {name: np.array(held["dice"][name], np.float64) for name in groups}
    if any(len(values) != len(groups[name]) or not np.isfinite(values).all() for name, values in dice.items()):
        raise ValueError("a test set has other frames, or a Dice that is no number")
    cost = Cost(**held["cost"])
    return RunResult(
        dice, groups, held["val_dice"], str(held["mark"]), cost, dict(held["made"]), held["settings"], held["cell"]
    )
