"""The command `difom-cache`. Options become arguments here; the work is done in the rooms that are imported late."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from difom_cache.console import Group, add_command, print_json, run_app

if TYPE_CHECKING:
    from difom_cache.commands import BenchConfig, CopyConfig, SampleConfig, ScaleConfig, ShowConfig
    from difom_cache.extraction.options import ExtractConfig
    from difom_cache.probing.options import ProbeConfig

app = typer.Typer(
    name="difom-cache",
    help="Teacher features of augmented pictures, computed once and kept in Zarr.",
    cls=Group,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
weights_app = typer.Typer(cls=Group, help="Teachers' weights on this machine.")
app.add_typer(weights_app, name="weights")

CachePath = Annotated[Path, typer.Argument(help="Folder of the cache.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Images = Annotated[Path | None, typer.Option(help="Folder of pictures, in place of other data.")]
Masks = Annotated[Path | None, typer.Option(help="Folder of their masks, or a COCO file; with --images.")]
Every = Annotated[
    str | None, typer.Option(help="Between the frames taken of videos, such as 0.5s (the default) or 500ms.")
]
Unlabelled = Annotated[bool, typer.Option("--unlabelled", help="Pictures without a mask are meant.")]


def main() -> None:
    """Run the command."""
    run_app(app, interrupted="interrupted; what is finished is safe: run the same command again to go on")


def extract(config: "ExtractConfig") -> None:
    """Run teachers once over augmented views and keep their features; the same command again goes on where it stopped."""
    from difom_cache.extraction.run import extract as run

    report = run(config)
    if any(report.left_blocks.values()):
        print("blocks of this run are missing still: run the same command again", file=sys.stderr)
        raise typer.Exit(1)


add_command(app, "difom_cache.extraction.options:ExtractConfig", extract)


def probe(config: "ProbeConfig") -> None:
    """Fit light heads from cached features to the masks, and write the logits of every view as another teacher's column."""
    from difom_cache.probing.run import run_probe

    run_probe(config)


add_command(app, "difom_cache.probing.options:ProbeConfig", probe)


@app.command()
def info(
    caches: Annotated[list[Path] | None, typer.Argument(help="Folders of caches; several side by side.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a cache holds, how well its codes keep the features, and its content digest; of several, side by side."""
    from difom_cache.maintenance.info import format_info
    from difom_cache.maintenance.info import info as read
    from difom_cache.maintenance.side_by_side import format_side_by_side

    facts = [read(cache) for cache in caches or [Path("feats")]]
    if as_json:
        print_json(facts if len(facts) > 1 else facts[0])
    else:
        print(format_side_by_side(facts) if len(facts) > 1 else format_info(facts[0]))


def show(config: "ShowConfig") -> None:
    """Draw one view with its mask and every tap of every teacher as colours."""
    from difom_cache.maintenance.show import show as draw
    from difom_cache.store.identity import format_random_warning
    from difom_cache.store.reader import open_cache

    print(draw(**dict(config)))
    random = open_cache(config.cache).random_teachers
    if random:
        print(format_random_warning(random), file=sys.stderr)


add_command(app, "difom_cache.commands:ShowConfig", show)


@app.command()
def manifest(
    data: Annotated[
        list[Path] | None, typer.Argument(help="Folders in known layouts, manifests, COCO files, videos.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Look for duplicates, leaks, empty masks, odd sizes; leaks exit with 1.")
    ] = False,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Leaks that --check finds are no failure.")
    ] = False,
    montage: Annotated[Path | None, typer.Option(help="PNG of the pairs that --check finds.")] = None,
    names: Annotated[Path | None, typer.Option(help="Folder for one CSV of names, split and group a data set.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over what lies at --out and --montage.")] = False,
    mask_levels: Annotated[
        str | None, typer.Option(help="Which levels of the masks are polyp: 100, 1,2, 129-255, #ff0000 or alpha.")
    ] = None,
    images: Images = None,
    masks: Masks = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="What belongs together: a regular expression on file names, or FILE.csv:COLUMN."),
    ] = None,
    every: Every = None,
    unlabelled: Unlabelled = False,
    as_json: Json = False,
) -> None:
    """List data sets as records, and check them for duplicates and leaks between their splits."""
    from difom_cache.data.groups import describe_unknown
    from difom_cache.data.make_manifest import make_manifest
    from difom_cache.data.source import DataSource

    said = {"unlabelled": unlabelled, "group_by": group_by, "every": every}
    sources = [DataSource(each, **said) for each in data or ()]  # type: ignore[arg-type]
    if images is not None or masks is not None or not sources:
        sources = [DataSource(next(iter(data or ()), None), images, masks, **said)]  # type: ignore[arg-type]
    records, report = make_manifest(
        sources,
        out,
        check=check,
        montage=montage,
        names=names,
        mask_levels=mask_levels,
        force=force,
    )
    if report is not None:
        print_json(report.as_json()) if as_json else print(report.as_text())
        if report.leaky and not allow_leaks:
            print("leaks across splits: exit code 1; --allow-leaks says that they are known", file=sys.stderr)
            raise typer.Exit(1)
        return
    counts = Counter(f"{record.dataset}, {record.split}" for record in records)
    print_json(counts) if as_json else print("\n".join(f"{name}: {count} records" for name, count in counts.items()))
    for line in describe_unknown([record.dataset for record in records], [record.group for record in records]):
        print(line, file=sys.stderr if as_json else sys.stdout)


def sample(config: "SampleConfig") -> None:
    """Paint a small colonoscopy-like benchmark, to try everything without data."""
    from difom_cache.painting.sample import paint_sample

    print(paint_sample(**dict(config)))


add_command(app, "difom_cache.commands:SampleConfig", sample)


@app.command()
def verify(
    cache: CachePath = Path("feats"),
    recompute: Annotated[int, typer.Option(help="Random views to encode again and compare.")] = 0,
    equivariance: Annotated[
        bool, typer.Option("--equivariance", help="What warping cached maps to other views would cost.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="Where the pictures are, for --recompute. [default: data]", show_default=False)
    ] = None,
    images: Images = None,
    masks: Masks = None,
    every: Every = None,
    teacher: Annotated[
        list[str] | None, typer.Option(help="NAME[:VARIANT][@PX] of teachers to compare; all by default.")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="LABEL=WEIGHTS, or LABEL=FILE; may repeat. By default where `extract` found them."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Of the choice of views.")] = 0,
    unlabelled: Unlabelled = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="First write anew what follows from identities and records.csv.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every file against its marker; name what is damaged. Exits with 1 where something is."""
    from difom_cache.data.source import DataSource
    from difom_cache.maintenance.verify import verify as check
    from difom_cache.maintenance.verify_report import as_json as format_json
    from difom_cache.maintenance.verify_report import format_report

    report = check(
        cache,
        recompute=recompute,
        equivariance=equivariance,
        data=DataSource(data or (Path("data") if images is None else None), images, masks, unlabelled, every=every),
        teacher=teacher or (),
        weights=weights or (),
        device=device,
        seed=seed,
        repair=repair,
    )
    if as_json:
        print_json(format_json(report))
    else:
        print(format_report(report))
    if not report.sound:
        raise typer.Exit(1)


@app.command()
def finish(cache: CachePath = Path("feats"), as_json: Json = False) -> None:
    """Remove what dead writers left and say what is missing. Exits with 1 where something is."""
    from difom_cache.maintenance.finish import finish as run

    missing = run(cache)
    if as_json:
        print_json(missing)
    else:
        print("\n".join(f"{name}: {f'{len(b)} blocks missing' if b else 'complete'}" for name, b in missing.items()))
    if any(missing.values()):
        raise typer.Exit(1)


@app.command()
def drop(
    cache: CachePath,
    teacher: Annotated[str, typer.Option(help="Label of the teacher, as `difom-cache info` shows it.")],
) -> None:
    """Remove one teacher's features from a cache."""
    from difom_cache.maintenance.finish import drop as run
    from difom_cache.text import format_bytes

    print(f"{cache}: dropped {teacher}, {format_bytes(run(cache, teacher))} freed")


def copy(config: "CopyConfig") -> None:
    """Copy a cache, or some of its taps in another codec."""
    from difom_cache.maintenance.copy import copy as run

    run(**dict(config))


add_command(app, "difom_cache.commands:CopyConfig", copy)


@app.command(name="export")
def export_file(cache: CachePath, file: Annotated[Path, typer.Argument(help="HDF5 file to write.")]) -> None:
    """Write a complete cache as one HDF5 file."""
    from difom_cache.maintenance.hdf5 import export_hdf5

    export_hdf5(cache, file)


@app.command(name="import")
def import_file(
    file: Annotated[Path, typer.Argument(help="HDF5 file of an exported cache.")], cache: CachePath
) -> None:
    """Make a cache from an HDF5 file, bit for bit."""
    from difom_cache.maintenance.hdf5 import import_hdf5

    import_hdf5(file, cache)


@app.command()
def teachers(as_json: Json = False) -> None:
    """List teachers and variants: parameters, input, taps, bytes a view, licence, weights on this machine."""
    from difom_cache.teachers.catalogue import describe_teachers, format_teachers

    if as_json:
        print_json(describe_teachers())
    else:
        print(format_teachers(describe_teachers()))


@app.command()
def plans(as_json: Json = False) -> None:
    """List view plans: how far each goes from the plain picture."""
    from difom_cache.extraction.options import PLANS
    from difom_cache.views.describe import describe_plans, format_plans

    print_json(describe_plans(PLANS)) if as_json else print(format_plans(PLANS))


@weights_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="NAME[:VARIANT] of a teacher.")],
    to: Annotated[Path, typer.Option(help="Folder to put the weights into.")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of the hub model.")] = "main",
) -> None:
    """Fetch a teacher's weights on a machine with network; point DIFOM_WEIGHTS to the folder on the others."""
    from difom_cache.teachers.catalogue import fetch_weights

    print(fetch_weights(name, to, revision))


def bench(config: "BenchConfig") -> None:
    """Measure pictures a second from JPEG files to stored bytes: the published way, the library's best, ours."""
    from difom_cache.benchmarks.extraction import bench_teacher, format_bench

    result = bench_teacher(**{name: value for name, value in config if name != "as_json"})
    if config.as_json:
        print_json(result)
    else:
        print(format_bench(result))


add_command(app, "difom_cache.commands:BenchConfig", bench)


def scale(config: "ScaleConfig") -> None:
    """Say how long a pass takes on many workers, what it costs, and where the file system becomes the limit."""
    from difom_cache.extraction.estimate import Cluster, Workload, format_prediction, most_useful_workers, predict

    load = Workload(config.frames, config.views, config.view_bytes, config.frame_bytes)
    for number in config.workers:
        cluster = Cluster(
            config.rate, number, config.start_s, config.read_mb_s * 1e6, config.write_mb_s * 1e6, config.price
        )
        print(format_prediction(number, predict(load, cluster)))
    print(f"more than {most_useful_workers(load, cluster)} workers of this rate do not pay off on this file system")


add_command(app, "difom_cache.commands:ScaleConfig", scale)
