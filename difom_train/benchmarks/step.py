"""What a training step costs: plain, distilled from the cache, and with the teacher in the loop."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from difom_cache import area_pool, build_teacher, open_cache, resolve_device
from difom_train.commands import StepConfig
from difom_train.config import TrainConfig, compose_keywords
from difom_train.data.caches import JointCache
from difom_train.data.loader import Batch, DataTimer
from difom_train.data.photometric import to_pixels
from difom_train.training.build import build_learner, choose_rows, open_feed
from difom_train.training.fabric import open_fabric
from difom_train.training.optimizer import set_mode
from difom_train.training.run_folder import describe_hardware, describe_versions
from difom_train.training.trainer import Trainer

_WARM_UP = 3


@dataclass(frozen=True)
class StepTimes:
    """Median seconds a step of each lane, and shares of waiting.

    A lane is named by what is trained and by whether batches are read (`with data`) or one batch is used again and again.
    """

    median_s: dict[str, float]
    wait_frac: dict[str, float]
    about: dict[str, Any]

    @property
    def ratios(self) -> dict[str, float]:
        """Seconds of each lane over those of the plain one with the same data."""
        return {
            lane: seconds / self.median_s["plain, with data" if lane.endswith("with data") else "plain"]
            for lane, seconds in self.median_s.items()
        }

    def render(self) -> str:
        """Return one line a lane."""
        lines = [f"{'lane':24}{'s a step':>10}{'x plain':>9}{'data wait':>11}"]
        for lane, seconds in self.median_s.items():
            wait = f"{self.wait_frac[lane]:.1%}" if lane in self.wait_frac else ""
            lines.append(f"{lane:24}{seconds:>10.4f}{self.ratios[lane]:>9.2f}{wait:>11}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        return asdict(self) | {"ratios": self.ratios}


@dataclass
class _Lane:
    """One student that is trained step by step."""

    trainer: Trainer
    batches: Iterator[Batch]
    timer: DataTimer
    steps: int = 1  # the first step of an epoch measures gradients as well, so counting begins after it

    def take(self) -> float:
        """Take one step and return its seconds."""
        device = self.trainer.fabric.device
        started = time.perf_counter()
        self.trainer.train_step(self.batches, 0, self.steps)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.steps += 1
        return time.perf_counter() - started


def bench_step(options: StepConfig) -> StepTimes:
    """Return the seconds of a step, lanes alternating so that a busy machine slows all of them alike."""
    device = resolve_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        cache = JointCache([open_cache(options.cache)])
        fabric = open_fabric(device, options.precision, logger="none", folder=Path(folder))
        lanes = _build_lanes(options, cache, fabric, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in lanes}
        for turn in range(_WARM_UP + options.steps):
            if turn == _WARM_UP:
                for lane in lanes.values():
                    lane.timer.wait_s = 0.0
            for name, lane in lanes.items():
                if "teacher" not in name or turn < 1 + options.teacher_steps:
                    seconds[name].append(lane.take())
    timed = {name: each[1 if "teacher" in name else _WARM_UP :] for name, each in seconds.items()}
    about = {
        "options": options.model_dump(mode="json", exclude={"as_json"}),
        "versions": describe_versions(),
        "hardware": describe_hardware(device, 1),
    }
    return StepTimes(
        median_s={name: statistics.median(each) for name, each in timed.items()},
        wait_frac={
            name: lane.timer.wait_s / sum(timed[name]) for name, lane in lanes.items() if name.endswith("with data")
        },
        about=about,
    )


def _build_lanes(options: StepConfig, cache: JointCache, fabric: Fabric, folder: Path) -> dict[str, _Lane]:
    lanes = {}
    for name, recipe in (("plain", "baseline"), ("cached", options.recipe)):
        for with_data in (False, True):
            lane = _build_lane(_compose(options, recipe), cache, fabric, folder)
            if not with_data:
                lane.batches = itertools.repeat(_copy(next(lane.batches)))
            lanes[f"{name}, with data" if with_data else name] = lane
    if options.teacher is not None:
        lane = _build_lane(_compose(options, options.recipe), cache, fabric, folder)
        lane.batches = _run_teacher(options, cache, _copy(next(lane.batches)), fabric)
        lanes["teacher in the loop"] = lane
    return lanes


def _build_lane(config: TrainConfig, cache: JointCache, fabric: Fabric, folder: Path) -> _Lane:
    learner = build_learner(config, cache, pretrained=False)
    distiller, taps, timer = learner.distiller, learner.distiller.taps, DataTimer()
    feed = open_feed(config, cache, fabric, choose_rows(config, cache, taps), taps)
    trainer = Trainer(config, fabric, learner, feed, folder)
    trainer.phase = max(config.phases, key=lambda each: (each.distillation, not each.freeze_encoder))
    set_mode(learner.student, freeze_encoder=trainer.phase.freeze_encoder)
    if distiller.needs_calibration:
        distiller.calibrate(batch.tensors for batch in feed.calibration_batches(taps, config.data.batch_size))

    def forever() -> Generator[Batch, None, None]:
        for epoch in itertools.count():
            yield from feed.train_batches(epoch, taps, distils=bool(taps), timer=timer)

    return _Lane(trainer, forever(), timer)


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
    )


def _copy(batch: Batch) -> Batch:
    """Return a batch whose tensors are no buffers."""
    return Batch(batch.rows.copy(), {name: tensor.clone() for name, tensor in batch.tensors.items()})


def _run_teacher(options: StepConfig, cache: JointCache, batch: Batch, fabric: Fabric) -> Generator[Batch, None, None]:
    """Yield the batch again and again, each time after the teacher has computed and pooled its features of it.

    The step then takes the stored features, so that what is added to a cached step is the teacher alone.
    """
    teacher = build_teacher(
        str(options.teacher),
        weights=options.teacher_weights,
        device=str(fabric.device),
        picture_px=cache.picture_px,
    )
    while True:
        pixels = to_pixels(batch.tensors["image"], teacher.spec.input_px)
        with torch.inference_mode():
            features = teacher.features(pixels)
            for tap in teacher.spec.taps:
                area_pool(features[tap.native], tap.grid(cache.picture_px))
        yield batch
