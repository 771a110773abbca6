"""The top of stage two: settings and caches go in, run folders come out."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from difom_cache import format_random_warning, open_cache, resolve_device
from difom_cache.errors import DeviceError, DifomError, RunError
from difom_train.config import Settings, change_settings, check_settings, read_recipe, with_seed
from difom_train.data.caches import JointCache
from difom_train.training.build import (
    Setting,
    Sources,
    build_learner,
    choose_rows,
    describe_run,
    join_parts,
    open_feed,
    plan_run,
)
from difom_train.training.checkpoint import CHECKPOINT, Progress, read_checkpoint
from difom_train.training.fabric import open_fabric
from difom_train.training.run_folder import cut_log, open_folder, read_run, refuse_differences, write_run
from difom_train.training.trainer import Parts, fit, restore

CALIBRATION_PICTURES = 256
_SAME_ON_RESUME = ("manifest_digests", "cache_digests", "pictures_per_step", "steps_per_epoch")

# Option of `train` and of the command -> the setting that it changes.
_OPTIONS = {
    "student": "student.name",
    "width": "student.width",
    "student_weights": "student.weights",
    "epochs": "optimiser.epochs",
    "batch_size": "data.batch_size",
    "input_size": "data.input_px",
    "labels": "data.labels_frac",
    "views": "data.views",
    "device": "machine.device",
    "precision": "machine.precision",
    "stage": "machine.stage",
}


def train(
    student: str | None = None,
    cache: str | Path | Sequence[str | Path] = "./feats",
    recipe: str | Path = "difom-multiscale",
    out: str | Path | None = None,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    input_size: int | None = None,
    width: int | None = None,
    labels: float | None = None,
    student_weights: str | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    device: str | None = None,
    precision: str | None = None,
    stage: str | None = None,
    resume: bool = False,
    teachers: Sequence[str] | None = None,
    views: int | None = None,
    changes: Sequence[str] = (),
    data: str | Path | None = None,
    allow_partial: bool = False,
) -> list[Path]:
    """Train a student from a cache; return the run folder of each seed.

    Args:
        student: unet, unet++, pranet or smp:ARCH/ENCODER; None = the recipe's.
        cache: one cache, or several that are trained on together.
        recipe: name of a recipe, or a TOML file.
        out: run folder; None = runs/STUDENT-RECIPE-seedN. With several seeds, `-seedN` is appended.
        epochs, batch_size, input_size, width, labels, student_weights, device, precision, stage, views: in place of the
            recipe's; None = as the recipe says.
        seed: key of all randomness.
        seeds: one run for each, in place of `seed`.
        resume: go on with a run that was stopped; a run that has not begun begins.
        teachers: labels in the cache to learn from; None = as the recipe says.
        changes: `dotted.key=value` changes of any setting.
        data: source pictures, for caches without pictures and for fresh views.
        allow_partial: train on what is there of an unfinished cache.

    Raises:
        DifomError: something that the user can mend.
    """
    caches = (cache,) if isinstance(cache, str | Path) else tuple(cache)
    sources = Sources(tuple(Path(each) for each in caches), Path(data) if data else None, allow_partial)
    options = {
        "student": student,
        "width": width,
        "student_weights": student_weights,
        "epochs": epochs,
        "batch_size": batch_size,
        "input_size": input_size,
        "labels": labels,
        "views": views,
        "device": device,
        "precision": precision,
        "stage": stage,
    }
    settings = compose_settings(recipe, options, teachers, changes)
    runs = []
    for each in [seed] if seeds is None else seeds:
        folder = _name_folder(out, settings, recipe, each, several=seeds is not None and len(seeds) > 1)
        train_run(with_seed(settings, each), sources, folder, resume=resume)
        runs.append(folder)
    return runs


def compose_settings(
    recipe: str | Path, options: dict[str, Any], teachers: Sequence[str] | None = None, changes: Sequence[str] = ()
) -> Settings:
    """Return the recipe's settings with the options that are given, and then the changes."""
    settings = read_recipe(recipe)
    for option, value in options.items():
        if value is not None:
            section, key = _OPTIONS[option].split(".")
            settings = replace(settings, **{section: replace(getattr(settings, section), **{key: value})})
    if teachers is not None:
        settings = replace(settings, distill=replace(settings.distill, teachers=tuple(teachers)))
    check_settings(settings)
    return change_settings(settings, changes) if changes else settings


def train_run(settings: Settings, sources: Sources, folder: Path, *, resume: bool = False) -> Progress:
    """Train one student into `folder`; return how it went."""
    device = resolve_device(settings.machine.device)
    cache = JointCache([open_cache(path) for path in sources.caches])
    fabric = open_fabric(device, settings.machine.precision, logger=settings.machine.logger, folder=folder)
    setting = Setting(settings, sources, folder, fabric, cache)
    learner = build_learner(setting, pretrained=not (resume and (folder / CHECKPOINT).is_file()))
    selection = choose_rows(setting, learner.distiller.taps)
    going_on = _open_folder_once(setting, resume=resume)
    with _explained_memory(settings):
        feed = open_feed(setting, selection, learner.distiller.taps)
        parts = join_parts(setting, learner, feed)
        facts = describe_run(setting, learner, feed)
        progress = _start(setting, parts, facts, going_on=going_on)
        progress = fit(plan_run(setting, learner, feed), parts, progress)
    _close(setting, facts, progress)
    return progress


def _name_folder(out: str | Path | None, settings: Settings, recipe: str | Path, seed: int, *, several: bool) -> Path:
    if out is None:
        student = settings.student.name.replace("/", "-").replace(":", "-")
        return Path("runs") / f"{student}-{Path(recipe).stem}-seed{seed}"
    return Path(f"{out}-seed{seed}") if several else Path(out)


def _open_folder_once(setting: Setting, *, resume: bool) -> bool:
    """Open the folder on the first process, and tell the others how that went."""
    answer: tuple[bool, str] = (False, "")
    if setting.fabric.is_global_zero:
        try:
            answer = (open_folder(setting.folder, setting.settings, resume=resume), "")
        except DifomError as error:
            answer = (False, str(error))
    going_on, problem = setting.fabric.broadcast(answer)
    if problem:
        raise RunError(problem)
    return going_on


def _start(setting: Setting, parts: Parts, facts: dict[str, Any], *, going_on: bool) -> Progress:
    """Restore or calibrate; say what is going to happen."""
    fabric, folder, distiller = setting.fabric, setting.folder, parts.learner.distiller
    progress = Progress()
    if going_on:
        refuse_differences(read_run(folder), facts, _SAME_ON_RESUME, folder)
        progress, states = read_checkpoint(folder)
        restore(parts, states)
        if fabric.is_global_zero:
            cut_log(folder, progress.epochs_done)
    elif distiller.needs_calibration:
        with torch.no_grad():
            batches = parts.feed.calibration_batches(distiller.taps, CALIBRATION_PICTURES)
            distiller.calibrate(batch.tensors for batch in batches)
    if fabric.is_global_zero:
        write_run(folder, facts)
        for line in _describe_start(folder, facts, progress):
            print(line, file=sys.stderr, flush=True)
    return progress


def _describe_start(folder: Path, facts: dict[str, Any], progress: Progress) -> list[str]:
    rows = facts["rows"]
    lines = [
        f"{folder}: {rows['labelled_records']} records with masks, {rows['unlabelled_records']} without, "
        f"{rows['val_records']} for validation, {facts['steps_per_epoch']} steps of {facts['pictures_per_step']}",
        facts["stage"],
        *facts["distillation"]["about"],
    ]
    if progress.epochs_done:
        lines.append(f"resuming after epoch {progress.epochs_done}")
    if facts["random_teachers"]:
        lines.append(format_random_warning(facts["random_teachers"]))
    if not rows["val_records"]:
        lines.append("WARNING: no validation records, so the last epoch is kept rather than the best")
    return lines


def _close(setting: Setting, facts: dict[str, Any], progress: Progress) -> None:
    """Write down how the run ended."""
    judged = facts["rows"]["val_records"] > 0
    alive = not progress.warnings if progress.alive else None
    facts["distillation"] |= {"alive": alive, "warnings": progress.warnings, "last": progress.alive[-1:]}
    facts |= {
        "status": "finished",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "epochs_done": progress.epochs_done,
        "best_epoch": progress.best_epoch,
        "best_val_dice": progress.best_dice if judged else None,
    }
    for logger in setting.fabric.loggers:
        logger.finalize("success")
    if setting.fabric.is_global_zero:
        write_run(setting.folder, facts)
        best = f"best validation Dice {progress.best_dice:.4f} in epoch {progress.best_epoch + 1}"
        print(f"{setting.folder}: {best if judged else 'finished'}", file=sys.stderr, flush=True)


@contextmanager
def _explained_memory(settings: Settings) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        data = settings.data
        raise DeviceError(
            f"the GPU's memory is too small for batches of {data.batch_size} at {data.input_px} px; try --batch-size "
            f"{max(1, data.batch_size // 2)} --set data.accumulate={data.accumulate * 2}, or --stage disk"
        ) from error
