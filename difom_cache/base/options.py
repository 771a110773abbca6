"""Every option is declared once, as a field of a frozen model; command line, TOML, documentation and keywords are made from it.

A command has one `Config`. A field's type holds its bounds, and the string below it says what it means, with the unit. A
field that is itself a `Config` is a section: a table in TOML, a group in --help. `Opt` says what an option is called where it
is not called as its field, and how it looks.
"""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from inspect import Parameter, Signature, isclass, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from difom_cache.base.compat import checked_as_a_whole
from difom_cache.base.errors import SettingsError, name_nearest
from difom_cache.base.files import read_plain
from difom_cache.base.text import format_markdown

MOST = 2**63 - 1
"""Of whole numbers that nothing else bounds, such as seeds: what 64 bits hold."""
Count = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Size = Annotated[float, Field(ge=0, le=1e9)]
"A number that is no count, such as a weight or a rate."
SidePx = Annotated[int, Field(ge=1, le=16_384)]
"Of a square image, px."
Batch = Annotated[int, Field(ge=1, le=65_536)]
"Images at once, or passes whose gradients make one step."
Width = Annotated[int, Field(ge=0, le=4096)]
"Channels of a student's first level; 0 = its own."
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]
SomeShare = Annotated[float, Field(gt=0, le=1)]
Access = Literal["auto", "map", "read"]
"How stored rows are read: mapped into memory, or with a call each, which a lost server cannot turn into a dead process."
CodecName = Literal["int8", "float16", "compact", "packed"]
"The codecs of `difom_cache/codecs/catalogue.py`; a contract test compares the two."

_BOUNDS = ("ge", "gt", "le", "lt", "min_length")
_SAY_BOUND = {"ge": "at least {}", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "tuple": "a list",
    "model": "a table",
}


@dataclass(frozen=True)
class Opt:
    """How a field looks as an option, where that does not follow from the field."""

    name: str = ""
    "Keyword of the function, and option with dashes; by default the field's name."
    flag: str = ""
    "The option, where it is not the keyword with dashes."
    default: str = ""
    "Words in place of the default value, such as RUN/eval."
    argument: bool = False
    "Whether it stands without a name on the command line."
    short: str = ""
    "Another spelling, such as -o."
    whole: bool = False
    "Of a list: whether a comma belongs to the value, so that only repeating the option adds to it."
    hidden: bool = False
    "Whether there is no option: a key of TOML alone."
    both: bool = False
    "Whether an option of the field's own name is taken as well; keys of TOML are the model's business."
    keyword: bool = True
    "Whether functions have it by keyword as it stands here; False where they take more than text can say, or nothing."


class Config(BaseModel):
    """Checked options that do not change.

    `GROUPS` gives --help headings, each to some of the model's own fields; sections are groups by themselves. `COMMON` names
    the options that --help shows where others are left to --help-all.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    COMMON: ClassVar[tuple[str, ...]] = ()

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, defer_build=True
    )

    if not TYPE_CHECKING:  # a checker knows every field from the model

        @checked_as_a_whole
        def __init__(self, **given: Any) -> None:
            try:
                super().__init__(**given)
            except ValidationError as error:
                raise SettingsError(_explain_all(type(self), error, _name_key)) from error


class CommandConfig(Config):
    """A command that answers to people or to programs."""

    as_json: Annotated[bool, Opt(flag="--json", keyword=False)] = False
    "Print JSON for a program to read."


AnyConfig = TypeVar("AnyConfig", bound=Config)
Subject = Callable[[tuple[str, ...], Any], str]
"""Begins a message about a key and the value that was found there: "--lr -1:", or "optimizer.lr is -1; it"."""


@dataclass(frozen=True)
class Option:
    """One field, as a user meets it."""

    path: tuple[str, ...]
    "Names of the sections and of the field: the key in TOML."
    about: FieldInfo
    section: str
    "Heading of its group; empty for those outside of sections."
    look: Opt = field(default_factory=Opt)
    heading: str = ""
    "Group of --help, where it is not the section."

    @property
    def group(self) -> str:
        """Heading of its group in --help; empty for the general one."""
        return self.heading or self.section.capitalize()

    @property
    def name(self) -> str:
        """The keyword."""
        return self.look.name or self.path[-1]

    @property
    def flag(self) -> str:
        """The option of the command line, or the argument's name in capitals."""
        if self.look.argument:
            return self.name.upper()
        return self.look.flag or f"--{self.name.replace('_', '-')}"

    @property
    def other_flag(self) -> str:
        """The option that means the same; empty where there is none."""
        return f"--{self.path[-1].replace('_', '-')}" if self.look.both else ""

    @property
    def kind(self) -> Any:
        """Its type, without None and bounds."""
        return strip_type(self.about.annotation)

    @property
    def is_list(self) -> bool:
        """Whether it takes several values."""
        return get_origin(self.kind) is tuple

    @property
    def metavar(self) -> str:
        """The word for its value in --help."""
        kind = _item_of(self.kind)
        if get_origin(kind) is Literal:
            word = "|".join(map(str, get_args(kind)))
        else:
            word = {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")
        return word if not self.is_list or self.look.whole or kind is Path else f"{word},..."

    @property
    def default(self) -> str:
        """The default in words; empty where there is nothing to say."""
        value = self.about.default
        if self.look.default or self.about.is_required() or value is None:
            return self.look.default
        if self.kind is bool:
            return "on" if value else "off"
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    @property
    def help(self) -> str:
        """Description, bounds and default."""
        limits = describe_bounds(self.about)
        shown = "" if self.default == "off" else self.default
        parts = [self.about.description or "", f"({limits})" if limits else "", f"[default: {shown}]" if shown else ""]
        return " ".join(filter(None, parts))

    def read(self, value: Any, *, typed: bool) -> Any:
        """Return a value for the model: of a list the items, be it typed as "8,16", option by option, or given as one item.

        What is text on the command line, such as a run, may be given as a path.
        """
        if _item_of(self.kind) is str and isinstance(value, Path):
            value = str(value)
        elif _item_of(self.kind) is str and isinstance(value, list | tuple):
            value = [str(each) if isinstance(each, Path) else each for each in value]
        if not self.is_list or not isinstance(value, Sequence | int | float | Path):
            return value
        if not isinstance(value, Sequence) or isinstance(value, str):
            return (value,)
        if not typed or self.look.whole or _item_of(self.kind) is Path:
            return value
        return [part.strip() for each in value for part in each.split(",") if part.strip()]


def list_options(model: type[Config], path: tuple[str, ...] = (), section: str = "") -> Iterator[Option]:
    """Yield every option of a model and of its sections, in the order of their declaration; those in `GROUPS` after the others.

    Lists of sections are not options: they are written in TOML.
    """
    headings = {name: heading for heading, names in model.GROUPS.items() for name in names}
    places = {name: place for place, name in enumerate(headings)}
    for name, about in sorted(model.model_fields.items(), key=lambda item: places.get(item[0], -1)):
        kind = strip_type(about.annotation)
        if isclass(kind) and issubclass(kind, Config):
            yield from list_options(kind, (*path, name), name)
        elif not _holds_sections(kind):
            look = next((each for each in about.metadata if isinstance(each, Opt)), Opt())
            if not look.hidden:
                yield Option((*path, name), about, section, look, headings.get(name, ""))


def build(model: type[AnyConfig], given: Mapping[str, Any], *, command_line: bool = False) -> AnyConfig:
    """Return the model with the options in `given`, by keyword; None means that an option was not given.

    Args:
        model: to build.
        given: keyword to value.
        command_line: whether values are texts as they were typed, and messages name options as they are typed.

    Raises:
        SettingsError: an option that does not exist, or a value out of bounds; one line that names it.
    """
    options = {option.name: option for option in list_options(model)}
    by_path = {option.path: option for option in options.values()}

    def subject(path: tuple[str, ...], value: Any) -> str:
        option = by_path.get(path) or by_path.get(path[:-1])  # of a list's item the list
        name = ".".join(path) if option is None else option.flag if command_line else option.name
        return name if value is None else f"{name} {value}:" if command_line else f"{name}={value!r}:"

    table: dict[str, Any] = {}
    for name, value in given.items():
        if name not in options:
            raise SettingsError(name_nearest("option", name, list(options)))
        if value is None:
            continue
        option = options[name]
        place = table
        for section in option.path[:-1]:
            place = place.setdefault(section, {})
        place[option.path[-1]] = option.read(value, typed=command_line)
    return validate(model, table, subject, strict=False)


def read_call(model: type[AnyConfig], options: Mapping[str, Any], **arguments: Any) -> AnyConfig:
    """Return the config of a call of a command's function: the one that was given, or that of its arguments and keywords.

    Args:
        model: of the command.
        options: keywords.
        arguments: by the names of their options; None was not given, and one of them may be the config.

    Raises:
        SettingsError: a config and keywords, an option that does not exist, or a value out of bounds.
    """
    given = {name: value for name, value in (arguments | dict(options)).items() if value is not None}
    config = next((value for value in given.values() if isinstance(value, model)), None)
    if config is None:
        return build(model, given)
    others = [name for name, value in given.items() if value is not config]
    if others:
        raise SettingsError(f"give a config or keywords, not both: {', '.join(others)}")
    return config


def validate(
    model: type[AnyConfig],
    table: Mapping[str, Any],
    subject: Subject | None = None,
    *,
    where: str = "",
    strict: bool = True,
) -> AnyConfig:
    """Return the model of a table, checked.

    Args:
        model: to build.
        table: keys to values; sections are tables.
        subject: begins messages; by default with the key and the value.
        where: the file that the values came from, for messages.
        strict: whether a text is no number; a command line has nothing but texts.

    Raises:
        SettingsError: one line for all that is wrong, with the nearest legal values.
    """
    try:
        # As JSON, lists are tuples and texts are paths even where types are strict.
        text = json.dumps(table, default=str) if strict else ""
        return model.model_validate_json(text, strict=True) if strict else model.model_validate(table)
    except ValidationError as error:
        lines = _explain_all(model, error, subject or _name_key)
        raise SettingsError(f"{where}: {lines}" if where else lines) from error


def _name_key(path: tuple[str, ...], value: Any) -> str:
    return f"{'.'.join(path)} is {value!r}; it"


def _explain_all(model: type[Config], error: ValidationError, subject: Subject) -> str:
    """Return one line for all that is wrong."""
    found = error.errors(include_url=False)
    inside = {each["loc"][:-1] for each in found}  # a list is too short because its items are wrong
    told = [each for each in found if each["type"] != "too_short" or each["loc"] not in inside]
    return "; ".join(dict.fromkeys(_explain(model, each, subject) for each in told))


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file as tables.

    Raises:
        SettingsError: there is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(read_plain(path).decode())
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error


def format_toml(config: Config) -> str:
    """Return every option of a config as TOML, those that are None left out."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def format_options(model: type[Config], *, command_line: bool = True) -> str:
    """Return the options of a model as Markdown tables, one for each section.

    Args:
        model: to describe.
        command_line: whether options are named as on the command line, or as keys in TOML.
    """
    sections: dict[str, list[list[str]]] = {}
    for option in list_options(model):
        name = option.flag if command_line else ".".join(option.path)
        limits = describe_bounds(option.about)
        choices = f" One of {option.metavar.replace('|', ', ')}." if get_origin(option.kind) is Literal else ""
        means = f"{option.about.description or ''}{choices}{f' ({limits})' if limits else ''}"
        default = f"`{option.default}`" if option.default else "required" if option.about.is_required() else ""
        sections.setdefault(option.section, [["option", "means", "default"]]).append([f"`{name}`", means, default])
    titles = {section: f"### {section}\n\n" if section else "" for section in sections}
    return "\n".join(titles[section] + format_markdown(rows) for section, rows in sections.items())


def format_keywords(models: Mapping[str, str]) -> str:
    """Return a stub with one TypedDict a command: every option by keyword, for the function's signature.

    `def train(**options: Unpack[TrainKeywords])` is then seen in full by editors and type checkers. A test compares the
    stub with this text, so that an option is still declared once; `make keywords` writes it anew. What stands without a name
    on the command line is an argument of the function.

    Args:
        models: name of the TypedDict to where its config lies, "module:Class".
    """
    lines = []
    for name, place in models.items():
        options = [option for option in list_options(find_config(place)) if option.look.keyword]
        about = f'    """Keywords of `{place.partition(":")[2]}`."""'
        lines += ["", f"class {name}(TypedDict, total=False):", about, ""]
        for option in options:
            if option.look.argument:
                continue
            lines.append(f"    {option.name}: {_spell_input(option.about.annotation)}")
            lines.append(f"    {json.dumps(option.help, ensure_ascii=False)}")
    text = "\n".join(lines) + "\n"
    imports = [
        "from collections.abc import Sequence" if "Sequence[" in text else "",
        "from pathlib import Path" if "Path" in text else "",
        f"from typing import {'Literal, ' if 'Literal[' in text else ''}TypedDict",
    ]
    head = ['"""Options by keyword, for signatures; made by `make keywords`."""', "", *filter(None, imports)]
    return "\n".join(head) + "\n" + text


def sign(function: Callable[..., Any], model: type[Config]) -> Signature:
    """Return the signature of a function with every option of a model in place of `**options`."""
    own = [each for each in signature(function).parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    names = {each.name for each in own}
    return Signature(
        own
        + [
            Parameter(option.name, Parameter.KEYWORD_ONLY, default=option.about.get_default(), annotation=option.kind)
            for option in list_options(model)
            if option.look.keyword and not option.look.argument and option.name not in names
        ],
        return_annotation=signature(function).return_annotation,
    )


def write_keywords(*packages: str) -> None:
    """Write `keywords.pyi` of each package, which nothing reads at run time, from the `KEYWORDS` of its config.py."""
    for package in packages:
        config = import_module(f"{package}.config")
        Path(str(config.__file__)).with_name("keywords.pyi").write_text(
            format_keywords(config.KEYWORDS), encoding="utf-8"
        )


def find_config(place: str) -> type[Config]:
    """Return the class that lies at "module:Class"."""
    module, _, name = place.partition(":")
    found: type[Config] = getattr(import_module(module), name)
    return found


def strip_type(annotation: Any) -> Any:
    """Return a type without its bounds and without None."""
    if get_origin(annotation) is Annotated:
        return strip_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        some = [each for each in get_args(annotation) if each is not NoneType]
        return strip_type(some[0]) if len(some) == 1 else annotation
    return annotation


def describe_bounds(about: FieldInfo) -> str:
    """Return what a number may be, such as "at least 1" or "in (0, 1]"; empty where all are welcome."""
    bounds = _find_bounds(about.annotation, about.metadata)
    if bounds.get("le") in (MOST, 1e9):  # which nobody reaches
        del bounds["le"]
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if low is not None and high is not None:
        return f"in {'[' if 'ge' in bounds else '('}{low}, {high}{']' if 'le' in bounds else ')'}"
    return next((_SAY_BOUND[name].format(bound) for name, bound in bounds.items() if name in _SAY_BOUND), "")


def _find_bounds(annotation: Any, metadata: Sequence[Any] = ()) -> dict[str, Any]:
    """Return the bounds that stand in a type, be it optional or a list of bounded items."""
    found: dict[str, Any] = {}
    for each in metadata:
        if isinstance(each, FieldInfo):
            found |= _find_bounds(None, each.metadata)
        found |= {name: getattr(each, name) for name in _BOUNDS if getattr(each, name, None) is not None}
    if get_origin(annotation) is Annotated:
        return found | _find_bounds(get_args(annotation)[0], get_args(annotation)[1:])
    for part in get_args(annotation):
        found |= _find_bounds(part)
    return found


def _holds_sections(kind: Any) -> bool:
    return get_origin(kind) is tuple and isclass(item := _item_of(kind)) and issubclass(item, Config)


def _spell_input(annotation: Any) -> str:
    """Return the source of the type that a caller may give: a list's only item, a path as text, None for "not given"."""
    kind = strip_type(annotation)
    if get_origin(kind) is tuple:
        item = _spell_input(get_args(kind)[0]).removesuffix(" | None")
        return f"{item} | Sequence[{item}] | None"
    if get_origin(kind) is Literal:
        return f"Literal[{', '.join(map(json.dumps, get_args(kind)))}] | None"
    return {Path: "str | Path | None"}.get(kind, f"{getattr(kind, '__name__', 'Any')} | None")


def _field_at(model: type[Config], path: Sequence[str]) -> FieldInfo:
    """Return the field that a key's path leads to; the numbers of a list's items are passed over."""
    about = model.model_fields[path[0]]
    for step in path[1:]:
        kind = strip_type(about.annotation)
        section = _item_of(kind)
        if isclass(section) and issubclass(section, Config) and step in section.model_fields:
            about = section.model_fields[step]
    return about


def _names_beside(model: type[Config], path: Sequence[str]) -> list[str]:
    """Return the keys that exist where `path` ends."""
    for step in path[:-1]:
        if not step.isdecimal():
            kind = strip_type(model.model_fields[step].annotation)
            model = _item_of(kind)
    return list(model.model_fields)


def _explain(model: type[Config], error: Any, subject: Subject) -> str:
    """Return what one of pydantic's errors says, in one line."""
    path, kind, value = tuple(map(str, error["loc"])), error["type"], error["input"]
    if kind == "extra_forbidden":
        known = [".".join((*path[:-1], name)) for name in _names_beside(model, path)]
        return name_nearest("setting", ".".join(path), known)
    if kind == "missing":
        return f"{subject(path, None)} is missing"
    about = _field_at(model, path)
    limits = describe_bounds(about)
    if kind == "literal_error":
        known = [str(each) for each in get_args(_item_of(strip_type(about.annotation)))]
        near = get_close_matches(str(value), known, n=1, cutoff=0.4)
        expected = f"one of {', '.join(known)}{f'; did you mean {near[0]!r}?' if near else ''}"
    elif kind == "too_short":
        expected = f"a list of at least {error['ctx']['min_length']}"
    elif kind.startswith(("greater_than", "less_than")):
        whole = _item_of(strip_type(about.annotation)) is int or (
            kind.startswith("less_than") and not limits.startswith("in ")
        )
        expected = (
            next((_SAY_BOUND[name].format(bound) for name, bound in error["ctx"].items()), "") if whole else limits
        )
    else:
        expected = next((each for start, each in _EXPECTED.items() if kind.startswith(start)), "")
        expected = ", ".join(filter(None, [expected or error["msg"], limits]))
    return f"{subject(path, value)} must be {expected}"


def _item_of(kind: Any) -> Any:
    return strip_type(get_args(kind)[0]) if get_origin(kind) is tuple else kind
