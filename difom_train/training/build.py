"""From a config and its caches to what a trainer works on: a learner, the rows of the run, batches; and what is said of it."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import CacheIncompleteError, SettingsError
from difom_cache.data import describe_frames, describe_unknown
from difom_cache.store import PICTURES, SPLITS
from difom_train.config import TrainConfig, to_table
from difom_train.data.caches import JointCache, require_taps
from difom_train.data.counter_rng import mix_counts
from difom_train.data.feed import Feed, Selection, select_rows
from difom_train.data.loader import Loader
from difom_train.data.stage import SourcePictures, choose_stage
from difom_train.distill.catalogue import build_distiller, revision_of
from difom_train.distill.matching import teacher_of
from difom_train.students.base import Student, check_sides
from difom_train.students.catalogue import build_student, give_weights, resolve_weights, seeded
from difom_train.students.outside import build_outside
from difom_train.training.losses import Learner
from difom_train.training.masks import choose_terms, describe_masks
from difom_train.training.processes import Processes, count_processes
from difom_train.training.run_folder import describe_hardware, describe_versions

_STUDENT, _HEADS = 31, 32  # what a mix is for


def build_learner(
    config: TrainConfig, cache: JointCache, *, pretrained: bool, student: Student | None = None
) -> Learner:
    """Return the student with its distiller and its mask loss.

    Args:
        config: of the run.
        cache: that it learns from.
        pretrained: whether pretrained weights are loaded; a checkpoint replaces every number anyway.
        student: that was handed in, in place of the one that the config names; it stays as it is.

    Raises:
        SettingsError: unknown student, or an input size that it cannot take.
        CacheIncompleteError: the cache lacks a tap that the recipe needs.
        WeightsError: pretrained weights are out of reach.
    """
    if config.needs_teachers and not cache.taps and config.distill.rounds == 1:
        raise CacheIncompleteError(
            f"{', '.join(map(str, config.run.cache))} holds no teacher to learn from; add one with "
            "`difom-cache extract --teacher NAME`, or train with --recipe baseline"
        )
    student = build_own_student(config, pretrained=pretrained, student=student)
    distiller = build_distiller(
        choose_terms(config.distill, cache, config.data, seed=config.seed) if config.distils else config.distill,
        cache=cache,
        student=student,
        input_px=config.data.input_px,
        seed=mix_counts(config.seed, _HEADS) >> 1,
    )
    return Learner(student, distiller, student.loss_name if config.student.loss == "auto" else config.student.loss)


def build_own_student(config: TrainConfig, *, pretrained: bool, student: Student | None = None) -> Student:
    """Return the student alone, with its first weights; the arguments, and what is raised, are those of `build_learner`."""
    options = config.student
    source = resolve_weights(options.name, options.weights) if pretrained else "random"
    seed = mix_counts(config.seed, _STUDENT) >> 1
    if student is None:
        student = build_student(
            options.name,
            width=options.width or None,
            weights=source,
            neck=config.distill.neck,
            deep_supervision=options.deep_supervision,
            seed=seed,
        )
    else:
        with seeded(seed):
            student = build_outside(student, replace(student.settings, neck=config.distill.neck))
        give_weights(student, source)
    check_sides(student, config.data.input_px, config.data.input_px)
    return student


def choose_rows(config: TrainConfig, cache: JointCache, taps: Sequence[str]) -> Selection:
    """Return the rows of the run, all of which can be read.

    Raises:
        CacheIncompleteError: rows are missing, and nobody said to go on without them.
    """
    wanted = select_rows(cache, config.data, seed=config.seed, usable=np.ones(len(cache), bool))
    asked = np.concatenate([wanted.train, wanted.val])
    usable = np.zeros(len(cache), bool)
    usable[require_taps(cache, asked, taps, allow_partial=config.run.allow_partial)] = True
    return select_rows(cache, config.data, seed=config.seed, usable=usable)


def open_feed(
    config: TrainConfig, cache: JointCache, processes: Processes, selection: Selection, taps: Sequence[str]
) -> Feed:
    """Return the batches of this process; the stage is filled.

    Raises:
        SettingsError: pictures are needed, and nobody said where they are.
    """
    source = None
    if config.run.source is not None and (config.data.fresh_views or not cache.has_pictures):
        source = SourcePictures(cache, config.run.source)
    elif not cache.has_pictures:
        raise SettingsError("the cache holds no images: say where they lie with --data, or --images and --masks")
    stage = choose_stage(
        config.machine.stage,
        cache,
        used=np.concatenate([selection.train, selection.val]),
        groups=[PICTURES, *taps],
        device=processes.device,
        source=source,
        processes=count_processes(dict(os.environ)).on_machine,
    )
    rows = config.data.batch_size + round(config.data.batch_size * config.data.unlabelled_ratio)
    loader = Loader(stage, rows, processes.device)
    rank, world = processes.rank, processes.world
    reach = config.colour.reach
    return Feed(cache, loader, selection, config.data, seed=config.seed, rank=rank, world=world, reach=reach)


def describe_run(config: TrainConfig, processes: Processes, learner: Learner, feed: Feed) -> dict[str, Any]:
    """Return the facts that run.json holds from the start."""
    distiller, parts = learner.distiller, feed.cache.parts
    masks, _ = describe_masks(config, feed.cache, feed.selection, distiller)
    rows, lines = _list_records(feed)
    used = {"pictures", *(f"teachers/{tap.partition('/')[0]}" for tap in distiller.taps)}
    digests = [part.content_digests() for part in parts]
    return {
        "settings": to_table(config),
        "versions": describe_versions(),
        "hardware": describe_hardware(processes.device, processes.world),
        "seed": config.seed,
        "caches": [str(path.resolve()) for path in config.run.cache],
        **({"joined_by": "image"} if feed.cache.join.describe() else {}),
        "cache_digests": [{name: each for name, each in some.items() if name in used} for some in digests],
        "manifest_digests": [_digest_records(part.table.records) for part in parts],
        "rows": {
            "train_views": len(feed.selection.train),
            "val_records": len(feed.selection.val),
            "labelled_records": len(feed.labelled),
            "unlabelled_records": len(feed.unlabelled),
        },
        "images": _describe_images(feed, rows, lines),
        "datasets": Counter(str(line["dataset"]) for line in lines),
        "groups_unknown": _find_unknown_groups(feed, rows, lines),
        "empty_masks": {
            "training": feed.count_empty(feed.supervised_rows()),
            "validation": feed.count_empty(feed.selection.val),
        },
        "masks": masks,
        "steps_per_epoch": feed.steps,
        "pictures_per_step": feed.shape.step,
        "stage": feed.loader.stage.line,
        "taps": list(distiller.taps),
        "teachers": name_teachers(feed.cache, distiller.taps),
        "random_teachers": feed.cache.random_teachers(distiller.taps),
        "revision": revision_of(config),
        "distillation": {"alive": None, "warnings": [], "about": distiller.describe()}
        | {"pairs": [asdict(match) for match in distiller.matches]},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "running",
    }


def _list_records(feed: Feed) -> tuple[NDArray[np.int64], list[Mapping[str, str]]]:
    """Return the first row of each record of the run, and its line of records.csv."""
    used = np.concatenate([feed.selection.train, feed.selection.val])
    _, first = np.unique(feed.cache.record_key[used], return_index=True)
    rows = used[np.sort(first)]
    return rows, feed.cache.records_of(rows)


def _describe_images(feed: Feed, rows: NDArray[np.int64], lines: Sequence[Mapping[str, str]]) -> str:
    """Return a line on the images of the run, as records.csv knows them."""
    frames = [
        (str(line["dataset"]), SPLITS[split], str(line["group"]), int(line["width"]), int(line["height"]))
        for line, split in zip(lines, feed.cache.split[rows], strict=True)
    ]
    return describe_frames(frames, [], ["records.csv"])


def _find_unknown_groups(feed: Feed, rows: NDArray[np.int64], lines: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a line for every data set of the run whose groups nobody knows."""
    parts = feed.cache.parts
    homes = [f" in {parts[place].path}" if len(parts) > 1 else "" for place in feed.cache.part_of(rows)]
    sets = [f"{line['dataset']}{home}" for line, home in zip(lines, homes, strict=True)]  # of one name are not one
    return describe_unknown(sets, [line["group"] for line in lines])


def name_teachers(cache: JointCache, taps: Sequence[str]) -> dict[str, str]:
    """Return the label and the name with its variant of every teacher behind some taps; of a probe, of those it reads."""
    held, labels = cache.teachers, dict.fromkeys(map(teacher_of, taps))
    for label in list(labels):
        if held[label].probe is not None:
            labels |= dict.fromkeys(held[label].probe.reads)
    return {
        label: f"{held[label].teacher.name}:{held[label].teacher.variant}"
        for label in labels
        if label in held and held[label].probe is None
    }


def _digest_records(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return SHA-256 over the manifest as the cache keeps it."""
    digest = sha256()
    for line in lines:
        digest.update(json.dumps(line, sort_keys=True, default=str).encode())
    return digest.hexdigest()
