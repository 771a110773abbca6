"""The notebook of the documentation runs from top to bottom, also twice, and is kept without what it showed."""

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import difom_cache
import difom_train
from difom_cache import open_cache

NOTEBOOK = Path(__file__).parents[1] / "docs/notebook.ipynb"
FUNCTIONS = {"extract": difom_cache, "probe": difom_cache} | dict.fromkeys(
    ["train", "evaluate", "compare"], difom_train
)


def cells_of(kind: str) -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def run_cells() -> list[Any]:
    """Run the code cells in order, as a kernel does; return what the last expression of each gives."""
    scope: dict[str, Any] = {}
    shown = []
    for source in cells_of("code"):
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "cell", "exec"), scope)
        shown.append(
            eval(compile(ast.Expression(last.value), "cell", "eval"), scope) if isinstance(last, ast.Expr) else None
        )
    for image in shown:
        if isinstance(image, Image.Image):
            image.load()  # which closes its file
    return shown


def test_the_notebook_is_kept_without_outputs() -> None:
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert cell["metadata"] == {} and not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.journey
def test_the_notebook_runs_and_shows_tables_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = [each for each in run_cells() if each is not None]
    tables = [type(each).__name__ for each in shown if hasattr(each, "_repr_html_")]
    assert tables == ["ExtractReport", "Cache", "ProbeReport", "Runs", "Evaluation", "Comparison", "Predictions"]
    assert all("<td>" in each._repr_html_() for each in shown if hasattr(each, "_repr_html_"))
    assert len([each for each in shown if isinstance(each, Image.Image)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notebook"]
    scores = json.loads((tmp_path / "notebook/runs/taught/eval/summary.json").read_text())
    assert f"<td>{scores['sets']['Painted-Dim']['scores']['fixed/dice']:.3f}</td>" in shown[-3]._repr_html_()
    assert len(open_cache("notebook/feats").teachers) == 2


@pytest.mark.slow
@pytest.mark.journey
def test_the_notebook_runs_again_over_what_it_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, again = ([repr(each) for each in run_cells() if hasattr(each, "_repr_html_")] for _ in range(2))
    assert first == again


def test_the_lines_for_real_data_are_calls_that_the_functions_take() -> None:
    calls = [node for node in ast.walk(ast.parse(cells_of("code")[-1])) if isinstance(node, ast.Call)]
    named = [(node.func.id, node) for node in calls if isinstance(node.func, ast.Name)]
    assert {name for name, _ in named} == set(FUNCTIONS)
    options = ast.literal_eval(
        next(node for node in ast.walk(ast.parse(cells_of("code")[-1])) if isinstance(node, ast.Dict))
    )
    for name, node in named:
        keywords = dict.fromkeys(each.arg for each in node.keywords if each.arg) | (options if name == "train" else {})
        inspect.signature(getattr(FUNCTIONS[name], name)).bind(*node.args, **keywords)
