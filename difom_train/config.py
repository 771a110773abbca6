"""Everything that decides a run, declared once: command line, recipes, settings.toml and keywords are made from it."""

import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import RunError, SettingsError, name_nearest
from difom_cache.base.files import read_object
from difom_cache.base.options import (
    Access,
    Batch,
    Config,
    Count,
    Epochs,
    Opt,
    Share,
    SidePx,
    Size,
    SomeShare,
    Width,
    build,
    format_toml,
    read_toml,
    validate,
)
from difom_cache.base.progress import say
from difom_cache.data import DataSource, FolderOptions

RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "difom-multiscale"
SETTINGS_FILE = "settings.toml"
OLD_RECIPES = {"features-only": "distill.learn=features", "logits-only": "distill.learn=masks"}
"Names of recipes that are the default one with an option."
FREE = ("run.", "machine.device", "machine.stage", "machine.access", "machine.logger")
"""Beginnings of the keys that do not decide the weights."""
KEYWORDS = {
    "TrainKeywords": "difom_train.config:TrainOptions",
    **{
        f"{name}Keywords": f"difom_train.commands:{name}Config"
        for name in ("Evaluate", "Predict", "Study", "Compare", "Curves", "Export", "Cost")
    },
}
"Signatures to be made from configs (see `options.format_keywords`)."
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
_CODE = re.compile(r"(?!smp:)[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_SHORT = {
    "student.width": "w{}",
    "data.input_px": "{}px",
    "data.labels": "labels{}",
    "data.labels_seed": "masks{}",
    "distill.teachers": "{}",
    "optimizer.epochs": "{}epochs",
    "data.batch_size": "batch{}",
}
"What a setting is called in the name of a run folder."
_UNNAMED = (
    "run.",
    "machine.",
    "seed",
    "student.name",
)  # beginnings of keys that stand there otherwise, or decide nothing
_LONGEST_NAME = 120
_RENAMED = {"optimiser": "optimizer"}
_SAME = {("data", "input_size"): "input_px", ("optimizer", "patience"): "patience_epochs"}
"""Options that are called otherwise than their keys: taken as keys, too."""
_NECKS = {"difom": "residual", "paper": "paper"}


class RunConfig(FolderOptions):
    """Where a run reads from and writes to."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {"Source images": ("data", "images", "masks", "every")}

    cache: tuple[Path, ...] = (Path("feats"),)
    "Cache to train from; several are trained on together."
    data: Path | None = None
    "Source images, for a cache without them and for fresh views."
    out: Annotated[Path | None, Opt(default="runs/STUDENT-RECIPE-CHANGES-seedN")] = None
    "Run folder; with several seeds -seedN is appended."
    seeds: tuple[Seed, ...] = ()
    "Train one run for each of these seeds."
    resume: bool = False
    "Resume a run that was stopped, or start it."
    allow_partial: bool = False
    "Train on the finished part of an incomplete cache."

    @property
    def source(self) -> DataSource | None:
        """The source pictures, where they were named."""
        return self.describe_source(self.data) if self.data or self.images else None


class StudentConfig(Config):
    """Which network is trained."""

    name: Annotated[str, Opt("student")] = "pranet"
    "unet, unet++, pranet, smp:ARCH/ENCODER, an installed one, or package.module:Factory that returns your own network."
    width: Width = 0
    "Channels of the first level; 0 = the student's own."
    weights: Annotated[str, Opt("student_weights")] = "auto"
    """imagenet, random, a file or run folder, or imagenet:FILE for a file of ImageNet weights, which have seen no mask; auto =
    imagenet for pranet and smp, random for unet, its own for one of yours."""
    deep_supervision: bool = False
    "Also train the inner outputs of unet++ against the mask."
    loss: Literal["auto", "dice_bce", "structure"] = "auto"
    "Mask loss; auto = the one that the student was published with."


class DataConfig(Config):
    """Which rows of the cache make a batch, and what is done to their pictures."""

    input_px: Annotated[SidePx, Opt("input_size", both=True)] = 352
    "Side of the student's input in px; stored images are resized to it on the device."
    batch_size: Batch = 16
    "Images in one forward pass of one process."
    accumulate: Batch = 1
    "Forward passes whose gradients make one step."
    views: Count = 0
    "Use only the first N views of each record; 0 = all."
    all_views: bool = False
    "Visit every view in every epoch, instead of one view of each record."
    fresh_views: bool = True
    "Draw a new view each time, from the stored view 0 or the images in --data; if features teach, for every other image."
    labels: SomeShare = 1.0
    "Share of the masks of training and validation records to use, chosen by group; the others are never read."
    labels_seed: Count = 0
    "Random seed for the choice of these masks; smaller shares are subsets of larger ones."
    labels_frac: Annotated[SomeShare, Opt(hidden=True)] = 1.0
    "As runs of earlier versions have it: share of the train masks alone, chosen by group and the run's seed."
    labelled_min_frac: SomeShare = 0.5
    "Smallest share of each batch that has a mask; larger if more of the records have one."
    unlabelled_ratio: Size = 0.0
    "Images without a mask to add to a batch for each image with one; 0 = mix them within the batch, by labelled_min_frac."
    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=16)], ...], Field(min_length=1)] = (1.0,)
    "Factors on the input size, one drawn for each step, rounded to a size that the student takes; PraNet: 0.75,1,1.25."


class ColourConfig(Config):
    """How strongly colours are changed for the student, drawn anew in each epoch; 0 = not at all."""

    brightness: Share = 0.2
    "Factor drawn from [1 - x, 1 + x]."
    contrast: Share = 0.2
    "Factor drawn from [1 - x, 1 + x]."
    saturation: Share = 0.2
    "Factor drawn from [1 - x, 1 + x]."
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    "Turn drawn from [-x, x], in full circles."

    @property
    def reach(self) -> tuple[float, float, float, float]:
        """How far each of the four may go."""
        return self.brightness, self.contrast, self.saturation, self.hue


class OptimizerConfig(Config):
    """Optimizer."""

    name: Annotated[Literal["adam", "adamw", "sgd"], Opt("optimizer")] = "adamw"
    "Optimizer."
    epochs: Epochs = 75
    "Passes over the training records."
    lr: Size = 5e-4
    "Highest learning rate."
    pretrained_encoder_lr_factor: Size = 0.2
    "Factor on lr for an encoder that starts from pretrained weights."
    weight_decay: Size = 1e-4
    "Weight decay, decoupled for adamw, added to the gradient for adam and sgd; never on biases and norms."
    schedule: Literal["cosine", "constant"] = "cosine"
    "Learning-rate schedule; cosine ends at 1 % of lr."
    warmup_frac: Share = 0.02
    "Share of all steps for the linear warm-up from 0."
    clip_norm: Size = 1.0
    "Largest gradient norm; 0 = no clipping."
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    "Decay per step of the exponential moving average (EMA) that is validated and kept; 0 = no EMA."
    patience_epochs: Annotated[Count, Opt("patience", both=True)] = 0
    "Stop after N epochs without a better validation Dice; 0 = never."
    keep: Literal["auto", "best", "last"] = "auto"
    """Which epoch becomes the student: best = by validation, last, or auto = best, but last if no patience is set and there are
    fewer than 100 validation images, which would choose by chance."""


class MachineConfig(Config):
    """Where and how the run computes."""

    device: str = "auto"
    "auto, cpu, cuda or cuda:N."
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    "Precision of the student (bfloat16 is mixed); auto = bfloat16 on CUDA, float32 on the CPU."
    stage: Literal["auto", "disk", "ram", "gpu"] = "auto"
    "Where the cache is held while training; auto decides by size."
    access: Access = "auto"
    "How the cache is read where it stays on disk; auto: map on local disks, read elsewhere."
    channels_last: bool = True
    "Use the channels-last memory format, the fastest for convolutions on CPUs and recent GPUs."
    compile: bool = False
    "Compile the student with torch.compile; the first step then takes minutes."
    logger: Literal["tensorboard", "csv", "wandb", "mlflow", "none"] = "tensorboard"
    "Log of each epoch beside log.jsonl, which is always written; wandb and mlflow are extras."


class DistillConfig(Config):
    """What is learnt from the teachers.

    none: segmentation only. difom: low and high band of all teachers at the bottleneck (the whole map where it has fewer than
    12 cells a side), added to what the decoder gets. paper: the paper's literal wiring, L1 with ReLU, L2 of L1. published: the
    released notebook, trainable fusion on the target side and layers that the decoder never uses. multiscale: every level
    against the taps of its stride, and the teachers' own logits. mean_teacher: no teacher but the run's own averaged weights,
    which see the pictures in their colours (needs optimizer.ema_decay).
    """

    kind: Annotated[Literal["none", "difom", "paper", "published", "multiscale", "mean_teacher"], Opt("distill")] = (
        "none"
    )
    "Kind of distillation."
    teachers: tuple[str, ...] = ()
    "Labels of the cache's teachers to learn from; none named = all."
    learn: Literal["both", "features", "masks"] = "both"
    "What multiscale learns from: the teachers' features, their masks, or both as far as the cache holds them."
    probe: Literal["auto", "none"] = "auto"
    "auto = fit a probe to the run's masks if some images have none, no teacher is named, and no teacher has logits."
    rounds: Annotated[int, Field(ge=1, le=2)] = 1
    "2 trains the student alone first, in RUN/first; its masks then teach a second student beside the teachers' (multiscale)."
    low_weight: Size = 0.1
    "Weight of the low-frequency term (difom, paper, published, and multiscale with bands); 0.1 as in the paper."
    high_weight: Size = 0.1
    "Weight of the high-frequency term; 0.1 as in the paper."
    gradient_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    "Share of the student's gradient from all terms together, set by one factor on their weights; 0 = keep their weights."
    feature_weight: Size = 1.0
    "Weight of multiscale's feature term."
    relation_weight: Size = 0.0
    "Weight of multiscale's term on the cosines between all pairs of cells of an image."
    logits_weight: Size = 1.0
    "Weight of multiscale's term on the teachers' masks, which teach images whose own mask the run may not see; 0 = off."
    hard_masks: bool = False
    "Threshold the teachers' masks at 0.5 instead of using soft ones (multiscale)."
    consistency_weight: Size = 1.0
    "Weight of mean_teacher's consistency term."
    ramp_frac: Share = 0.0
    "Share of the run over which all terms ramp up to their weights, as exp(-5 (1 - t)^2)."
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    "Probability above which the EMA always teaches a pixel (mean_teacher)."
    channels: Annotated[int, Field(ge=1, le=65_536)] = 256
    "Channels of the target: in total for difom and paper, at most this many per tap for multiscale."
    bands: bool = False
    "Also compare the low and the high band of each pair (multiscale)."

    @property
    def neck(self) -> str | None:
        """The neck that a student needs for this kind."""
        return _NECKS.get(self.kind)


class Phase(Config):
    """One part of the run."""

    until_frac: Share = 1.0
    "Where the phase ends, as a share of all epochs; the last one ends at 1."
    segmentation: Size = 1.0
    "Factor on the mask loss."
    distillation: Size = 0.0
    "Factor on the distillation terms, which have weights of their own in [distill]."
    learn: Literal["both", "features", "masks"] = "both"
    "What this phase learns from teachers, of what [distill] learns at all (multiscale)."
    freeze_encoder: bool = False
    "Freeze the encoder, its batch-norm statistics included."


class TrainConfig(Config):
    """Everything that decides a run."""

    seed: Seed = 0
    "Random seed."
    run: RunConfig = Field(default_factory=RunConfig)
    "Input and output."
    student: StudentConfig = Field(default_factory=StudentConfig)
    "Which network is trained."
    data: DataConfig = Field(default_factory=DataConfig)
    "Batches."
    colour: ColourConfig = Field(default_factory=ColourConfig)
    "Colour jitter."
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    "Optimizer."
    machine: MachineConfig = Field(default_factory=MachineConfig)
    "Device and precision."
    distill: DistillConfig = Field(default_factory=DistillConfig)
    "Distillation."
    phases: tuple[Phase, ...] = Field(default_factory=lambda: (Phase(),))
    "Phases of the run, one after the other."

    @property
    def distils(self) -> bool:
        """Whether any phase uses the teachers."""
        return self.distill.kind != "none" and any(phase.distillation > 0 for phase in self.phases)

    @property
    def needs_teachers(self) -> bool:
        """Whether it learns from teachers in the cache."""
        return self.distils and self.distill.kind != "mean_teacher"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.data.fresh_views and self.distils and self.distill.kind in ("paper", "published"):
            raise SettingsError(
                f"data.fresh_views draws views that no teacher has seen, and distill.kind {self.distill.kind} is the paper's to "
                "the letter; add --no-fresh-views, or use another recipe"
            )
        if self.data.fresh_views and self.data.all_views:
            raise SettingsError(
                "data.all_views visits every stored view and data.fresh_views shows new ones in their place; "
                "choose one: --no-fresh-views, or no --all-views"
            )
        if self.data.labels < 1 and self.data.labels_frac < 1:
            raise SettingsError(
                f"data.labels is {self.data.labels} and data.labels_frac {self.data.labels_frac}: give data.labels alone, which "
                "covers train and validation masks"
            )
        if self.distill.kind == "mean_teacher" and self.optimizer.ema_decay == 0:
            raise SettingsError(
                "distill.kind mean_teacher learns from averaged weights: set optimizer.ema_decay, such as 0.99"
            )
        if self.distill.rounds > 1 and self.distill.kind not in ("none", "multiscale"):
            raise SettingsError(
                f"distill.rounds 2 is for the recipes of multiscale; distill.kind is {self.distill.kind}"
            )
        ends = [phase.until_frac for phase in self.phases]
        if not ends or ends != sorted(ends) or ends[-1] != 1:
            raise SettingsError(f"phases end at {ends}; expected rising shares of the run, the last one 1.0")
        return self


class TrainOptions(TrainConfig):
    """What `train` is asked: a recipe, what replaces its values, and where to run."""

    COMMON: ClassVar[tuple[str, ...]] = (
        *("student", "recipe", "cache", "data", "labels", "labels_seed", "input_size", "batch_size", "epochs"),
        *("seed", "device", "out", "resume", "changes"),
    )

    recipe: str = DEFAULT_RECIPE
    "Name of a recipe, or a TOML file; `difom-train recipes` lists them."
    changes: Annotated[tuple[str, ...], Opt(flag="--set", whole=True)] = ()
    "Change any setting: key=value, such as phases.0.distillation=0.5; may repeat."


def names_code(student: str) -> bool:
    """Whether a student's name is `package.module:Factory`, which is imported."""
    return _CODE.fullmatch(student) is not None


def refuse_code(config: TrainConfig, where: object) -> TrainConfig:
    """Return a config that was read from a file, unless it names code to import: that comes from the user alone."""
    if names_code(config.student.name):
        raise SettingsError(
            f"{where} says student.name = {config.student.name!r}, and what a file says is not imported; give it yourself: "
            f"--student {config.student.name}"
        )
    return config


def compose(options: TrainOptions) -> TrainConfig:
    """Return the recipe's config with the options that are given, and then the changes; the run's folder is named.

    A run that is resumed without naming a recipe starts from its own settings, so that --resume --out RUN is enough.

    Raises:
        RunError: a run that is not there is to be resumed, and nothing says what it should be.
        SettingsError: no such recipe or key, a value that cannot be meant, or a file that names a student to import.
    """
    settings = options.run.out and options.run.out / SETTINGS_FILE
    if options.run.resume and "recipe" not in options.model_fields_set and settings and settings.is_file():
        source, base = settings, read_settings(settings)
    else:
        source, base = _read_recipe(options.recipe)
        if options.recipe in OLD_RECIPES:
            say(f"--recipe {options.recipe} is --recipe {DEFAULT_RECIPE} --set {OLD_RECIPES[options.recipe]}")
    if "name" not in options.student.model_fields_set:
        refuse_code(base, source)
    given = options.model_dump(mode="json", exclude_unset=True, exclude={"recipe", "changes"})
    alone = given.keys() == {"run"} and given["run"].keys() == {"out", "resume"} and not options.changes
    if options.run.resume and alone and not (settings and settings.is_file()):  # a slip would train something else
        hint = "nothing to resume; name a recipe or other options to start a run"
        raise RunError(f"{options.run.out} is not there: {hint}")
    config = validate(TrainConfig, _merge(to_table(base), given))
    if options.changes:
        config = change_config(config, options.changes)
    out = config.run.out or name_folder(config, options.recipe, _read_recipe(options.recipe)[1])
    return config.model_copy(update={"run": config.run.model_copy(update={"out": out})})


def name_folder(config: TrainConfig, recipe: str, base: TrainConfig | None = None) -> Path:
    """Return the run folder of who names none: runs/STUDENT-RECIPE-seedN, and between them what differs from the recipe.

    Width and input size stand before the recipe, everything else behind it: unet-w16-96px-difom-labels0.1-seed0. Several seeds
    add their own ending.

    Args:
        config: of the run.
        recipe: its name or file.
        base: the recipe's own config; None compares with the defaults, and names only what has a short name.
    """
    here, there = (_flatten(to_table(each)) for each in (config, base or TrainConfig()))
    names = _SHORT if base is None else {key: _SHORT.get(key, f"{key.rpartition('.')[2]}{{}}") for key in here}
    changed = {key: here.get(key) for key in names if not key.startswith(_UNNAMED) and here.get(key) != there.get(key)}
    parts = {key: names[key].format(_format_for_name(value)) for key, value in changed.items()}
    before = [parts.pop(key) for key in ("student.width", "data.input_px") if key in parts]
    seed = [] if len(config.run.seeds) > 1 else [f"seed{(*config.run.seeds, config.seed)[0]}"]
    words = [config.student.name, *before, Path(recipe).stem, *parts.values(), *seed]
    return Path("runs") / _shorten("-".join(re.sub(r"[^\w.+=-]+", "-", word).strip("-.") for word in words))


def _format_for_name(value: Any) -> str:
    return (
        "+".join(map(str, value))
        if isinstance(value, list)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _shorten(name: str) -> str:
    """Return a name that a file system takes: of a very long one the ending makes way for its digest."""
    return (
        name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 9]}-{sha256(name.encode()).hexdigest()[:8]}"
    )


def compose_keywords(**options: Any) -> TrainConfig:
    """Return the config of options by keyword, as `train` takes them."""
    return compose(build(TrainOptions, options))


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def find_recipe(recipe: str | Path) -> Path:
    """Return the file of a recipe, given by name or as a TOML file.

    Raises:
        SettingsError: there is none.
    """
    path = Path(recipe)
    if path.suffix != ".toml":
        path = RECIPES / f"{recipe}.toml"
        if not path.is_file():
            raise SettingsError(f"{name_nearest('recipe', str(recipe), recipe_names())}; or give a FILE.toml")
    if not path.is_file():
        raise SettingsError(f"recipe file {path} does not exist")
    return path


def read_recipe(recipe: str | Path) -> TrainConfig:
    """Return the config of a recipe, given by name or as a TOML file; what it leaves out keeps the default.

    Raises:
        SettingsError: no such recipe, not TOML, an unknown key, a value that cannot be meant, or a student to import.
    """
    path, config = _read_recipe(recipe)
    return refuse_code(config, path)


def _read_recipe(recipe: str | Path) -> tuple[Path, TrainConfig]:
    change = OLD_RECIPES.get(str(recipe))
    path = find_recipe(DEFAULT_RECIPE if change else recipe)
    table = rename_old_keys(read_toml(path), where=str(path))
    is_run = path.name == SETTINGS_FILE
    config = _validate_run(table, path) if is_run else validate(TrainConfig, table, where=str(path))
    return path, change_config(config, [change]) if change else config


def describe_recipes() -> str:
    """Return one line for each recipe of the package: the first sentence that its file says."""
    lines = []
    width = 2 + max(map(len, recipe_names()))
    for name in recipe_names():
        comment = re.match(r"(?:# ?.*\n)+", (RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
        said = " ".join(line.lstrip("# ") for line in comment[0].splitlines()) if comment else ""
        lines.append(f"{name:{width}}{re.split(r'(?<=[a-z)])[.:] ', said)[0]}\n")
    return "".join(lines)


def format_recipe(recipe: str | Path) -> str:
    """Return a recipe with every value, as TOML that can be changed and given to --recipe."""
    config = read_recipe(recipe)
    return format_toml(config.model_copy(update={"run": None}))


def change_config(config: TrainConfig, changes: Iterable[str]) -> TrainConfig:
    """Return the config with each `dotted.key=value` applied; a value is written as in TOML, or is a bare word.

    Raises:
        SettingsError: no such key, no `=`, or a value that cannot be meant.
    """
    table = to_table(config)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise SettingsError(f"--set {change!r} has no '='; write --set key=value, such as --set optimizer.lr=0.001")
        first, dot, rest = key.strip().partition(".")
        _put(table, f"{_rename(first, '--set')}{dot}{rest}", _read_value(text.strip()))
    return validate(TrainConfig, table, where="--set")


def find_differences(there: TrainConfig, here: TrainConfig, *, ignore: Iterable[str] = ()) -> list[str]:
    """Return one line for each key whose values differ, such as `optimizer.lr: 0.001 there, 0.0001 here`.

    Args:
        there: what is compared with.
        here: what is asked for.
        ignore: beginnings of the keys that may differ.
    """
    old, new = _flatten(to_table(there)), _flatten(to_table(here))
    keys = [key for key in sorted(old | new) if old.get(key) != new.get(key) and not key.startswith(tuple(ignore))]
    return [f"{key}: {old.get(key, 'absent')!r} there, {new.get(key, 'absent')!r} here" for key in keys]


def read_settings(path: Path) -> TrainConfig:
    """Return the config of a run's settings.toml, written today or under older names."""
    table = rename_old_keys(read_toml(path))
    if "run" not in table:  # older runs say in run.json alone where their caches are
        facts = path.with_name("run.json")
        caches = read_object(facts, RunError, "start the run anew").get("caches") if facts.is_file() else None
        table |= {"run": {"cache": caches}} if caches else {}
    return _validate_run(table, path)


def _validate_run(table: dict[str, Any], path: Path) -> TrainConfig:
    """Return the config of a run's table, whose paths begin at the run folder unless they are absolute."""
    config, home = validate(TrainConfig, table, where=str(path)), path.parent.resolve()
    if "run" not in table:
        return config
    run = config.run
    placed: dict[str, Any] = {
        name: Path(os.path.normpath(home / value)) for name, value in run if isinstance(value, Path) and name != "out"
    }
    placed["cache"] = tuple(Path(os.path.normpath(home / each)) for each in run.cache)
    return config.model_copy(update={"run": run.model_copy(update=placed)})


def write_settings(config: TrainConfig, path: Path) -> None:
    """Write every setting to `path` as TOML that `read_recipe` takes; paths begin at its folder, as in run.json."""
    run, home = config.run, path.parent.resolve()
    kept: dict[str, Any] = {
        name: Path(os.path.relpath(value.resolve(), home))
        for name, value in run
        if isinstance(value, Path) and name != "out"
    }
    kept |= {
        "cache": tuple(Path(os.path.relpath(each.resolve(), home)) for each in run.cache),
        "allow_partial": run.allow_partial,
        "every": run.every,
    }
    write_atomic(path, format_toml(config.model_copy(update={"run": RunConfig(**kept)})).encode())


def to_table(config: Config) -> dict[str, Any]:
    """Return a config as tables of plain values."""
    return config.model_dump(mode="json")


def rename_old_keys(table: dict[str, Any], *, where: str = "") -> dict[str, Any]:
    """Return a table whose sections have the names of today; one line says so, unless `where` is empty."""
    table = {_rename(key, where): value for key, value in table.items()}
    for (section, name), key in _SAME.items():
        if isinstance(held := table.get(section), dict) and name in held and key not in held:
            table[section] = {key if each == name else each: value for each, value in held.items()}
    return table


def _rename(key: str, where: str) -> str:
    name = _RENAMED.get(key, key)
    if where and name != key:
        print(f"{where}: [{key}] is read as [{name}], its name of today", file=sys.stderr)
    return name


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both tables as one; where both have a value, that of `above`."""
    merged = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
        merged[key] = _merge(below[key], value) if both_tables else value
    return merged


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    """Change one value in place; a number in the key counts phases from 0."""
    *path, last = key.split(".")
    last = _SAME.get((".".join(path), last), last)
    place: Any = table
    for step in path:
        place = _descend(place, step, key)
    if not isinstance(place, dict) or last not in place:
        raise SettingsError(f"--set {key}: {name_nearest('setting', key, list(_flatten(table)))}")
    place[last] = value


def _descend(place: Any, step: str, key: str) -> Any:
    if isinstance(place, list) and step.isdecimal() and int(step) < len(place):
        return place[int(step)]
    if isinstance(place, dict) and step in place:
        return place[step]
    known = [str(index) for index in range(len(place))] if isinstance(place, list) else list(place)
    raise SettingsError(f"--set {key}: {name_nearest('part', step, known)}")


def _read_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except RecursionError:
        raise SettingsError(f"--set: {text[:40]}... is nested too deeply") from None


def _flatten(table: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of nested tables by dotted key; lists of plain values are values."""
    parts = table.items() if isinstance(table, dict) else enumerate(table)
    flat: dict[str, Any] = {}
    for key, value in parts:
        name = f"{prefix}{key}"
        nested = isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
        flat |= _flatten(value, f"{name}.") if nested else {name: value}
    return flat
