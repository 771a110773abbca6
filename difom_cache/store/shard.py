"""One shard file: the inner chunks in row order, then Zarr's index (FORMAT.md, section 3).

zarr-python writes shards too, but drops chunks that hold only the fill value, so that an empty mask would look like a
missing one, and copies every chunk several times on the way. Here a block's array is written as it lies in memory.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from difom_cache.base import disk
from difom_cache.base.errors import CacheDamagedError
from difom_cache.base.files import explain, open_once

MISSING = np.uint64(2**64 - 1)  # offset and size of a chunk that is not there
CRC_BYTES = 4


def encode_shard(rows: NDArray[np.generic], shard_rows: int, compression: str) -> Iterator[bytes | memoryview]:
    """Yield the buffers of a shard file that holds `rows`.

    Args:
        rows: (n, ...), n <= shard_rows, C-contiguous; each row becomes one inner chunk.
        shard_rows: chunks that the index speaks of; those from n on are marked as missing.
        compression: "none" or "zstd".
    """
    index = np.full((shard_rows, 2), MISSING, dtype="<u8")
    if compression == "none":
        row_bytes = rows.nbytes // max(1, len(rows))
        index[: len(rows), 0] = np.arange(len(rows), dtype="<u8") * np.uint64(row_bytes)
        index[: len(rows), 1] = row_bytes
        yield np.ascontiguousarray(rows).data.cast("B")
    else:
        codec, offset = Zstd(level=3), 0
        for number, row in enumerate(rows):
            chunk = codec.encode(np.ascontiguousarray(row))
            index[number] = offset, len(chunk)
            offset += len(chunk)
            yield chunk
    index_bytes = index.tobytes()
    yield index_bytes
    yield int(google_crc32c.value(index_bytes)).to_bytes(CRC_BYTES, "little")


def index_bytes_of(shard_rows: int) -> int:
    return shard_rows * 16 + CRC_BYTES


def read_index(path: Path, shard_rows: int) -> NDArray[np.uint64]:
    """Return offset and size of every chunk of the shard at `path`: (shard_rows, 2).

    Raises:
        CacheDamagedError: the file is absent, too short, or its index fails its checksum.
    """
    tail_bytes = index_bytes_of(shard_rows)
    try:
        file_bytes, tail = disk.ask(path, lambda: _read_tail(path, tail_bytes))
    except FileNotFoundError:
        raise CacheDamagedError(f"{path} is missing although its block is marked as finished") from None
    except OSError as error:
        raise CacheDamagedError(f"{path} cannot be read: {explain(error)}") from None
    if file_bytes < tail_bytes:
        raise CacheDamagedError(f"{path} is cut short: {file_bytes} bytes, its index alone has {tail_bytes}")
    return parse_index(tail, path)


def _read_tail(path: Path, tail_bytes: int) -> tuple[int, bytes]:
    descriptor, found = open_once(path)
    with os.fdopen(descriptor, "rb") as file:
        start = file.seek(max(0, found.st_size - tail_bytes))
        tail = file.read()
    disk.check_whole(start + len(tail), found.st_size)
    return found.st_size, tail


def parse_index(tail: bytes, path: Path) -> NDArray[np.uint64]:
    """Return the index that the last bytes of a shard hold, checked against its CRC-32C."""
    if int(google_crc32c.value(tail[:-CRC_BYTES])) != int.from_bytes(tail[-CRC_BYTES:], "little"):
        raise CacheDamagedError(f"the index of {path} fails its checksum; run `difom-cache verify` on the cache")
    return np.frombuffer(tail[:-CRC_BYTES], dtype="<u8").reshape(-1, 2)
