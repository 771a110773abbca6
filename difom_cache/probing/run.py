"""TOP FILE of `difom-cache probe`: a cache's own features and some of its masks become a column of logits."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from difom_cache.base import disk
from difom_cache.base.atomic import remove_stale
from difom_cache.base.errors import CacheFormatError, CacheIdentityError, CacheIncompleteError
from difom_cache.base.hardware import torch_threads
from difom_cache.base.options import read_call
from difom_cache.base.progress import say, track
from difom_cache.base.text import Shown, count_of, format_seconds
from difom_cache.codecs.measure import measure_fidelity
from difom_cache.data.record import by_hash
from difom_cache.extraction.missing import find_missing
from difom_cache.extraction.prepare import ColumnWork
from difom_cache.probing.cells import FeatureReader, UnseenScore, read_truth, score_logits, valid_cells
from difom_cache.probing.column import compute_logits, identify_probe, write_logits
from difom_cache.probing.heads import Heads, fit_heads, read_heads, write_heads
from difom_cache.probing.lesson import Lesson
from difom_cache.probing.options import ProbeConfig
from difom_cache.probing.plan import ProbePlan, find_labels, plan_probe
from difom_cache.probing.wait import describe_wait
from difom_cache.store.columns import teacher_column
from difom_cache.store.consolidated import consolidate
from difom_cache.store.identity import write_seen_masks
from difom_cache.store.layout import HEADS, Column, teacher_folder
from difom_cache.store.ledger import read_markers
from difom_cache.store.reader import Cache, open_cache, require_teacher
from difom_cache.store.schema import TeacherIdentity
from difom_cache.store.stats import fold_statistics
from difom_cache.store.table import read_records
from difom_cache.store.writer import create_cache, create_column

if TYPE_CHECKING:
    from difom_cache.keywords import ProbeKeywords

FIT_BYTES = 2_000_000_000  # of features that heads are fitted on; more views than fit are left out


@dataclass(frozen=True, repr=False)
class ProbeReport(Shown):
    """What a run of `probe` did.

    Attributes:
        label: of the column; `<label>/logits@<stride>` is its tap.
        tap: full name of the tap.
        masks: training masks of the budget, which the heads learnt from.
        views: views of them that the heads were fitted on.
        fit_s, write_s: seconds of the two parts.
        blocks: computed by this run.
        crossfitted: score on the budget's training frames, whose masks their own head did not see.
        validation: score on the budget's validation frames, whose masks no head saw.
    """

    label: str
    tap: str
    masks: int
    views: int
    fit_s: float
    write_s: float
    blocks: int
    crossfitted: UnseenScore
    validation: UnseenScore

    def _line(self) -> str:
        return f"{self.tap}: fitted to {count_of(self.masks, 'mask')}, {count_of(self.views, 'view')} of them"

    def _table(self) -> list[list[object]]:
        rows: list[list[object]] = [["frames whose mask no head saw", "frames", "Dice at 0.5"]]
        for name, score in (("training", self.crossfitted), ("validation", self.validation)):
            rows.append([name, score.frames, f"{score.dice:.3f}" if score.frames else "-"])
        return rows


def probe(
    cache: str | Path | ProbeConfig | None = None,
    *,
    into: str | Path | None = None,
    quiet: bool = False,
    **options: "Unpack[ProbeKeywords]",
) -> ProbeReport:
    """Fit light heads from a cache's features to its masks, and write their logits for every row as a column of its own.

    A labelled record's logits, in all its views, come from a head that saw neither its mask nor one of its group's; those
    of other records are the mean of all heads'. No teacher is run. The same call again resumes.

    Args:
        cache: its folder, or the config of the call.
        into: a folder for the column, where the cache shall stay as it is; `open_cache(cache, beside=into)` reads both.
        quiet: print nothing.
        **options: as the signature lists them.

    Raises:
        CacheIncompleteError: the cache holds no masks, or a teacher is not finished.
        CacheIdentityError: a column of that name holds another probe.
        DataError, SettingsError: too few masks; an option that cannot be meant.
    """
    config = read_call(ProbeConfig, options, cache=cache)
    opened = open_cache(config.cache, access=config.access)
    refuse_unreadable(opened)
    config = config.model_copy(update={"teachers": find_labels(opened, config.teachers)})
    plan = plan_probe(opened, config)
    reader = FeatureReader(opened, plan.taps, plan.read_grid)
    rows = choose_fit_rows(opened, plan, most=FIT_BYTES // reader.row_bytes)
    home = opened.path if into is None else Path(into)
    if into is not None:
        create_cache(home, opened.identity, read_records(opened.path, opened.identity), opened.table.as_rows())
    column, identity = open_column(opened, home, plan, views=len(rows))
    with torch_threads(identity.threads):
        started_s = time.perf_counter()
        missing = find_missing(home, ColumnWork(column, identity, None), repair=True)
        if not quiet and missing:
            views = sum(stop - start for start, stop in map(column.range_of, missing))
            say(describe_wait(plan, reader, home, fitted=len(rows), written=views, once=into is not None))
        heads = obtain_heads(opened, home, plan, reader, rows, quiet=quiet)
        fitted_s = time.perf_counter()
        for block in track(sorted(missing), column.folder, "block", quiet=quiet):
            write_logits(opened, home, column, block, reader, heads, plan)
        fold_statistics(home, column, read_markers(home, column))
        remove_stale(home)
        consolidate(home)
    written_s = time.perf_counter()
    beside = None if into is None else home
    report = make_report(
        open_cache(opened.path, access=config.access, beside=beside),
        plan,
        column,
        len(rows),
        len(missing),
        (fitted_s - started_s, written_s - fitted_s),
    )
    if not quiet:
        print(format_report(report))
    return report


def refuse_unreadable(cache: Cache) -> None:
    """Raise where the masks are not stored.

    Raises:
        CacheIncompleteError: the cache was made with --no-pictures, or its pictures are not finished.
    """
    if not cache.has_pictures:
        raise CacheIncompleteError(
            f"{cache.path} holds no masks (it was made with --no-pictures), and a probe learns from masks; "
            "extract into a cache with pictures"
        )
    missing = int((~cache.finished_rows([])).sum())
    if missing:
        raise CacheIncompleteError(
            f"{cache.path}: the pictures of {missing} views are not finished; "
            "run `difom-cache extract` with the same arguments to its end, then probe"
        )


def choose_fit_rows(cache: Cache, plan: ProbePlan, *, most: int) -> NDArray[np.int64]:
    """Return the rows that heads are fitted on: views 0 of all fitted records, then views 1, ... as far as `most` reaches.

    Records come in an order of the labels seed, so that where not even views 0 fit, every data set keeps its share.
    """
    table = cache.table
    rows = np.flatnonzero(plan.fitted[table.record] & (table.labelled > 0))
    seed, fitted = plan.order.labels_seed, np.flatnonzero(plan.fitted)
    rank = np.zeros(len(plan.fitted), np.int64)
    rank[sorted(fitted.tolist(), key=lambda i: by_hash(f"view {seed}\n{table.ids[i]}"))] = np.arange(len(fitted))
    return np.sort(rows[np.lexsort((rank[table.record[rows]], table.view[rows]))][:most])


def open_column(cache: Cache, home: Path, plan: ProbePlan, *, views: int) -> tuple[Column, TeacherIdentity]:
    """Make `home` ready for the blocks of a probe, or refuse where its column holds something else."""
    identity = identify_probe(cache, home, plan, fitted_views=views)
    column = teacher_column(identity, plan.label, len(cache))
    create_column(home, column, identity)
    seen = [cache.seen_masks(label) for label in plan.order.teachers]
    known = [masks for masks in seen if masks is not None]
    if len(known) == len(seen):
        write_seen_masks(home / column.folder, frozenset(plan.mask_digests).union(*known))
    return column, identity


def obtain_heads(
    cache: Cache, home: Path, plan: ProbePlan, reader: FeatureReader, rows: NDArray[np.int64], *, quiet: bool
) -> Heads:
    """Return the heads that lie beside the column's identity, fitted now where there are none."""
    folder = home / teacher_folder(plan.label)
    if disk.is_there(folder / HEADS):
        return read_heads(folder, str(plan.order.head), plan.grid)
    return write_heads(folder, fit(cache, plan, reader, rows, quiet=quiet))


def fit(cache: Cache, plan: ProbePlan, reader: FeatureReader, rows: NDArray[np.int64], *, quiet: bool = True) -> Heads:
    """Return heads fitted on `rows`."""
    fold = plan.fold_of[cache.table.record[rows]]
    rows = rows[np.argsort(fold, kind="stable")]
    ends = np.cumsum(np.bincount(fold, minlength=plan.order.folds))
    lesson = Lesson(
        reader.read_all(rows),
        read_truth(cache, rows, plan.grid),
        valid_cells(cache, rows, plan.grid),
        tuple(ends.tolist()),
    )
    return fit_heads(lesson, str(plan.order.head), plan.order.labels_seed, quiet=quiet)


def make_report(
    cache: Cache, plan: ProbePlan, column: Column, views: int, blocks: int, spent_s: tuple[float, float]
) -> ProbeReport:
    """Return what was done, with scores on view 0 of the budget's own frames: no mask outside the budget is read."""
    tap = f"{plan.label}/{Path(column.arrays[0].path).parent.as_posix()}"
    table = cache.table
    budget = (table.view == 0) & plan.budget[table.record]
    fitted = plan.fitted[table.record]
    return ProbeReport(
        label=plan.label,
        tap=tap,
        masks=int(plan.fitted.sum()),
        views=views,
        fit_s=spent_s[0],
        write_s=spent_s[1],
        blocks=blocks,
        crossfitted=score_logits(cache, tap, np.flatnonzero(budget & fitted)),
        validation=score_logits(cache, tap, np.flatnonzero(budget & ~fitted)),
    )


def format_report(report: ProbeReport) -> str:
    """Return the report as a few lines."""
    lines = [
        f"{report.tap}: heads fitted on {report.views} views of {report.masks} training masks in "
        f"{format_seconds(report.fit_s)}, {report.blocks} blocks written in {format_seconds(report.write_s)}"
    ]
    for what, score in (
        ("training frames, each by a head that did not see its group", report.crossfitted),
        ("validation frames of the budget", report.validation),
    ):
        if score.frames:
            lines.append(f"  Dice at 0.5 on {score.frames} {what}: {score.dice:.3f}")
    return "\n".join(lines)


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
    target = torch.from_numpy(cache.target(stored, tap))
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
