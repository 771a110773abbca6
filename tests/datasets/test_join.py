"""Records of several caches read as one: counted by hand."""

from typing import Any

import pytest

from difom_cache.data import join_records


def line(record_id: str, image: str, group: str = "", split: str = "train", mask: str = "m") -> dict[str, Any]:
    """Return a line of records.csv; `image` and `mask` stand for the digests of what is drawn on them."""
    return {"id": record_id, "image_sha256": image, "mask_sha256": mask, "group": group, "split": split}


def test_one_cache_keeps_its_ids_and_groups_even_where_an_image_lies_in_it_twice():
    join = join_records([[line("a/1", "x", "v"), line("a/2", "x"), line("a/3", "y")]])
    assert join.names == (("a/1", "a/2", "a/3"),) and join.groups == (("v", "a/2", "a/3"),)
    assert join.describe() == []


def test_equal_ids_of_different_images_are_told_apart_and_others_keep_their_names():
    join = join_records([[line("a/1", "x"), line("a/2", "y")], [line("a/1", "z"), line("a/3", "w")]])
    assert join.names == (("a/1 of image x", "a/2"), ("a/1 of image z", "a/3"))
    assert join.apart_ids == ("a/1",) and join.as_json()["records"] == 4
    assert join.describe() == ["1 id (a/1) of different images: told apart"]


def test_the_same_image_is_one_record_under_equal_and_under_other_names():
    join = join_records([[line("a/1", "x"), line("a/2", "y")], [line("a/1", "x"), line("b/9", "y")]])
    assert join.names == (("a/1", "a/2"), ("a/1", "a/2")) and join.shared == 2


def test_an_image_with_two_names_one_of_which_another_image_has_is_told_from_it():
    join = join_records([[line("a/1", "x")], [line("b/1", "x"), line("a/1", "y")]])
    assert join.names == (("a/1 of image x",), ("a/1 of image x", "a/1 of image y"))


def test_equal_group_names_without_a_common_image_are_two_groups():
    join = join_records([[line("a/1", "x", "video01"), line("a/2", "y", "video01")], [line("b/1", "z", "video01")]])
    assert join.groups == (("video01 of image x",) * 2, ("video01 of image z",))
    assert join.apart_groups == ("video01",) and join.as_json()["groups"] == 2


def test_groups_with_a_common_image_are_one_group_however_they_are_called():
    one = [line("a/1", "x", "video01"), line("a/2", "y", "video01"), line("a/3", "q")]
    other = [line("b/2", "y", "sequence 7"), line("b/3", "z", "sequence 7"), line("b/4", "q", "sequence 8")]
    join = join_records([one, other])
    assert join.groups == (("sequence 7", "sequence 7", "sequence 8"), ("sequence 7", "sequence 7", "sequence 8"))
    assert join.apart_groups == ()


def test_records_without_a_group_are_groups_of_their_own_names():
    join = join_records([[line("a/1", "x")], [line("a/1", "y")]])
    assert join.groups == join.names == (("a/1 of image x",), ("a/1 of image y",))


def test_names_do_not_depend_on_the_order_of_the_caches():
    caches = [
        [line("a/1", "x", "v"), line("a/2", "y", "w")],
        [line("a/1", "z", "v"), line("c/2", "y", "u")],
        [line("a/3", "z", "v")],
    ]
    forwards, backwards = join_records(caches), join_records(caches[::-1])
    assert forwards.names == backwards.names[::-1] and forwards.groups == backwards.groups[::-1]
    assert forwards.groups[1][0] == forwards.groups[2][0] != forwards.groups[0][0]


@pytest.mark.parametrize(
    ("splits", "torn", "tested"),
    [
        (("train", "val"), ("a/1",), ()),
        (("train", "test"), (), ("a/1",)),
        (("train", "train"), (), ()),
        (("test", "test"), (), ()),
    ],
)
def test_images_in_two_splits_are_found(splits: tuple[str, str], torn: tuple[str, ...], tested: tuple[str, ...]):
    join = join_records([[line("a/1", "x", split=split)] for split in splits])
    assert (join.torn, join.tested) == (torn, tested)


def test_an_image_with_other_masks_is_counted_and_one_without_a_mask_is_not():
    one = [line("a/1", "x", mask="m"), line("a/2", "y", mask="m"), line("a/3", "z", mask="m")]
    other = [line("a/1", "x", mask="n"), line("a/2", "y", mask=""), line("a/3", "z", mask="m")]
    assert join_records([one, other]).relabelled == 1
