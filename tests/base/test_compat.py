"""What breaks without each private name of a library; and that none is used elsewhere."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

from difom_cache.base.compat import (
    hooks_of,
    keep_graphs_of_compiled,
    multiply_int8,
    never_compiled,
    writes_of,
)
from difom_cache.base.errors import SettingsError
from difom_cache.base.options import Config, Count

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "_exit": "os: how a forked worker ends",
    "_asdict": "named tuples: documented",
    "_replace": "named tuples: documented",
    "torch._utils": "checkpoint: the name under which pickles store tensors",
}


class Inner(Config):
    """A section."""

    size: Count = 0
    "A number."


class Outer(Config):
    """A table."""

    inner: Inner = Inner()
    count: Count = 0
    "A number."


def test_all_that_is_wrong_in_a_table_and_its_sections_is_told_with_whole_names() -> None:
    with pytest.raises(SettingsError) as error:
        Outer(inner={"size": -1}, count=-2)
    assert "inner.size is -1" in str(error.value) and "count is -2" in str(error.value)


def test_a_hook_of_a_copied_module_can_be_seen_and_taken_off() -> None:
    module = nn.Identity()
    module.register_forward_hook(lambda *_: torch.ones(1))
    (number,) = hooks_of(module)
    assert module(torch.zeros(1)) == 1
    del hooks_of(module)[number]
    assert module(torch.zeros(1)) == 0


def test_writes_into_a_tensor_are_counted() -> None:
    tensor = torch.zeros(3)
    before = writes_of(tensor)
    nn.functional.relu_(tensor)
    assert writes_of(tensor) == before + 1


def test_products_of_int8_are_exact_where_8_and_16_bits_overflow() -> None:
    left, right = torch.full((32, 64), 127, dtype=torch.int8), torch.full((64, 8), -127, dtype=torch.int8)
    found = multiply_int8(left, right)
    assert found.dtype == torch.int32 and (found == -127 * 127 * 64).all()


def test_a_compiled_graph_is_gone_through_twice() -> None:
    config = __import__("torch._functorch.config", fromlist=["config"])
    keep_graphs_of_compiled()
    assert config.donated_buffer is False


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_without_marks_takes_the_same_step(kind: type[torch.optim.Optimizer]) -> None:
    """Its start is timed in test_startup.py: with the marks the compiler is loaded."""
    ours, theirs = (nn.Parameter(torch.ones(3)) for _ in range(2))
    for parameter, each in ((ours, never_compiled(kind)), (theirs, kind)):
        optimizer = each([parameter], lr=0.1)
        parameter.grad = torch.tensor([1.0, -2.0, 3.0])
        optimizer.step()
    assert torch.equal(ours, theirs) and not torch.equal(ours, torch.ones(3))
    assert isinstance(optimizer, kind)


def test_private_names_of_libraries_stand_in_one_file() -> None:
    own, used = set(), []
    for path in [path for package in ("difom_cache", "difom_train") for path in sorted((ROOT / package).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            own |= set(names_made_by(node))
            used += [(name, path.relative_to(ROOT).as_posix()) for name in private_names_in(node)]
    assert ("_int_mm", "difom_cache/base/compat.py") in used
    strange = {(name, path) for name, path in used if name not in own and name not in ALLOWED}
    assert {path for _, path in strange} == {"difom_cache/base/compat.py"}, strange


def names_made_by(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    is_own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    return [node.attr] if is_own and isinstance(node.ctx, ast.Store) else []


def private_names_in(node: ast.AST) -> list[str]:
    """Return names with an underscore before them, of attributes, imports and texts such as "torch._dynamo"."""
    if isinstance(node, ast.Attribute):
        names = [node.attr]
    elif isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] + [str(getattr(node, "module", ""))]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("torch._"):
        names = [node.value]
    else:
        return []
    return [name for name in names if any(map(is_private, name.split(".")))]


def is_private(word: str) -> bool:
    return word.startswith("__pydantic") or (word.startswith("_") and not word.startswith("__"))
