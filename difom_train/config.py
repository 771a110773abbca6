"""The settings of a run: frozen tables that are read from TOML, changed key by key, and written back in full."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from difom_cache.errors import SettingsError, name_nearest
from difom_train.distill.settings import DistillSettings

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class StudentChoice:
    """Which network is trained."""

    name: str = "pranet"
    "unet, unet++, pranet, or smp:ARCH/ENCODER."
    width: int = 0
    "Channels of the first level; 0 = the student's own."
    weights: str = "auto"
    "imagenet, random, or a file or run folder; auto = imagenet for pranet and smp, random for the others."
    deep_supervision: bool = False
    "Whether the inner outputs of unet++ are trained against the mask as well."
    loss: str = "auto"
    "dice_bce or structure; auto = the one the student was published with."


@dataclass(frozen=True)
class DataSettings:
    """Which rows of the cache make a batch, and what is done to their pictures."""

    input_px: int = 352
    "Side of the student's input in pixels; the stored pictures are resized to it on the device."
    batch_size: int = 16
    "Pictures in one forward pass of one process."
    accumulate: int = 1
    "Forward passes whose gradients make one step."
    views: int = 0
    "Use only the first so many views of each record; 0 = all."
    all_views: bool = False
    "Visit every view in every epoch, in place of one view of each record."
    fresh_views: bool = False
    "Draw new views in every epoch from the source pictures (needs --data, and a recipe without distillation)."
    labels_frac: float = 1.0
    "Share of the train masks that is used, in (0, 1]; chosen by group and seed."
    labelled_min_frac: float = 0.5
    "Least share of each batch that carries a mask, in (0, 1]; more where more of the records have one."
    scales: tuple[float, ...] = (1.0,)
    "Factors on input_px; one is drawn for each step, and the side is rounded to what the student can take."


@dataclass(frozen=True)
class ColourSettings:
    """How strongly colours are changed for the student, drawn anew in each epoch; 0 = not at all."""

    brightness: float = 0.2
    "Factor drawn from [1 - x, 1 + x]."
    contrast: float = 0.2
    "Factor drawn from [1 - x, 1 + x]."
    saturation: float = 0.2
    "Factor drawn from [1 - x, 1 + x]."
    hue: float = 0.02
    "Turn drawn from [-x, x], in full circles."


@dataclass(frozen=True)
class OptimiserSettings:
    """How the weights move."""

    name: str = "adamw"
    "adam, adamw or sgd."
    epochs: int = 75
    "Passes over the train records."
    lr: float = 5e-4
    "Highest learning rate."
    pretrained_encoder_lr_factor: float = 0.2
    "Factor on lr for an encoder that starts from pretrained weights."
    weight_decay: float = 1e-4
    "Decoupled for adamw, added to the gradient for adam and sgd; never on biases and norms."
    schedule: str = "cosine"
    "cosine (to 1 % of lr) or constant."
    warmup_frac: float = 0.02
    "Share of all steps over which lr rises from 0."
    clip_norm: float = 1.0
    "Largest gradient norm; 0 = not clipped."
    ema_decay: float = 0.0
    "Decay a step of the averaged weights that are validated and kept; 0 = no average."
    patience_epochs: int = 0
    "Stop after so many epochs without a better validation Dice; 0 = never."


@dataclass(frozen=True)
class Phase:
    """One part of the run."""

    until_frac: float = 1.0
    "Where the phase ends, as a share of all epochs; the last ends at 1."
    segmentation: float = 1.0
    "Factor on the mask loss."
    distillation: float = 0.0
    "Factor on the distillation terms, which have weights of their own in [distill]."
    freeze_encoder: bool = False
    "Whether the encoder stands still, its batch-norm statistics included."


@dataclass(frozen=True)
class MachineSettings:
    """Where and how the run computes."""

    device: str = "auto"
    "auto, cpu, cuda or cuda:N."
    precision: str = "auto"
    "float32 or bfloat16 (mixed); auto = bfloat16 on CUDA, float32 on the CPU."
    stage: str = "auto"
    "Where the cache is held while training: disk, ram, gpu; auto = by measured sizes."
    channels_last: bool = True
    "Keep pictures and weights with channels innermost, as convolutions run fastest on CPUs and recent GPUs."
    compile: bool = False
    "Compile the student with torch.compile; the first step then takes minutes."
    logger: str = "tensorboard"
    "tensorboard, csv or none; log.jsonl is written in any case."


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run, beside the cache."""

    seed: int = 0
    "Key of all randomness."
    student: StudentChoice = field(default_factory=StudentChoice)
    data: DataSettings = field(default_factory=DataSettings)
    colour: ColourSettings = field(default_factory=ColourSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    phases: tuple[Phase, ...] = (Phase(),)

    @property
    def distils(self) -> bool:
        """Whether any phase uses the teachers."""
        return self.distill.kind != "none" and any(phase.distillation > 0 for phase in self.phases)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def read_recipe(recipe: str | Path) -> Settings:
    """Return the settings of a recipe, given by name or as a TOML file.

    Raises:
        SettingsError: no such recipe, not TOML, an unknown key, or a value of another type.
    """
    path = Path(recipe)
    if path.suffix != ".toml":
        path = RECIPES / f"{recipe}.toml"
        if not path.is_file():
            raise SettingsError(f"{name_nearest('recipe', str(recipe), recipe_names())}; or give a FILE.toml")
    if not path.is_file():
        raise SettingsError(f"recipe file {path} does not exist")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    settings = build_settings(table, where=str(path))
    check_settings(settings)
    return settings


def build_settings(table: Mapping[str, Any], where: str) -> Settings:
    """Return settings with the values of `table`; what it leaves out keeps the default."""
    return _build(Settings, table, where, "")


def change_settings(settings: Settings, changes: Iterable[str]) -> Settings:
    """Return the settings with each `dotted.key=value` applied; a value is written as in TOML, or is a bare word.

    Raises:
        SettingsError: no such key, no `=`, or a value of another type.
    """
    table = to_table(settings)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise SettingsError(f"--set {change!r} has no '='; write --set key=value, such as --set optimiser.lr=0.001")
        _put(table, key.strip(), _read_value(text.strip()))
    changed = build_settings(table, where="--set")
    check_settings(changed)
    return changed


def check_settings(settings: Settings) -> None:
    """Raise SettingsError where a value cannot be meant."""
    data, optimiser = settings.data, settings.optimiser
    for key, value, least in (
        ("data.batch_size", data.batch_size, 1),
        ("data.accumulate", data.accumulate, 1),
        ("data.input_px", data.input_px, 1),
        ("data.views", data.views, 0),
        ("optimiser.epochs", optimiser.epochs, 1),
    ):
        if value < least:
            raise SettingsError(f"{key} is {value}; it must be at least {least}")
    for key, share in (("data.labels_frac", data.labels_frac), ("data.labelled_min_frac", data.labelled_min_frac)):
        if not 0 < share <= 1:
            raise SettingsError(f"{key} is {share}; it must be in (0, 1]")
    if data.fresh_views and settings.distils:
        raise SettingsError("data.fresh_views draws views that no teacher has seen; use it with a recipe like baseline")
    for key, name, known in (
        ("optimiser", optimiser.name, ["adam", "adamw", "sgd"]),
        ("schedule", optimiser.schedule, ["cosine", "constant"]),
        ("stage", settings.machine.stage, ["auto", "disk", "ram", "gpu"]),
        ("precision", settings.machine.precision, ["auto", "float32", "bfloat16"]),
        ("logger", settings.machine.logger, ["tensorboard", "csv", "none"]),
    ):
        if name not in known:
            raise SettingsError(name_nearest(key, name, known))
    ends = [phase.until_frac for phase in settings.phases]
    if not ends or ends != sorted(ends) or ends[-1] != 1:
        raise SettingsError(f"phases end at {ends}; expected rising shares of the run, the last one 1.0")


def find_differences(there: Settings, here: Settings, *, ignore: Iterable[str] = ()) -> list[str]:
    """Return one line for each key whose values differ, such as `optimiser.lr: 0.001 there, 0.0001 here`."""
    old, new = _flatten(to_table(there)), _flatten(to_table(here))
    keys = [key for key in sorted(old | new) if old.get(key) != new.get(key) and key not in set(ignore)]
    return [f"{key}: {old.get(key, 'absent')!r} there, {new.get(key, 'absent')!r} here" for key in keys]


def write_settings(settings: Settings, path: Path) -> None:
    """Write every setting to `path` as TOML that `read_recipe` takes."""
    table = to_table(settings)
    lines = [f"{key} = {_write_value(value)}" for key, value in table.items() if not isinstance(value, dict | list)]
    for name, part in table.items():
        sections = part if isinstance(part, list) else [part] if isinstance(part, dict) else []
        for section in sections:
            lines += ["", f"[[{name}]]" if isinstance(part, list) else f"[{name}]"]
            lines += [f"{key} = {_write_value(value)}" for key, value in section.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def to_table(value: Any) -> Any:
    """Return settings as plain dictionaries and lists, tuples of numbers and words left as they are."""
    if is_dataclass(value):
        return {each.name: to_table(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        return [to_table(part) for part in value]
    return value


def with_seed(settings: Settings, seed: int) -> Settings:
    """Return the same settings under another seed."""
    return replace(settings, seed=seed)


def _build(kind: type, table: Mapping[str, Any], where: str, prefix: str) -> Any:
    hints = get_type_hints(kind)
    for key in table:
        if key not in hints:
            raise SettingsError(f"{where}: {name_nearest('setting', prefix + key, [prefix + name for name in hints])}")
    return kind(**{key: _convert(hints[key], value, where, prefix + key) for key, value in table.items()})


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if is_dataclass(hint) and isinstance(value, Mapping):
        return _build(hint, value, where, f"{key}.")  # type: ignore[arg-type]
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        part = get_args(hint)[0]
        return tuple(_convert(part, each, where, f"{key}.{index}") for index, each in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    expected = getattr(hint, "__name__", str(hint))
    raise SettingsError(f"{where}: {key} is {value!r}, which is not of type {expected}")


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    """Change one value in place; a number in the key counts phases from 0."""
    *path, last = key.split(".")
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


def _write_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(_write_value(part) for part in value)}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


def _flatten(table: Any, prefix: str = "") -> dict[str, Any]:
    parts = table.items() if isinstance(table, dict) else enumerate(table)
    flat: dict[str, Any] = {}
    for key, value in parts:
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, dict | list) else {name: value}
    return flat
