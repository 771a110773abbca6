"""Runs side by side: one table, a second one without equal frames, differences with intervals, and a report."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from difom_cache import load_records
from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import RunError
from difom_cache.base.options import read_call
from difom_cache.base.outputs import check_out_folder
from difom_cache.base.progress import explain_wait, say
from difom_cache.base.text import name_some
from difom_cache.data import DataSource
from difom_cache.store import format_random_warning
from difom_train.commands import CompareConfig
from difom_train.evaluation.cost import Cost, compare_costs
from difom_train.evaluation.evaluate import evaluate
from difom_train.evaluation.files import file_name, read_summary
from difom_train.evaluation.summary import counted_sets
from difom_train.inference.segmenter import is_named
from difom_train.reporting.bootstrap import Difference, compare_paired
from difom_train.reporting.comparison import HEADLINES, Comparison
from difom_train.reporting.entries import Entry, eval_folder, frames_of, load_entries
from difom_train.reporting.html import write_report
from difom_train.reporting.overlap import Twins, find_twins
from difom_train.reporting.published import read_published
from difom_train.reporting.tables import build_table, to_csv
from difom_train.students.outside import StudentSources
from difom_train.training.run_folder import find_run

if TYPE_CHECKING:
    from difom_train.keywords import CompareKeywords


def compare(
    runs: Sequence[Path | str] | CompareConfig, *, student: StudentSources = None, **options: "Unpack[CompareKeywords]"
) -> Comparison:
    """Compare evaluated runs; write table.md, table.tex, table.csv, table.json and report.html into `out`.

    Runs whose settings differ by the seed alone are one entry. The first run's entry is what the others are compared with.

    Args:
        runs: evaluated run folders, folders that `evaluate --out` wrote, "teacher:SPEC" or "probe:CACHE/LABEL", whose scores go
            into a folder of its name in `out`; or the config of the call.
        student: for runs of your own students, whose cost cannot be measured without (see `load_student`).
        **options: as the signature lists them. With `data`, runs that are not evaluated yet are scored on its test records, and
            test frames that show one of its training pictures are left out of the second table.

    Raises:
        RunError: runs that are not evaluated, or not on the same frames under the same protocols.
    """
    config = read_call(CompareConfig, options, runs=runs)
    places = [config.out / file_name(str(run)) if is_named(run) else run for run in config.runs]
    folder, own = config.out, config.student if student is None else student
    data = config.describe_source(config.data) if config.data or config.images else None
    check_out_folder(folder)
    evaluate_missing(config, places, data, own)
    entries = load_entries(places)
    sets = frames_of(entries)
    with explain_wait("looking for frames that repeat another or show a training picture"):
        twins = find_twins(sets, data)
    beside, notes = (
        read_published({name: len(frames) for name, frames in sets.items()}) if config.published else ({}, [])
    )
    notes += describe_runs(entries)
    for entry in entries:
        random = {name for run in entry.runs for name in read_summary(eval_folder(run)).get("random_teachers", ())}
        if random:
            notes.append(f"{entry.name}: {format_random_warning(sorted(random))}.")
    notes += [f"{entry.name}: {mark}." for entry in entries for mark in marks_of(entry.runs)]
    table = build_table("All frames", entries, beside, notes)
    rows = {name: twins.rows(frames) for name, frames in sets.items()}
    clean = None
    if not all(kept.all() for kept in rows.values()):
        title = "Without frames that repeat another or show a training picture"
        clean = build_table(title, [entry.keep(rows) for entry in entries], {}, twins.describe())
    with explain_wait(f"drawing {config.resamples} resamples of each difference"):
        differences = _find_differences(entries, twins, resamples=config.resamples, seed=config.seed)
    costs = _measure(entries, config.device, own) if config.cost else {}
    comparison = Comparison(folder, table, clean, differences, costs)
    _write_tables(comparison)
    page, per_set = folder / "report.html", config.gallery_per_set
    write_report(comparison, entries, twins, page, per_set=per_set, anonymous=config.anonymous)
    return comparison


def evaluate_missing(
    config: CompareConfig, places: Sequence[Path], data: DataSource | None, student: StudentSources
) -> None:
    """Score what has no scores in its place on the test records of the data.

    Raises:
        RunError: the data say of no record that it is for testing, so that scores could be of training records; or there
            are none for a network that has no folder of its own.
    """
    pairs = zip(config.runs, places, strict=True)
    missing = {run: place for run, place in pairs if not (eval_folder(place) / "summary.json").exists()}
    if data is None:
        for run in filter(is_named, missing):
            raise RunError(f"{run} has no scores yet; name the test sets with --data")
        return
    if missing and not any(record.split == "test" for record in load_records(data, unlabelled=True)):
        raise RunError(
            f"{next(iter(missing))} has not been evaluated, and --data {data.place} holds no test records; run `difom-train "
            f"evaluate {next(iter(missing))} --data TESTS` first"
        )
    for run, place in missing.items():
        say(f"{run} has no scores yet: it is evaluated on {data.place}")
        out = place if is_named(run) else None
        evaluate(str(run), data, out=out, device=config.device, student=student)


def describe_runs(entries: Sequence[Entry]) -> list[str]:
    """Return what makes entries unequal besides their settings, a sentence each: unfinished runs, other numbers of epochs."""
    notes: list[str] = []
    epochs: dict[str, set[int]] = {}
    for entry in entries:
        for run in entry.runs:
            facts = find_run(run)
            if facts and facts.get("status") != "finished":
                notes.append(f"{run.name} is not finished; its scores are those of the epoch kept so far.")
            if isinstance(facts.get("epochs_done"), int):
                epochs.setdefault(entry.name, set()).add(facts["epochs_done"])
    if len(set(map(frozenset, epochs.values()))) > 1:
        told = ", ".join(f"{name} {' and '.join(map(str, sorted(done)))}" for name, done in epochs.items())
        notes.append(f"The runs have unequal numbers of epochs: {told}.")
    if len(entries) > 1 and any(len(entry.runs) == 1 for entry in entries):
        single = name_some([entry.name for entry in entries if len(entry.runs) == 1])
        notes.append(f"One seed alone of {single}: the chance of training is in no interval and in no p.")
    return notes


def marks_of(runs: Sequence[Path]) -> list[str]:
    """Return what run.json says of masks that a run's teachers have learnt from; nothing where all were its own."""
    return list(dict.fromkeys(mark for facts in map(find_run, runs) if (mark := facts.get("masks", {}).get("mark"))))


def _find_differences(
    entries: Sequence[Entry], twins: Twins, *, resamples: int, seed: int
) -> dict[str, dict[str, Difference]]:
    sets = frames_of(entries)
    counted = counted_sets(list(sets))
    groups = {name: twins.groups(sets[name]) for name in counted}
    first = {metric: {name: entries[0].values(name, metric) for name in counted} for metric in HEADLINES}
    return {
        entry.name: {
            metric: compare_paired(
                {name: entry.values(name, metric) for name in counted},
                first[metric],
                groups,
                resamples=resamples,
                seed=seed,
                paired_seeds=entry.seeds_drawn == entries[0].seeds_drawn != (),
            )
            for metric in HEADLINES
        }
        for entry in entries[1:]
    }


def _measure(entries: Sequence[Entry], device: str, student: StudentSources) -> dict[str, Cost]:
    """Return the cost of each entry that is a trained run; folders of saved maps have none."""
    trained = [entry for entry in entries if (entry.runs[0] / "student.safetensors").is_file()]
    costs = compare_costs([entry.runs[0] for entry in trained], device=device, student=student).costs
    return {entry.name: cost for entry, cost in zip(trained, costs, strict=True)}


def _write_tables(comparison: Comparison) -> None:
    tables = [comparison.table] if comparison.clean is None else [comparison.table, comparison.clean]
    markdown = [table.to_markdown() for table in tables]
    if comparison.differences:
        head, *rows = comparison.difference_rows()
        lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
        markdown.append(f"## {comparison.difference_title.capitalize()}\n\n" + "\n".join(lines) + "\n")
    texts = {
        "table.md": "\n".join(markdown),
        "table.tex": "\n".join(table.to_latex() for table in tables),
        "table.csv": to_csv(tables),
        "table.json": json.dumps(comparison.as_json(), indent=1) + "\n",
    }
    for name, text in texts.items():
        write_atomic(comparison.out / name, text.encode())
