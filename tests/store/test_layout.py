"""Where things lie, how large a block is, and the Zarr metadata that says so."""

import json
from pathlib import Path

import numpy as np
import pytest

from difom_cache.store import (
    ArraySpec,
    Column,
    array_metadata,
    canonical,
    choose_block_rows,
    marker_path,
    moments_path,
    shard_path,
)

CODE = ArraySpec("block11@16/code", (256, 22, 22), "int8", ("row", "channel", "y", "x"))


def test_a_row_of_256_int8_channels_on_22_cells_has_123904_bytes() -> None:
    assert CODE.row_bytes == 256 * 22 * 22 == 123_904
    assert ArraySpec("logits", (1, 10, 10), "float16", ("row", "channel", "y", "x")).row_bytes == 200


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float16", "float32"])
def test_row_bytes_are_those_of_numpy(dtype: str) -> None:
    assert ArraySpec("a", (3, 5), dtype, ("row", "y", "x")).row_bytes == np.zeros((3, 5), dtype).nbytes


@pytest.mark.parametrize(
    ("rows", "row_bytes", "batch", "wanted"),
    [
        (100, 123_904, 1, 16),  # small caches: at least 16 views a block
        (100, 123_904, 8, 16),
        (1_450, 123_904, 32, 64),  # a sixteenth is 90; four batches would be 128
        (4_000, 123_904, 32, 128),
        (2_297, 123_904, 1, 35),  # a sixty-fourth; 16 MB would hold 129
        (8_000, 123_904, 1, 125),
        (20_000, 123_904, 1, 129),  # 16 MB
        (20_000, 123_904, 8, 128),  # down to whole batches of 8
        (100_000, 123_904, 1, 390),  # a 256th, which takes more than 16 MB
        (1_000_000, 123_904, 16, 2064),  # 256 MB / 123904 B = 2066, down to whole batches
        (1_000, 50_000_000, 4, 4),  # 256 MB hold five such maps, one whole batch
        (1_000, 400_000_000, 4, 4),  # never less than one batch
        (1, 10, 32, 32),
    ],
)
def test_a_block_is_bounded_in_bytes_and_made_of_whole_batches(
    rows: int, row_bytes: int, batch: int, wanted: int
) -> None:
    assert choose_block_rows(rows, row_bytes, batch) == wanted


def test_the_last_block_ends_with_the_last_row() -> None:
    column = Column("pictures", (), rows=10, block_rows=4)
    assert column.blocks == 3
    assert [column.range_of(block) for block in range(3)] == [(0, 4), (4, 8), (8, 10)]
    assert Column("pictures", (), rows=8, block_rows=4).blocks == 2


def test_paths_are_those_of_the_format(tmp_path: Path) -> None:
    column = Column("teachers/dinov2", (CODE,), rows=100, block_rows=16)
    below = [
        shard_path(tmp_path, column, CODE, 3),
        marker_path(tmp_path, column, 3),
        moments_path(tmp_path, column, 3),
    ]
    assert [str(path.relative_to(tmp_path)) for path in below] == [
        "teachers/dinov2/block11@16/code/c.3.0.0.0",
        "teachers/dinov2/ticks/000003.json",
        "teachers/dinov2/moments/000003.safetensors",
    ]


def test_equal_values_have_one_spelling() -> None:
    assert canonical({"b": 1, "a": [1.5, "é"]}) == canonical({"a": [1.5, "é"], "b": 1})
    assert json.loads(canonical({"b": 1, "a": [1.5, "é"]})) == {"a": [1.5, "é"], "b": 1}


def test_a_number_that_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})


def test_a_sharded_array_says_one_row_a_chunk_and_one_block_a_shard() -> None:
    metadata = json.loads(array_metadata((100, 256, 22, 22), "int8", CODE.dimensions, shard_rows=16))
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [16, 256, 22, 22]
    assert metadata["dimension_names"] == ["row", "channel", "y", "x"]
    (sharding,) = metadata["codecs"]
    assert sharding["name"] == "sharding_indexed"
    assert sharding["configuration"]["chunk_shape"] == [1, 256, 22, 22]
    assert sharding["configuration"]["index_location"] == "end"
    assert [codec["name"] for codec in sharding["configuration"]["index_codecs"]] == ["bytes", "crc32c"]
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes"]


def test_a_compressed_array_compresses_its_inner_chunks_with_zstd() -> None:
    metadata = json.loads(array_metadata((9, 4), "float32", ("row", "x"), shard_rows=3, compression="zstd"))
    assert [codec["name"] for codec in metadata["codecs"][0]["configuration"]["codecs"]] == ["bytes", "zstd"]
