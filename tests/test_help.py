"""What a command says of itself: versions, lists, and help pages that all look alike."""

import json
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

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
