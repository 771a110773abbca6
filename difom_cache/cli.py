"""The command `difom-cache`. Options become arguments here; the work is done in the rooms that are imported late."""

import sys
from collections import Counter
from typing import TYPE_CHECKING

import typer

from difom_cache.base.console import Command, Program, answer, print_json, run_benchmarks

if TYPE_CHECKING:  # at run time each command loads its own options when it is called
    from collections.abc import Sequence

    from difom_cache.commands import (
        CopyConfig,
        DropConfig,
        ExportConfig,
        FetchConfig,
        FinishConfig,
        ImportConfig,
        InfoConfig,
        ListConfig,
        SampleConfig,
        ScaleConfig,
        ShowConfig,
        TeachersConfig,
    )
    from difom_cache.data.options import ManifestConfig
    from difom_cache.extraction.options import ExtractConfig
    from difom_cache.maintenance.options import VerifyConfig
    from difom_cache.probing.options import ProbeConfig


def extract(config: "ExtractConfig") -> None:
    """Run teachers once over augmented views and keep their features; the same command again resumes."""
    from difom_cache.extraction.run import extract as run

    report = run(config)
    if any(report.left_blocks.values()):
        print("blocks of this run are missing still: run the same command again", file=sys.stderr)
        raise typer.Exit(1)


def probe(config: "ProbeConfig") -> None:
    """Fit light heads from cached features to the masks, and write the logits of every view as another teacher's column."""
    from difom_cache.probing.run import probe as run

    run(config)


def info(config: "InfoConfig") -> None:
    """Say what a cache holds, how well its codes keep the features, and its content digest; of several, side by side."""
    from difom_cache.maintenance.info import format_info, format_side_by_side, join_caches
    from difom_cache.maintenance.info import info as read

    facts = [read(cache) for cache in config.caches]
    if len(facts) == 1:
        print_json(facts[0]) if config.as_json else print(format_info(facts[0]))
        return
    join = join_caches(config.caches)
    together = {"together": join.as_json()}
    print_json([each | together for each in facts]) if config.as_json else print(format_side_by_side(facts, join))


def show(config: "ShowConfig") -> None:
    """Draw one view with its mask and every tap of every teacher as colours."""
    from difom_cache.maintenance.show import show as draw
    from difom_cache.store.identity import format_random_warning
    from difom_cache.store.reader import open_cache

    print(draw(config))
    random = open_cache(config.cache).random_teachers
    if random:
        print(format_random_warning(random), file=sys.stderr)


def manifest(config: "ManifestConfig") -> None:
    """List data sets as records, and check them for duplicates and leaks between their splits."""
    from difom_cache.data.groups import describe_unknown
    from difom_cache.data.make_manifest import make_manifest

    records, report = make_manifest(config)
    if report is not None:
        answer(config, report)
        if report.leaky and not config.allow_leaks:
            print("leaks across splits: exit code 1; --allow-leaks says that they are known", file=sys.stderr)
            raise typer.Exit(1)
        return
    counts = Counter(f"{record.dataset}, {record.split}" for record in records)
    lines = [f"{name}: {count} records" for name, count in counts.items()]
    print_json(counts) if config.as_json else print("\n".join(lines))
    for line in describe_unknown([record.dataset for record in records], [record.group for record in records]):
        print(line, file=sys.stderr if config.as_json else sys.stdout)


def sample(config: "SampleConfig") -> None:
    """Paint a small colonoscopy-like benchmark, to try everything without data."""
    from difom_cache.painting.sample import paint_sample

    print(paint_sample(config))


def verify(config: "VerifyConfig") -> None:
    """Check every file against its marker and list what is damaged. Exits with 1 if anything is."""
    from difom_cache.maintenance.verify import verify as check

    report = check(config)
    answer(config, report)
    if not report.sound:
        raise typer.Exit(1)


def finish(config: "FinishConfig") -> None:
    """Remove what killed writers left behind and list what is missing. Exits with 1 if anything is."""
    from difom_cache.maintenance.finish import finish as run

    missing = run(config.cache)
    lines = [f"{name}: {f'{len(b)} blocks missing' if b else 'complete'}" for name, b in missing.items()]
    print_json(missing) if config.as_json else print("\n".join(lines))
    if any(missing.values()):
        raise typer.Exit(1)


def drop(config: "DropConfig") -> None:
    """Remove one teacher's features from a cache."""
    from difom_cache.base.text import format_bytes
    from difom_cache.maintenance.finish import drop as run

    print(f"{config.cache}: dropped {config.teacher}, {format_bytes(run(config.cache, config.teacher))} freed")


def copy(config: "CopyConfig") -> None:
    """Copy a cache, or some of its taps in another codec."""
    from difom_cache.maintenance.copy import copy as run

    run(config)


def export_file(config: "ExportConfig") -> None:
    """Write a complete cache as one HDF5 file."""
    from difom_cache.maintenance.hdf5 import export_hdf5

    export_hdf5(config.cache, config.file)


def import_file(config: "ImportConfig") -> None:
    """Make a cache from an HDF5 file, bit for bit."""
    from difom_cache.maintenance.hdf5 import import_hdf5

    import_hdf5(config.file, config.cache)


def teachers(config: "TeachersConfig") -> None:
    """List teachers and variants: parameters, input, bytes a view, licence, weights on this machine; taps with --all."""
    from difom_cache.teachers.catalogue import describe_teachers, format_teachers

    found = describe_teachers()
    print_json(found) if config.as_json else print(format_teachers(found, everything=config.everything))


def plans(config: "ListConfig") -> None:
    """List view plans: how far each goes from the plain image."""
    from difom_cache.extraction.options import PLANS
    from difom_cache.views.describe import describe_plans, format_plans

    print_json(describe_plans(PLANS)) if config.as_json else print(format_plans(PLANS))


def fetch(config: "FetchConfig") -> None:
    """Fetch a teacher's weights on a machine with network; point DIFOM_WEIGHTS to the folder on the others."""
    from difom_cache.teachers.catalogue import fetch_weights

    print(fetch_weights(config.name, config.to, config.revision))


def scale(config: "ScaleConfig") -> None:
    """Say how long a pass takes on many workers, what it costs, and where the file system becomes the limit."""
    from difom_cache.extraction.estimate import format_prediction, most_useful_workers, predict

    for number in config.workers:
        print(format_prediction(number, predict(config, number)))
    print(f"more than {most_useful_workers(config)} workers of this rate do not pay off on this file system")


def bench(words: "Sequence[str]") -> None:
    """Measure a teacher with the benchmarks of a checkout, as `python -m benchmarks teacher` does there."""
    run_benchmarks(["teacher", *words])


PROGRAM = Program(
    "difom-cache",
    "Teacher features of augmented images, computed once and kept in Zarr.",
    (
        Command(manifest, "difom_cache.data.options:ManifestConfig", part="Prepare"),
        Command(sample, "difom_cache.commands:SampleConfig", part="Prepare"),
        Command(teachers, "difom_cache.commands:TeachersConfig", part="Prepare"),
        Command(plans, "difom_cache.commands:ListConfig", part="Prepare"),
        Command(fetch, "difom_cache.commands:FetchConfig", "weights fetch", part="Prepare"),
        Command(extract, "difom_cache.extraction.options:ExtractConfig", part="Fill"),
        Command(probe, "difom_cache.probing.options:ProbeConfig", part="Fill"),
        Command(info, "difom_cache.commands:InfoConfig", part="Look"),
        Command(show, "difom_cache.commands:ShowConfig", part="Look"),
        Command(verify, "difom_cache.maintenance.options:VerifyConfig", part="Look"),
        Command(finish, "difom_cache.commands:FinishConfig", part="Keep"),
        Command(drop, "difom_cache.commands:DropConfig", part="Keep"),
        Command(copy, "difom_cache.commands:CopyConfig", part="Keep"),
        Command(export_file, "difom_cache.commands:ExportConfig", "export", part="Keep"),
        Command(import_file, "difom_cache.commands:ImportConfig", "import", part="Keep"),
        Command(scale, "difom_cache.commands:ScaleConfig", part="Measure"),
        Command(bench, part="Measure"),
    ),
    "interrupted; what is finished is safe: run the same command again to resume",
)


def main() -> None:
    """Run the command."""
    PROGRAM.main()
