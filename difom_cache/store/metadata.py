"""Zarr metadata by meaning: two spellings of one array or group are the same; attributes are for people and may differ."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difom_cache.base.atomic import write_atomic, write_once
from difom_cache.base.files import explain, read_plain

_MISSING = "missing"
_SINGLE_BYTES = ("bool", "int8", "uint8")
_MEANING = {
    "array": ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs", "dimension_names"),
    "group": (),
}


def keep_metadata(path: Path, wanted: bytes) -> None:
    """Make the zarr.json at `path` mean what `wanted` says; one that does already stays as it is."""
    difference = find_difference(path, wanted)
    if difference == _MISSING:
        write_once(path, [wanted])
    elif difference:
        write_atomic(path, wanted)


def find_difference(path: Path, wanted: bytes) -> str:
    """Return what is wrong with the zarr.json at `path`, "" where it means what `wanted` says."""
    try:
        held = json.loads(read_plain(path))
    except FileNotFoundError:
        return _MISSING
    except OSError as error:
        return f"cannot be read: {explain(error)}"
    except (ValueError, RecursionError) as error:
        return f"cannot be read as JSON ({error})"
    return describe_difference(held, json.loads(wanted))


def describe_difference(held: Any, due: Mapping[str, Any]) -> str:
    """Return what Zarr metadata says else than what is due, "" where both mean the same."""
    if not isinstance(held, dict):
        return "is no JSON object"
    single = due.get("data_type") in _SINGLE_BYTES
    for key in ("zarr_format", "node_type", *_MEANING[due["node_type"]]):
        if _plain(held.get(key), single) != _plain(due[key], single):
            return f"{key} is {_shorten(held.get(key))}, the identity says {_shorten(due[key])}"
    return "storage_transformers are not known" if held.get("storage_transformers") else ""


def _plain(value: Any, single: bool) -> Any:
    """Return a value without what says nothing: empty configurations, and the byte order where values are single bytes.

    The index of a shard holds numbers of eight bytes, whatever the shard's own values are.
    """
    if isinstance(value, dict):
        kept = {key: _plain(part, single and key != "index_codecs") for key, part in value.items()}
        if kept.get("configuration") in (None, {}) or (single and kept["configuration"] == {"endian": "little"}):
            kept.pop("configuration", None)
        return kept
    return [_plain(part, single) for part in value] if isinstance(value, list) else value


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
