"""Which frames belong together: as published, as --group-by says, and in words where it is unknown."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from difom_cache.base.errors import DataError, SettingsError
from difom_cache.base.files import explain, read_plain
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


CLINICDB_SIZE_PX = (384, 288)

# Folder names in the wild, in small letters without punctuation -> the set's own name, which is its CSV's name too.
_NAMES = {
    "kvasir": "Kvasir",
    "kvasirseg": "Kvasir",
    "cvcclinicdb": "CVC-ClinicDB",
    "clinicdb": "CVC-ClinicDB",
    "cvc612": "CVC-ClinicDB",
    "cvccolondb": "CVC-ColonDB",
    "colondb": "CVC-ColonDB",
    "etislaribpolypdb": "ETIS-LaribPolypDB",
    "etislarib": "ETIS-LaribPolypDB",
    "etis": "ETIS-LaribPolypDB",
    "cvc300": "CVC-300",
}


@dataclass(frozen=True)
class Frame:
    """One picture of a benchmark set: its published split ("train", "val" or "test") and group ("" = unknown)."""

    split: str
    group: str


def find_set(folder_name: str) -> str | None:
    """Return the benchmark set that a folder of this name holds, or None."""
    return _NAMES.get("".join(letter for letter in folder_name.lower() if letter.isalnum()))


@cache
def read_frames(dataset: str) -> dict[str, Frame]:
    """Return the frames of a benchmark set by stem; an empty dictionary for a data set that is none."""
    if dataset not in _NAMES.values():
        return {}
    text = files("data_manifests").joinpath(f"{dataset}.csv").read_text(encoding="utf-8")
    return {row["name"]: Frame(row["split"], row["group"]) for row in csv.DictReader(text.splitlines())}
