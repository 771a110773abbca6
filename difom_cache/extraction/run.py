"""TOP FILE of stage one: settings become a cache. Views are drawn, identities fixed, missing blocks computed."""

import hashlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import Executor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from tqdm import tqdm

from difom_cache.data.manifest import Record, load_records
from difom_cache.errors import CacheSpaceError, SettingsError
from difom_cache.extraction.blocks import (
    BlockJob,
    BlockReport,
    ViewJob,
    compute_block,
    compute_blocks,
)
from difom_cache.extraction.engines import EngineOptions, count_local, open_executor
from difom_cache.extraction.estimate import Estimate, estimate_run, format_passes, refuse_full_disk
from difom_cache.extraction.prepare import ColumnChoices, ColumnWork, prepare_pictures, prepare_teacher
from difom_cache.extraction.teachers import (
    AUTO,
    TeacherOrderLine,
    load_teacher,
    outline,
    own_teachers,
    release_teachers,
)
from difom_cache.extraction.timing import STAGES
from difom_cache.extraction.weights import choose_weights
from difom_cache.hardware import resolve_device
from difom_cache.store.atomic import remove_stale
from difom_cache.store.identity import Identity, format_random_warning, list_random
from difom_cache.store.layout import FORMAT_VERSION, PICTURES, SPLITS, Column
from difom_cache.store.ledger import (
    find_short_blocks,
    list_markers,
    read_damaged,
    read_markers,
    withdraw_block,
    write_damaged,
)
from difom_cache.store.stats import fold_statistics
from difom_cache.store.writer import RowTable, create_cache, format_records
from difom_cache.text import format_seconds
from difom_cache.views.params import COLUMNS, REPLAY_VERSION
from difom_cache.views.plan import ViewPlan, draw_plan

DEFAULT_EPOCHS = 75  # the paper's, for the sentence on teacher passes saved


@dataclass
class ExtractReport:
    """What a run did: the estimate it began with, seconds by column and stage, blocks computed, missing, and missing
    of this run's own part (`left_blocks`), which is a failure."""

    cache: Path
    estimate: Estimate
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    wall_s: dict[str, float] = field(default_factory=dict)
    views: Counter[str] = field(default_factory=Counter)
    computed_blocks: Counter[str] = field(default_factory=Counter)
    missing_blocks: dict[str, int] = field(default_factory=dict)
    left_blocks: dict[str, list[int]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every block of every column of this run is finished."""
        return not any(self.missing_blocks.values())


@own_teachers()
def extract(
    *,
    teacher: str | Sequence[str] = "sam",
    data: str | Path = "./data",
    cache: str | Path = "./feats",
    weights: str | Sequence[str] = "hub",
    views: int = 8,
    seed: int = 0,
    plan: str = "default",
    input_size: int = 352,
    strides: Sequence[int] | None = None,
    codec: str = "int8",
    taps: Sequence[str] | None = None,
    split: Sequence[str] = ("train", "val"),
    limit: int | None = None,
    unlabelled: bool = False,
    pictures: bool = True,
    device: str = "auto",
    precision: str | None = None,
    batch_size: int | None = None,
    compile: bool = False,
    backend: str | None = None,
    engine: str = "local",
    workers: int | None = None,
    scheduler: str | None = None,
    jobs: str | Path | None = None,
    part: str | None = None,
    epochs: int = DEFAULT_EPOCHS,
    runs: int = 1,
    dry_run: bool = False,
    force: bool = False,
    public: bool = False,
    quiet: bool = False,
) -> ExtractReport:
    """Run teachers once over augmented views of a data set and keep their features; finish what an earlier run began.

    Args:
        teacher: one or several `NAME[:VARIANT][@PX]`.
        data: a manifest, a benchmark's root or any folder inside it.
        cache: folder to fill.
        weights: "hub", "random" or a path, for all teachers; or, in any number, "NAME=WEIGHTS" for one.
        views: views of each training record.
        seed: of the view plan.
        plan: name of the view policy.
        input_size: side of the stored pictures, px; strides refer to it.
        strides: at which features are kept, in picture px; None for each teacher's own.
        codec: "int8", "float16" or "compact".
        taps: names of the taps to keep; None for each teacher's default ones.
        split: splits to cache.
        limit: records of each split.
        unlabelled: pictures without a mask are meant.
        pictures: store the rendered student views and masks too.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: None for bfloat16 on CUDA and float32 elsewhere.
        batch_size: None probes the device.
        compile: run teachers through torch.compile.
        backend: what runs teachers' networks: "torch", "openvino", or "auto", which takes what a begun column holds and, on a
            CPU, OpenVINO where it is installed; None for what the environment variable DIFOM_BACKEND says, else "auto".
        engine: "local", "dask", "slurm" or another job queue by name.
        workers: processes or jobs; None for the engine's own choice.
        scheduler: address of a running Dask scheduler.
        jobs: TOML file with job options.
        part: "I/N": compute every N-th block only, starting with the I-th.
        epochs: of each training run, for the estimate.
        runs: training runs, for the estimate.
        dry_run: stop after the estimate.
        force: go on where the disk looks too small.
        public: let everybody enter the folder of stored pictures, as far as the umask allows.
        quiet: print nothing.

    Raises:
        DifomError: whatever the user can mend, in one line.
    """
    refuse_too_small(
        {"--views": views, "--input-size": input_size, "--batch-size": batch_size, "--workers": workers}
        | {"--epochs": epochs, "--runs": runs}
    )
    folder, chosen_device = Path(cache), str(resolve_device(device))
    say = (lambda text: None) if quiet else print
    records = load_records(Path(data), unlabelled=unlabelled, splits=tuple(split), limit=limit)
    view_plan = draw_plan(records, views=views, seed=seed, policy=plan)
    rows = ViewList(records, view_plan)
    refuse_unwritable(folder)
    specs = [teacher] if isinstance(teacher, str) else list(teacher)
    orders = [
        TeacherOrderLine(
            spec=spec,
            weights=own_weights,
            taps=tuple(taps) if taps else None,
            strides=tuple(strides) if strides else None,
            device=chosen_device,
            precision=precision,
            picture_px=input_size,
            compile=compile,
            backend=backend or os.environ.get("DIFOM_BACKEND", AUTO),
        )
        for spec, own_weights in zip(specs, choose_weights(weights, specs), strict=True)
    ]
    for order in orders:  # a name or file that does not exist must leave no cache behind
        if dry_run:
            outline(order)
        else:
            load_teacher(order)
    if not dry_run:
        start_cache(folder, records, view_plan, views=views, picture_px=input_size)
    works = []
    if pictures:
        pads = not view_plan.wholly_valid
        works.append(
            prepare_pictures(folder, picture_px=input_size, pads=pads, rows=len(rows), dry=dry_run, public=public)
        )
    choices = ColumnChoices(codec=codec, batch=batch_size)
    works += [prepare_teacher(folder, order, choices, rows, dry=dry_run) for order in orders]

    missing = {work.column.folder: find_missing(folder, work, part, repair=not dry_run) for work in works}
    estimate = estimate_run(
        [w.column for w in works], [len(missing[w.column.folder]) for w in works], views=views, epochs=epochs, runs=runs
    )
    report = ExtractReport(folder, estimate)
    say(f"{folder}: {len(records)} records, plan {plan!r}, seed {seed}, {views} views of each training record")
    say(estimate.format())
    say(format_passes(estimate.passes_saved, views=views, epochs=epochs, runs=runs))
    for work in works:
        if "backend" in work.identity:
            say("{}: OpenVINO {} runs the network".format(work.column.folder, work.identity["backend"]["version"]))
    random_labels = list_random({Path(w.column.folder).name: w.identity for w in works if w.order is not None})
    if random_labels:
        say(format_random_warning(random_labels))
    if not force:
        refuse_full_disk(folder, estimate)
    if dry_run:
        report.missing_blocks = {name: len(blocks) for name, blocks in missing.items()}
        return report

    devices = torch.cuda.device_count() if chosen_device == "cuda" else 0
    options = EngineOptions(scheduler, Path(jobs) if jobs else None, workers, devices)
    busy = any(missing.values())
    with open_executor_elsewhere(engine, options) if busy else nullcontext() as executor:
        if executor is not None:
            release_teachers()
        for work in works:
            compute_column(folder, work, missing[work.column.folder], rows, executor, report, quiet=quiet)
    finish_columns(folder, works, report)
    report.left_blocks = {work.column.folder: find_missing(folder, work, part, repair=False) for work in works}
    say(format_rates(report))
    return report


def refuse_too_small(numbers: dict[str, int | None]) -> None:
    """Raise where a number that counts something is below one, before it decides what a cache contains.

    Raises:
        SettingsError: names the option.
    """
    for option, number in numbers.items():
        if number is not None and number < 1:
            raise SettingsError(f"{option}: expected at least 1, found {number}")


def open_executor_elsewhere(engine: str, options: EngineOptions) -> AbstractContextManager[Executor | None]:
    """Return the executor of an engine, or None where blocks are computed here, one after the other."""
    if engine == "local" and count_local(options) == 1:
        return nullcontext()
    return open_executor(engine, options)


class ViewList(Sequence[ViewJob]):
    """Every row of a plan with its record, made when it is asked for: a million views are more than one start needs."""

    def __init__(self, records: Sequence[Record], plan: ViewPlan) -> None:
        self._records, self._plan = records, plan

    def __len__(self) -> int:
        return len(self._plan)

    @overload
    def __getitem__(self, row: int) -> ViewJob: ...

    @overload
    def __getitem__(self, row: slice) -> list[ViewJob]: ...

    def __getitem__(self, row: int | slice) -> ViewJob | list[ViewJob]:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        record = self._records[self._plan.record[row]]
        return ViewJob(record, self._plan[row], record.split == "train", int(self._plan.view[row]))


def start_cache(cache: Path, records: Sequence[Record], plan: ViewPlan, *, views: int, picture_px: int) -> Identity:
    """Make `cache` hold its identity and table of rows, or refuse where it holds another's."""
    lines = [
        {
            **{name: getattr(r, name) for name in ("id", "dataset", "split", "group", "width", "height")},
            **{"labelled": int(r.labelled), "image_sha256": r.image_sha256, "mask_sha256": r.mask_sha256},
        }
        for r in records
    ]
    formatted = format_records(lines)
    identity: Identity = {
        "format": FORMAT_VERSION,
        "replay": REPLAY_VERSION,
        "picture_px": picture_px,
        "rows": len(plan),
        "records": len(records),
        "records_sha256": hashlib.sha256(formatted).hexdigest(),
        "plan": {
            "policy": plan.policy,
            "seed": plan.seed,
            "views": views,
            "digest": plan.digest(),
            "params": list(COLUMNS),
        },
    }
    create_cache(cache, identity, formatted, tabulate(records, plan))
    return identity


def tabulate(records: Sequence[Record], plan: ViewPlan) -> RowTable:
    """Return the table of rows; records without a group are each a group of their own."""
    names = {record.group or f"\n{record.id}": None for record in records}
    numbers = {name: number for number, name in enumerate(names)}
    groups = np.array([numbers[r.group or f"\n{r.id}"] for r in records], dtype=np.int32)
    splits = np.array([SPLITS.index(r.split) for r in records], dtype=np.uint8)
    labelled = np.array([r.labelled for r in records], dtype=np.uint8)
    of = plan.record
    return RowTable(plan.record, plan.view, splits[of], groups[of], labelled[of], plan.params)


def find_missing(cache: Path, work: ColumnWork, part: str | None, *, repair: bool) -> list[int]:
    """Return the blocks that are to be computed, in a random order of this writer's own.

    Blocks of this part whose marker cannot be believed, whose files are short, or that `verify` found damaged, are
    withdrawn first where `repair` is true.
    """
    column = work.column
    first, step = parse_part(part)
    there = list_markers(
        cache, column
    )  # before they are read: one that another writer adds meanwhile is not unreadable
    markers = read_markers(cache, column, skip_unreadable=True)
    unreadable = there.keys() - markers.keys()
    listed = set(read_damaged(cache).get(column.folder, []))
    bad = unreadable | set(find_short_blocks(cache, column, markers)) | listed
    own = {block for block in bad if block % step == first}
    if repair and own:
        repair_blocks(cache, column, own, listed)
    missing = [b for b in range(column.blocks) if (b not in markers or b in bad) and b % step == first]
    random.shuffle(missing)  # writers that start together seldom meet at the same block
    return missing


def repair_blocks(cache: Path, column: Column, blocks: Set[int], listed: Set[int]) -> None:
    """Make `blocks` missing, so that they are computed anew.

    They are listed as damaged until nothing is left of them: a file that stayed behind when this process was killed
    would be taken for another writer's, and marked.

    Args:
        cache: the cache's folder.
        column: pictures or one teacher.
        blocks: to withdraw.
        listed: blocks of the column that are listed as damaged already.
    """
    write_damaged(cache, read_damaged(cache) | {column.folder: sorted(blocks | listed)})
    for block in sorted(blocks):
        withdraw_block(cache, column, block)
    write_damaged(cache, read_damaged(cache) | {column.folder: sorted(listed - blocks)})


def parse_part(part: str | None) -> tuple[int, int]:
    """Return (first block, step) of "I/N"; None is everything.

    Raises:
        SettingsError: not of this form.
    """
    if part is None:
        return 0, 1
    first, slash, step = part.partition("/")
    if not (slash and first.isdecimal() and step.isdecimal() and 1 <= int(first) <= int(step)):
        raise SettingsError(f"--part: expected I/N with 1 <= I <= N, such as 1/8, found {part!r}")
    return int(first) - 1, int(step)


def compute_column(
    cache: Path,
    work: ColumnWork,
    missing: Sequence[int],
    rows: Sequence[ViewJob],
    executor: Executor | None,
    report: ExtractReport,
    *,
    quiet: bool,
) -> None:
    """Compute the missing blocks of one column and count them in `report`."""
    column = work.column
    jobs = [
        BlockJob(
            cache.resolve(), column.folder, block, column.rows, tuple(rows[slice(*column.range_of(block))]), work.order
        )
        for block in missing
    ]
    started_s = time.perf_counter()
    sums = dict.fromkeys(STAGES, 0.0)
    bar = tqdm(
        total=sum(len(job.views) for job in jobs), desc=column.folder, unit="view", disable=True if quiet else None
    )
    with bar:
        for done in run_jobs(jobs, executor):
            bar.update(done.views)
            if not done.skipped:
                report.computed_blocks[column.folder] += 1
                report.views[column.folder] += done.views
                sums = {stage: sums[stage] + done.seconds[stage] for stage in STAGES}
                if report.computed_blocks[column.folder] == 1 and len(jobs) > 1 and not quiet and not bar.disable:
                    left_s = (time.perf_counter() - started_s) * (len(jobs) - 1)
                    bar.write(f"{column.folder}: about {format_seconds(left_s)} left after the first block")
    report.seconds[column.folder] = sums
    report.wall_s[column.folder] = time.perf_counter() - started_s


def run_jobs(jobs: Sequence[BlockJob], executor: Executor | None) -> Iterator[BlockReport]:
    """Yield the report of every job, in the order in which they end; without an executor, from this process."""
    if executor is None:
        yield from compute_blocks(jobs)
        return
    futures = [executor.submit(compute_block, job) for job in jobs]
    try:
        for future in as_completed(futures):
            yield future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def finish_columns(cache: Path, works: Sequence[ColumnWork], report: ExtractReport) -> None:
    """Sum statistics of complete columns, remove what dead writers left, and count what is still missing."""
    for work in works:
        markers = read_markers(cache, work.column, skip_unreadable=True)
        for block in find_short_blocks(cache, work.column, markers):
            del markers[block]  # two writers that repair one block at once can leave a marker without its files
        report.missing_blocks[work.column.folder] = work.column.blocks - len(markers)
        if work.column.folder != PICTURES:
            fold_statistics(cache, work.column, markers)
    remove_stale(cache)


def refuse_unwritable(cache: Path) -> None:
    """Raise before any work is done where the cache cannot be written.

    Raises:
        CacheSpaceError: the path is a file.
    """
    if cache.exists() and not cache.is_dir():
        raise CacheSpaceError(f"--cache {cache} is a file; choose a folder")


def format_rates(report: ExtractReport) -> str:
    """Return one table of seconds by stage, and what each column was limited by."""
    lines = []
    for folder, seconds in report.seconds.items():
        views = report.views[folder]
        missing = report.missing_blocks.get(folder, 0)
        state = f"{missing} blocks missing" if missing else "complete"
        if not views:
            lines.append(f"{folder}: {state}, nothing to compute")
            continue
        wall_s = report.wall_s[folder]
        lines.append(f"{folder}: {state}; {views} views in {format_seconds(wall_s)}, {views / wall_s:.1f} views/s")
        lines.append("  " + "  ".join(f"{stage} {seconds[stage]:.1f} s" for stage in STAGES))
        lines.append(f"  limited by {name_limit(seconds)}")
    return "\n".join(lines)


def name_limit(seconds: dict[str, Any]) -> str:
    """Return the stage that the pass waited for longest, in words."""
    if seconds["wait"] > seconds["teacher"] + seconds["render"] + seconds["encode"] + seconds["copy"]:
        return "reading and decoding pictures" if seconds["decode"] > seconds["write"] else "writing to the disk"
    stage = max(("render", "teacher", "encode", "copy"), key=lambda name: seconds[name])
    words = {
        "render": "rendering views",
        "teacher": "the teacher",
        "encode": "pooling and encoding",
        "copy": "copying codes",
    }
    return words[stage]
