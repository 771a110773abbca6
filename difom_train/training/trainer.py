"""The one loop of stage two: epochs of steps, a validation, a line in the log, a checkpoint."""

import json
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from difom_cache import write_atomic
from difom_cache.errors import RunError
from difom_train.data.counter_rng import mix_counts
from difom_train.data.feed import Feed
from difom_train.data.loader import Batch, DataTimer
from difom_train.students.saved import save_student
from difom_train.training.checkpoint import Progress, write_checkpoint
from difom_train.training.collapse import watch
from difom_train.training.curves import draw_curves
from difom_train.training.losses import Learner, Losses, gradient_share
from difom_train.training.optimizer import RateSchedule, set_rate
from difom_train.training.phases import phase_of, set_mode
from difom_train.training.run_folder import append_log, read_log
from difom_train.training.step import Averages, InputOptions, move_weights, prepare_inputs, run_pass
from difom_train.training.validate import Validation, validate

_SLOW_EPOCH_S = 30.0  # curves are drawn after each such epoch, else at the end: drawing takes about a second
CURVES_FILE, BROKEN_FILE = "curves.png", "not-finite.json"
_DROPOUT = 21  # what a mix is for


@dataclass(frozen=True)
class PhasePlan:
    """One part of the run (see `settings.Phase`)."""

    until_frac: float
    segmentation: float
    distillation: float
    freeze_encoder: bool


@dataclass(frozen=True)
class Plan:
    """What the loop does, apart from the networks and the data."""

    folder: Path
    title: str
    epochs: int
    phases: tuple[PhasePlan, ...]
    inputs: InputOptions
    schedule: RateSchedule
    clip_norm: float
    patience_epochs: int
    meta: dict[str, Any]
    "Goes into student.json."


@dataclass
class Parts:
    """What the loop works on."""

    fabric: Fabric
    learner: Learner
    wrapped: Any
    "The learner as Fabric runs it."
    optimiser: Optimizer
    feed: Feed
    average: AveragedModel | None

    @property
    def judged(self) -> Any:
        """The student that is validated and kept."""
        return self.learner.student if self.average is None else self.average.module


def fit(plan: Plan, parts: Parts, progress: Progress) -> Progress:
    """Train from where `progress` stands to the end of the run, and return how it went.

    After every epoch the folder holds a checkpoint, a line of the log, the best student so far and the curves.

    Raises:
        RunError: a loss is not finite; the records of that batch lie in not-finite.json, the last checkpoint is whole.
    """
    for epoch in range(progress.epochs_done, plan.epochs):
        if _ran_out_of_patience(plan, progress):
            break
        phase = plan.phases[phase_of(epoch, plan.epochs, [each.until_frac for each in plan.phases])]
        set_mode(parts.learner.student, freeze_encoder=phase.freeze_encoder)
        if _distils(parts, phase) and not progress.first_alive:
            progress.first_alive = _validate(plan, parts, phase).alive  # before the first step that could kill it
            set_mode(parts.learner.student, freeze_encoder=phase.freeze_encoder)
        parts.learner.distiller.train()
        started = time.perf_counter()
        timer = DataTimer()
        figures = _train_epoch(plan, parts, phase, epoch, timer)
        figures |= {"data_wait_frac": timer.frac, "train_s": time.perf_counter() - started}
        _average_statistics(parts)
        found = _validate(plan, parts, phase)
        _finish_epoch(plan, parts, progress, _describe(epoch, phase, figures, found), found)
    if parts.fabric.is_global_zero:
        _draw_curves(plan)
    return progress


def states_of(parts: Parts) -> dict[str, Any]:
    """Return everything that a resumed run restores."""
    states = {"learner": parts.learner.state_dict(), "optimiser": parts.optimiser.state_dict()}
    return states if parts.average is None else states | {"average": parts.average.state_dict()}


def restore(parts: Parts, states: dict[str, Any]) -> None:
    """Put the states of `states_of` back."""
    parts.learner.load_state_dict(states["learner"])
    parts.optimiser.load_state_dict(states["optimiser"])
    if parts.average is not None:
        parts.average.load_state_dict(states["average"])


def _train_epoch(plan: Plan, parts: Parts, phase: PhasePlan, epoch: int, timer: DataTimer) -> dict[str, float]:
    """Take the epoch's steps; return the mean losses, the gradient share and the last learning rate."""
    distils = _distils(parts, phase)
    taps = parts.learner.distiller.taps if distils else ()
    batches = parts.feed.train_batches(epoch, taps, distils=distils, timer=timer)
    averages, rate = Averages(), 0.0
    figures: dict[str, float] = {}
    bar = tqdm(
        range(parts.feed.steps),
        desc=f"epoch {epoch + 1}/{plan.epochs}",
        unit="step",
        disable=None if parts.fabric.is_global_zero else True,
        leave=False,
    )
    for step in bar:
        done = epoch * parts.feed.steps + step
        rate = set_rate(parts.optimiser, plan.schedule.factor(done))
        # Dropout knows no generator but the global one; keyed by the step, it leaves no state for a checkpoint to hold.
        torch.manual_seed(mix_counts(plan.inputs.seed, epoch, step, parts.feed.rank, _DROPOUT) >> 1)
        losses, rows = take_step(plan, parts, phase, batches, epoch, step, figures)
        _refuse_not_finite(plan, parts, averages.add(losses, rows), epoch, step - 1)
        if not bar.disable and step % 10 == 9:
            bar.set_postfix_str(f"loss {averages.last_loss:.3f}, data wait {timer.frac:.1%}")
    _refuse_not_finite(plan, parts, averages.check(), epoch, parts.feed.steps - 1)
    batches.close()
    return _mean_over_processes(parts, averages.means() | figures) | {"lr": rate}


def _mean_over_processes(parts: Parts, figures: dict[str, float]) -> dict[str, float]:
    if parts.feed.world == 1:
        return figures
    values = torch.tensor([figures[name] for name in sorted(figures)], device=parts.fabric.device)
    means = parts.fabric.all_reduce(values, reduce_op="mean").tolist()  # type: ignore[union-attr]
    return dict(zip(sorted(figures), means, strict=True))


def take_step(
    plan: Plan,
    parts: Parts,
    phase: PhasePlan,
    batches: Generator[Batch, None, None],
    epoch: int,
    step: int,
    figures: dict[str, float],
) -> tuple[dict[str, Tensor], list[Any]]:
    """Accumulate the step's passes and move the weights; return the mean losses and the rows that were seen."""
    passes = parts.feed.options.accumulate
    sums: dict[str, Tensor] = {}
    rows = []
    for own_pass in range(passes):
        batch = next(batches)
        rows.append(batch.rows.copy())
        inputs = prepare_inputs(batch, parts.feed, plan.inputs, epoch=epoch, step=step, own_pass=own_pass)
        targets = parts.learner.distiller.targets(batch.tensors) if _distils(parts, phase) else {}
        with parts.fabric.no_backward_sync(parts.wrapped, enabled=own_pass < passes - 1):
            losses = run_pass(parts.wrapped, inputs, targets, (phase.segmentation, phase.distillation))
            if targets and step == own_pass == 0:
                figures["distill/gradient_share"] = gradient_share(losses, parts.learner.student)
            parts.fabric.backward(losses.total / passes)
        for name, value in _name_losses(losses).items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value / passes
    move_weights(parts.fabric, parts.wrapped, parts.optimiser, plan.clip_norm)
    if parts.average is not None:
        parts.average.update_parameters(parts.learner.student)
    return sums, rows


def _name_losses(losses: Losses) -> dict[str, Tensor]:
    return {"loss": losses.total.detach()} | losses.parts


def _distils(parts: Parts, phase: PhasePlan) -> bool:
    return phase.distillation > 0 and bool(parts.learner.distiller.taps)


def _validate(plan: Plan, parts: Parts, phase: PhasePlan) -> Validation:
    return validate(
        parts.fabric,
        parts.judged,
        parts.learner.distiller.eval(),
        parts.feed,
        input_px=plan.inputs.input_px,
        distils=_distils(parts, phase),
        pads=plan.inputs.pads,
    )


def _draw_curves(plan: Plan) -> None:
    draw_curves({plan.title: read_log(plan.folder)}, plan.folder / CURVES_FILE)


def _average_statistics(parts: Parts) -> None:
    """Make batch-norm statistics equal on all processes: the mean of what each has seen."""
    if parts.feed.world == 1:
        return
    students = [parts.learner.student] if parts.average is None else [parts.learner.student, parts.judged]
    for buffer in [each for student in students for each in student.buffers() if each.is_floating_point()]:
        buffer.copy_(parts.fabric.all_reduce(buffer, reduce_op="mean"))  # type: ignore[arg-type]


def _describe(epoch: int, phase: PhasePlan, figures: dict[str, float], found: Validation) -> dict[str, Any]:
    """Return the epoch's line of the log."""
    setting = {"segmentation": phase.segmentation, "distillation": phase.distillation, "frozen": phase.freeze_encoder}
    return {
        "epoch": epoch,
        "phase": setting,
        **figures,
        "val_dice": found.dice,
        "val_pictures": found.pictures,
        **found.alive,
    }


def _finish_epoch(plan: Plan, parts: Parts, progress: Progress, line: dict[str, Any], found: Validation) -> None:
    """Judge the epoch; write student, log, curves and, last of all, the checkpoint."""
    for warning in watch(progress, found.alive, plan.epochs):
        if parts.fabric.is_global_zero:
            tqdm.write(f"WARNING: the distillation is dead: {warning}", file=sys.stderr)
    progress.epochs_done = line["epoch"] + 1
    better = found.dice is None or found.dice > progress.best_dice
    if better:
        progress.best_dice = -1.0 if found.dice is None else found.dice
        progress.best_epoch = line["epoch"]
    parts.fabric.log_dict({name: value for name, value in line.items() if isinstance(value, float)}, step=line["epoch"])
    if parts.fabric.is_global_zero:
        if better:
            meta = plan.meta | {"val_dice": found.dice, "epoch": line["epoch"]}
            save_student(parts.judged, plan.folder, meta)
        append_log(plan.folder, line)
        if line["train_s"] >= _SLOW_EPOCH_S:
            _draw_curves(plan)
        write_checkpoint(plan.folder, progress, states_of(parts))
    parts.fabric.barrier()


def _ran_out_of_patience(plan: Plan, progress: Progress) -> bool:
    stale = progress.epochs_done - 1 - progress.best_epoch
    return plan.patience_epochs > 0 and progress.epochs_done > 0 and stale >= plan.patience_epochs


def _refuse_not_finite(plan: Plan, parts: Parts, rows: Sequence[Any] | None, epoch: int, step: int) -> None:
    if rows is None:
        return
    ids = [parts.feed.cache.record_ids(each) for each in rows]
    path = plan.folder / BROKEN_FILE
    facts = {"epoch": epoch, "step": step, "rows": [r.tolist() for r in rows], "records": ids}
    write_atomic(path, json.dumps(facts, indent=1).encode())
    raise RunError(
        f"the loss of epoch {epoch + 1}, step {step + 1} is not finite; the records of its batch lie in {path}. "
        "The last checkpoint is whole: look at the records, or start anew with a lower --set optimiser.lr"
    )
