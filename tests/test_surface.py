"""The public surface: complete, typed, loaded late, and never hidden by a file of the same name."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import difom_cache
import difom_train

LATE = [(package, name) for package in (difom_cache, difom_train) for name in package.__all__]


@pytest.mark.parametrize(("package", "name"), LATE, ids=lambda value: getattr(value, "__name__", value))
def test_every_public_name_can_be_had(package, name):
    assert getattr(package, name) is not None


@pytest.mark.parametrize("package", [difom_cache, difom_train], ids=lambda value: value.__name__)
def test_no_public_name_is_the_path_of_a_module(package):
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not modules & set(package.__all__)


@pytest.mark.parametrize("package", [difom_cache, difom_train], ids=lambda value: value.__name__)
def test_every_public_name_is_listed_by_dir_and_known_to_type_checkers(package):
    assert set(package.__all__) <= set(dir(package))
    tree = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    typed = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(package.__all__) <= typed
    assert Path(package.__file__).with_name("py.typed").is_file()


def test_a_public_name_can_be_replaced(monkeypatch):
    monkeypatch.setattr(difom_cache, "extract", "another")
    assert difom_cache.extract == "another"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="difom_cache attribute extrakt"):
        _ = difom_cache.extrakt


def test_importing_the_packages_loads_no_heavy_library():
    code = "import difom_cache, difom_train, sys; assert not {'torch', 'zarr', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
