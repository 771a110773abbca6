"""A probe's column against itself: heads fitted again, and the logits that they give."""

import numpy as np
import torch

from difom_cache.base.errors import CacheFormatError, CacheIdentityError
from difom_cache.base.hardware import torch_threads
from difom_cache.codecs.measure import measure_fidelity
from difom_cache.probing.cells import FeatureReader, valid_cells
from difom_cache.probing.column import compute_logits
from difom_cache.probing.options import ProbeConfig
from difom_cache.probing.plan import ProbePlan, plan_probe
from difom_cache.probing.run import FIT_BYTES, choose_fit_rows, fit
from difom_cache.store.reader import Cache, require_teacher


def recompute_probe(cache: Cache, label: str, *, views: int, seed: int) -> dict[str, dict[str, float]]:
    """Fit a probe's heads again and compare their logits of random views with those stored; figures by tap.

    Raises:
        CacheFormatError: the cache lacks a teacher that the probe read.
        CacheIdentityError: the masks that its budget draws here are not those it was fitted on.
    """
    plan = replan(cache, label)
    identity = require_teacher(cache, label)
    reader = FeatureReader(cache, plan.taps, plan.read_grid)
    rows = np.random.default_rng(seed).permutation(len(cache))[:views]
    tap = f"{label}/{identity.taps[0].name}"
    with torch_threads(identity.threads):
        heads = fit(cache, plan, reader, choose_fit_rows(cache, plan, most=FIT_BYTES // reader.row_bytes))
        live = compute_logits(cache, reader, heads, plan, rows)
    stored = cache.gather(rows, [tap], pictures=False)
    target = torch.from_numpy(cache.decode(tap, stored[f"{tap}/code"], stored.get(f"{tap}/scale")))
    fidelity = measure_fidelity(live, target, valid_cells(cache, rows, plan.grid))
    return {
        tap: {
            "views": float(len(rows)),
            "cosine_mean": fidelity.mean_cosine,
            "cosine_percentile_1": fidelity.cosine_percentile(1),
            "max_error": float((live - target).abs().max()),
        }
    }


def replan(cache: Cache, label: str) -> ProbePlan:
    """Return the plan that a probe's identity speaks of."""
    identity = require_teacher(cache, label)
    facts = identity.probe
    if facts is None:
        raise CacheFormatError(f"{cache.path}: {label} is no probe")
    plan = plan_probe(
        cache,
        ProbeConfig(
            cache=cache.path,
            teachers=tuple(facts.reads),
            labels=facts.labels,
            labels_seed=facts.labels_seed,
            folds=facts.folds,
            head=facts.head,  # type: ignore[arg-type]  # the config refuses one that it does not know
            stride=identity.taps[0].stride,
            name=label,
        ),
    )
    if plan.masks_sha256 != facts.masks_sha256:
        raise CacheIdentityError(
            f"{cache.path}: {label} was fitted on masks with digest {facts.masks_sha256[:12]}, its budget draws others "
            f"here ({plan.masks_sha256[:12]}); drop the column and run `difom-cache probe` anew"
        )
    return plan
