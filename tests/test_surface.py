"""The public surface: complete, loaded late, and never hidden by a file of the same name."""

import subprocess
import sys

import pytest

import difom_cache
import difom_train

LATE = [(package, name) for package in (difom_cache, difom_train) for name in package.__all__]


@pytest.mark.parametrize(("package", "name"), LATE, ids=lambda value: getattr(value, "__name__", value))
def test_every_public_name_can_be_had(package, name):
    assert getattr(package, name) is not None


def test_importing_a_file_does_not_hide_the_function_of_the_same_name():
    code = "import difom_cache.extract, difom_cache; assert callable(difom_cache.extract), difom_cache.extract"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_packages_loads_no_heavy_library():
    code = "import difom_cache, difom_train, sys; assert not {'torch', 'zarr', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
