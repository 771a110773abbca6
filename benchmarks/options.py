"""Options of the benchmarks."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from difom_cache.base.options import Batch, CommandConfig, Config, Opt, Positive, SidePx, Width

ROOT = Path(__file__).parents[1]
"Of the checkout."
Above0 = Annotated[float, Field(ge=1e-9, le=1e9)]


class TeacherConfig(CommandConfig):
    """Images a second."""

    teacher: str
    "NAME[:VARIANT][@PX]."
    data: Path = Path("data")
    "Images to run on."
    weights: str | None = None
    "hub, random, or a path; by default random, or what an ONNX file or a run holds."
    views: Positive = 64
    "Images in each run."
    repeats: Positive = 5
    "Runs of each way, alternating; medians are shown."
    batch_size: Batch | None = None
    "Of the library's way, which halves it where it does not fit, and ours; probed by default."
    device: str = "auto"
    "auto, cpu, cuda or cuda:N."
    backend: Annotated[tuple[Literal["auto", "torch", "openvino"], ...], Opt(default="DIFOM_BACKEND, or auto")] = ()
    "What runs our network; each with every precision."
    precision: Annotated[tuple[Literal["float32", "bfloat16"], ...], Opt(default="as extract chooses")] = ()
    "Of our network; the library's way has the first."
    ways: Annotated[tuple[Literal["notebook", "library", "difom"], ...], Field(min_length=1)] = (
        "notebook",
        "library",
        "difom",
    )
    "Which to run."


class StepConfig(CommandConfig):
    """Seconds a training step."""

    student: str = "unet"
    "Student to time."
    cache: Path = Path("feats")
    "Cache to train from."
    recipe: str = "difom"
    "Recipe of the distilled step."
    batch_size: Batch = 6
    "Pictures in a step."
    input_px: Annotated[SidePx, Opt("input_size")] = 352
    "Side of the input in px."
    width: Annotated[Width, Field(ge=1)] | None = None
    "Channels of the first level."
    teacher: str | None = None
    "Time this teacher in the loop as well, such as sam:vit_b."
    teacher_weights: Annotated[str, Opt("weights")] = "random"
    "Weights of that teacher: hub, random or a path."
    steps: Positive = 20
    "Timed steps of each kind."
    teacher_steps: Positive = 3
    "Timed steps with the teacher in the loop."
    device: str = "auto"
    "auto, cpu, cuda or cuda:N."
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    "Of the student's passes; auto = bfloat16 on CUDA."
    stage: Literal["auto", "disk", "ram", "gpu"] = "auto"
    "Where the cache is held."
    compile: bool = False
    "Run the student through torch.compile."


class LoaderConfig(CommandConfig):
    """Samples a second."""

    folder: Path = Path("bench-loader")
    "Where the measured cache is made, unless it is there already."
    size_gb: Above0 = 2.0
    "Size of the measured cache."
    batch_size: Batch = 16
    "Rows in a batch, in random order."
    seconds: Above0 = 10.0
    "How long each way of reading is measured."


class GrowthConfig(CommandConfig):
    """What grows with the records."""

    folder: Path = Path("bench-growth")
    "Where pictures, manifests and caches are made, unless they are there already."
    records: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1_000, 10_000, 100_000)
    "How many, rising."


class AllConfig(CommandConfig):
    """Every benchmark."""

    out: Path = Path("bench")
    "Folder of bench.json, bench.md and all that is made for them; the same command resumes where it stopped."
    size: Literal["auto", "full", "small"] = "auto"
    "How much is run; auto = full on CUDA, and elsewhere small, which shows that everything runs."
    data: Path | None = None
    "Images to run on; by default some are painted."
    device: str = "auto"
    "auto, cpu, cuda or cuda:N."
    part_s: Annotated[Above0, Field(le=3600)] = 600
    "Seconds after which a part is ended."
    minutes: Annotated[Above0, Field(le=10_000)] | None = None
    "Minutes for all parts, those that are worth most first; the same command resumes with the others."
    only: tuple[str, ...] = ()
    "Parts to run, such as reading,step,teacher/sam; by default all."
    tests: Path = ROOT / "tests"
    "The project's tests, for those that need a GPU."


class ResultsConfig(Config):
    """Tables of the pages."""

    folder: Path = ROOT / "benchmarks" / "results"
    "Folder of the results.json files of studies, by the names that pages ask for."
    pages: tuple[Path, ...] = (ROOT / "README.md", ROOT / "docs" / "measurements.md")
    "Pages to write their tables into."
