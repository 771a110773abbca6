"""Done markers alone say what is finished; what cannot be trusted counts as missing and is made anew."""

import json
from pathlib import Path

import pytest
from small_cache import draw_arrays, write_small_block, write_small_cache

from difom_cache.base.atomic import digest_file
from difom_cache.errors import CacheDamagedError
from difom_cache.store import (
    DAMAGED,
    find_short_blocks,
    is_done,
    list_markers,
    marker_path,
    read_damaged,
    read_marker,
    read_markers,
    shard_path,
    withdraw_block,
    write_damaged,
    write_marker,
)


def test_a_marker_names_every_file_of_its_block_with_size_and_digest(tmp_path: Path) -> None:
    column = write_small_cache(tmp_path).columns["teachers/one"]
    marker = read_markers(tmp_path, column)[1]
    assert (marker.block, marker.start, marker.stop) == (1, 4, 8)
    assert marker.files == {a.path: digest_file(shard_path(tmp_path, column, a, 1)) for a in column.arrays}
    assert marker.moments == digest_file(tmp_path / "teachers/one/moments/000001.safetensors")
    assert set(marker.fidelity) == {"block1@2", "logits@2"}


def test_a_marker_that_was_written_stays(tmp_path: Path) -> None:
    column = write_small_cache(tmp_path).columns["pictures"]
    marker = read_markers(tmp_path, column)[0]
    write_marker(tmp_path, column, marker.model_copy(update={"stop": 1}))
    assert read_markers(tmp_path, column)[0] == marker


def test_only_marked_blocks_are_finished(tmp_path: Path) -> None:
    column = write_small_cache(tmp_path, leave_out=(1, 3)).columns["teachers/one"]
    assert sorted(read_markers(tmp_path, column)) == [0, 2]
    assert is_done(tmp_path, column, 0) and not is_done(tmp_path, column, 1)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"files": 3}', '{"files": {"image": {"size": 1}}}'])
def test_an_unreadable_marker_is_named_and_may_be_left_out(tmp_path: Path, content: str) -> None:
    column = write_small_cache(tmp_path).columns["pictures"]
    marker_path(tmp_path, column, 2).write_text(content)
    with pytest.raises(CacheDamagedError, match=r"000002\.json cannot be read"):
        read_markers(tmp_path, column)
    assert sorted(read_markers(tmp_path, column, skip_unreadable=True)) == [0, 1, 3]
    assert sorted(list_markers(tmp_path, column)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [{"block": 1}, {"start": 0}, {"stop": 11}, {"files": {}}, {"files": {"image": {"file_bytes": 1, "sha256": ""}}}],
)
def test_a_marker_that_speaks_of_another_block_is_not_believed(tmp_path: Path, change: dict[str, object]) -> None:
    column = write_small_cache(tmp_path).columns["pictures"]
    path = marker_path(tmp_path, column, 2)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CacheDamagedError, match=r"000002\.json"):
        read_markers(tmp_path, column)


def test_a_marker_reads_back_as_it_was(tmp_path: Path) -> None:
    column = write_small_cache(tmp_path).columns["teachers/one"]
    marker = read_marker(marker_path(tmp_path, column, 0))
    withdraw_block(tmp_path, column, 0)
    write_marker(tmp_path, column, marker)
    assert read_markers(tmp_path, column)[0] == marker


def test_a_withdrawn_block_leaves_nothing_and_can_be_written_again(tmp_path: Path) -> None:
    cache = write_small_cache(tmp_path)
    column = cache.columns["teachers/one"]
    before = read_markers(tmp_path, column)
    withdraw_block(tmp_path, column, 1)
    assert not [path for path in tmp_path.rglob("*000001*") if "pictures" not in path.parts]
    assert not any(shard_path(tmp_path, column, array, 1).exists() for array in column.arrays)
    write_small_block(tmp_path, column, 1, draw_arrays(), 12)
    assert read_markers(tmp_path, column) == before


def test_short_and_absent_shards_are_found(tmp_path: Path) -> None:
    column = write_small_cache(tmp_path).columns["teachers/one"]
    markers = read_markers(tmp_path, column)
    assert find_short_blocks(tmp_path, column, markers) == []
    shard_path(tmp_path, column, column.arrays[2], 0).unlink()
    with shard_path(tmp_path, column, column.arrays[0], 2).open("r+b") as file:
        file.truncate(7)
    assert find_short_blocks(tmp_path, column, markers) == [0, 2]


def test_a_block_whose_statistics_are_lost_is_found_until_totals_hold_them(tmp_path: Path) -> None:
    column = write_small_cache(tmp_path).columns["teachers/one"]
    (tmp_path / "teachers/one/moments/000003.safetensors").unlink()
    markers = read_markers(tmp_path, column)
    assert find_short_blocks(tmp_path, column, markers) == [3]
    (tmp_path / "teachers/one/statistics.safetensors").write_bytes(b"totals")
    assert find_short_blocks(tmp_path, column, markers) == []


def test_the_list_of_damaged_blocks_is_kept_and_goes_when_empty(tmp_path: Path) -> None:
    assert read_damaged(tmp_path) == {}
    write_damaged(tmp_path, {"pictures": [3, 1], "teachers/one": []})
    assert read_damaged(tmp_path) == {"pictures": [1, 3]}
    write_damaged(tmp_path, {"pictures": []})
    assert read_damaged(tmp_path) == {}
    assert not (tmp_path / DAMAGED).exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pictures": 3}', '{"pictures": ["x"]}'])
def test_an_unreadable_list_of_damaged_blocks_says_how_to_make_it_again(tmp_path: Path, content: str) -> None:
    (tmp_path / DAMAGED).write_text(content)
    with pytest.raises(CacheDamagedError, match=r"damaged\.json cannot be read.*difom-cache verify"):
        read_damaged(tmp_path)
