"""What a run says: one line an epoch and what else there is to know, on the terminal and in train.log."""

import math
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from difom_cache.base.atomic import append_synced
from difom_cache.base.hardware import explain_bfloat16
from difom_cache.base.progress import ProgressBar, say
from difom_cache.base.text import count_of, format_seconds
from difom_cache.store import format_random_warning
from difom_train.config import TrainConfig
from difom_train.data.feed import Feed
from difom_train.students.saved import WEIGHTS_FILE
from difom_train.training.checkpoint import Progress
from difom_train.training.masks import UNKNOWN
from difom_train.training.optimizer import keeps_last

TRAIN_LOG = "train.log"
_REST = ("loss", "lr", "train_s", "train_cpu_s", "data_wait_frac")  # of an epoch's metrics; the others are losses
_LOOK_S = 1.0  # between two looks at the loss, as each waits for the device


class TrainLog:
    """Speaks for a run; on every process but the first it says nothing.

    Args:
        folder: of the run; lines are added to the train.log in it, with their time.
        speaks: whether this is the first process.
    """

    def __init__(self, folder: Path, *, speaks: bool) -> None:
        self.folder, self.speaks = folder, speaks
        self._bar = ProgressBar(None, "", "step", quiet=True)
        self._epochs, self._looked = 0, 0.0
        self._since, self._from_epoch = time.perf_counter(), 0

    def say(self, *lines: str) -> None:
        """Say something now, and keep it."""
        if not self.speaks or not lines:
            return
        now = datetime.now().isoformat(sep=" ", timespec="seconds")
        append_synced(self.folder / TRAIN_LOG, "".join(f"{now}  {line}\n" for line in lines))
        for line in lines:
            say(line)

    def open_bar(self, *, epochs: int, steps: int, done: int) -> ProgressBar:
        """Return the bar of the whole run, so that it says how much is left also where an epoch has few steps.

        Args:
            epochs: of the run.
            steps: of an epoch.
            done: epochs of earlier starts.
        """
        self._epochs, self._from_epoch, self._since = epochs, done, time.perf_counter()
        self._bar = ProgressBar(
            epochs * steps, "training", "step", done=done * steps, quiet=not self.speaks, leave=False
        )
        return self._bar

    def count_step(self) -> None:
        """Count one step of the run."""
        self._bar.update()

    def is_time_to_look(self) -> bool:
        """Whether the loss has not been shown for a second."""
        if not self.speaks or time.perf_counter() - self._looked < _LOOK_S:
            return False
        self._looked = time.perf_counter()
        return True

    def tell_step(self, epoch: int, loss: float, data_wait_frac: float) -> None:
        """Put the state of an epoch beside the bar; from then on its title is that epoch."""
        self._bar.tell(f"loss {loss:.3f}, data wait {data_wait_frac:.0%}", title=f"epoch {epoch + 1}/{self._epochs}")

    def say_epoch(self, line: Mapping[str, Any], progress: Progress, pictures: int) -> None:
        """Say the figures of one epoch.

        Args:
            line: of log.jsonl.
            progress: of the run, this epoch included.
            pictures: that all processes have trained on in it.
        """
        done, epochs = progress.epochs_done, self._epochs
        spent_s = time.perf_counter() - self._since
        left_s = spent_s / max(1, done - self._from_epoch) * (epochs - done)
        parts = [f"epoch {done:{len(str(epochs))}}/{epochs}", format_losses(line)]
        if line["val_dice"] is not None:
            parts.append(f"val Dice {line['val_dice']:.4f}")
            parts.append(f"kept {progress.best_dice:.4f} (epoch {progress.best_epoch + 1})")
        elif line.get("val_loss") is not None:
            parts.append(f"val loss {line['val_loss']:.4f}")
            parts.append(f"kept {progress.best_loss:.4f} (epoch {progress.best_epoch + 1})")
        parts.append(f"{pictures / max(line['train_s'], 1e-9):.1f} images/s")
        parts.append(f"data wait {line['data_wait_frac']:.0%}")
        parts.append(f"{format_seconds(left_s)} left" if done < epochs else f"{format_seconds(spent_s)} in all")
        self.say("  ".join(parts))


def format_losses(line: Mapping[str, Any]) -> str:
    """Return the loss that is minimised and, where it has several parts, each by its name and without its weight."""
    parts = {name: value for name, value in _losses_of(line).items() if isinstance(value, float)}
    named = ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
    return f"loss {line['loss']:.4f} ({named})" if len(parts) > 1 else f"loss {line['loss']:.4f}"


def _losses_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the losses in an epoch's line: what stands between its phase and its times."""
    names = list(line)
    metrics = names[names.index("phase") + 1 : names.index("train_s")]
    return {name: line[name] for name in metrics if name not in _REST and not name.startswith("distill/")}


def describe_phase(config: TrainConfig, number: int) -> str:
    """Return what is new in a phase of a run that has several."""
    phase = config.phases[number]
    factors = f"mask loss x {phase.segmentation:g}, distillation x {phase.distillation:g}"
    factors += "" if phase.learn == "both" else f" of {phase.learn}"
    frozen = ", the encoder stands still" if phase.freeze_encoder else ""
    return f"phase {number + 1} of {len(config.phases)}: {factors}{frozen}"


def describe_end(
    folder: Path, config: TrainConfig, progress: Progress, *, before: int, validation_images: int
) -> Sequence[str]:
    """Return the last lines of a run: how it went, where the student lies, and what to type next.

    Args:
        folder: of the run.
        config: of the run.
        progress: at the end.
        before: epochs that were done when it was started.
        validation_images: that chose its best epoch, if they did.
    """
    epochs, done = config.optimizer.epochs, progress.epochs_done
    how = f"{done} of {epochs} epochs"
    if before == done:
        how += " were done before; nothing was left to train"
    elif done < epochs:
        measure = "Dice" if progress.best_dice >= 0 else "loss"
        how += f"; stopped, as {config.optimizer.patience_epochs} epochs brought no better validation {measure}"
    lines = [f"{folder}: {how}; {_describe_best(progress, last=keeps_last(config.optimizer, validation_images))}"]
    lines.append(f"student: {folder / WEIGHTS_FILE}; beside it {TRAIN_LOG}, log.jsonl and curves.png")
    run = shlex.quote(os.fspath(folder))
    lines.append(f"next: difom-train evaluate {run} --data TEST_SETS, difom-train predict {run} PICTURES --out MASKS")
    return lines


def _describe_best(progress: Progress, *, last: bool) -> str:
    epoch, why = progress.best_epoch + 1, "no validation mask shows a polyp, so Dice means nothing there"
    if progress.best_dice >= 0:
        dice = f"validation Dice {progress.best_dice:.4f}"
        return f"the last epoch is kept, of {dice}" if last else f"best {dice} in epoch {epoch}"
    if progress.best_loss < math.inf:
        loss = f"validation loss {progress.best_loss:.4f}"
        return f"the last epoch is kept, of {loss}; {why}" if last else f"lowest {loss} in epoch {epoch}; {why}"
    return "the last epoch is kept"


def describe_start(
    folder: Path, config: TrainConfig, facts: Mapping[str, Any], progress: Progress, feed: Feed
) -> list[str]:
    """Return what a run says before its first step: what it learns from, and what its user may not expect.

    Args:
        folder: of the run.
        config: of the run.
        facts: as run.json has them.
        progress: of earlier starts.
        feed: its batches.
    """
    rows = facts["rows"]
    lines = [
        f"{folder}: {rows['labelled_records']} records with masks, {rows['unlabelled_records']} without, "
        f"{rows['val_records']} for validation, {facts['steps_per_epoch']} steps of {facts['pictures_per_step']}",
        *feed.cache.join.describe(),
        facts["images"],
        *_describe_empty(facts["empty_masks"]),
        facts["stage"],
        *facts["distillation"]["about"],
    ]
    if config.distill.kind != "none" and not config.distils:
        lines.append(
            f"WARNING: distill.kind is {config.distill.kind}, but no phase has distillation above 0, so nothing is distilled; "
            "--set phases.0.distillation=1 turns it on"
        )
    if progress.epochs_done:
        lines.append(f"resuming after epoch {progress.epochs_done}")
    for name, source in facts["masks"]["taught_by"].items():
        if source["outside"] is None:
            lines.append(f"NOTE: {UNKNOWN} ({name})")
        elif source["outside"]:
            count = count_of(source["outside"], "mask")
            lines.append(f"NOTE: {name} learnt from {count} that this run may not see: a gain is theirs, too")
    if facts["random_teachers"]:
        lines.append(format_random_warning(facts["random_teachers"]))
    lines += facts["groups_unknown"]
    if not rows["val_records"]:
        lines.append("WARNING: no validation records, so the last epoch is kept rather than the best")
    elif config.optimizer.keep == "auto" and keeps_last(config.optimizer, rows["val_records"]):
        lines.append(
            f"the last epoch is kept: {rows['val_records']} validation images would choose by chance (optimizer.keep)"
        )
    wanted, held = config.data.views, int(feed.cache.view[feed.selection.train].max()) + 1
    if wanted > held:
        lines.append(f"NOTE: --views {wanted} was asked for, but the cache has {held}: all {held} are used")
    device = torch.device(facts["hardware"]["device"])
    is_usual = config.machine.precision == "auto" and device.type == "cuda"
    emulated = explain_bfloat16(device) if config.machine.precision == "bfloat16" or is_usual else ""
    return [*lines, emulated] if emulated else lines


def _describe_empty(facts: Mapping[str, Sequence[int]]) -> list[str]:
    """Return how many masks show no polyp, and a warning where that is most of them.

    Args:
        facts: "training" and "validation" to masks without a polyp, and masks that were looked at.
    """
    (empty, looked), (val_empty, val_looked) = facts["training"], facts["validation"]
    told = f"masks without a polyp: {empty} of {looked} looked at in training"
    lines = [f"{told}, {val_empty} of {val_looked} in validation" if val_looked else told]
    if 2 * empty > looked:
        lines.append(f"WARNING: {empty} of {looked} training masks show no polyp: are they the right masks?")
    if val_looked and val_empty == val_looked:
        lines.append(
            "WARNING: no validation mask shows a polyp, so Dice means nothing there (an empty answer has 1): epochs are "
            "compared by the validation loss"
        )
    return lines
