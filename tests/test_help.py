"""What a command says of itself: versions, lists, and help pages that all look alike."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from difom_cache.base.errors import SettingsError
from difom_cache.extraction import ExtractConfig
from difom_cache.views import POLICIES

PROGRAMS = ("difom_cache.cli", "difom_train.cli")
ALL = (*PROGRAMS, "benchmarks.cli")


def ask(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; from {program} import main; sys.argv = ['it', *{list(words)!r}]; main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_version_says_what_is_installed(program: str) -> None:
    done = ask(program, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"difom {version('difom')}, torch {version('torch')}, zarr {version('zarr')}")


@pytest.mark.parametrize(
    ("program", "words"),
    [("difom_cache.cli", []), ("difom_cache.cli", ["weights"]), ("benchmarks.cli", []), ("difom_train.cli", ["bench"])],
)
def test_a_command_that_needs_another_shows_its_help_and_no_error(program: str, words: list[str]) -> None:
    done = ask(program, *words)
    assert done.returncode == 2 and "error" not in done.stderr
    assert done.stderr.startswith("Usage: ") and "Commands:" in done.stderr


def pages(program: str) -> dict[str, str]:
    """Return the help page of every command of a program, and its own."""
    made = import_module(program).PROGRAM
    named = {" ".join(each.words): made.help(each.words) for each in made.commands if each.config}
    return {"": made.help()} | named


@pytest.mark.parametrize("program", ALL)
def test_help_pages_look_alike(program: str) -> None:
    found = pages(program)
    assert len(found) > (10 if program in PROGRAMS else 5)
    for name, page in found.items():
        assert not re.search(r"<\w+(\[\w+\])?>", page), f"{name}: a type is not in capitals"
        assert not re.search(r"\S  +\[default", page), f"{name}: two spaces before a default"
        assert "..." not in re.sub(r"\S\.\.\.", "", page), f"{name}: a sentence is cut off"
        headings = re.findall(r"^(\w[\w ]*):$", page, re.M)
        assert [each for each in headings if each in ("Arguments", "Options")] == sorted(
            each for each in headings if each in ("Arguments", "Options")
        ), f"{name}: options before arguments"
        options = page.partition("\nOptions:\n")[2].partition("\n\n")[0]
        last = [line.split()[0] for line in options.splitlines() if re.match(r"  -", line)]
        assert last[-1] in ("--help", "--version"), name
        assert "--json" not in last or last[-2] == "--json", name


def test_extract_shows_its_options_in_groups() -> None:
    page = pages("difom_cache.cli")["extract"]
    assert [f"\n{heading}:\n" in page for heading in ExtractConfig.GROUPS] == [True] * len(ExtractConfig.GROUPS)
    named = [name for names in ExtractConfig.GROUPS.values() for name in names]
    assert len(set(named)) == len(named) and set(named) <= set(ExtractConfig.model_fields)


def test_commands_stand_first_and_rare_options_are_left_to_help_all() -> None:
    program = import_module("difom_train.cli").PROGRAM
    page, rare = program.help(), program.help(("train",), everything=True)
    assert page.index("\nCommands:") < page.index("\nOptions:")
    parts = re.findall(r"^  (\w+)$", page, re.M)
    assert parts == ["Prepare", "Train", "Judge", "Use", "Measure"]
    assert all(re.search(rf"^    {name} ", page, re.M) for name in ("demo", "train", "evaluate", "predict", "cost"))
    flags = re.compile(r"^  (--[a-z-]+)", re.M)
    some, every = flags.findall(program.help(("train",))), flags.findall(rare)
    assert 10 <= len(some) <= 16 and some[0] == "--student" and some[-2:] == ["--help-all", "--help"]
    assert set(some) - {"--help-all"} < set(every) and {"--patience", "--relation-weight"} <= set(every)
    assert len(page.splitlines()) < 72
    assert all(len(line) < 80 for line in [*page.splitlines(), *rare.splitlines()])


def test_every_command_is_listed_also_where_its_name_has_two_words() -> None:
    assert re.search(r"^    weights fetch  Fetch", import_module("difom_cache.cli").PROGRAM.help(), re.M)


def test_train_is_a_command_and_what_is_done_without_one() -> None:
    program = import_module("difom_train.cli").PROGRAM
    words = ["--student", "unet", "--epochs", "3"]
    asked = [program.find(each) for each in (["train", *words], words)]
    assert asked[0][1] is asked[1][1] and asked[0][2] == asked[1][2] == words
    done = ask("difom_train.cli", "trian", "--epochs", "3")
    assert done.returncode == 2 and "did you mean 'train'?" in done.stderr


def test_options_are_taken_by_the_names_of_their_keys_and_keys_by_those_of_their_options(tmp_path) -> None:
    from difom_train.config import change_config, compose, read_recipe

    read = import_module("difom_train.cli").PROGRAM.plain.read
    by_option = compose(read(["--input-size", "96", "--patience", "7"]))
    assert (by_option.data.input_px, by_option.optimizer.patience_epochs) == (96, 7)
    by_key = compose(read(["--input-px", "96", "--patience-epochs", "7"]))
    by_change = compose(read(["--set", "data.input_size=96", "--set", "optimizer.patience=7"]))
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[data]\ninput_size = 96\n[optimizer]\npatience = 7\n")
    assert by_option.data == by_key.data == by_change.data and by_option.optimizer == by_key.optimizer
    assert change_config(read_recipe(recipe), []).data.input_px == 96
    assert read_recipe(recipe).optimizer.patience_epochs == 7
    recipe.write_text("[data]\ninput_size = 96\ninput_px = 64\n")
    with pytest.raises(SettingsError, match=r"data\.input_size"):
        read_recipe(recipe)


def test_plans_are_those_that_extract_takes(run) -> None:
    code, out, _ = run("plans", "--json")
    assert code == 0
    found = json.loads(out)
    assert set(found) <= set(POLICIES) and found["pad"]["largest_angle_deg"] == 45.0
    _, table, _ = run("plans")
    assert [line.split()[0] for line in table.splitlines()] == ["plan", *found]
    assert run("extract", "--teacher", "sam", "--plan", "nosuch")[2].count(", ".join(found)) == 1


def test_students_are_listed_with_their_levels_and_strides() -> None:
    done = ask("difom_train.cli", "students")
    assert done.returncode == 0 and "bottleneck@32" in done.stdout


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("difom-train ev", ["evaluate"]),
        ("difom-train train --labels", ["--labels", "--labels-seed"]),
        ("difom-train --labels", ["--labels", "--labels-seed"]),  # what trains without its name
        ("difom-cache weights f", ["fetch"]),
    ],
)
def test_bash_completes_commands_and_options(typed: str, completed: list[str], tmp_path: Path) -> None:
    name, words = typed.split()[0], " ".join(typed.split())
    lines = [
        f'eval "$({name} --show-completion bash)"',
        f"COMP_WORDS=({words}) COMP_CWORD={len(typed.split()) - 1}",
        f"_{name.replace('-', '_')}_completion {name}",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    bash = ["bash", "-c", "\n".join(lines)]
    done = subprocess.run(bash, capture_output=True, text=True, check=True, env=environment)
    assert (done.stdout.split(), done.stderr) == (completed, "")


def test_completion_is_installed_in_the_shells_own_file(tmp_path: Path) -> None:
    # else Typer asks which shell its parents are, of which there is none under a test runner
    environment = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [Path(sys.executable).with_name("difom-train"), "--install-completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "bash completion installed" in done.stdout
    assert (
        "complete -o default -F _difom_train_completion difom-train"
        in next(tmp_path.rglob("difom-train.sh")).read_text()
    )
