"""What a training step costs: written by hand, plain, distilled from the cache, and with the teacher in the loop."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.measure import count_launches, seconds_of
from benchmarks.options import StepConfig
from difom_cache import build_teacher, open_cache
from difom_cache.base.hardware import resolve_device
from difom_cache.base.text import format_table
from difom_cache.teachers import area_pool
from difom_train.config import TrainConfig, compose_keywords
from difom_train.data.caches import JointCache
from difom_train.data.loader import Batch, DataTimer
from difom_train.data.photometric import to_pixels, to_side
from difom_train.training.build import build_learner, choose_rows, open_feed
from difom_train.training.losses import Learner, segmentation_loss
from difom_train.training.optimizer import set_mode
from difom_train.training.processes import Processes, open_processes
from difom_train.training.run_folder import describe_hardware, describe_versions
from difom_train.training.trainer import Trainer

HAND_WRITTEN = "hand-written"
_WARM_UP = 3


@dataclass(frozen=True)
class StepTimes:
    """Median seconds a step of each lane, and shares of waiting.

    A lane is named by what is trained and by whether batches are read (`with data`) or one batch is used again and again.

    Attributes:
        median_s: by the clock.
        cpu_s: of this process's threads together, which other work on the machine disturbs less.
        wait_frac: share of the time that a lane stood still for data, where it reads any.
        launches: kernels of one step on CUDA, of the lanes that read no data; nothing elsewhere.
        about: options, versions and hardware.
    """

    median_s: dict[str, float]
    cpu_s: dict[str, float]
    wait_frac: dict[str, float]
    launches: dict[str, int]
    about: dict[str, Any]

    @property
    def ratios(self) -> dict[str, float]:
        """Seconds of each lane over those of the loop written by hand: of the CPU where that computes, else by the clock."""
        seconds = self.median_s if "gpu" in self.about["hardware"] else self.cpu_s
        return {lane: each / seconds[HAND_WRITTEN] for lane, each in seconds.items()}

    def render(self) -> str:
        """Return one line a lane."""
        rows = [["lane", "s a step", "CPU s", "x by hand", "data wait", "launches"]]
        for lane, seconds in self.median_s.items():
            wait = f"{self.wait_frac[lane]:.1%}" if lane in self.wait_frac else ""
            rows.append([lane, f"{seconds:.4f}", f"{self.cpu_s[lane]:.4f}", f"{self.ratios[lane]:.2f}", wait])
            rows[-1].append(str(self.launches.get(lane, "")))
        return format_table(rows)

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        return asdict(self) | {"ratios": self.ratios}


class _Lane(Protocol):
    """One student that is trained step by step."""

    timer: DataTimer

    def take(self) -> None:
        """Take one step."""


@dataclass
class _OwnLane:
    """As a run trains."""

    trainer: Trainer
    batches: Iterator[Batch]
    timer: DataTimer
    steps: int = 1  # the first step of an epoch measures gradients as well, so counting begins after it

    def take(self) -> None:
        self.trainer.train_step(self.batches, 0, self.steps)
        self.steps += 1


class _HandWritten:
    """As anybody would write it: the same student, mask loss and rule, on pixels and masks that lie in memory as they are used.

    Nothing is resized, recoloured, clipped, logged or read.
    """

    def __init__(self, config: TrainConfig, learner: Learner, batch: Batch, processes: Processes) -> None:
        self.student, self.loss_name, self.processes, self.timer = (
            learner.student,
            learner.loss_name,
            processes,
            DataTimer(),
        )
        self.pixels = to_pixels(batch.tensors["image"], config.data.input_px)
        if config.machine.channels_last:
            self.pixels = self.pixels.contiguous(memory_format=torch.channels_last)
        self.mask: Tensor = to_side(batch.tensors["mask"], config.data.input_px)
        options = config.optimizer
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=options.lr, weight_decay=options.weight_decay)

    def take(self) -> None:
        self.optimizer.zero_grad()
        with self.processes.autocast():
            logits = self.student.forward_train(self.pixels).logits
        segmentation_loss(self.loss_name, logits, self.mask).mean().backward()
        self.optimizer.step()


def _time(lane: _Lane, device: torch.device) -> tuple[float, float]:
    """Take a step and return its seconds by the clock and of the CPU."""
    cpu_started_s = time.process_time()
    seconds = seconds_of(lane.take, device)
    return seconds, time.process_time() - cpu_started_s


def bench_step(options: StepConfig) -> StepTimes:
    """Return the seconds of a step, lanes alternating so that a busy machine slows all of them alike."""
    device = resolve_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        cache = JointCache([open_cache(options.cache)])
        processes = open_processes(device, options.precision)
        lanes = _build_lanes(options, cache, processes, Path(folder))
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in lanes}
        for turn in range(_WARM_UP + options.steps):
            if turn == _WARM_UP:
                for lane in lanes.values():
                    lane.timer.wait_s = 0.0
            for name, lane in lanes.items():
                if "teacher" not in name or turn < 1 + options.teacher_steps:
                    seconds[name].append(_time(lane, processes.device))
        waits_s = {name: lane.timer.wait_s for name, lane in lanes.items() if name.endswith("with data")}
        alone = {name: lane for name, lane in lanes.items() if name not in waits_s} if device.type == "cuda" else {}
        launches = {name: count_launches(lane.take, device) for name, lane in alone.items()}
    timed = {name: each[1 if "teacher" in name else _WARM_UP :] for name, each in seconds.items()}
    about = {
        "options": options.model_dump(mode="json", exclude={"as_json"}),
        "versions": describe_versions(),
        "hardware": describe_hardware(device, 1),
    }
    return StepTimes(
        median_s={name: statistics.median(clock for clock, _ in each) for name, each in timed.items()},
        cpu_s={name: statistics.median(cpu for _, cpu in each) for name, each in timed.items()},
        wait_frac={name: wait_s / sum(clock for clock, _ in timed[name]) for name, wait_s in waits_s.items()},
        launches=launches,
        about=about,
    )


def _build_lanes(options: StepConfig, cache: JointCache, processes: Processes, folder: Path) -> dict[str, _Lane]:
    config = _compose(options, "baseline")
    own = _build_lane(config, cache, processes, folder)
    batch = _copy(next(own.batches))
    lanes: dict[str, _Lane] = {HAND_WRITTEN: _HandWritten(config, own.trainer.learner, batch, processes)}
    for name, recipe in (("plain", "baseline"), ("cached", options.recipe)):
        for with_data in (False, True):
            lane = _build_lane(_compose(options, recipe), cache, processes, folder)
            if not with_data:
                lane.batches = itertools.repeat(_copy(next(lane.batches)))
            lanes[f"{name}, with data" if with_data else name] = lane
    if options.teacher is not None:
        lane = _build_lane(_compose(options, options.recipe), cache, processes, folder)
        lane.batches = _run_teacher(options, cache, _copy(next(lane.batches)), processes)
        lanes["teacher in the loop"] = lane
    return lanes


def _build_lane(config: TrainConfig, cache: JointCache, processes: Processes, folder: Path) -> _OwnLane:
    learner = build_learner(config, cache, pretrained=False)
    distiller, taps, timer = learner.distiller, learner.distiller.taps, DataTimer()
    feed = open_feed(config, cache, processes, choose_rows(config, cache, taps), taps)
    trainer = Trainer(config, processes, learner, feed, folder)
    trainer.phase = max(config.phases, key=lambda each: (each.distillation, not each.freeze_encoder))
    set_mode(learner.student, freeze_encoder=trainer.phase.freeze_encoder)
    if distiller.needs_calibration:
        distiller.calibrate(batch.tensors for batch in feed.calibration_batches(taps, config.data.batch_size))

    def forever() -> Generator[Batch, None, None]:
        for epoch in itertools.count():
            yield from feed.train_batches(epoch, taps, distils=bool(taps), timer=timer)

    return _OwnLane(trainer, forever(), timer)


def _compose(options: StepConfig, recipe: str) -> TrainConfig:
    return compose_keywords(
        recipe=recipe,
        cache=options.cache,
        allow_partial=True,
        student=options.student,
        width=options.width,
        student_weights="random",
        batch_size=options.batch_size,
        accumulate=1,
        input_size=options.input_px,
        stage=options.stage,
        compile=options.compile,
    )


def _copy(batch: Batch) -> Batch:
    """Return a batch whose tensors are no buffers."""
    return Batch(batch.rows.copy(), {name: tensor.clone() for name, tensor in batch.tensors.items()})


def _run_teacher(
    options: StepConfig, cache: JointCache, batch: Batch, processes: Processes
) -> Generator[Batch, None, None]:
    """Yield the batch again and again, each time after the teacher has computed and pooled its features of it.

    The step then takes the stored features, so that what is added to a cached step is the teacher alone.
    """
    teacher = build_teacher(
        str(options.teacher),
        weights=options.teacher_weights,
        device=str(processes.device),
        picture_px=cache.picture_px,
    )
    while True:
        pixels = to_pixels(batch.tensors["image"], teacher.spec.input_px)
        with torch.inference_mode():
            features = teacher.features(pixels)
            for tap in teacher.spec.taps:
                area_pool(features[tap.native], tap.grid(cache.picture_px))
        yield batch
