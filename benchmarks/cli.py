"""The command `python -m benchmarks`."""

from typing import TYPE_CHECKING

from difom_cache.base.console import Command, Program, answer
from difom_cache.base.heap import keep_freed_memory

if TYPE_CHECKING:  # at run time each command loads its own options when it is called
    from benchmarks.options import AllConfig, GrowthConfig, LoaderConfig, ResultsConfig, StepConfig, TeacherConfig


def teacher(config: "TeacherConfig") -> None:
    """Measure images a second from JPEG files to stored bytes: the published way, the library's best, ours."""
    from benchmarks.teachers import bench_teacher

    answer(config, bench_teacher(config))


def step(config: "StepConfig") -> None:
    """Seconds a step: plain, distilled from the cache, and with the teacher in the loop, alternating."""
    from benchmarks.step import bench_step

    keep_freed_memory()  # as a run does
    answer(config, bench_step(config))


def loader(config: "LoaderConfig") -> None:
    """Samples a second of memcpy, a mapped file, the cache's reader, Zarr's own, and one file a teacher and image."""
    from benchmarks.loader import bench_loader

    answer(config, bench_loader(config))


def growth(config: "GrowthConfig") -> None:
    """CPU seconds of a start of extract with nothing left to do, of opening a cache and of info, by number of records."""
    from benchmarks.growth import bench_growth

    answer(config, bench_growth(config))


def bench_all(config: "AllConfig") -> None:
    """Run every benchmark, part by part, into one JSON file and one page: what to type in a GPU's first hour."""
    from benchmarks.suite import bench_all as run

    answer(config, run(config))


def results(config: "ResultsConfig") -> None:
    """Write the tables of README and docs/measurements.md from the studies' files in benchmarks/results."""
    from benchmarks.results import write_tables

    print("\n".join(write_tables(config)))


PROGRAM = Program(
    "python -m benchmarks",
    "Measure teachers, the reader and the training step on this machine.",
    (
        Command(teacher, "benchmarks.options:TeacherConfig"),
        Command(step, "benchmarks.options:StepConfig"),
        Command(loader, "benchmarks.options:LoaderConfig"),
        Command(growth, "benchmarks.options:GrowthConfig"),
        Command(results, "benchmarks.options:ResultsConfig"),
        Command(
            bench_all, "benchmarks.options:AllConfig", "all", "interrupted; the same command resumes where it stopped"
        ),
    ),
    "interrupted; run the same command again",
)


def main() -> None:
    """Run the command."""
    PROGRAM.main()
