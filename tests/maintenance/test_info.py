"""What a cache says of itself."""

from pathlib import Path

import pytest
from small_cache import write_small_cache

from difom_cache import info
from difom_cache.maintenance import format_info
from difom_cache.store import write_damaged


@pytest.fixture
def feats(tmp_path: Path) -> Path:
    return write_small_cache(tmp_path / "feats").path


def test_views_are_counted_by_split_and_by_missing_masks(feats: Path):
    facts = info(feats)
    assert facts["views"] == {"train": 12, "val": 2, "test": 0}
    assert facts["views_without_mask"] == 2  # both views of the record without a mask


def test_bytes_of_a_view_are_those_of_its_arrays(feats: Path):
    columns = info(feats)["columns"]
    assert columns["pictures"]["bytes_per_view"] == 8 * 8 * 3 + 8 * 8
    assert columns["teachers/one"]["bytes_per_view"] == 3 * 4 * 4 + 3 * 4 + 2 * 4 * 4  # codes, scales, float16 logits


def test_an_unfinished_column_is_called_incomplete(tmp_path: Path):
    feats = write_small_cache(tmp_path / "feats", leave_out=(1,)).path
    assert "teachers/one: incomplete, 3 of 4 blocks" in format_info(info(feats))


def test_damaged_blocks_are_named(feats: Path):
    write_damaged(feats, {"teachers/one": [2]})
    assert "damaged blocks: [2]" in format_info(info(feats))


def test_a_perfect_code_has_cosine_one_and_no_error(feats: Path):
    tap = info(feats)["columns"]["teachers/one"]["taps"]["one/block1@2"]
    assert (tap["cosine_mean"], tap["relative_l2"]) == (1.0, 0.0)


def test_equal_caches_have_equal_digests_and_others_do_not(tmp_path: Path):
    one, same = (info(write_small_cache(tmp_path / name).path)["content_digest"] for name in ("one", "same"))
    part = info(write_small_cache(tmp_path / "part", leave_out=(0,)).path)["content_digest"]
    assert one == same
    assert one["cache"] != part["cache"]
    assert one["pictures"] == part["pictures"]
