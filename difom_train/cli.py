"""The command `difom-train`: plain, it trains; its subcommands score, compare, predict, export and measure."""

from typing import TYPE_CHECKING

from difom_cache.base.console import Command, Program, answer, print_json, run_benchmarks
from difom_cache.base.errors import SettingsError
from difom_cache.base.heap import keep_freed_memory

if TYPE_CHECKING:  # at run time each command loads its own options when it is called
    from collections.abc import Sequence

    from difom_train.commands import (
        AppConfig,
        CardConfig,
        CompareConfig,
        CostConfig,
        CurvesConfig,
        DemoConfig,
        EvaluateConfig,
        ExportConfig,
        PredictConfig,
        PullConfig,
        PushConfig,
        RecipesConfig,
        StudentsConfig,
        StudyConfig,
    )
    from difom_train.config import TrainOptions


def train(config: "TrainOptions") -> None:
    """Train a student from a cache; no teacher is touched.

    Resumes bit for bit on the CPU. With torchrun or srun, the same command trains on many devices. A recipe may have other
    defaults than those below: `difom-train recipes NAME` prints all of its values.
    """
    from difom_train.training.processes import leave_processes
    from difom_train.training.run import train as run

    keep_freed_memory()
    run(config)
    leave_processes()


def recipes(config: "RecipesConfig") -> None:
    """List recipes, or print one with every value."""
    from difom_train.config import describe_recipes, format_recipe

    print(describe_recipes() if config.name is None else format_recipe(config.name), end="")


def students(config: "StudentsConfig") -> None:
    """List students: parameters, levels and their strides, where each starts from."""
    from difom_train.students.describe import describe_students, format_students

    found = describe_students()
    print_json(found) if config.as_json else print(format_students(found))


def evaluate(config: "EvaluateConfig") -> None:
    """Score networks on test sets, frame by frame, under each protocol."""
    from difom_train.evaluation.several import evaluate_runs as score

    answer(config, score(config))


def predict(config: "PredictConfig") -> None:
    """Mark polyps in images or a video."""
    from difom_train.inference.predict import predict as mark

    answer(config, mark(config))


def study(config: "StudyConfig") -> None:
    """Train and score recipes x teachers x shares of the masks x seeds; the same command resumes."""
    from difom_train.studies.study import study as run

    keep_freed_memory()
    answer(config, run(config))


def compare(config: "CompareConfig") -> None:
    """Put evaluated runs into one table and one report, with paired differences."""
    from difom_train.reporting.compare import compare as run

    answer(config, run(config))


def export(config: "ExportConfig") -> None:
    """Write a student as one file, and compare it with the student."""
    from difom_train.inference.export import export as write

    answer(config, write(config))


def app(config: "AppConfig") -> None:
    """Show networks on a page: drop an image or a video, or use a webcam."""
    from difom_train.sharing.app import show_page

    show_page(config)


def card(config: "CardConfig") -> None:
    """Write a run's model card: scores, data, licences, leaks and limits."""
    from difom_train.sharing.card import write_card

    print(write_card(config))


def push(config: "PushConfig") -> None:
    """Upload a student with its card to the Hugging Face hub.

    Only the student, its settings, card and ONNX file go; they are listed first. A new model is private unless told otherwise.
    HF_TOKEN holds the token.
    """
    from difom_train.sharing.hub import push as upload

    print(upload(config))


def pull(config: "PullConfig") -> None:
    """Fetch a run that was pushed, to evaluate, use and export it."""
    from difom_train.sharing.hub import pull as fetch

    print(fetch(config))


def cost(config: "CostConfig") -> None:
    """Measure parameters, FLOPs and latency of students and teachers."""
    from difom_train.evaluation.cost import compare_costs

    if not config.runs and not config.teachers:
        raise SettingsError("nothing to measure: name run folders, or teachers with --teacher")
    answer(config, compare_costs(config))


def demo(config: "DemoConfig") -> None:
    """Show everything once on painted images: a teacher, its cache, two students, one table."""
    from difom_train.demo import demo as run

    keep_freed_memory()
    run(config.out)


def curves(config: "CurvesConfig") -> None:
    """Plot loss, validation Dice and whether the distillation still teaches, for several runs in one chart."""
    from difom_train.training.curves import curves as draw

    print(draw(config))


def bench(words: "Sequence[str]") -> None:
    """Measure reading, a step, or everything with the benchmarks of a checkout, as `python -m benchmarks` does there."""
    run_benchmarks(words)


_RESUMES = "interrupted; the same command with --resume resumes after the last finished epoch"
_SAME_RESUMES = "interrupted; the same command resumes where it stopped"
_TRAIN = Command(train, "difom_train.config:TrainOptions", interrupted=_RESUMES, part="Train")
PROGRAM = Program(
    "difom-train",
    "Train students from a cache, score them, and use them. Without a command, `difom-train OPTIONS` trains.",
    (
        Command(demo, "difom_train.commands:DemoConfig", interrupted=_SAME_RESUMES, part="Prepare"),
        Command(recipes, "difom_train.commands:RecipesConfig", part="Prepare"),
        Command(students, "difom_train.commands:StudentsConfig", part="Prepare"),
        _TRAIN,
        Command(study, "difom_train.commands:StudyConfig", interrupted=_SAME_RESUMES, part="Train"),
        Command(evaluate, "difom_train.commands:EvaluateConfig", part="Judge"),
        Command(compare, "difom_train.commands:CompareConfig", part="Judge"),
        Command(curves, "difom_train.commands:CurvesConfig", part="Judge"),
        Command(predict, "difom_train.commands:PredictConfig", part="Use"),
        Command(export, "difom_train.commands:ExportConfig", part="Use"),
        Command(app, "difom_train.commands:AppConfig", interrupted="the page is closed", part="Use"),
        Command(card, "difom_train.commands:CardConfig", part="Use"),
        Command(push, "difom_train.commands:PushConfig", part="Use"),
        Command(pull, "difom_train.commands:PullConfig", part="Use"),
        Command(cost, "difom_train.commands:CostConfig", part="Measure"),
        Command(bench, part="Measure"),
    ),
    "interrupted; run the same command again",
    plain=_TRAIN,
)


def main() -> None:
    """Run the command."""
    PROGRAM.main()
