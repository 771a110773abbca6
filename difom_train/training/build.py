"""From settings and caches to everything that the loop works on."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from difom_cache import PICTURES
from difom_cache.errors import CacheIncompleteError, SettingsError
from difom_train.config import Settings
from difom_train.data.caches import JointCache, require_taps
from difom_train.data.counter_rng import mix_counts
from difom_train.data.feed import Feed, FeedOptions, Selection, select_rows
from difom_train.data.loader import Loader
from difom_train.data.photometric import ColourRange
from difom_train.data.pictures import SourcePictures
from difom_train.data.stage import Rows, choose_stage
from difom_train.distill.catalogue import build_distiller
from difom_train.distill.settings import neck_for
from difom_train.students.base import check_sides
from difom_train.students.catalogue import build_student, default_weights
from difom_train.training.fabric import count_processes
from difom_train.training.losses import Learner
from difom_train.training.optimizer import RateSchedule, build_optimiser
from difom_train.training.run_folder import describe_hardware, describe_versions
from difom_train.training.step import InputOptions
from difom_train.training.trainer import Parts, PhasePlan, Plan

_STUDENT, _HEADS = 31, 32  # what a mix is for
_FRESH_POLICY = "default"


@dataclass(frozen=True)
class Sources:
    """Where a run reads from, beside its settings."""

    caches: tuple[Path, ...]
    data: Path | None
    allow_partial: bool

    def require_data(self) -> Path:
        """Return where the source pictures lie.

        Raises:
            SettingsError: nobody said.
        """
        if self.data is None:
            raise SettingsError(
                "pictures are rendered while training (the cache has none, or data.fresh_views is on): "
                "say where they lie with --data"
            )
        return self.data


@dataclass(frozen=True)
class Setting:
    """What every part of a run is made from."""

    settings: Settings
    sources: Sources
    folder: Path
    fabric: Fabric
    cache: JointCache


def build_learner(setting: Setting, *, pretrained: bool) -> Learner:
    """Return the student with its distiller and its mask loss.

    Args:
        setting: of the run.
        pretrained: whether pretrained weights are loaded; a checkpoint replaces every number anyway.

    Raises:
        SettingsError: unknown student, or an input size that it cannot take.
        CacheIncompleteError: the cache lacks a tap that the recipe needs.
        WeightsError: pretrained weights are out of reach.
    """
    settings = setting.settings
    if settings.distils and not setting.cache.taps:
        raise CacheIncompleteError(
            f"{', '.join(map(str, setting.sources.caches))} holds no teacher to learn from; add one with "
            "`difom-cache extract --teacher NAME`, or train with --recipe baseline"
        )
    student = build_student(
        settings.student.name,
        width=settings.student.width or None,
        weights=_weights_of(settings) if pretrained else "random",
        neck=neck_for(settings.distill.kind),
        deep_supervision=settings.student.deep_supervision,
        seed=mix_counts(settings.seed, _STUDENT) >> 1,
    )
    check_sides(student, settings.data.input_px, settings.data.input_px)
    distiller = build_distiller(
        settings.distill,
        cache=setting.cache,
        student=student,
        input_px=settings.data.input_px,
        seed=mix_counts(settings.seed, _HEADS) >> 1,
    )
    loss_name = student.loss_name if settings.student.loss == "auto" else settings.student.loss
    return Learner(student, distiller, loss_name)


def choose_rows(setting: Setting, taps: Sequence[str]) -> Selection:
    """Return the rows of the run, all of which can be read.

    Raises:
        CacheIncompleteError: rows are missing, and nobody said to go on without them.
    """
    cache, options = setting.cache, _feed_options(setting.settings)
    wanted = select_rows(cache, options, usable=np.ones(len(cache), bool))
    asked = np.concatenate([wanted.train, wanted.val])
    usable = np.zeros(len(cache), bool)
    usable[require_taps(cache, asked, taps, allow_partial=setting.sources.allow_partial)] = True
    return select_rows(cache, options, usable=usable)


def open_feed(setting: Setting, selection: Selection, taps: Sequence[str]) -> Feed:
    """Return the batches of this process; the stage is filled."""
    settings, fabric, cache = setting.settings, setting.fabric, setting.cache
    source = None
    if settings.data.fresh_views or not cache.has_pictures:
        policy = _FRESH_POLICY if settings.data.fresh_views else None
        source = SourcePictures(cache, setting.sources.require_data(), policy=policy, seed=settings.seed)
    stage = choose_stage(
        settings.machine.stage,
        rows=Rows(cache, source),
        used=np.concatenate([selection.train, selection.val]),
        groups=[PICTURES, *taps],
        device=fabric.device,
        processes=count_processes(dict(os.environ)).on_machine,
    )
    loader = Loader(stage, settings.data.batch_size, fabric.device)
    options = _feed_options(settings)
    return Feed(cache, loader, selection, options, rank=fabric.global_rank, world=fabric.world_size)


def join_parts(setting: Setting, learner: Learner, feed: Feed) -> Parts:
    """Return networks and optimiser on the device, as Fabric runs them."""
    options, machine = setting.settings.optimiser, setting.settings.machine
    optimiser = build_optimiser(
        options.name,
        learner.student,
        learner.distiller.parameters(),
        lr=options.lr,
        encoder_factor=1.0 if _weights_of(setting.settings) == "random" else options.pretrained_encoder_lr_factor,
        weight_decay=options.weight_decay,
    )
    learner.to(setting.fabric.device)
    if machine.channels_last:
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = None
    if options.ema_decay > 0:
        average = AveragedModel(learner.student, multi_avg_fn=get_ema_multi_avg_fn(options.ema_decay), use_buffers=True)
    if machine.compile:
        torch._functorch.config.donated_buffer = False  # the gradient share looks at the graph a second time
        learner.student.forward_train = torch.compile(learner.student.forward_train)  # type: ignore[method-assign]
    wrapped, wrapped_optimiser = setting.fabric.setup(learner, optimiser)
    return Parts(setting.fabric, learner, wrapped, wrapped_optimiser, feed, average)


def plan_run(setting: Setting, learner: Learner, feed: Feed) -> Plan:
    """Return what the loop does."""
    settings = setting.settings
    data, options = settings.data, settings.optimiser
    random = setting.cache.random_teachers(learner.distiller.taps)
    return Plan(
        folder=setting.folder,
        title=setting.folder.name,
        epochs=options.epochs,
        phases=tuple(PhasePlan(**asdict(phase)) for phase in settings.phases),
        inputs=InputOptions(
            input_px=data.input_px,
            scales=data.scales,
            stride=learner.student.largest_stride,
            colours=ColourRange(**asdict(settings.colour)),
            pads=setting.cache.pads,
            channels_last=settings.machine.channels_last,
            seed=settings.seed,
        ),
        schedule=RateSchedule(options.epochs * feed.steps, options.schedule, options.warmup_frac),
        clip_norm=options.clip_norm,
        patience_epochs=options.patience_epochs,
        meta={"input_px": data.input_px, "distillation": settings.distill.kind, "seed": settings.seed}
        | ({"random_teachers": random} if random else {}),
    )


def describe_run(setting: Setting, learner: Learner, feed: Feed) -> dict[str, Any]:
    """Return the facts that run.json holds from the start."""
    distiller, cache = learner.distiller, setting.cache
    used = {"pictures", *(f"teachers/{tap.partition('/')[0]}" for tap in distiller.taps)}
    digests = [part.content_digests() for part in cache.parts]
    return {
        "settings": asdict(setting.settings),
        "versions": describe_versions(),
        "hardware": describe_hardware(setting.fabric.device, setting.fabric.world_size),
        "seed": setting.settings.seed,
        "caches": [str(path.resolve()) for path in setting.sources.caches],
        "cache_digests": [{name: each for name, each in some.items() if name in used} for some in digests],
        "manifest_digests": [_digest_records(part.table.records) for part in cache.parts],
        "rows": {
            "train_views": len(feed.selection.train),
            "val_records": len(feed.selection.val),
            "labelled_records": len(feed.labelled),
            "unlabelled_records": len(feed.unlabelled),
        },
        "steps_per_epoch": feed.steps,
        "pictures_per_step": feed.shape.step,
        "stage": feed.loader.stage.line,
        "taps": list(distiller.taps),
        "random_teachers": cache.random_teachers(distiller.taps),
        "distillation": {"alive": None, "warnings": [], "about": distiller.describe()},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "running",
    }


def _weights_of(settings: Settings) -> str:
    chosen = settings.student.weights
    return default_weights(settings.student.name) if chosen == "auto" else chosen


def _feed_options(settings: Settings) -> FeedOptions:
    data = settings.data
    return FeedOptions(
        batch=data.batch_size,
        accumulate=data.accumulate,
        views=data.views,
        all_views=data.all_views,
        labels_frac=data.labels_frac,
        labelled_min_frac=data.labelled_min_frac,
        seed=settings.seed,
    )


def _digest_records(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return SHA-256 over the manifest as the cache keeps it."""
    digest = sha256()
    for line in lines:
        digest.update(json.dumps(line, sort_keys=True, default=str).encode())
    return digest.hexdigest()
