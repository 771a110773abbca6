"""The project as a newcomer gets it: nothing of the machine it was written on, one version, files that tools accept."""

import ast
import itertools
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from functools import partial
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import benchmarks.cli
import difom_cache.cli
import difom_train.cli

ROOT = Path(__file__).parents[1]
BINARIES = Path(sys.executable).parent
MACHINE_PATHS = re.compile(r"(?<![\w.{}$:/-])/(?:work|root|home/(?!difom)\w+|Users|mnt)/")
REGISTRY_HOSTS = re.compile(r"pypi\.org|pythonhosted|registry\.npmjs|index-url|deb\.debian|nexus|artifactory", re.I)


def tracked_texts() -> dict[str, str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    texts = {}
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and name != "tests/test_project.py" and path.is_file() and b"\0" not in (content := path.read_bytes()):
            texts[name] = content.decode("utf-8")
    return texts


def offences(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in tracked_texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_file_names_a_path_of_one_machine() -> None:
    assert not offences(MACHINE_PATHS)


def test_no_file_names_a_package_registry() -> None:
    assert not offences(REGISTRY_HOSTS)


def test_one_place_says_how_extras_are_installed() -> None:
    """There is no package of this name to promise, so texts install from a checkout, and messages all take it from one place."""
    assert [each for each in offences(re.compile(r"difom\[\w+\]")) if not each.startswith("pyproject.toml:")] == []
    code = [each for each in offences(re.compile(r"pip install")) if re.match(r"difom_(cache|train)/", each)]
    assert [each.partition(":")[0] for each in code] == ["difom_cache/base/errors.py"]


def test_one_file_alone_looks_beside_the_checkout() -> None:
    found = [name for name, text in tracked_texts().items() if "../" + "shared" in text]
    assert found == [".ci/run"]


def test_version_is_the_same_everywhere() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert cited
    assert {difom_cache.__version__, difom_train.__version__, cited[1]} == {declared}


def test_constraints_are_exact_versions_alone_and_cover_every_dependency() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert not [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line)]
    pinned = {line.partition("==")[0]: line.partition("==")[2] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    for requirement in map(Requirement, wanted):
        if requirement.name != "difom":
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier


def test_files_that_contributing_names_exist() -> None:
    named = re.findall(
        r"`((?:benchmarks|difom_cache|difom_train|tests)/[\w/]+\.\w+)`",
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    )
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ("citation-file-format", "CITATION.cff"),
        ("compose-spec", "docker/compose.yaml"),
        ("github-workflows", ".github/workflows/test.yml"),
    ],
)
def test_files_that_others_read_follow_their_schemas(schema: str, name: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_workflow_calls_targets_that_there_are() -> None:
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.M))
    called = re.findall(r"run: make (\S+)", (ROOT / ".github/workflows/test.yml").read_text())
    assert {"lint", "unit", "quick"} <= set(called) <= targets
    assert {"lowest.txt", "newest.txt"} <= targets


def test_fragments_of_the_changelog_say_their_kind_and_are_lists() -> None:
    for path in sorted((ROOT / "changelog.d").iterdir()):
        if path.name != "README.md":
            assert re.fullmatch(r"[a-z0-9-]+\.(added|changed|fixed|removed)\.md", path.name), path.name
            assert all(line.startswith(("- ", "  ")) for line in path.read_text("utf-8").splitlines()), path.name


@pytest.mark.parametrize("name", ["cache.Dockerfile", "train.Dockerfile"])
def test_container_files_are_clean(name: str) -> None:
    done = subprocess.run([BINARIES / "hadolint", ROOT / "docker" / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_pages_that_the_readme_names_exist() -> None:
    for page in ("README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


PROGRAMS = {each.name: each for each in (difom_cache.cli.PROGRAM, difom_train.cli.PROGRAM, benchmarks.cli.PROGRAM)}
TYPED = rf"(?:srun )?(?:{'|'.join(PROGRAMS)}) "
DOCS = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


def commands_in(page: Path) -> tuple[list[str], list[str]]:
    """Return every difom command in a page's code blocks, continued lines joined, and every one within its sentences."""
    text = page.read_text(encoding="utf-8")
    fenced = re.compile(r"^```\w*\n(.*?)^```", re.S | re.M)
    lines = "\n".join(fenced.findall(text)).replace("\\\n", " ").splitlines()
    spans = re.findall(rf"(?<!`)`({TYPED}[^`|{{]+)`", fenced.sub("", text))
    return [line for line in lines if re.match(TYPED, line)], [" ".join(each.split()) for each in spans]


def read_command(line: str) -> None:
    """Raise for an unknown command or option, a missing one, or a value that cannot be."""
    words = shlex.split(line.removeprefix("srun "), comments=True)
    if "..." in words:
        return
    name, arguments = (" ".join(words[:3]), words[3:]) if words[0] == "python" else (words[0], words[1:])
    arguments = list(itertools.takewhile(lambda word: not word.startswith(("$(", "&")), arguments))
    if {"--help", "--help-all", "--version", "--install-completion"} & set(arguments):
        return
    called, command, rest = PROGRAMS[name].find(arguments)
    assert command is not None, line
    if called == ("bench",):
        called, command, rest = benchmarks.cli.PROGRAM.find(["teacher", *rest] if name == "difom-cache" else rest)
    command.read(rest)


@pytest.mark.parametrize("page", DOCS)
def test_commands_on_the_pages_are_accepted_as_written(page: str) -> None:
    for line in commands_in(ROOT / page)[0]:
        read_command(line)


@pytest.mark.parametrize("page", DOCS)
def test_commands_that_sentences_name_exist_with_their_options(page: str) -> None:
    for line in commands_in(ROOT / page)[1]:
        try:
            read_command(line)
        except typer.TyperException as error:  # a sentence may leave out what the command needs
            assert "Missing parameter" in str(error), f"{line}: {error}"


def test_the_source_distribution_holds_every_file_and_the_wheel_no_benchmarks(tmp_path: Path) -> None:
    """Else they would be a top-level package named `benchmarks` of whoever installs the project."""
    for name in tracked_texts().keys() | {"tests/test_project.py"}:
        copy = tmp_path / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    build = (
        "import sys; from setuptools import build_meta as b; out = sys.argv[1]; b.build_sdist(out); b.build_wheel(out)"
    )
    command = [sys.executable, "-c", build, tmp_path]
    done = subprocess.run(command, cwd=tmp_path / "source", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file, tarfile.open(source) as archive:
        installed = {name.partition("/")[0] for name in file.namelist()}
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in installed if not name.endswith(".dist-info")} == {
        "difom_cache",
        "difom_train",
        "data_manifests",
    }
    assert {"tests/test_project.py"} | tracked_texts().keys() <= held  # what its tests need, and all else


def test_every_package_that_the_code_imports_is_declared() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    lines = [
        *project["dependencies"],
        *(
            line
            for name in ("onnx", "openvino", "smp", "video", "coco", "cluster", "wandb", "mlflow")
            for line in extras[name]
        ),
    ]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    homes = packages_distributions()
    for path in [*(ROOT / "difom_cache").rglob("*.py"), *(ROOT / "difom_train").rglob("*.py")]:
        for name in imported_by(path) - sys.stdlib_module_names - {"difom_cache", "difom_train", "data_manifests"}:
            assert {canonicalize_name(home) for home in homes.get(name, [name, f"{name}-skinny"])} & declared, (
                f"{path} imports {name}"
            )


def imported_by(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


PRETENDED = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/difom-train"
else
  echo "$(basename "$0") $*"
fi
"""


def test_the_demo_installs_the_base_package_alone_and_says_first_how_large_it_is(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "docs/install.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    python = tmp_path / "python3"
    python.write_text(PRETENDED)
    python.chmod(0o755)
    command = ["make", "demo", f"PYTHON={python}"]
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    make = partial(subprocess.run, cwd=tmp_path, env=outside, capture_output=True, text=True, check=True)
    said = make(command).stdout
    lines = [line for line in said.splitlines() if not line.startswith((".venv-demo/bin/", "test "))]
    assert re.fullmatch(r"installing the base package into .venv-demo: \d+\.\d GB, .* on disk .*install.md.*", lines[0])
    (pip,) = [line for line in lines if line.startswith("python -m pip")]
    assert pip.endswith("-c constraints.txt -e .") and "--quiet" not in pip
    assert lines[-1] == "difom-train demo --out demo"
    again = make(command).stdout
    assert "pip" not in again and again.endswith("difom-train demo --out demo\n")
