"""The command `python -m benchmarks`."""

from typing import TYPE_CHECKING, Any

import typer

from difom_cache.base.console import Group, add_command, print_json, run_app

if TYPE_CHECKING:  # at run time each command loads its own options when it is called
    from benchmarks.options import AllConfig, GrowthConfig, LoaderConfig, StepConfig, TeacherConfig
    from difom_cache.base.options import CommandConfig

app = typer.Typer(
    cls=Group,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Measure teachers, the reader and the training step on this machine.",
)
_GOES_ON = "interrupted; the same command goes on where it stopped"


def main() -> None:
    """Run the command."""
    run_app(app, interrupted="interrupted; run the same command again")


def teacher(config: "TeacherConfig") -> None:
    """Measure images a second from JPEG files to stored bytes: the published way, the library's best, ours."""
    from benchmarks.teachers import bench_teacher

    _answer(config, bench_teacher(config))


def step(config: "StepConfig") -> None:
    """Seconds a step: plain, distilled from the cache, and with the teacher in the loop, alternating."""
    from benchmarks.step import bench_step

    _answer(config, bench_step(config))


def loader(config: "LoaderConfig") -> None:
    """Samples a second of memcpy, a mapped file, the cache's reader, Zarr's own, and one file a teacher and image."""
    from benchmarks.loader import bench_loader

    _answer(config, bench_loader(config))


def growth(config: "GrowthConfig") -> None:
    """CPU seconds of a start of extract with nothing left to do, of opening a cache and of info, by number of records."""
    from benchmarks.growth import bench_growth

    _answer(config, bench_growth(config))


def bench_all(config: "AllConfig") -> None:
    """Run every benchmark, part by part, into one JSON file and one page: what to type in a GPU's first hour."""
    from benchmarks.suite import bench_all as run

    _answer(config, run(config))


add_command(app, "benchmarks.options:TeacherConfig", teacher)
add_command(app, "benchmarks.options:StepConfig", step)
add_command(app, "benchmarks.options:LoaderConfig", loader)
add_command(app, "benchmarks.options:GrowthConfig", growth)
add_command(app, "benchmarks.options:AllConfig", bench_all, "all", interrupted=_GOES_ON)


def _answer(config: "CommandConfig", result: Any) -> None:
    """Print what a benchmark found, for people or for programs."""
    print_json(result.as_json()) if config.as_json else print(result.render())
