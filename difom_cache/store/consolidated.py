"""All Zarr metadata of what is finished, in one place for readers that walk a hierarchy (FORMAT.md, section 2).

Zarr and xarray list a folder to find its arrays, and stumble over the files of the ledger; on a network each zarr.json is a trip.
Where a group's zarr.json holds the metadata of everything below, they look nowhere else. Our own reader never reads it.
"""

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from difom_cache.base import disk
from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import CacheFormatError
from difom_cache.base.files import read_plain
from difom_cache.store.columns import BASIS, list_columns
from difom_cache.store.identity import read_identity
from difom_cache.store.layout import Column, canonical, describe_difference
from difom_cache.store.ledger import find_short_blocks, read_markers
from difom_cache.store.schema import CacheIdentity
from difom_cache.store.writer import describe_column, describe_root, describe_rows

CONSOLIDATED = "consolidated_metadata"


def consolidate(cache: Path, *, leave_out: str = "", whole: Set[str] = frozenset()) -> None:
    """Write the metadata of all finished columns of `cache` into its groups, whole, in place of what stood there.

    Args:
        cache: its folder. Nothing is written while no column is finished.
        leave_out: folder of a column that is about to go.
        whole: folders of columns that are known to be finished.
    """
    identity = read_identity(cache, CacheIdentity)
    finished = [column for column in list_finished(cache, identity.rows, whole) if column.folder != leave_out]
    if not finished and CONSOLIDATED not in _read(cache / "zarr.json"):
        return
    nodes = describe_hierarchy(cache, identity, finished)
    groups = [path for path, node in nodes.items() if node["node_type"] == "group"]
    for group in sorted(groups, key=lambda path: -len(path.parts)):  # the root last: it speaks for all
        below = {
            path.relative_to(group).as_posix(): node
            for path, node in nodes.items()
            if path != group and path.is_relative_to(group)
        }
        merged = nodes[group] | {CONSOLIDATED: {"kind": "inline", "must_understand": False, "metadata": below}}
        if _read(cache / group / "zarr.json") != merged:  # so that a finished cache may lie where nobody can write
            write_atomic(cache / group / "zarr.json", canonical(merged))


def list_finished(cache: Path, rows: int, whole: Set[str] = frozenset()) -> list[Column]:
    """Return the columns of a cache whose blocks are all there; one whose identity cannot be read is none of them."""
    columns = []
    for _, column in list_columns(cache, rows):
        if isinstance(column, CacheFormatError):
            continue
        if column.folder not in whole:
            markers = read_markers(cache, column, skip_unreadable=True)
            if len(markers) < column.blocks or find_short_blocks(cache, column, markers, sizes=False):
                continue
        columns.append(column)
    return columns


def describe_hierarchy(cache: Path, identity: CacheIdentity, columns: Sequence[Column]) -> dict[Path, dict[str, Any]]:
    """Return the metadata of every group and array of some columns, of rows/ and of the root, by folder below the cache."""
    described = {**describe_root(cache, identity), **describe_rows(cache, identity)}
    for column in columns:
        described |= describe_column(cache, column)
    nodes = {path.parent.relative_to(cache): json.loads(text) for path, text in described.items()}
    for column in columns:
        for array in column.arrays:
            for name in BASIS if array.path.endswith("/code") else ():
                path = Path(column.folder, array.path).with_name(name)
                if disk.is_file(cache / path / "zarr.json"):
                    nodes[path] = _read(cache / path / "zarr.json")
    return dict(sorted(nodes.items()))


def find_stale(described: Mapping[Path, bytes]) -> list[str]:
    """Return one line for each entry of consolidated metadata that says something else than the zarr.json that it repeats.

    What is missing there is no fault: columns that are not finished are not listed.

    Args:
        described: every zarr.json of the cache, by its path, as the identities have it.
    """
    problems = []
    for path in (path for path, text in described.items() if json.loads(text)["node_type"] == "group"):
        held = _read(path).get(CONSOLIDATED)
        entries = held.get("metadata") if isinstance(held, dict) else None
        if held is not None and not isinstance(entries, dict):
            problems.append(f"{path}: {CONSOLIDATED} is damaged")
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            known = described.get(path.parent / name / "zarr.json") or _read_basis(path.parent / name)
            difference = describe_difference(entry, json.loads(known)) if known else "is not there"
            if difference:
                problems.append(f"{path}: {CONSOLIDATED} of {name}: {difference}")
    return problems


def _read_basis(folder: Path) -> bytes:
    """Return the zarr.json of a compact codec's basis, which no identity describes."""
    return canonical(_read(folder / "zarr.json")) if folder.name in BASIS else b""


def _read(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}
