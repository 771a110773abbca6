"""Options declared once: the command line, TOML, keywords and documentation agree with the model, and refuse in one line."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Literal

import pytest
from pydantic import Field

from difom_cache import copy, extract, make_manifest, paint_sample, probe, show, verify
from difom_cache.base.console import Command, Program
from difom_cache.base.errors import SettingsError
from difom_cache.base.options import (
    Config,
    Count,
    Opt,
    Positive,
    Share,
    Size,
    build,
    find_config,
    format_keywords,
    format_options,
    format_toml,
    list_options,
    read_toml,
    validate,
)
from difom_train import compare, curves, evaluate, export, predict, study, train
from difom_train.evaluation import compare_costs


class Oven(Config):
    """How it is baked."""

    heat: Annotated[Size, Opt(name="oven_heat")] = 180.5
    "Degrees Celsius."
    kind: Literal["air", "grill"] = "air"
    "Where the heat comes from."
    fan: Share = 0.1
    "Share of the time that the fan turns."
    minutes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (10,)
    "Of each round."


class Bake(Config):
    """Bake a cake."""

    cake: Annotated[str, Opt(argument=True)]
    "Name of the cake."
    layers: Positive | None = None
    "Layers; None = one."
    sugar: bool = True
    "Strew sugar."
    dry: bool = False
    "Only say what would be done."
    book: tuple[Path, ...] = (Path("book"),)
    "Where recipes are."
    out: Annotated[Path | None, Opt(short="-o", default="CAKE.png")] = None
    "Picture to write."
    guests: Count = 0
    "Who eats."
    secret: Annotated[str, Opt(hidden=True)] = "vanilla"
    "No option."
    oven: Oven = Oven()
    "The oven."


@pytest.fixture
def bake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs the command and gives the config it was called with, or exit code and output."""
    seen: list[Bake] = []

    def bake_it(config: Bake) -> None:
        """Bake a cake."""
        seen.append(config)

    commands = (Command(bake_it, f"{__name__}:Bake"), Command(bake_it, f"{__name__}:Oven", "warm"))
    program = Program("cook", "Cook.", commands, "")

    def call(*arguments: str) -> Bake | tuple[int, str, str]:
        seen.clear()
        monkeypatch.setattr(sys, "argv", ["cook", *arguments])
        with pytest.raises(SystemExit) as ended:
            program.main()
        out, err = capsys.readouterr()
        return seen[0] if seen else (int(ended.value.code or 0), out, err)

    return call


def test_options_that_are_not_given_keep_their_defaults(bake):
    assert bake("bake-it", "plum") == Bake(cake="plum")


def test_every_option_reaches_its_field(bake):
    given = [
        "plum",
        "--layers",
        "3",
        "--no-sugar",
        "--dry",
        "--book",
        "a,b",
        "--book",
        "c",
        "-o",
        "x.png",
        "--guests",
        "2",
    ]
    oven = ["--oven-heat", "20", "--kind", "grill", "--fan", "1", "--minutes", "5,6", "--minutes", "7"]
    assert bake("bake-it", *given, *oven) == Bake(
        cake="plum",
        layers=3,
        sugar=False,
        dry=True,
        book=(Path("a,b"), Path("c")),
        out=Path("x.png"),
        guests=2,
        oven=Oven(heat=20, kind="grill", fan=1, minutes=(5, 6, 7)),
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--layers 0", "--layers 0: must be at least 1"),
        ("--guests -1", "--guests -1: must be at least 0"),
        ("--guests two", "--guests two: must be a whole number, at least 0"),
        ("--oven-heat -1", "--oven-heat -1: must be at least 0"),
        ("--oven-heat nan", "--oven-heat nan: must be a number, at least 0"),
        ("--oven-heat inf", "--oven-heat inf: must be a number, at least 0"),
        ("--fan 2", "--fan 2: must be in [0, 1]"),
        ("--kind gril", "--kind gril: must be one of air, grill; did you mean 'grill'?"),
        ("--minutes 5,0", "--minutes 0: must be at least 1"),
        ("--minutes x", "--minutes x: must be a whole number, at least 1\n"),
        ("--minutes ,", "--minutes []: must be a list of at least 1"),
        ("--layers 0 --fan 2", "--layers 0: must be at least 1; --fan 2: must be in [0, 1]"),
        ("--secret x", "No such option: --secret"),
        ("--sugr", "No such option: --sugr"),
    ],
)
def test_a_bad_value_is_one_line_that_names_option_and_nearest_legal_value(bake, arguments, line):
    code, out, err = bake("bake-it", "plum", *arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {line}")


def test_help_shows_groups_bounds_units_and_defaults(bake):
    code, out, _ = bake("bake-it", "--help")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert {"Options:", "Oven:", "--oven-heat NUMBER Degrees Celsius. (at least 0) [default: 180.5]"} <= set(lines)
    assert "-o, --out PATH Picture to write. [default: CAKE.png]" in lines
    assert lines.index("Oven:") < lines.index("--kind air|grill Where the heat comes from. [default: air]")
    assert "secret" not in out


def test_listing_commands_reads_no_options():
    code = """
        import sys, typer
        from difom_cache.base.console import Command, Program
        def bake(config):
            "Bake a cake."
        commands = Command(bake, "no_such_module:Bake"), Command(bake, "no_such_module:Bake", "eat")
        sys.argv = ["cook", "--help"]
        try:
            Program("cook", "Cook.", commands, "").main()
        finally:
            print("pydantic" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    assert "Bake a cake." in done.stdout
    assert done.stdout.endswith("False\n")


def test_keywords_build_the_same_config():
    assert build(Bake, {"cake": "plum", "oven_heat": 20, "book": "b", "layers": None}) == Bake(
        cake="plum", book=(Path("b"),), oven=Oven(heat=20)
    )


def test_a_bad_keyword_is_named_as_it_was_written():
    with pytest.raises(SettingsError, match=r"^oven_heat=-1: must be at least 0$"):
        build(Bake, {"cake": "plum", "oven_heat": -1})
    with pytest.raises(SettingsError, match="there is no option 'oven_heet'; did you mean 'oven_heat'"):
        build(Bake, {"cake": "plum", "oven_heet": 1})
    with pytest.raises(SettingsError, match=r"^cake is missing$"):
        build(Bake, {})


def test_toml_that_was_written_reads_back_equal_and_is_complete(tmp_path: Path):
    config = Bake(cake="plüm", layers=2, book=(Path("a"), Path("b")), oven=Oven(minutes=(1, 2)))
    (tmp_path / "bake.toml").write_text(format_toml(config), encoding="utf-8")
    table = read_toml(tmp_path / "bake.toml")
    assert validate(Bake, table) == config
    assert table["oven"].keys() == Oven.model_fields.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[oven]\nheet = 3", r"^x.toml: there is no setting 'oven.heet'; did you mean 'oven.heat'"),
        ("guests = '3'", r"^x.toml: guests is '3'; it must be a whole number, at least 0"),
        ("guests = true", r"^x.toml: guests is True; it must be a whole number, at least 0"),
        ("sugar = 1", r"^x.toml: sugar is 1; it must be true or false"),
        ("[oven]\nheat = nan", r"^x.toml: oven.heat is nan; it must be a number, at least 0"),
        ("[oven]\nminutes = [3, 0]", r"^x.toml: oven.minutes.1 is 0; it must be at least 1"),
        ("oven = 3", r"^x.toml: oven is 3; it must be a table"),
        ("guests = 1979-05-27", r"^x.toml: guests is '1979-05-27'; it must be a whole number"),
    ],
)
def test_toml_is_taken_strictly(text: str, message: str):
    with pytest.raises(SettingsError, match=message):
        validate(Bake, {"cake": "plum"} | tomllib.loads(text), where="x.toml")


def test_a_file_that_is_no_toml_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"none.toml does not exist"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_bytes(b"a = \xff")
    with pytest.raises(SettingsError, match=r"broken.toml is not TOML"):
        read_toml(tmp_path / "broken.toml")


def test_a_config_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Bake(cake="plum").guests = 3  # type: ignore[misc]


def test_the_table_for_the_documentation_names_every_option():
    lines = format_options(Bake).splitlines()
    assert "| `--oven-heat` | Degrees Celsius. (at least 0) | `180.5` |" in lines
    assert "| `--kind` | Where the heat comes from. One of air, grill. | `air` |" in lines
    assert "| `CAKE` | Name of the cake. | required |" in lines
    assert "### oven" in lines
    assert "| `oven.heat` | Degrees Celsius. (at least 0) | `180.5` |" in format_options(Bake, command_line=False)


def test_keywords_are_spelled_for_type_checkers():
    text = format_keywords({"OvenKeywords": f"{__name__}:Oven", "BakeKeywords": f"{__name__}:Bake"})
    compile(text, "keywords.py", "exec")
    lines = [line.strip() for line in text.splitlines()]
    assert {
        "class OvenKeywords(TypedDict, total=False):",
        "oven_heat: float | None",
        'kind: Literal["air", "grill"] | None',
        "minutes: int | Sequence[int] | None",
        "out: str | Path | None",
        '"Degrees Celsius. (at least 0) [default: 180.5]"',
    } <= set(lines)


@pytest.mark.parametrize("package", ["difom_cache", "difom_train"])
def test_signatures_hold_every_option_as_its_config_declares_it(package: str):
    config = import_module(f"{package}.config")
    written = Path(str(config.__file__)).with_name("keywords.pyi").read_text(encoding="utf-8")
    assert written == format_keywords(config.KEYWORDS), "an option has changed: run `make keywords`"


@pytest.mark.parametrize("place", ["difom_train.config:TrainOptions"])
def test_no_two_options_of_a_command_have_one_name(place: str):
    options = list(list_options(find_config(place)))
    assert len({option.name for option in options}) == len({option.flag for option in options}) == len(options)
    assert all(option.about.description for option in options)


FUNCTIONS = {
    "Extract": extract,
    "Probe": probe,
    "Manifest": make_manifest,
    "Verify": verify,
    "Show": show,
    "Sample": paint_sample,
    "Copy": copy,
    "Train": train,
    "Evaluate": evaluate,
    "Predict": predict,
    "Study": study,
    "Compare": compare,
    "Curves": curves,
    "Export": export,
    "Cost": compare_costs,
}


def test_every_signature_that_is_made_is_used():
    made = {**import_module("difom_cache.config").KEYWORDS, **import_module("difom_train.config").KEYWORDS}
    assert {f"{name}Keywords" for name in FUNCTIONS} == set(made)


@pytest.mark.parametrize(("command", "function"), FUNCTIONS.items())
def test_a_function_declares_no_option_again(
    command: str, function: Callable[..., object], monkeypatch: pytest.MonkeyPatch
):
    """It takes them as `**options: Unpack[...Keywords]`; arguments have no default of their own that could differ."""
    package = function.__module__.partition(".")[0]
    keywords = f"{command}Keywords"
    place = import_module(f"{package}.config").KEYWORDS[keywords]
    stub: dict[str, type] = {}
    exec(format_keywords({keywords: place}), stub)
    monkeypatch.delattr(function, "__signature__", raising=False)  # made of the same config, for people
    parameters = signature(function).parameters
    by_position = {name for name, each in parameters.items() if each.kind is Parameter.POSITIONAL_ONLY}
    assert parameters["options"].annotation == f"Unpack[{keywords}]"
    assert not (parameters.keys() - by_position) & stub[keywords].__annotations__.keys()
    for option in list_options(find_config(place)):
        if option.name in parameters:
            assert parameters[option.name].default in (Parameter.empty, None, ())


def test_a_config_and_keywords_are_not_both_given():
    with pytest.raises(SettingsError, match="give a config or keywords, not both: view"):
        show(find_config("difom_cache.commands:ShowConfig")(), view=1)
