"""The code does not grow unseen: each room has its lines, which rise only in a commit that names the feature and the lines."""

import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST = {
    "benchmarks": 1463,
    "difom_cache": 232,
    "difom_cache/base": 1489,
    "difom_cache/codecs": 578,
    "difom_cache/data": 3432,
    "difom_cache/extraction": 1822,
    "difom_cache/maintenance": 1301,
    "difom_cache/painting": 515,
    "difom_cache/probing": 901,
    "difom_cache/store": 1680,
    "difom_cache/teachers": 3378,
    "difom_cache/views": 532,
    "difom_train": 767,
    "difom_train/data": 1000,
    "difom_train/distill": 1052,
    "difom_train/evaluation": 953,
    "difom_train/inference": 952,
    "difom_train/reporting": 1033,
    "difom_train/sharing": 358,
    "difom_train/students": 1182,
    "difom_train/studies": 521,
    "difom_train/training": 1884,
}


def count_code(source: str) -> int:
    """Return how many lines hold code: no blank line, comment or docstring."""
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def count_rooms() -> dict[str, int]:
    """Return the lines of code of each folder of both packages, and of the benchmarks."""
    rooms: dict[str, int] = {}
    for package in ("benchmarks", "difom_cache", "difom_train"):
        for path in sorted((ROOT / package).rglob("*.py")):
            room = path.parent.relative_to(ROOT).as_posix()
            rooms[room] = rooms.get(room, 0) + count_code(path.read_text("utf-8"))
    return rooms


def test_code_alone_is_counted():
    doc = '"""More.\n\n    And more.\n    """'
    assert (
        count_code(
            f'"""Doc."""\n\n# a comment\nx = 1  # one\n\n\ndef f():\n    {doc}\n    return (\n        2\n    )\n'
        )
        == 5
    )


def test_rooms_keep_to_their_lines():
    over = {room: lines for room, lines in count_rooms().items() if lines > MOST.get(room, 0)}
    assert not over, "look for what can go; else name the feature in the commit"
