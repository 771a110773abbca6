"""Which frames belong together: as the user says by --group-by, and in words where nobody knows."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from difom_cache.base.errors import DataError, SettingsError
from difom_cache.base.files import explain, read_plain
from difom_cache.base.text import name_some
from difom_cache.data.addresses import file_of

_TABLE = re.compile(r"(?s:(.+\.csv)):([^:/]+)", re.IGNORECASE)
_NAME_COLUMNS = ("id", "name", "file", "file_name", "filename", "image", "image_id")
UNKNOWN = "groups unknown: every frame its own"

Namer = Callable[[str, Path], str | None]
"""From a record's id and its file below the data's folder to the name of its group; None where nothing is said."""


def read_group_rule(rule: str) -> Namer:
    """Return what names groups.

    Args:
        rule: a regular expression that is searched in file names (in paths below the data's folder, if it has a slash), whose
            groups in parentheses together, or else what it finds, are the name; or FILE.csv:COLUMN, a table with a column that
            names files or records.

    Raises:
        SettingsError: no regular expression, or no such column.
        DataError: the table cannot be read.
    """
    if match := _TABLE.fullmatch(rule):
        return _read_table(Path(match[1]), match[2])
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise SettingsError(f"--group-by {rule}: no regular expression ({error}), and no FILE.csv:COLUMN") from error

    def name(record_id: str, below: Path) -> str | None:
        found = pattern.search(below.as_posix() if "/" in rule else below.name)
        if found is None:
            return None
        return "-".join(part for part in found.groups() if part) or found[0]

    return name


def refuse_unnamed(ids: Sequence[str], rule: str) -> None:
    """Raise where a rule names no group for some records.

    Raises:
        DataError: names the first of them.
    """
    if ids:
        raise DataError(
            f"--group-by {rule}: no group for {len(ids)} records: {name_some(ids)}; mend the rule, or leave it out"
        )


def describe_unknown(datasets: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Return a line for every data set whose groups nobody knows; one without a name where it is so for all.

    Args:
        datasets: of each record.
        groups: of each record, "" where unknown.
    """
    known = {name for name, group in zip(datasets, groups, strict=True) if group}
    unknown = [name for name in dict.fromkeys(datasets) if name not in known]
    if not known and unknown:
        return [UNKNOWN]
    return [f"{name}: {UNKNOWN}" for name in unknown]


def below(path: Path, root: Path) -> Path:
    """Return a picture's file as a path below the data's folder, or its name alone where it lies elsewhere."""
    file = file_of(path)
    return file.relative_to(root) if file.is_relative_to(root) else Path(file.name)


def _read_table(file: Path, column: str) -> Namer:
    try:
        rows = list(csv.DictReader(io.StringIO(read_plain(file).decode("utf-8-sig"), newline=""), strict=True))
    except OSError as error:
        raise DataError(f"--group-by {file}: expected a CSV, but {explain(error)}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--group-by {file}: expected a CSV ({error})") from error
    columns = list(rows[0]) if rows else []
    if column not in columns:
        raise SettingsError(
            f"--group-by {file}:{column}: expected a column {column}, found {', '.join(map(str, columns)) or 'none'}"
        )
    named_by = next((name for name in _NAME_COLUMNS if name in columns and name != column), None)
    if named_by is None:
        raise SettingsError(
            f"--group-by {file}: expected a column of file names, called one of {', '.join(_NAME_COLUMNS)}"
        )
    group_of: dict[str, str] = {}
    for row in rows:
        key, group = row[named_by] or "", row[column] or ""
        if group_of.setdefault(key, group) != group:
            raise DataError(f"--group-by {file}: {key} is in group {group_of[key]} and in group {group}; keep one")

    def name(record_id: str, below: Path) -> str | None:
        keys = (record_id, below.as_posix(), below.name, below.stem)
        return next((group_of[key] for key in keys if group_of.get(key)), None)

    return name
