"""Where everything lies in a cache, and the Zarr metadata that says so to any reader (FORMAT.md, sections 1 and 2)."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difom_cache.base import disk
from difom_cache.base.atomic import write_atomic, write_once
from difom_cache.base.files import explain, read_plain

FORMAT_VERSION = 1
SHARD_BYTES = 256_000_000  # upper bound of the widest array's shard
LEAST_BLOCK_ROWS, BLOCKS_AIM = 16, 256
SMALL_SHARD_BYTES = 16_000_000  # shards below this are made larger, since every file costs at open and on Lustre,
ENOUGH_BLOCKS = 64  # as long as so many are left for workers to share, and for a killed one to lose little;
LEAST_BATCHES = 4  # and blocks of fewer batches too, since a device is drained after each block,
FEWEST_BLOCKS = 16  # as long as so many are left

PICTURES = "pictures"
SPLITS = ("train", "val", "test")  # their places are the numbers in rows/split
NO_MASK = 255  # the whole stored mask of a record without one; an empty mask is all zeros
IDENTITY = "identity.json"
SOURCE = "source.json"
RECORDS = "records.csv"
DAMAGED = "damaged.json"
HEADS, SEEN_MASKS = "heads.safetensors", "masks.json"
BESIDE_IDENTITY = (HEADS, SEEN_MASKS)  # what a column of a teacher may have, and keeps wherever it goes


@dataclass(frozen=True)
class TapSpec:
    """One tap of one teacher, as it lies in a cache.

    `name` is "<teacher>/<place>@<stride>", `kind` "feature" or "logits", `channels` those of the decoded map,
    `grid` its height and width in cells, `stride` the picture pixels per cell, `codec` the name of its codec.
    """

    name: str
    kind: str
    channels: int
    grid: int
    stride: float
    codec: str


@dataclass(frozen=True)
class ArraySpec:
    """One array of a column: `path` inside the column's folder, shape and type of one row, names of its dimensions.

    `attributes` say what its numbers mean, for people: `long_name`, `units` and others (FORMAT.md, section 2).
    """

    path: str
    row_shape: tuple[int, ...]
    dtype: str
    dimensions: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @property
    def row_bytes(self) -> int:
        return math.prod(self.row_shape) * {"uint8": 1, "int8": 1, "float16": 2, "float32": 4}[self.dtype]


@dataclass(frozen=True)
class Column:
    """Arrays that are written together, block by block: the pictures, or everything of one teacher."""

    folder: str
    arrays: tuple[ArraySpec, ...]
    rows: int
    block_rows: int
    compression: str = "none"

    @property
    def label(self) -> str:
        """The teacher whose it is; "" of the pictures."""
        return self.folder.partition("/")[2]

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.block_rows)

    def range_of(self, block: int) -> tuple[int, int]:
        """Return first row and row after the last of `block`."""
        return block * self.block_rows, min((block + 1) * self.block_rows, self.rows)


def choose_block_rows(rows: int, widest_row_bytes: int, batch: int) -> int:
    """Return the number of views in a block of a column that is begun: whole batches, at least one.

    About 256 blocks a cache, fewer where their shards would be tiny, more where 256 MB would not hold them.
    """
    by_bytes, small = (max(1, limit // max(1, widest_row_bytes)) for limit in (SHARD_BYTES, SMALL_SHARD_BYTES))
    by_batches = min(LEAST_BATCHES * batch, rows // FEWEST_BLOCKS)
    wanted = max(LEAST_BLOCK_ROWS, rows // BLOCKS_AIM, min(small, rows // ENOUGH_BLOCKS), by_batches)
    return max(batch, min(by_bytes, wanted) // batch * batch)


def list_labels(cache: Path) -> list[str]:
    """Return the names of the folders of teachers in a cache, in order, whatever they hold."""
    return [name for name in disk.list_names(cache / "teachers") if not name.startswith(".")]


def teacher_folder(label: str) -> str:
    return f"teachers/{label}"


def shard_path(cache: Path, column: Column, array: ArraySpec, block: int) -> Path:
    """Return the file of one shard: Zarr's default chunk keys with "." keep an array's shards in one flat folder."""
    key = ".".join(["c", str(block), *["0"] * len(array.row_shape)])
    return cache / column.folder / array.path / key


def marker_path(cache: Path, column: Column, block: int) -> Path:
    return cache / column.folder / "ticks" / f"{block:06d}.json"


def moments_path(cache: Path, column: Column, block: int) -> Path:
    return cache / column.folder / "moments" / f"{block:06d}.safetensors"


def totals_path(cache: Path, folder: str) -> Path:
    return cache / folder / "statistics.safetensors"


def canonical(value: Any) -> bytes:
    """Return the one JSON spelling of `value`, so that equal values have equal bytes and digests."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def shorten(value: Any) -> str:
    """Return a value as JSON, for a message: no more than its beginning, and of a digest twelve letters."""
    if isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef"):
        return f"{value[:12]}..."
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def flags(long_name: str, **numbers: int) -> dict[str, Any]:
    """Return the attributes of an array whose numbers stand for words."""
    meanings = {"flag_values": [*numbers.values()], "flag_meanings": " ".join(numbers)}
    return {"long_name": long_name, "units": "1", **meanings}


def group_metadata(attributes: dict[str, Any] | None = None) -> bytes:
    return canonical({"zarr_format": 3, "node_type": "group", "attributes": attributes or {}})


def array_metadata(
    shape: Sequence[int],
    dtype: str,
    dimensions: Sequence[str],
    *,
    shard_rows: int | None = None,
    compression: str = "none",
    attributes: dict[str, Any] | None = None,
) -> bytes:
    """Return the zarr.json of one array.

    Args:
        shape: all of it, rows first.
        dtype: Zarr v3 data type name.
        dimensions: one name for each axis.
        shard_rows: rows in a shard; one row is one inner chunk. None: the array is one plain chunk.
        compression: "none" or "zstd", of the inner chunks.
        attributes: units and meaning, for people.

    Source: Zarr v3 core specification and its sharding_indexed codec, version 1.0.
    """
    # zarrita wants the byte order of single bytes too
    plain: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    codecs: list[dict[str, Any]] = [plain]
    if compression == "zstd":
        codecs.append({"name": "zstd", "configuration": {"level": 3, "checksum": False}})
    chunk = [max(1, side) for side in shape]
    if shard_rows is not None:
        chunk = [shard_rows, *shape[1:]]
        sharding = {"chunk_shape": [1, *shape[1:]], "codecs": codecs, "index_location": "end"}
        sharding["index_codecs"] = [plain, {"name": "crc32c"}]
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return canonical(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(shape),
            "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": 0.0 if dtype.startswith("float") else 0,
            "codecs": codecs,
            "attributes": attributes or {},
            "dimension_names": list(dimensions),
            "storage_transformers": [],
        }
    )


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
            return f"{key} is {shorten(held.get(key))}, the identity says {shorten(due[key])}"
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
