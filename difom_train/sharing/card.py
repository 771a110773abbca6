"""A run's model card: a README.md whose head the hub reads, and whose text says what a user of the student must know."""

import csv
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import ChainableUndefined, Environment

from difom_cache import __version__, describe_teachers
from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import RunError
from difom_cache.base.outputs import check_out_file
from difom_cache.base.text import format_markdown
from difom_cache.teachers import sha256_of
from difom_train.commands import CardConfig
from difom_train.distill.matching import teacher_of
from difom_train.evaluation.evaluate import Evaluation
from difom_train.evaluation.files import read_set, read_summary
from difom_train.evaluation.metrics import PROTOCOLS
from difom_train.evaluation.summary import LEFT_OUT, METRICS, PROTOCOL_TITLES, SetScores, counted_sets, format_value
from difom_train.inference.export import RESEARCH_NOTICE
from difom_train.inference.frames import FIXED_THRESHOLD
from difom_train.reporting.bootstrap import compare_paired
from difom_train.reporting.entries import eval_folder
from difom_train.students.base import count_parameters
from difom_train.students.catalogue import resolve_weights
from difom_train.students.outside import StudentSources
from difom_train.students.saved import WEIGHTS_FILE, load_student
from difom_train.training.run_folder import describe_unfinished, find_run, read_public_settings

RANDOM, UNKNOWN = "none: its weights are random", "unknown"
PASSED_ON = {
    "Apache-2.0": "",
    "MIT": "",
    "DINOv3 License": "pass a copy of it on with the weights",
    "SAM License": "pass a copy of it on with the weights",
    "NVIDIA Open Model License": "pass a copy of it on with the weights, and its notice",
    RANDOM: "",
}
"""Licences of teachers under which what was made of their weights may be passed on, and what goes with it."""
NOT_COMMERCIAL = re.compile(r"\bnc\b|commercial|research", re.I)
OWN_PLACE = "OWNER/NAME"
RESAMPLES = 10_000


def write_card(config: CardConfig) -> Path:
    """Write the card of a run, and return its file.

    Raises:
        SettingsError: the file cannot be written, or is there.
        RunError: the run holds no student, or its scores are of other weights.
    """
    path = config.out or config.run / "README.md"
    check_out_file(path, force=config.force)
    text = describe_run(config.run, licence=config.licence, student=config.student)[0]
    write_atomic(path, text.encode())
    return path


def describe_run(
    run: Path,
    *,
    licence: str | None = None,
    repo: str = OWN_PLACE,
    onnx: bool = False,
    student: StudentSources = None,
) -> tuple[str, list[str]]:
    """Return the card of a run, without any path of this machine, and the teachers that stand against passing it on.

    Args:
        run: its folder.
        licence: of the weights, as the hub names it; None: for research only.
        repo: where it lies on the hub.
        onnx: whether `student.onnx` lies beside it.
        student: for a run of your own student (see `load_student`).

    Raises:
        RunError: the folder holds no student, or its scores are of other weights.
    """
    trained, facts = load_student(run, student=student), find_run(run)
    settings = read_public_settings(run)
    name = run.resolve().name if repo == OWN_PLACE else repo.rpartition("/")[2]
    teachers, terms = name_licences(facts), read_terms()
    weights = settings.get("student", {}).get("weights")
    first = weights and resolve_weights(trained.name, weights)
    data = facts.get("datasets") or {each: 0 for each in terms if each in str(facts.get("images"))}
    results, tables, notes = describe_scores(run, read_training_groups(data))
    restricted = any(map(NOT_COMMERCIAL.search, [*teachers.values(), *(terms.get(each, "") for each in data)]))
    named: dict[str, Any] = {"license": licence} if licence else {"license": "other", "license_name": "research-only"}
    named |= {"model_name": name, "eval_results": results} if results else {}
    front = ModelCardData(
        **named,
        library_name="difom",
        pipeline_tag="image-segmentation",
        tags=["polyp-segmentation", "colonoscopy", "medical", *(["non-commercial"] if restricted else [])],
    )
    template = files("difom_train.sharing").joinpath("card.md").read_text(encoding="utf-8")
    words = Environment(undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    card = words.from_string(template).render(
        front=front.to_yaml(),
        name=name,
        repo=repo,
        student=trained,
        parameters=count_parameters(trained),
        px=trained.meta["input_px"],
        onnx=onnx,
        settings=settings,
        first=first,
        facts=facts,
        data=data,
        terms=terms,
        teachers=teachers,
        passed_on=PASSED_ON,
        tables=tables,
        resamples=RESAMPLES,
        notes=notes,
        licence=licence,
        restricted=restricted,
        notice=RESEARCH_NOTICE,
        threshold=FIXED_THRESHOLD,
        version=__version__,
    )
    return card, [f"{label} ({text})" for label, text in teachers.items() if text not in PASSED_ON]


def name_licences(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the label of every teacher of a run, and the licence of its weights as `difom-cache teachers` has it."""
    known = {each["teacher"].partition(":")[0]: each["licence"].partition(" (")[0] for each in describe_teachers()}
    labels = dict.fromkeys(map(teacher_of, facts.get("taps", ())))  # all that runs of earlier versions say
    names = facts.get("teachers", {label: label for label in labels})
    random = facts.get("random_teachers", ())
    return {
        label: RANDOM
        if label in random or label.endswith("-random")
        else known.get(re.split("[:-]", name)[0]) or UNKNOWN
        for label, name in names.items()
    }


def read_terms() -> dict[str, str]:
    """Return the published data sets, each with its terms and its source."""
    text = files("data_manifests").joinpath("README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("`").removesuffix(".csv"): f"{row[-1]} ({row[-2]})" for row in rows}


def read_training_groups(names: Iterable[str]) -> set[str]:
    """Return the videos of the published data sets' training images."""
    tables = [files("data_manifests").joinpath(f"{name}.csv") for name in names]
    texts = [table.read_text(encoding="utf-8") for table in tables if table.is_file()]
    return {row["group"] for text in texts for row in csv.DictReader(text.splitlines()) if row["split"] != "test"} - {
        ""
    }


def describe_scores(run: Path, trained: set[str]) -> tuple[list[EvalResult], dict[str, str], list[str]]:
    """Return the scores of a run as the hub reads them, as a table a protocol, and what a reader of them must know.

    Args:
        run: its folder.
        trained: videos that it was trained on.

    Raises:
        RunError: they are of other weights.
    """
    folder, notes = eval_folder(run), [describe_unfinished(run).replace(str(run), "The run")]
    if not (folder / "summary.json").is_file():
        return [], {}, [note for note in notes if note]
    summary = read_summary(folder)
    if summary["identity"].get("weights_sha256") != sha256_of(run / WEIGHTS_FILE):
        raise RunError(f"{folder} scores other weights than {run} holds; run `difom-train evaluate {run}` again")
    sets = {name: read_set(folder, name) for name in summary["sets"]}
    means, tables = Evaluation(run.name, folder, sets).means(), {}
    for protocol in PROTOCOLS:
        metrics = [metric for metric in METRICS if metric.protocol == protocol]
        rows = [["test set", "frames", *(metric.label for metric in metrics)]]
        for place, values in means.items():
            own = {name: sets[name] for name in ([place] if place in sets else counted_sets(list(sets)))}
            first, *others = (format_value(metric, values[metric.name]) for metric in metrics)
            frames = sum(len(scores.frames) for scores in own.values())
            rows.append([place, str(frames), f"{first} {find_interval(own, metrics[0].name)}", *others])
        tables[PROTOCOL_TITLES[protocol].capitalize()] = format_markdown(rows, left=1)
    shared = {name: sum(frame.group in trained for frame in scores.frames) for name, scores in sets.items()}
    notes += [
        f"{n} frames of {name} come from videos that also have training frames." for name, n in shared.items() if n
    ]
    notes += [
        f"{part} is in no mean: its frames are frames of {of}."
        for part, of in LEFT_OUT.items()
        if {part, of} <= {*sets}
    ]
    left_out = summary.get("left_out", ())
    notes += [f"Not scored: {each['frames']} frames of {each['dataset']}: {each['reason']}." for each in left_out]
    notes += [f"{run.resolve().name}: {mark}." for mark in [summary.get("mark")] if mark]
    scored = {name: round(means[name]["fixed/dice"], 4) for name in sets}
    results = [EvalResult("image-segmentation", name, name, "dice", value) for name, value in scored.items()]
    return results, tables, [note for note in notes if note]


def find_interval(sets: Mapping[str, SetScores], metric: str) -> str:
    """Return the 95 % interval of the mean over test sets of one metric."""
    ours = {name: scores.columns[metric][None] for name, scores in sets.items()}
    nothing = {name: np.zeros_like(values) for name, values in ours.items()}
    groups = {name: [frame.group or frame.id for frame in scores.frames] for name, scores in sets.items()}
    found = compare_paired(ours, nothing, groups, resamples=RESAMPLES, seed=0)
    return f"[{found.low:.3f}, {found.high:.3f}]"
