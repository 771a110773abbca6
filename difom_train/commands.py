"""Options of the commands beside `train`; the function that does the work takes the same, by keyword or as the config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from difom_cache.base.options import (
    Batch,
    CommandConfig,
    Config,
    Count,
    Epochs,
    Opt,
    Positive,
    SidePx,
    SomeShare,
    Width,
)
from difom_cache.data import GroupOptions, PixelOptions

Above0 = Annotated[float, Field(ge=1e-9, le=1e9)]
DATA_GROUP = {"Data": ("data", "images", "masks", "group_by", "every")}


class OwnStudents(Config):
    """Networks of one's own among the runs."""

    student: Annotated[tuple[str, ...], Opt(whole=True, keyword=False)] = ()
    "For runs of your own students: package.module:Factory; may repeat."


class OwnStudent(Config):
    """A network of one's own."""

    student: Annotated[str | None, Opt(keyword=False)] = None
    "For a run of your own student: package.module:Factory."


class EvaluateConfig(CommandConfig, OwnStudents, GroupOptions):
    """Score networks."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = DATA_GROUP

    runs: Annotated[tuple[str, ...], Opt(argument=True)]
    "Run folders, teacher:SPEC, probe:CACHE/LABEL, or folders of saved maps."
    data: Annotated[Path | None, Opt(keyword=False)] = None
    "Manifest, test sets or any folder inside them, or a COCO file."
    limit: Positive | None = None
    "Score at most N frames of each set."
    device: str = "auto"
    "auto, cpu, cuda or cuda:N."
    workers: Annotated[Count, Field(le=65_536)] | None = None
    "Number of scoring processes; 0 = score in this one."
    batch_size: Batch | None = None
    "Images in one forward pass."
    out: Annotated[Path | None, Opt(default="RUN/eval")] = None
    "Output folder; several runs get a subfolder each."
    maps: Path | None = None
    "Folder for each frame's probability as a grey PNG, for other evaluators; several runs get a subfolder each."
    map_bits: Literal[8, 16] = 8
    "Bit depth of these PNGs."


class PredictConfig(CommandConfig, OwnStudent, PixelOptions):
    """Mark polyps."""

    run: Annotated[str, Opt(argument=True)]
    "Run folder, teacher:SPEC, or probe:CACHE/LABEL."
    source: Annotated[Path, Opt(argument=True)]
    "Folder, list, image or video."
    out: Path
    "Output folder for masks, outlines and polyps.jsonl."
    device: str = "auto"
    "auto, cpu, cuda or cuda:N."
    batch_size: Batch | None = None
    "Images in one forward pass."
    outlines: bool = True
    "Also write the images with polyps outlined."
    force: bool = False
    "Overwrite existing files."


class StudyConfig(CommandConfig, GroupOptions):
    """Many runs."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = DATA_GROUP

    data: Path | None = None
    "Manifest, test sets, or any folder inside them."
    out: Path = Path("study")
    "Folder of the runs and of study.csv, .md, .html and .svg; later commands add rows."
    cache: tuple[Path, ...] = (Path("feats"),)
    "Cache to train from; may repeat."
    recipes: Annotated[tuple[str, ...], Field(min_length=1)] = ("baseline", "difom", "difom-multiscale")
    "Names of recipes, or TOML files."
    teachers: Annotated[tuple[str, ...], Opt(whole=True)] = ()
    "Labels of the cache to learn from, joined by commas; may repeat, a row for each. {percent} and {labels_seed} are filled in."
    labels: Annotated[tuple[SomeShare, ...], Field(min_length=1)] = (0.1, 1.0)
    "Shares of the masks of training and validation records to use."
    labels_seeds: tuple[Count, ...] = ()
    "Random seeds for the choice of masks; by default each run's own seed."
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)] = (0, 1, 2)
    "Random seeds; each row gets one run per seed."
    students: Annotated[tuple[str, ...], Opt(flag="--student", whole=True), Field(min_length=1)] = ("unet",)
    "Student; may repeat."
    also: Annotated[tuple[str, ...], Opt(whole=True)] = ()
    "Also score this: a run, teacher:SPEC, or probe:CACHE/LABEL; may repeat."
    results: Annotated[tuple[Path, ...], Opt(whole=True)] = ()
    "results.json of the same study from another machine; its runs are not trained again. May repeat."
    width: Width | None = 16
    "Channels of the first level; 0 = the student's own."
    input_size: SidePx = 128
    "Side of the student's input in px."
    batch_size: Batch = 16
    "Images in a step."
    epochs: Epochs = 16
    "Passes over the training records."
    device: str | None = None
    "auto, cpu, cuda or cuda:N; by default as the recipe says."
    changes: Annotated[tuple[str, ...], Opt(flag="--set", whole=True)] = ()
    "Change any setting: key=value; may repeat."
    limit: Positive | None = None
    "Score at most N frames of each set."


class CompareConfig(CommandConfig, OwnStudents, GroupOptions):
    """Runs side by side."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = DATA_GROUP

    runs: Annotated[tuple[Path, ...], Opt(argument=True)]
    "Evaluated run folders, the first of which is the reference; also teacher:SPEC and probe:CACHE/LABEL."
    out: Path = Path("comparison")
    "Output folder for tables and report.html."
    data: Path | None = None
    "Training and test data, to score runs without scores and to leave out test frames that repeat training images."
    published: bool = True
    "Add the figures published with PraNet."
    cost: bool = True
    "Measure parameters, FLOPs and latency."
    device: str = "auto"
    "auto, cpu, cuda or cuda:N."
    gallery_per_set: Annotated[Count, Opt(flag="--gallery")] = 12
    "Frames of each set that the report shows."
    resamples: Annotated[Positive, Field(le=10_000_000)] = 10_000
    "Number of bootstrap resamples."
    seed: Count = 0
    "Random seed of the bootstrap."
    anonymous: bool = False
    "Number the report's frames instead of naming them."


class CurvesConfig(Config):
    """Curves of runs."""

    runs: Annotated[tuple[Path, ...], Opt(argument=True)]
    "Run folders; each gets a row."
    out: Path = Path("curves.png")
    "PNG file to write."
    force: bool = False
    "Overwrite an existing file."


class DemoConfig(Config):
    """Everything once."""

    out: Path = Path("demo")
    "Output folder for images, cache, runs and results."


class RecipesConfig(Config):
    """What a run is taught."""

    name: Annotated[str | None, Opt(argument=True)] = None
    "Recipe, or TOML file, to print with every value."


class StudentsConfig(CommandConfig):
    """What can be trained."""


class ExportConfig(CommandConfig, OwnStudent):
    """A student as one file."""

    run: Annotated[Path, Opt(argument=True)]
    "Run folder."
    out: Path
    "File to write."
    format: str = "onnx"
    "onnx, or torch for a torch.export file."
    dynamic_size: bool = False
    "Accept any height and width."
    output_size: Literal["input", "frame"] = "input"
    "frame: take whole frames of any size, resize inside, and return masks of their size."
    int8: bool = False
    "Quantise weights and activations (ONNX)."
    calibration: Path | None = None
    "Data whose training frames calibrate int8."
    check: Path | None = None
    "Data on which the file is compared with the student."
    frames: Positive = 16
    "Number of frames for calibration and comparison."
    force: bool = False
    "Overwrite an existing file."
    anonymous: bool = False
    "Leave the run's name out of the file."


class CostConfig(CommandConfig, OwnStudents):
    """Parameters, FLOPs and latency."""

    runs: Annotated[tuple[str, ...], Opt(argument=True)] = ()
    "Run folders."
    teachers: Annotated[tuple[str, ...], Opt(flag="--teacher", whole=True)] = ()
    "Teacher to compare with, such as sam:vit_b; may repeat."
    device: str = "auto"
    "auto, cpu, cuda or cuda:N."
    passes: Positive = 30
    "Number of timed passes."


class SharedRun(OwnStudent):
    """A run that is passed on."""

    run: Annotated[Path, Opt(argument=True)]
    "Run folder."
    licence: str | None = None
    "Licence of the weights as the hub names it, such as cc-by-nc-4.0, where teachers and data allow it; else research only."


class CardConfig(SharedRun):
    """A run's model card."""

    out: Annotated[Path | None, Opt(default="RUN/README.md")] = None
    "File to write."
    force: bool = False
    "Overwrite an existing file."


class PushConfig(SharedRun):
    """A run to the hub."""

    repo: Annotated[str, Opt(argument=True)]
    "Hub model, OWNER/NAME; it is made where there is none."
    public: bool = False
    "Let everybody see it; else a new one is private."
    onnx: bool = True
    "Also upload the student as an ONNX file, where the extra onnx is installed."
    dry_run: bool = False
    "Only list what would be uploaded."


class PullConfig(Config):
    """A run from the hub."""

    repo: Annotated[str, Opt(argument=True)]
    "Hub model, OWNER/NAME, that `push` made."
    out: Annotated[Path | None, Opt(default="runs/NAME")] = None
    "Run folder to write."
    revision: str = "main"
    "Branch, tag or commit."
    force: bool = False
    "Overwrite existing files."


class AppConfig(OwnStudents):
    """A page to try networks on."""

    runs: Annotated[tuple[str, ...], Opt(argument=True), Field(min_length=1)]
    "Run folders, teacher:SPEC or probe:CACHE/LABEL, shown side by side."
    port: Annotated[Count, Field(le=65_535)] = 8765
    "Port on 127.0.0.1; 0 = any free one."
    device: str = "auto"
    "auto, cpu, cuda or cuda:N."
