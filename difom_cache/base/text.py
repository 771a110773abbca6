"""Words and numbers for people: lists that end, tables, sizes and times."""

import csv
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NAMES_SHOWN = 10
_MARKS = ("=", "+", "-", "@", "\t", "\r", "'")  # looked at first: a pattern for each of a million cells takes seconds


def name_some(names: Sequence[str], shown: int = NAMES_SHOWN) -> str:
    """Return the first names of a list, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def count_of(number: int, noun: str) -> str:
    """Return a number and what it counts, such as "1 view" and "2 views"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_table(rows: Sequence[Sequence[str]], *, left: int | None = 1) -> str:
    """Return rows of words in columns.

    Args:
        rows: the first is the head; all are of one length.
        left: so many columns stand to the left, for words, and the rest to the right, for numbers; None means all.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lefts = len(widths) if left is None else left

    def line(row: Sequence[str]) -> str:
        cells = [
            word.ljust(width) if column < lefts else word.rjust(width)
            for column, (word, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, rows))


def format_markdown(rows: Sequence[Sequence[str]], *, left: int | None = None) -> str:
    """Return rows of words as a table in Markdown; a bar in a word is no border.

    Args:
        rows: the first is the head; all are of one length.
        left: as `format_table` has it.
    """
    lefts = len(rows[0]) if left is None else left
    rules = ["---" if column < lefts else "---:" for column in range(len(rows[0]))]
    lines = [[word.replace("|", r"\|") for word in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rules, *lines[1:]))


def format_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return lines as CSV whose words are guarded; the first one's keys are the columns."""
    head = list(lines[0])
    return format_rows(head, ([line.get(name, "") for name in head] for line in lines))


def guard_cell(text: str) -> str:
    """Return a CSV cell that a spreadsheet shows as text: one that could start a formula gets an apostrophe in front."""
    return f"'{text}" if text[:1] in _MARKS and re.match(r"'*[=+\-@\t\r]", text) else text


def unguard_cell(text: str) -> str:
    """Return what `guard_cell` was given."""
    return text[1:] if text[:1] == "'" and re.match(r"'+[=+\-@\t\r]", text) else text


def format_bytes(size: float) -> str:
    """Return a number of bytes with a decimal unit."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def format_seconds(seconds: float) -> str:
    """Return a duration in words, such as "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def format_rows(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Return a CSV in which no spreadsheet finds a formula; numbers stay as they are."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(head)
    rows.writerows([guard_cell(cell) if isinstance(cell, str) else cell for cell in line] for line in lines)
    return text.getvalue()


class Shown:
    """What shows itself: a line in a console, and in a notebook a table below it."""

    def _line(self) -> str:
        """Return what it is in one line."""
        raise NotImplementedError

    def _table(self) -> Sequence[Sequence[object]]:
        """Return what it holds, the head first."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._line()}>"

    def _repr_html_(self) -> str:
        head, *rows = [[html.escape(str(cell)) for cell in row] for row in self._table()]
        lines = [f"<th>{'</th><th>'.join(head)}</th>", *(f"<td>{'</td><td>'.join(row)}</td>" for row in rows)]
        return f"<p>{html.escape(self._line())}</p><table><tr>{'</tr><tr>'.join(lines)}</tr></table>"
