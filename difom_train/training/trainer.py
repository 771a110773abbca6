"""The one loop of stage two: epochs of steps, a validation, a line in the log, a checkpoint."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from difom_cache.base.compat import keep_graphs_of_compiled
from difom_cache.base.errors import RunError
from difom_cache.base.progress import explain_wait
from difom_train.config import TrainConfig
from difom_train.data.counter_rng import mix_counts
from difom_train.data.feed import Feed
from difom_train.data.loader import Batch, DataTimer
from difom_train.data.photometric import draw_scale, recolour, to_pixels, to_side
from difom_train.distill.base import FIRST_ROUND
from difom_train.students.base import Student, nearest_side_px
from difom_train.students.catalogue import resolve_weights
from difom_train.students.saved import save_student
from difom_train.training.checkpoint import Progress, write_checkpoint
from difom_train.training.collapse import TERM, detect_collapse
from difom_train.training.curves import draw_curves
from difom_train.training.losses import (
    EpochMeans,
    GradientBalance,
    Learner,
    Losses,
    gradient_share,
)
from difom_train.training.optimizer import (
    build_optimizer,
    ema_decay_at,
    follow,
    keeps_last,
    phase_of,
    ramp,
    rate_factor,
    set_mode,
    set_rate,
)
from difom_train.training.processes import Processes, average_statistics, mean_over_processes
from difom_train.training.run_folder import append_log, read_log
from difom_train.training.second_log import SecondLog
from difom_train.training.train_log import TrainLog, describe_phase
from difom_train.training.validate import Validation, validate

CURVES_FILE, BROKEN_FILE = "curves.png", "not-finite.json"
_SLOW_EPOCH_S = 30.0  # curves are drawn after each such epoch, else at the end: drawing takes about a second
_DROPOUT = 21  # what a mix is for


class Trainer:
    """A student in training: its networks on the device, what moves them, and how far they have come.

    Args:
        config: of the run.
        processes: runs the networks, on one process or many.
        learner: student, distiller and mask loss.
        feed: batches.
        folder: of the run.
        first: the student of the first round, frozen on the device, where its masks teach.
    """

    def __init__(
        self,
        config: TrainConfig,
        processes: Processes,
        learner: Learner,
        feed: Feed,
        folder: Path,
        first: Student | None = None,
    ) -> None:
        self.config, self.processes, self.learner, self.feed, self.folder = config, processes, learner, feed, folder
        self.first = first
        self.student, self.distiller = learner.student, learner.distiller
        self.phase, self.phase_number = config.phases[0], -1
        self.progress, self.log = Progress(), TrainLog(folder, speaks=processes.is_main)
        self.balance = GradientBalance(config.distill.gradient_share)
        source = resolve_weights(config.student.name, config.student.weights)
        pretrained = self.student.pretrained or source not in ("random", "own")
        optimizer = build_optimizer(config.optimizer, self.student, self.distiller.parameters(), pretrained=pretrained)
        learner.to(processes.device)
        if config.machine.channels_last:
            learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema: AveragedModel | None = None
        if config.optimizer.ema_decay > 0:
            self.ema = AveragedModel(self.student, use_buffers=True)
        if config.machine.compile:
            keep_graphs_of_compiled()  # the gradient share looks at the graph a second time
            self.student.forward_train = torch.compile(self.student.forward_train)  # type: ignore[method-assign]
        self.model, self.optimizer = processes.wrap(learner), optimizer
        for module in [*learner.modules(), *([] if self.ema is None else self.ema.modules())]:
            counter = getattr(module, "num_batches_tracked", None)
            if isinstance(counter, Tensor):  # the host counts faster than it asks a GPU to
                module.register_buffer("num_batches_tracked", counter.cpu())
        self.second_log = SecondLog(config.machine.logger if processes.is_main else "none", folder)

    @property
    def eval_model(self) -> Any:
        """The student that is validated and kept: the averaged one where there is one."""
        return self.student if self.ema is None else self.ema.module

    @property
    def distils(self) -> bool:
        """Whether the teachers speak in this phase."""
        speaks = bool(self.distiller.taps) or self.distiller.asks_average or self.first is not None
        return self.phase.distillation > 0 and speaks

    def fit(self) -> Progress:
        """Train from where `progress` stands to the end of the run, and return how it went.

        After every epoch the folder holds a checkpoint, a line of the log, the best student so far and the curves.

        Raises:
            RunError: a loss is not finite; the records of that batch lie in not-finite.json, the last checkpoint is whole.
        """
        epochs, done = self.config.optimizer.epochs, self.progress.epochs_done
        with self.log.open_bar(epochs=epochs, steps=self.feed.steps, done=done):
            for epoch in range(done, epochs):
                if self.progress.is_stale(self.config.optimizer.patience_epochs):
                    break
                self.enter_phase(epoch)
                metrics = self.train_epoch(epoch)
                self.save(epoch, metrics, self.validate())
        self.second_log.close()
        self.draw_curves()
        return self.progress

    def enter_phase(self, epoch: int) -> None:
        """Make everything ready for the phase that an epoch lies in."""
        phases = self.config.phases
        number = phase_of(epoch, self.config.optimizer.epochs, [each.until_frac for each in phases])
        if number != self.phase_number and len(phases) > 1:
            self.log.say(describe_phase(self.config, number))
        self.phase, self.phase_number = phases[number], number
        measured = self.distils and bool(self.distiller.taps)
        if measured and not self.progress.first_alive:  # before the first step that could collapse them
            self.progress.first_alive = self.validate().distillation
        set_mode(self.student, freeze_encoder=self.phase.freeze_encoder)
        self.distiller.train()

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Take the epoch's steps; return the mean losses, the gradient share, the last learning rate and times."""
        started, begun_cpu = time.perf_counter(), time.process_time()
        timer, means = DataTimer(), EpochMeans()
        steps, epochs, rate = self.feed.steps, self.config.optimizer.epochs, 0.0
        taps = self.distiller.taps_of(self.phase.learn) if self.distils else ()
        batches = self.feed.train_batches(epoch, taps, distils=self.distils, timer=timer)
        for step in range(steps):
            rate = set_rate(self.optimizer, rate_factor(self.config.optimizer, epoch * steps + step, epochs * steps))
            # Dropout knows no generator but the global one; keyed by the step, it leaves no state for a checkpoint to hold.
            torch.manual_seed(mix_counts(self.config.seed, epoch, step, self.feed.rank, _DROPOUT) >> 1)
            losses, rows = self.train_step(batches, epoch, step)
            self.refuse_not_finite(means.add(losses, step, rows), epoch)
            if self.log.is_time_to_look():
                self.log.tell_step(epoch, means.last_loss, timer.frac)
            self.log.count_step()
        self.refuse_not_finite(means.check(wait=True), epoch)
        batches.close()
        metrics = mean_over_processes(self.processes, means.means())
        average_statistics(self.processes, self.student, *([] if self.ema is None else [self.eval_model]))
        times = {"train_s": time.perf_counter() - started, "train_cpu_s": time.process_time() - begun_cpu}
        return metrics | {"lr": rate, "data_wait_frac": timer.frac} | times

    def train_step(self, batches: Iterator[Batch], epoch: int, step: int) -> tuple[dict[str, Tensor], list[Any]]:
        """Accumulate the step's passes and move the weights; return the mean losses and the rows that were seen."""
        passes, clip, steps = self.config.data.accumulate, self.config.optimizer.clip_norm, self.feed.steps
        rise = ramp(self.config.distill.ramp_frac, epoch * steps + step, self.config.optimizer.epochs * steps)
        factors = self.phase.segmentation, self.phase.distillation * self.balance.factor * rise
        sums: dict[str, Tensor] = {}
        looked: dict[str, Tensor] = {}
        rows = []
        for own_pass in range(passes):
            batch = next(batches)
            rows.append(batch.rows.copy())
            pixels, mask, labelled, valid = self.prepare(batch, epoch, step)
            targets = self.make_targets(batch, side_px=pixels.shape[-1]) if self.distils else {}
            # several processes need one another's gradients at the last pass alone
            with self.processes.hold_gradients(self.model, own_pass < passes - 1):
                with self.processes.autocast():
                    losses = Losses(*self.model(pixels, mask, labelled, valid, targets, factors))
                if targets and own_pass == 0 and self.balance.is_due(step):
                    # of the first process, which sees what one process sees that accumulates in place of several
                    share = self.processes.share(gradient_share(losses, self.student))
                    looked = self.balance.describe(share)
                    self.balance.update(share)
                (losses.total / passes if passes > 1 else losses.total).backward()
            for name, value in ({"loss": losses.total.detach()} | losses.parts).items():
                own = value / passes if passes > 1 else value
                sums[name] = sums[name] + own if name in sums else own
        if clip > 0:
            moving = [each for group in self.optimizer.param_groups for each in group["params"]]
            torch.nn.utils.clip_grad_norm_(moving, clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            decay = ema_decay_at(self.config.optimizer.ema_decay, epoch * steps + step)
            follow(self.ema, self.student, decay)
        return sums | looked, rows

    def prepare(self, batch: Batch, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return what `Learner.forward` takes of a batch: pixels at the step's size in colours of their own, and the masks."""
        data = self.config.data
        scale = draw_scale(data.scales, seed=self.config.seed, epoch=epoch, step=step)
        stride = self.student.largest_stride
        side_px = data.input_px if scale == 1 else nearest_side_px(int(data.input_px * scale), stride)
        pixels = to_pixels(batch.tensors["image"], side_px)
        if "colour" in batch.tensors:
            pixels = recolour(pixels, batch.tensors["colour"])
        if self.config.machine.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        valid = to_side(batch.tensors["valid"], side_px) if self.feed.cache.pads else None
        return pixels, to_side(batch.tensors["mask"], side_px), batch.tensors["labelled"], valid

    def make_targets(self, batch: Batch, *, side_px: int) -> dict[str, Tensor]:
        """Return what the student is held to: made of the cache, or of what other weights see in the stored colours."""
        if self.distiller.asks_average:
            return dict(self.distiller.targets_of(self.see(self.eval_model.eval(), batch, side_px)))
        targets = dict(self.distiller.targets(batch.tensors | {"fresh": batch.warps}))
        if self.first is not None and self.phase.learn != "features":
            targets[FIRST_ROUND] = self.see(self.first, batch, side_px).float().sigmoid()
        return targets

    def see(self, student: Student, batch: Batch, side_px: int) -> Tensor:
        """Return the logits (B, 1, H, W) of a student for a batch's views in their stored colours."""
        with torch.no_grad(), self.processes.autocast():
            return student.forward_train(to_pixels(batch.tensors["image"], side_px)).logits[0]

    def validate(self) -> Validation:
        """Return the figures of the validation split."""
        self.distiller.eval()
        with explain_wait(f"validating on {len(self.feed.selection.val)} records"):
            return validate(
                self.processes,
                self.eval_model,
                self.distiller,
                self.feed,
                loss_name=self.learner.loss_name,
                input_px=self.config.data.input_px,
                distils=self.distils,
            )

    def save(self, epoch: int, metrics: dict[str, float], found: Validation) -> None:
        """Compare the epoch with the best; write student, log, curves and, last of all, the checkpoint."""
        progress = self.progress
        terms = {TERM + name: metrics[name] for name in self.distiller.weights if name in metrics}
        for warning in detect_collapse(progress, found.distillation | terms, self.config.optimizer.epochs):
            self.log.say(f"WARNING: the distillation is dead: {warning}")
        kept = progress.count_epoch(
            epoch, found.dice, found.loss, last=keeps_last(self.config.optimizer, found.pictures)
        )
        phase = {
            "segmentation": self.phase.segmentation,
            "distillation": self.phase.distillation,
            "frozen": self.phase.freeze_encoder,
        }
        dice = {"val_dice": found.dice, "val_pictures": found.pictures}
        dice |= {} if found.loss is None else {"val_loss": found.loss}
        line = {"epoch": epoch, "phase": phase} | metrics | dice | found.distillation
        if self.processes.is_main:
            if kept:
                save_student(self.eval_model, self.folder, self.describe_student(found, epoch))
            append_log(self.folder, line)
            self.second_log.add(line)
            self.log.say_epoch(line, progress, self.feed.steps * self.feed.shape.step)
            if metrics["train_s"] >= _SLOW_EPOCH_S:
                self.draw_curves()
            write_checkpoint(self.folder, progress, self.state_dict())
        self.processes.wait()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run restores, under the names that checkpoints have always had."""
        states = {"learner": self.learner.state_dict(), "optimiser": self.optimizer.state_dict()}
        states |= {"balance": self.balance.state_dict()} if self.balance.share else {}
        return states if self.ema is None else states | {"average": self.ema.state_dict()}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Put the states of `state_dict` back."""
        self.learner.load_state_dict(states["learner"])
        self.optimizer.load_state_dict(states["optimiser"])
        if self.balance.share:
            self.balance.load_state_dict(states["balance"])
        if self.ema is not None:
            self.ema.load_state_dict(states["average"])

    def describe_student(self, found: Validation, epoch: int) -> dict[str, Any]:
        """Return what student.json says about the weights beside it."""
        config, random = self.config, self.feed.cache.random_teachers(self.distiller.taps)
        about = {"input_px": config.data.input_px, "distillation": config.distill.kind, "seed": config.seed}
        return about | ({"random_teachers": random} if random else {}) | {"val_dice": found.dice, "epoch": epoch}

    def draw_curves(self) -> None:
        """Draw the log, on the first process."""
        if self.processes.is_main:
            draw_curves({self.folder.name: read_log(self.folder)}, self.folder / CURVES_FILE)

    def refuse_not_finite(self, broken: tuple[int, Sequence[Any]] | None, epoch: int) -> None:
        """End the run if there are a step and rows whose loss was not finite."""
        if broken is None:
            return
        step, rows = broken
        ids = [self.feed.cache.record_ids(each) for each in rows]
        path = self.folder / BROKEN_FILE
        path.write_text(
            json.dumps({"epoch": epoch, "step": step, "rows": [r.tolist() for r in rows], "records": ids}, indent=1)
        )
        raise RunError(
            f"the loss of epoch {epoch + 1}, step {step + 1} is not finite; the records of its batch lie in {path}. "
            "The last checkpoint is whole: look at the records, or start anew with a lower --lr"
        )
