"""The missing blocks of a run's columns, computed here or by the workers of an engine, and counted in its report."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import nullcontext

from difom_cache.base.errors import StorageError
from difom_cache.base.progress import ProgressBar
from difom_cache.base.progress import say as write_above
from difom_cache.base.text import format_seconds
from difom_cache.extraction.blocks import compute_blocks, compute_run
from difom_cache.extraction.engines import RETRIES, EngineOptions, count_local, open_executor
from difom_cache.extraction.jobs import BlockJob, BlockReport, ViewJob
from difom_cache.extraction.prepare import ColumnWork
from difom_cache.extraction.report import STAGES, ExtractReport
from difom_cache.extraction.teachers import release_teachers

RUN_BLOCKS = 4  # that a worker is sent together: it reads the pictures of the next one while it computes
RUNS_AT_LEAST = 16  # so that workers end at about the same time; not tuned


def compute_columns(
    works: Sequence[ColumnWork],
    missing: Mapping[str, Sequence[int]],
    rows: Sequence[ViewJob],
    options: EngineOptions,
    report: ExtractReport,
    *,
    quiet: bool,
    workers: Executor | None = None,
) -> None:
    """Compute the missing blocks of each column, by its folder, and count them in `report`; `workers` may be there already."""
    here = options.engine == "local" and count_local(options) == 1
    is_open = workers is not None or here or not any(missing.values())
    with nullcontext(workers) if is_open else open_executor(options) as executor:
        if executor is not None:
            release_teachers()
        for work in works:
            _compute_column(work, missing[work.column.folder], rows, executor, report, quiet=quiet)


def _compute_column(
    work: ColumnWork,
    missing: Sequence[int],
    rows: Sequence[ViewJob],
    executor: Executor | None,
    report: ExtractReport,
    *,
    quiet: bool,
) -> None:
    """Compute the missing blocks of one column and count them in `report`."""
    column, cache = work.column, report.cache.resolve()
    views = {block: tuple(rows[slice(*column.range_of(block))]) for block in missing}
    jobs = [BlockJob(cache, column.folder, block, column.rows, views[block], work.request) for block in missing]
    started_s = time.perf_counter()
    sums = dict.fromkeys(STAGES, 0.0)
    with ProgressBar(sum(len(job.views) for job in jobs), column.folder, "view", quiet=quiet) as bar:
        for done in run_jobs(jobs, executor):
            bar.update(done.views)
            if not done.skipped:
                report.computed_blocks[column.folder] += 1
                report.views[column.folder] += done.views
                sums = {stage: sums[stage] + done.seconds[stage] for stage in STAGES}
                if report.computed_blocks[column.folder] == 1 and len(jobs) > 1 and bar.is_shown:
                    left_s = (time.perf_counter() - started_s) * (len(jobs) - 1)
                    write_above(f"{column.folder}: about {format_seconds(left_s)} left after the first block")
    report.seconds[column.folder] = sums
    report.wall_s[column.folder] = time.perf_counter() - started_s


def run_jobs(jobs: Sequence[BlockJob], executor: Executor | None) -> Iterator[BlockReport]:
    """Yield the report of every job, in the order in which they end; without an executor, from this process.

    What a file system could not say or take for some seconds is tried again, block by block, as Dask does by itself.
    """
    left = {job.block: job for job in jobs}
    for tried in range(RETRIES + 1):
        try:
            for done in _run_once(list(left.values()), executor):
                del left[done.block]
                yield done
            return
        except StorageError as error:
            if tried == RETRIES:
                raise
            write_above(f"{error}; trying again, {len(left)} blocks are left")


def _run_once(jobs: Sequence[BlockJob], executor: Executor | None) -> Iterator[BlockReport]:
    if executor is None:
        yield from compute_blocks(jobs)
        return
    size = max(1, min(RUN_BLOCKS, len(jobs) // RUNS_AT_LEAST))
    futures = [executor.submit(compute_run, jobs[start : start + size]) for start in range(0, len(jobs), size)]
    try:
        for future in as_completed(futures):
            done, error = future.result()
            yield from done
            if error is not None:
                raise error
    except BaseException:
        for future in futures:
            future.cancel()
        raise
