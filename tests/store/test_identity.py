"""Identities are written once; another one is refused, and every value that differs is named with both its values."""

import json
from pathlib import Path

import pytest
from small_cache import Shape, identity_of, start_small_cache, teacher_identity, write_small_cache

from difom_cache import open_cache
from difom_cache.errors import CacheFormatError, CacheIdentityError
from difom_cache.store import (
    FORMAT_VERSION,
    content_digest,
    create_column,
    fix_identity,
    name_differences,
    read_identity,
    read_markers,
    teacher_column,
)

HINT = "Choose another path."


def test_an_identity_that_was_fixed_is_read_back(tmp_path: Path) -> None:
    held = fix_identity(tmp_path / "cache", identity_of(), hint=HINT)
    assert held == identity_of() == read_identity(tmp_path / "cache")


def test_the_same_identity_may_come_again(tmp_path: Path) -> None:
    fix_identity(tmp_path, identity_of(), hint=HINT)
    before = (tmp_path / "identity.json").stat().st_mtime_ns
    fix_identity(tmp_path, identity_of(), hint=HINT)
    assert (tmp_path / "identity.json").stat().st_mtime_ns == before


def test_another_identity_is_refused_with_both_values_and_a_way_out(tmp_path: Path) -> None:
    fix_identity(tmp_path, identity_of(), hint=HINT)
    other = identity_of(picture_px=16, plan=identity_of()["plan"] | {"seed": 7})
    with pytest.raises(CacheIdentityError) as caught:
        fix_identity(tmp_path, other, hint=HINT)
    assert "picture_px: held 8, this run 16" in str(caught.value)
    assert "plan.seed: held 0, this run 7" in str(caught.value)
    assert str(caught.value).endswith(HINT)
    assert read_identity(tmp_path) == identity_of()


def test_a_teacher_with_other_weights_is_refused_by_its_digests(tmp_path: Path) -> None:
    columns = start_small_cache(tmp_path)
    other = teacher_identity(teacher={"name": "one", "weights_digest": "b" * 64})
    column = teacher_column(other, "one", columns["pictures"].rows)
    with pytest.raises(CacheIdentityError, match=r"weights_digest: held aaaa.*this run bbbb.*drop .* --teacher one"):
        create_column(tmp_path, column, other)


def test_differences_are_named_by_their_place() -> None:
    held, brought = {"a": {"x": 1, "y": [1, 2]}, "b": "same"}, {"a": {"x": 1, "y": [1, 3]}, "b": "same", "c": None}
    assert name_differences(held, brought) == ["a.y: held [1, 2], this run [1, 3]"]
    assert name_differences(held, held) == []


def test_a_value_that_only_one_side_has_is_named() -> None:
    assert name_differences({"threads": 2}, {}) == ["threads: held 2, this run null"]


def test_a_folder_without_identity_is_no_cache(tmp_path: Path) -> None:
    with pytest.raises(CacheFormatError, match=r"is not a cache: identity\.json is missing"):
        open_cache(tmp_path)


def test_a_newer_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    write_small_cache(tmp_path)
    (tmp_path / "identity.json").write_text(json.dumps(identity_of(format=FORMAT_VERSION + 1)))
    with pytest.raises(
        CacheFormatError, match=f"version {FORMAT_VERSION + 1}, this difom reads version {FORMAT_VERSION}"
    ):
        open_cache(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_an_identity_that_is_not_one_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    write_small_cache(tmp_path)
    (tmp_path / "identity.json").write_bytes(content)
    with pytest.raises(CacheFormatError, match=r"identity\.json"):
        open_cache(tmp_path)


def test_equal_contents_have_equal_digests_whatever_the_order_of_writing(tmp_path: Path) -> None:
    one, two = write_small_cache(tmp_path / "one"), write_small_cache(tmp_path / "two", leave_out=(2,))
    assert open_cache(one.path).content_digests() != open_cache(two.path).content_digests()
    from_one = {f: (one.path / f).read_bytes() for f in ("teachers/one/ticks/000002.json",)}
    for name, content in from_one.items():
        (two.path / name).write_bytes(content)
    assert open_cache(one.path).content_digests() == open_cache(two.path).content_digests()


def test_one_other_value_is_another_digest(tmp_path: Path) -> None:
    cache = write_small_cache(tmp_path, Shape(records=3))
    column, identity = cache.columns["teachers/one"], teacher_identity(Shape(records=3))
    markers = read_markers(tmp_path, column)
    first = content_digest(identity, column, markers)
    assert content_digest(identity | {"batch": 3}, column, markers) != first
    assert content_digest(identity, column, {0: markers[0]}) != first
