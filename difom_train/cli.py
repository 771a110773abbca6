"""The command `difom-train`: plain, it trains; its subcommands score, compare, predict, export and measure."""

from pathlib import Path
from typing import Annotated, Any

import typer

from difom_cache.console import add_command, print_json, run_app, split_list
from difom_cache.errors import SettingsError

app = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False, rich_markup_mode=None)
bench_app = typer.Typer(add_completion=False, help="Measure the reader and the training step on this machine.")
app.add_typer(bench_app, name="bench")

Data = Annotated[Path, typer.Option(help="Manifest, test sets, or any folder inside them.", show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change any setting: key=value; may repeat.")]


def main() -> None:
    """Run the command."""
    run_app(app, interrupted="interrupted; the same command with --resume goes on after the last finished epoch")


def train(config: Any) -> None:
    """Train a student from a cache; no teacher is touched.

    Resumes bit for bit on the CPU. With torchrun or srun, the same command trains on many devices. A recipe may have other
    defaults than those below: `difom-train recipes NAME` prints all of its values.
    """
    from difom_train.training.fabric import leave_processes
    from difom_train.training.run import train as run

    run(config)
    leave_processes()


add_command(app, "difom_train.config:TrainOptions", train, plain=True)


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Print this one complete; or a TOML file.", show_default=False)
    ] = None,
) -> None:
    """List recipes, or print one with every value."""
    from difom_train.config import describe_recipes, format_recipe

    print(describe_recipes() if name is None else format_recipe(name), end="")


@app.command()
def evaluate(
    run: Annotated[
        str, typer.Argument(help="Run folder, teacher:SPEC, or a folder of saved maps.", show_default=False)
    ],
    data: Data,
    limit: Annotated[int | None, typer.Option(help="Score so many frames of each set.")] = None,
    device: Device = "auto",
    workers: Annotated[int | None, typer.Option(help="Scoring processes; 0 = none of their own.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures in one forward pass.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the files go.", show_default="RUN/eval")] = None,
    as_json: Json = False,
) -> None:
    """Score a network on test sets, frame by frame, under each protocol."""
    from difom_train.evaluation.evaluate import evaluate as score

    scored = score(run, data, limit=limit, device=device, workers=workers, batch_size=batch_size, out=out)
    _answer(scored, as_json)


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help="Run folder, or teacher:SPEC.", show_default=False)],
    source: Annotated[Path, typer.Argument(help="Folder, list, picture or video.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Where masks, outlines and polyps.jsonl go.", show_default=False)],
    device: Device = "auto",
    batch_size: Annotated[int | None, typer.Option(help="Pictures in one forward pass.")] = None,
    outlines: Annotated[bool, typer.Option(help="Write the pictures with polyps outlined.")] = True,
    as_json: Json = False,
) -> None:
    """Mark polyps in pictures or a video."""
    from difom_train.inference.predict import predict as mark

    _answer(mark(run, source, out=out, device=device, batch_size=batch_size, outlines=outlines), as_json)


@app.command()
def study(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the runs and of study.csv.")] = Path("study"),
    cache: Annotated[list[Path] | None, typer.Option(help="Cache to train from; may repeat.")] = None,
    recipes: Annotated[str, typer.Option(help="Names or files.")] = "baseline,difom,difom-multiscale",
    labels: Annotated[str, typer.Option(help="Shares of the train masks.")] = "0.1,1",
    seeds: Annotated[str, typer.Option(help="One run of each cell for each.")] = "0,1,2",
    teachers: Annotated[str | None, typer.Option(help="Teachers of the cache to learn from.")] = None,
    also: Annotated[list[str] | None, typer.Option(help="Score this too: a run, or teacher:SPEC; may repeat.")] = None,
    student: Annotated[str, typer.Option(help="Of every run.")] = "unet",
    width: Annotated[int | None, typer.Option(help="Channels of the first level.")] = 16,
    input_size: Annotated[int, typer.Option(help="Side of the student's input in px.")] = 128,
    batch_size: Annotated[int, typer.Option(help="Pictures in a step.")] = 16,
    epochs: Annotated[int, typer.Option(help="Passes over the train records.")] = 16,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    changes: Changes = None,
    limit: Annotated[int | None, typer.Option(help="Score so many frames of each set.")] = None,
    as_json: Json = False,
) -> None:
    """Train and score recipes x shares of the masks x seeds; the same command again goes on where it stopped."""
    from difom_train.evaluation.study import format_study
    from difom_train.evaluation.study import study as run

    lines = run(
        cache or ["./feats"],
        data,
        out,
        recipes=split_list(recipes) or (),
        labels=[float(share) for share in split_list(labels) or ()],
        seeds=_read_numbers(seeds),
        teachers=split_list(teachers),
        also=also or (),
        student=student,
        width=width,
        input_size=input_size,
        batch_size=batch_size,
        epochs=epochs,
        device=device,
        changes=changes or (),
        limit=limit,
    )
    print_json(lines) if as_json else print(format_study(lines))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures, the cache, the runs and the results.")] = Path(
        "demo"
    ),
) -> None:
    """Show everything once on painted pictures: a teacher, its cache, two students, one table."""
    from difom_train.demo import demo as run

    run(out)


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Evaluated run folders; the first is the yardstick.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Where tables and report.html go.")] = Path("comparison"),
    data: Annotated[Path | None, typer.Option(help="Training data, to leave out test frames that it shows.")] = None,
    published: Annotated[bool, typer.Option(help="Put PraNet's published figures beside the runs.")] = True,
    cost: Annotated[bool, typer.Option(help="Measure parameters, FLOPs and latency.")] = True,
    device: Device = "auto",
    gallery_per_set: Annotated[int, typer.Option("--gallery", help="Frames of each set that the report shows.")] = 12,
    resamples: Annotated[int, typer.Option(help="Draws of the bootstrap.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    as_json: Json = False,
) -> None:
    """Put evaluated runs into one table and one report, with paired differences."""
    from difom_train.reporting.compare import compare as run

    found = run(
        runs,
        out=out,
        data=data,
        published=published,
        cost=cost,
        device=device,
        gallery_per_set=gallery_per_set,
        resamples=resamples,
        seed=seed,
    )
    _answer(found, as_json)


@app.command()
def curves(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, a row each.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("curves.png"),
) -> None:
    """Draw loss, validation Dice and how alive the distillation is, of several runs in one picture."""
    from difom_train.training.curves import curves as draw

    print(draw(runs, out))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The file to write.", show_default=False)],
    format: Annotated[str, typer.Option(help="onnx, or torch for a torch.export file.")] = "onnx",
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="Leave height and width free.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Quantise weights and activations (ONNX).")] = False,
    calibration: Annotated[Path | None, typer.Option(help="Data whose train frames set int8's ranges.")] = None,
    check: Annotated[Path | None, typer.Option(help="Data to compare the file with the student on.")] = None,
    frames: Annotated[int, typer.Option(help="Frames that calibrate, and that are compared.")] = 16,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Leave the run's name out of the file.")] = False,
    as_json: Json = False,
) -> None:
    """Write a student as one file, and compare it with the student."""
    from difom_train.inference.export import export as write

    written = write(
        run,
        format=format,
        out=out,
        dynamic_size=dynamic_size,
        int8=int8,
        calibration=calibration,
        check=check,
        frames=frames,
        force=force,
        anonymous=anonymous,
    )
    _answer(written, as_json)


@app.command()
def cost(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders.", show_default=False)] = None,
    teacher: Annotated[
        list[str] | None, typer.Option(help="A teacher beside them, such as sam:vit_b; may repeat.")
    ] = None,
    device: Device = "auto",
    passes: Annotated[int, typer.Option(help="Timed passes of each.")] = 30,
    as_json: Json = False,
) -> None:
    """Measure parameters, FLOPs and latency of students and teachers."""
    from difom_train.benchmarks.cost import compare_costs

    if not runs and not teacher:
        raise SettingsError("nothing to measure: name run folders, or teachers with --teacher")
    _answer(compare_costs(runs or [], teacher or (), device=device, passes=passes), as_json)


@bench_app.command("step")
def bench_step(
    student: Annotated[str, typer.Option(help="Student to time.")] = "unet",
    cache: Annotated[Path, typer.Option(help="Cache to train from.")] = Path("./feats"),
    recipe: Annotated[str, typer.Option(help="Recipe of the distilled step.")] = "difom",
    batch_size: Annotated[int, typer.Option(help="Pictures in a step.")] = 6,
    input_size: Annotated[int, typer.Option(help="Side of the input in px.")] = 352,
    width: Annotated[int | None, typer.Option(help="Channels of the first level.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Time this teacher in the loop as well, such as sam:vit_b.")
    ] = None,
    weights: Annotated[str, typer.Option(help="Weights of that teacher: hub, random or a path.")] = "random",
    steps: Annotated[int, typer.Option(help="Timed steps of each kind.")] = 20,
    teacher_steps: Annotated[int, typer.Option(help="Timed steps with the teacher in the loop.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    stage: Annotated[str, typer.Option(help="auto, disk, ram or gpu.")] = "auto",
    as_json: Json = False,
) -> None:
    """Seconds a step: plain, distilled from the cache, and with the teacher in the loop, alternating."""
    from difom_train.benchmarks.step import StepBench
    from difom_train.benchmarks.step import bench_step as measure

    options = StepBench(
        student=student,
        cache=cache,
        recipe=recipe,
        batch_size=batch_size,
        input_px=input_size,
        width=width,
        teacher=teacher,
        teacher_weights=weights,
        steps=steps,
        teacher_steps=teacher_steps,
        device=device,
        precision=precision,
        stage=stage,
    )
    _answer(measure(options), as_json)


@bench_app.command("loader")
def bench_loader(
    folder: Annotated[Path, typer.Option(help="Where the measured cache is made, unless it is there already.")] = Path(
        "bench-loader"
    ),
    size_gb: Annotated[float, typer.Option(help="Size of the measured cache.")] = 2.0,
    batch_size: Annotated[int, typer.Option(help="Rows in a batch, in random order.")] = 16,
    seconds: Annotated[float, typer.Option(help="How long each way of reading is measured.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Samples a second of memcpy, of the cache's reader, of zarr-python, and of one file a teacher and picture."""
    from difom_train.benchmarks.loader import bench_loader as measure

    _answer(measure(folder, size_gb=size_gb, batch_size=batch_size, seconds=seconds), as_json)


def _answer(result: Any, as_json: bool) -> None:
    """Print what a command found out, for people or for programs."""
    if as_json:
        print_json(result.as_json())
    else:
        print(result.render())


def _read_numbers(text: str) -> list[int]:
    """Return the whole numbers of "0,1,2"."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SettingsError(f"--seeds {text!r} is no list of whole numbers such as 0,1,2") from None
