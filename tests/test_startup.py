"""Commands answer at once: asking for help loads no network library."""

import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "transformers", "zarr", "matplotlib", "lightning", "scipy", "distributed", "onnxruntime")
PATIENCE_S = 10  # far beyond what it takes, for a machine that is busy with other things

ASK = """
import sys
from importlib import import_module
main = import_module(sys.argv[1]).main
sys.argv = [sys.argv[1], "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("module", ["difom_cache.cli", "difom_train.cli"])
def test_help_is_quick_and_loads_nothing_heavy(module: str) -> None:
    started_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", ASK, module], capture_output=True, text=True, check=True)
    took_s = time.perf_counter() - started_s
    help_text, _, loaded = done.stdout.rpartition("LOADED")
    assert "Usage" in help_text
    assert not set(HEAVY) & set(loaded.split())
    assert took_s < PATIENCE_S


@pytest.mark.parametrize("package", ["difom_cache", "difom_train"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    code = f"import sys, {package}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(done.stdout.split())
