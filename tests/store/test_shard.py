"""A shard: rows in order, Zarr's index, its checksum, and a mark for rows that are not there."""

from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from numcodecs.zstd import Zstd

from difom_cache.errors import CacheDamagedError
from difom_cache.store import MISSING, encode_shard, index_bytes_of, parse_index, read_index


def format_rows(rows: np.ndarray, shard_rows: int, compression: str = "none") -> bytes:
    return b"".join(bytes(part) for part in encode_shard(rows, shard_rows, compression))


def test_a_shard_worked_by_hand() -> None:
    shard = format_rows(np.array([[1, 2], [3, 4]], np.uint8), shard_rows=3)
    index = b"".join(number.to_bytes(8, "little") for number in (0, 2, 2, 2, 2**64 - 1, 2**64 - 1))
    assert shard == bytes([1, 2, 3, 4]) + index + int(google_crc32c.value(index)).to_bytes(4, "little")
    assert len(index) + 4 == index_bytes_of(3) == 52


def test_the_checksum_is_crc_32_castagnoli() -> None:
    # The check value of CRC-32C in RFC 3720, appendix B.4: 32 bytes of zeros.
    assert google_crc32c.value(bytes(32)) == int.from_bytes(bytes.fromhex("aa36918a"), "little")


def test_rows_of_zeros_are_written_like_any_others() -> None:
    shard = format_rows(np.zeros((2, 5), np.int8), shard_rows=2)
    assert shard[:10] == bytes(10)
    assert parse_index(shard[10:], Path("shard")).tolist() == [[0, 5], [5, 5]]


def test_the_index_of_a_short_block_marks_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "c.0").write_bytes(format_rows(np.ones((1, 4), np.float32), shard_rows=3))
    index = read_index(tmp_path / "c.0", 3)
    assert index[0].tolist() == [0, 16]
    assert (index[1:] == MISSING).all()


def test_compressed_rows_decode_with_plain_zstd(tmp_path: Path) -> None:
    rows = np.repeat(np.arange(6, dtype=np.float16).reshape(2, 3), 50, axis=1)
    shard = format_rows(rows, shard_rows=2, compression="zstd")
    (tmp_path / "c.0").write_bytes(shard)
    for row, (offset, size) in zip(rows, read_index(tmp_path / "c.0", 2).tolist(), strict=True):
        assert Zstd().decode(shard[offset : offset + size]) == row.tobytes()


def test_a_flipped_bit_in_the_index_is_found(tmp_path: Path) -> None:
    shard = bytearray(format_rows(np.ones((2, 4), np.uint8), shard_rows=2))
    shard[10] ^= 1
    (tmp_path / "c.0").write_bytes(shard)
    with pytest.raises(CacheDamagedError, match=r"index of .*c\.0 fails its checksum"):
        read_index(tmp_path / "c.0", 2)


def test_a_shard_shorter_than_its_index_is_named_with_both_sizes(tmp_path: Path) -> None:
    (tmp_path / "c.0").write_bytes(bytes(20))
    with pytest.raises(CacheDamagedError, match=r"c\.0 is cut short: 20 bytes, its index alone has 36"):
        read_index(tmp_path / "c.0", 2)


def test_an_absent_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(CacheDamagedError, match=r"c\.0 is missing although its block is marked"):
        read_index(tmp_path / "c.0", 2)
