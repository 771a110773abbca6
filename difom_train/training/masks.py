"""Which masks a run has learnt from, itself and through whoever taught it, and whether it may have seen them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from difom_cache.base.errors import SettingsError
from difom_cache.base.progress import say
from difom_train.config import DataConfig, DistillConfig, TrainConfig
from difom_train.data.caches import JointCache
from difom_train.data.feed import Selection, choose_masks
from difom_train.distill.base import Distiller
from difom_train.distill.matching import teacher_of
from difom_train.students.catalogue import IMAGENET_FILE, NO_FILE, resolve_weights
from difom_train.students.seen_masks import Seen, read_run_masks

OUTSIDE = "taught by masks that it may not see"
UNKNOWN = "training data unknown"


def choose_terms(options: DistillConfig, cache: JointCache, data: DataConfig, *, seed: int) -> DistillConfig:
    """Return the [distill] section without the teachers' masks where no image is left for them to teach; that is said.

    Args:
        options: what is asked for.
        cache: that is learnt from.
        data: which masks the run may see.
        seed: of the run.

    Raises:
        SettingsError: nothing else would teach.
    """
    if not learns_masks(options) or lacks_masks(cache, data, seed=seed):
        return options
    if options.learn == "masks" or options.feature_weight == options.relation_weight == 0:
        raise SettingsError(
            "every training image has its own mask, so the teachers' masks have none to teach; learn from features "
            "(distill.learn = both), add images without masks, or train with --recipe baseline"
        )
    say(
        "every training image has its own mask, so teachers teach by their features alone (--labels 0.1 leaves their masks some)"
    )
    return options.model_copy(update={"learn": "features"})


def learns_masks(options: DistillConfig) -> bool:
    """Whether masks that are no image's own are to teach."""
    return options.kind == "multiscale" and options.learn != "features" and options.logits_weight > 0


def lacks_masks(cache: JointCache, data: DataConfig, *, seed: int) -> bool:
    """Whether a run trains on images of which it may see no mask."""
    return not choose_masks(cache, data, seed=seed)[cache.rows_of("train")].all()


def describe_masks(
    config: TrainConfig, cache: JointCache, selection: Selection, distiller: Distiller
) -> tuple[dict[str, Any], Seen]:
    """Return what run.json says of the masks, and the digests of all that the student learns from; None where nobody knows.

    Every teacher that the run reads counts, and so do the weights that the student starts from. A mask that chooses the best
    epoch counts as one that was learnt from.
    """
    supervised = np.flatnonzero(selection.supervised)
    training, validation = cache.mask_digests(supervised), cache.mask_digests(selection.val)
    own = training | validation
    sources: dict[str, Seen] = {
        label: cache.seen_masks(label) for label in dict.fromkeys(map(teacher_of, distiller.taps))
    }
    start = resolve_weights(config.student.name, config.student.weights)
    if start not in NO_FILE and not start.startswith(IMAGENET_FILE):
        sources[f"weights {Path(start).name}"] = read_run_masks(Path(start))
    known = [masks for masks in sources.values() if masks is not None]
    seen = None if len(known) < len(sources) else own.union(*known)
    facts = {
        "labels": config.data.labels,
        "labels_seed": config.data.labels_seed,
        "training": len(training),
        "validation": len(validation),
        "taught_by": {name: describe_source(masks, own) for name, masks in sources.items()},
        "mark": mark_of(sources, own),
    }
    return facts, seen


def describe_source(masks: Seen, own: frozenset[str]) -> dict[str, int | None]:
    """Return how many masks a teacher has learnt from, and how many of them the run may not see."""
    return {"masks": None, "outside": None} if masks is None else {"masks": len(masks), "outside": len(masks - own)}


def mark_of(sources: Mapping[str, Seen], own: frozenset[str]) -> str:
    """Return what a reader of the run's scores must know; empty where nothing leaks."""
    marks = [
        OUTSIDE if any(masks is not None and masks - own for masks in sources.values()) else "",
        UNKNOWN if any(masks is None for masks in sources.values()) else "",
    ]
    return "; ".join(filter(None, marks))
