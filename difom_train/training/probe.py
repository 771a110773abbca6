"""Logits that a cache has no column of: heads fitted to the run's own masks before it starts, kept in the run folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from difom_cache import Cache, open_cache, probe
from difom_cache.base.errors import CacheIdentityError, CacheIncompleteError, DataError, DifomError, RunError
from difom_cache.base.progress import say
from difom_train.config import TrainConfig
from difom_train.data.caches import JointCache
from difom_train.distill.matching import logits_taps, taps_of
from difom_train.training.masks import lacks_masks, learns_masks
from difom_train.training.processes import Processes

PROBE_FOLDER = "probe"


def needs_probe(config: TrainConfig, caches: Sequence[Cache]) -> bool:
    """Whether a run learns from teachers' masks and its caches have features alone; says why no probe can be fitted to them.

    A list of teachers is complete: nothing is added to it. Where every training image has its own mask, a probe would teach none.
    """
    options = config.distill
    wanted = config.needs_teachers and learns_masks(options)
    if not wanted or options.probe == "none" or options.teachers or not all(isinstance(each, Cache) for each in caches):
        return False
    taps = [(cache, list(dict.fromkeys(tap.partition("/")[0] for tap in cache.taps))) for cache in caches]
    if any(logits_taps(cache, labels) for cache, labels in taps):
        return False
    if not all(taps_of(cache, labels, "feature") for cache, labels in taps):
        return False
    if not lacks_masks(JointCache(caches), config.data, seed=config.seed):
        return False
    reason = ""
    if len(caches) > 1:
        reason = "several caches are trained on together, and a probe is one cache's"
    elif not caches[0].has_pictures:
        reason = f"{caches[0].path} holds no masks (it was made with --no-pictures)"
    elif config.data.labels_frac < 1:
        reason = "data.labels_frac is a budget of earlier versions; use data.labels"
    elif not ((caches[0].table.labelled > 0) & (caches[0].table.split == 0)).any():
        reason = f"{caches[0].path} holds no mask of a training record"
    if reason:
        say(f"no probe is fitted, and no teacher's mask teaches: {reason}")
    return not reason


def open_probed(config: TrainConfig, cache: Cache, folder: Path, processes: Processes, *, going_on: bool) -> Cache:
    """Return the cache with the probe of the run folder beside it, fitted now by the first process where there is none.

    The cache is never written to. All views' logits are computed once: every process reads them as it reads a column, and a
    run that is resumed reads the very same ones.

    Raises:
        RunError: the run was begun with a probe, which is gone.
    """
    home = folder / PROBE_FOLDER
    answer = ""
    if processes.is_main and not going_on:
        try:
            fit_probe(config, cache, home)
        except (CacheIncompleteError, DataError) as error:
            say(f"no probe is fitted, and no teacher's mask teaches: {error}")
            shutil.rmtree(home, ignore_errors=True)
        except DifomError as error:
            answer = str(error)
    if problem := processes.share(answer):
        raise RunError(problem)
    return open_cache(cache.path, access=config.machine.access, beside=home) if home.exists() else cache


def fit_probe(config: TrainConfig, cache: Cache, home: Path) -> None:
    """Fit a probe of all teachers to the masks of the run's budget; what an earlier start with other settings left goes."""
    options = {"teachers": list(cache.teachers), "labels": config.data.labels, "labels_seed": config.data.labels_seed}
    options |= {"access": config.machine.access}
    try:
        probe(cache.path, into=home, **options)  # type: ignore[arg-type]
    except CacheIdentityError:
        shutil.rmtree(home)
        probe(cache.path, into=home, **options)  # type: ignore[arg-type]
