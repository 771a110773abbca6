"""Who may import whom (the contracts stand in pyproject.toml), and what the trainer may use of the cache."""

import ast
import subprocess
import sys
from pathlib import Path

import difom_cache

ROOT = Path(__file__).parents[1]
PUBLIC_MODULES = {"difom_cache", "difom_cache.errors", "difom_cache.console", "difom_cache.options"}


def test_no_package_imports_what_lies_behind_a_wall() -> None:
    lint = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_trainer_uses_only_the_public_surface_of_the_cache() -> None:
    offences = []
    for path in sorted((ROOT / "difom_train").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("difom_cache"):
                if node.module not in PUBLIC_MODULES:
                    offences.append(f"{path.relative_to(ROOT)}:{node.lineno} imports {node.module}")
                names = [alias.name for alias in node.names if node.module == "difom_cache"]
                unknown = set(names) - set(difom_cache.__all__) - {"__version__"}
                offences += [f"{path.relative_to(ROOT)}:{node.lineno} imports {name}" for name in sorted(unknown)]
    assert not offences


def test_everything_in_the_public_surfaces_can_be_loaded() -> None:
    import difom_train

    for package in (difom_cache, difom_train):
        for name in package.__all__:
            assert getattr(package, name) is not None
