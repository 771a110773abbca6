"""The public surface: small, documented, typed, loaded late, never hidden by a file of the same name; old names warn."""

import ast
import os
import pkgutil
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import difom_cache
import difom_train

PACKAGES = [difom_cache, difom_train]
MOST = {"difom_cache": 30, "difom_train": 25}  # a stranger's completion shows them at once
DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("package", "name"),
    [(package, name) for package in PACKAGES for name in package.__all__],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_public_name_can_be_had(package, name):
    assert getattr(package, name) is not None


@pytest.mark.parametrize("package", PACKAGES, ids=lambda value: value.__name__)
def test_public_names_are_few_typed_listed_by_dir_and_no_modules_but_the_errors(package):
    assert len(package.__all__) <= MOST[package.__name__]
    assert dir(package) == sorted(package.__all__)
    tree = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    typed = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(package.__all__) == typed
    assert Path(package.__file__).with_name("py.typed").is_file()
    assert {module.name for module in pkgutil.iter_modules(package.__path__)} & set(package.__all__) <= {"errors"}


@pytest.mark.parametrize(
    ("package", "script"), [(difom_cache, "use_cache.py"), (difom_train, "use_trainer.py")], ids=["cache", "trainer"]
)
def test_every_public_name_has_an_example_in_the_docs(package, script):
    imports, _, used = (DOCS / script).read_text(encoding="utf-8").partition(")\n\n#")
    assert f"\n--8<--\ndocs/{script}\n" in (DOCS / "reference/python.md").read_text(encoding="utf-8")
    named = {name.strip() for name in imports.partition(f"from {package.__name__} import (")[2].split(",")} - {""}
    assert named == set(package.__all__)
    assert not [name for name in named if not re.search(rf"\b{name}\b", used)]


@pytest.mark.slow
def test_the_examples_run_one_after_the_other(tmp_path):
    alone = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for script in ("use_cache.py", "use_trainer.py"):
        command = [sys.executable, "-W", "error::DeprecationWarning", str(DOCS / script)]
        done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda value: value.__name__)
def test_names_of_the_release_before_are_had_with_a_warning_that_says_where_they_are(package):
    for module, line in package._MOVED.items():
        for name in line.split():
            with pytest.warns(DeprecationWarning, match=f"{module}.{name} now"):
                old = getattr(package, name)
            with warnings.catch_warnings():  # from there, it warns no more
                warnings.simplefilter("error")
                scope: dict[str, object] = {}
                exec(f"from {module} import {name}", scope)
            assert old is scope[name]
    assert not {name for line in package._MOVED.values() for name in line.split()} & set(dir(package))


def test_a_public_name_can_be_replaced(monkeypatch):
    monkeypatch.setattr(difom_cache, "extract", "another")
    assert difom_cache.extract == "another"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="difom_cache attribute extrakt"):
        _ = difom_cache.extrakt
