"""The top of stage one: a config becomes a cache. Views are drawn, identities fixed, missing blocks computed."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from difom_cache.base.errors import CacheSpaceError, SettingsError, install_extra
from difom_cache.base.hardware import count_gpus, explain_bfloat16, explain_memory, settle_device
from difom_cache.base.options import read_call
from difom_cache.base.progress import explain_wait
from difom_cache.base.text import count_of
from difom_cache.codecs.catalogue import describe_fallback
from difom_cache.data.groups import describe_unknown
from difom_cache.data.manifest import read_source, warn_of_fresh_splits
from difom_cache.data.understood import Understood
from difom_cache.extraction.begun import held_readings
from difom_cache.extraction.engines import EngineOptions, count_local, open_executor
from difom_cache.extraction.estimate import Estimate, estimate_run, format_passes, refuse_full_disk
from difom_cache.extraction.missing import find_missing, finish_columns, parse_part
from difom_cache.extraction.options import ExtractConfig
from difom_cache.extraction.prepare import (
    ColumnChoices,
    ColumnWork,
    continue_column,
    outline_column,
    prepare_pictures,
)
from difom_cache.extraction.report import ExtractReport, format_rates
from difom_cache.extraction.requests import OldColumn, adopt_settings, request_like, request_teachers
from difom_cache.extraction.rows import ViewList, held_splits, start_cache
from difom_cache.store.identity import format_random_warning, list_random
from difom_cache.store.layout import teacher_folder
from difom_cache.store.schema import TeacherIdentity
from difom_cache.teachers.base import TeacherRequest, has_openvino
from difom_cache.views.plan import draw_plan

if TYPE_CHECKING:
    from difom_cache.keywords import ExtractKeywords

Asked = tuple[TeacherRequest, OldColumn | None]
"How a teacher is built, and the column of the cache that `--like` names where its own is to match one."


def extract(
    config: ExtractConfig | None = None, /, *, quiet: bool = False, **options: "Unpack[ExtractKeywords]"
) -> ExtractReport:
    """Run teachers once over augmented views of a data set and keep their features; finish what an earlier run began.

    `extract(teacher="sam", views=4)` is short for `extract(ExtractConfig(teacher=("sam",), views=4))`.

    Args:
        config: of the run.
        quiet: print nothing.
        **options: the config's fields in its place, as the signature lists them; the teacher is "sam" by default.

    Raises:
        DifomError: something that you can fix; its message is one line that says how.
    """
    if config is None and not options.get("like"):
        options = {"teacher": "sam", **options}
    config = read_call(ExtractConfig, options, config=config)
    if config.measure and (not config.dry_run or config.engine != "local"):
        raise SettingsError("--measure goes with --dry-run, and measures this machine: leave --engine out")
    if config.dry_run and not config.measure:
        return run_extraction(config, quiet=quiet)
    from difom_cache.extraction.teachers import own_teachers  # late: a dry run loads no network library

    with own_teachers():
        return run_extraction(config, quiet=quiet)


@explain_memory("Give the GPU to this run alone, choose a smaller --batch-size, or --device cpu")
def run_extraction(config: ExtractConfig, *, quiet: bool) -> ExtractReport:
    """Do what `extract` says."""
    say = (lambda text: None) if quiet else print
    config = adopt_settings(config)
    if config.teacher is None and config.like is None:
        raise SettingsError("--teacher is missing: name one, or --like a cache that has some")
    part, cache, dry = parse_part(config.part), config.cache, config.dry_run
    far = config.engine != "local"  # then each worker finds its own device, and the first one decides for a column
    device = "cpu" if far else settle_device(config.device)
    source, held = config.find_source(), held_splits(cache)
    understood = read_source(source, splits=config.split, limit=config.limit, held=held, quiet=quiet)
    records = understood.records
    if not held:
        warn_of_fresh_splits(source, records)
    with explain_wait(f"drawing {config.views} views of {len(records)} records", quiet=quiet):
        plan = draw_plan(records, views=config.views, seed=config.seed, policy=config.plan)
    rows = ViewList(records, plan)
    if cache.exists() and not cache.is_dir():
        raise CacheSpaceError(f"--cache {cache} is a file; choose a folder")
    asked = list(_ask_teachers(config, device if far else config.device, rows, say))
    if not asked and not config.pictures:
        raise SettingsError("there is nothing to cache: no teacher is named, and --no-pictures leaves the views out")
    if not dry:
        from difom_cache.extraction.teacher_column import load_teachers  # late, as above

        load_teachers(cache, asked, config.codec, quiet=quiet)  # what does not exist must leave no cache behind
        start_cache(cache, records, plan, views=config.views, picture_px=config.input_size)
    devices = count_gpus() if device == "cuda" else 0
    options = EngineOptions(config.engine, config.scheduler, config.jobs, config.workers, devices)
    with open_executor(options) if far and not dry else nullcontext() as workers:
        with explain_wait("making the columns ready, and looking at what is there", quiet=quiet):
            works = list(_prepare_columns(config, asked, rows, workers))
        missing = {work.column.folder: find_missing(cache, work, part, repair=not dry) for work in works}
        columns, counts = [work.column for work in works], [len(blocks) for blocks in missing.values()]
        report = ExtractReport(
            cache, estimate_run(columns, counts, views=config.views, epochs=config.epochs, runs=config.runs)
        )
        for line in filter(None, describe_start(config, understood, works, report.estimate, device)):
            say(line)
        if devices > 1 and not far:
            say(
                f"{count_local(options)} of {devices} GPUs, a process each; CUDA_VISIBLE_DEVICES or --workers takes fewer"
            )
        if not config.force:
            refuse_full_disk(cache, report.estimate)
        if dry:
            report.missing_blocks = {name: len(blocks) for name, blocks in missing.items()}
            if config.measure:
                from difom_cache.extraction.measured import measure_teachers  # late, as above

                for line in measure_teachers(cache, works, counts, config.batch_size):
                    say(line)
            return report

        from difom_cache.extraction.compute import compute_columns  # late, as above

        compute_columns(works, missing, rows, options, report, quiet=quiet, workers=workers)
    with explain_wait("summing up the statistics", quiet=quiet):
        finish_columns(cache, works, part, report)
    say(format_rates(report))
    return report


def _ask_teachers(config: ExtractConfig, device: str, rows: ViewList, say: Callable[[str], None]) -> Iterator[Asked]:
    """Yield how each teacher is built: as asked, as the cache that `--like` names has it, or as its column was begun."""
    if config.like is not None and (like := request_like(config, device)):
        yield from like
        return
    for request in request_teachers(config, device):
        continued, line = continue_column(config.cache, request, rows.records, len(rows))
        if line:
            say(line)
        yield continued, None


def _prepare_columns(
    config: ExtractConfig, asked: Sequence[Asked], rows: ViewList, workers: Executor | None
) -> Iterator[ColumnWork]:
    """Yield the columns, each with its identity written unless it is a dry run; a worker prepares what workers compute."""
    cache, dry = config.cache, config.dry_run
    if config.pictures:
        pads = not rows.plan.wholly_valid
        yield prepare_pictures(
            cache, picture_px=config.input_size, pads=pads, rows=len(rows), dry=dry, public=config.public
        )
    for request, old in asked:
        choices = ColumnChoices(config.codec, config.batch_size, old)
        if dry:
            yield outline_column(cache, request, choices, rows)
            continue
        from difom_cache.extraction.teacher_column import prepare_elsewhere, prepare_teacher  # late, as above

        if workers is None:
            yield prepare_teacher(cache, request, choices, rows)
        else:
            there = replace(request, device=config.device)
            yield workers.submit(prepare_elsewhere, cache.resolve(), there, choices, rows).result()


def describe_start(
    config: ExtractConfig, understood: Understood, works: Sequence[ColumnWork], estimate: Estimate, device: str
) -> Iterator[str]:
    """Yield what a run says before its first block: what it will take, and what its user may not expect."""
    records = understood.records
    yield (
        f"{config.cache}: {len(records)} records, plan {config.plan!r}, seed {config.seed}, "
        f"{count_of(config.views, 'view')} of each training record"
    )
    yield from understood.describe()
    yield from describe_unknown([record.dataset for record in records], [record.group for record in records])
    yield estimate.format()
    teachers = {work.column.label: work.identity for work in works if isinstance(work.identity, TeacherIdentity)}
    if teachers:
        yield format_passes(estimate.passes_saved, views=config.views, epochs=config.epochs, runs=config.runs)
    if random := list_random(teachers):
        yield format_random_warning(random)
    taps = {f"{label}/{tap.name}": tap for label, identity in teachers.items() for tap in identity.taps}
    yield describe_fallback(config.codec, {name: tap.channels for name, tap in taps.items() if tap.kind == "feature"})
    is_usual = config.precision is None and device != "cpu"
    yield explain_bfloat16(device) if config.precision == "bfloat16" or is_usual else ""
    for label, identity in teachers.items():
        if config.engine != "local" and not config.dry_run:
            how = f"on {identity.device} in {identity.teacher.precision}, batches of {identity.batch}"
            yield f"{teacher_folder(label)}: {how}, as its first worker found; workers of another kind are refused"
        for reading in held_readings(identity, config.cache / teacher_folder(label)) or ():
            yield f"{teacher_folder(label)}: {reading.describe()}"
        if config.dry_run:
            more = "" if config.measure else "; --dry-run --measure says how long a view takes here"
            yield f"{teacher_folder(label)}: sees views at {identity.teacher.input_px} px{more}"
        if identity.backend is not None:
            yield f"{teacher_folder(label)}: OpenVINO {identity.backend.version} runs the network"
        elif identity.device == "cpu" and identity.teacher.name != "onnx" and not has_openvino():
            yield f"{teacher_folder(label)}: PyTorch runs the network; OpenVINO is faster on a CPU: {install_extra('openvino')}"
