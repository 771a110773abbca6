"""Who may import whom (the contracts stand in pyproject.toml), and what the trainer may use of the cache."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IN_A_ROOM = re.compile(r"difom_(cache|train)\.[a-z_]+\.[a-z]\w*")
FLOOR = "difom_cache.base."  # open to both packages and their tests, file by file
OTHER_NAMES = {"datasets": ["difom_cache.data"], "data": ["difom_train.data"]}  # two rooms have one name
REPLACES = {  # what puts smaller things in the place of a file's own, for tests of several rooms
    "stand_ins.py": "difom_cache.teachers",
    "journeys/reduced_teachers.py": "difom_cache.teachers",
    "journeys/nursery.py": "difom_cache.extraction",
    "benchmarks/test_bench_teacher.py": "difom_cache.extraction",
    "storage/test_cannot_say.py": "difom_cache.store",
    "base/test_heap.py": "difom_train",  # these two put nothing in the place of what a command calls
    "test_cli.py": "difom_train.training",
}


def test_trainer_uses_only_the_public_names_the_floor_and_the_faces_of_rooms_of_the_cache() -> None:
    offences = []
    for path in sorted((ROOT / "difom_train").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("difom_cache"):
                module = str(node.module)
                face = getattr(import_module(module), "__all__", []) if module.count(".") < 2 else []
                names = [alias.name for alias in node.names if alias.name not in {*face, "__version__"}]
                if names and not module.startswith(FLOOR):
                    offences.append(f"{path.relative_to(ROOT)}:{node.lineno} imports {', '.join(names)} from {module}")
    assert not offences, "\n".join(offences)


def rooms_of(path: Path) -> list[str]:
    """Return the rooms whose files the test at `path` may name: its own."""
    own = path.relative_to(ROOT / "tests")
    if str(own) in REPLACES:
        return [REPLACES[str(own)]]
    return OTHER_NAMES.get(own.parts[0], [f"difom_cache.{own.parts[0]}", f"difom_train.{own.parts[0]}"])


def files_named_by(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield line, room's file, and the name wanted of it ("" for the file itself), of every import and every dotted string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("difom_cache.", "difom_train.")):
            for alias in node.names:
                if (node.module or "").count(".") == 2:
                    yield node.lineno, str(node.module), alias.name
                elif (ROOT / str(node.module).replace(".", "/") / f"{alias.name}.py").is_file():
                    yield node.lineno, f"{node.module}.{alias.name}", ""
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names if IN_A_ROOM.fullmatch(alias.name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and IN_A_ROOM.match(node.value):
            yield node.lineno, node.value, ""


def test_tests_import_from_the_packages_and_the_faces_of_rooms() -> None:
    """A room can be rearranged inside without touching the tests of other rooms: only its own may patch its files."""
    offences = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for line, file, name in files_named_by(ast.parse(path.read_text(encoding="utf-8"))):
            if file.startswith(FLOOR):
                continue
            if not file.startswith(tuple(f"{room}." for room in rooms_of(path))):
                offences.append(f"{path.relative_to(ROOT)}:{line} names {file}, a file of another room")
            elif name and not name.startswith("_"):
                offences.append(f"{path.relative_to(ROOT)}:{line} imports {name} from {file}, not from the room's face")
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize("face", sorted(ROOT.glob("difom_*/*/__init__.pyi")), ids=lambda face: face.parent.name)
def test_every_name_of_a_rooms_face_can_be_had_and_is_no_files_name(face: Path) -> None:
    room = import_module(".".join(face.relative_to(ROOT).parts[:2]))
    assert room.__all__ and all(getattr(room, name) is not None for name in room.__all__)
    assert not set(room.__all__) & {path.stem for path in face.parent.glob("*.py")}
