"""Identities are written once; another one is refused, and every value that differs is named with both its values."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from small_cache import Shape, identity_of, pictures_identity, start_small_cache, teacher_identity, write_small_cache

from difom_cache import open_cache
from difom_cache.errors import CacheFormatError, CacheIdentityError
from difom_cache.store import (
    FORMAT_VERSION,
    IDENTITIES,
    CacheIdentity,
    TeacherIdentity,
    canonical,
    content_digest,
    create_column,
    fix_identity,
    name_differences,
    read_identity,
    read_markers,
    teacher_column,
)

HINT = "Choose another path."
WHOLE = {"cache": identity_of(), "pictures": pictures_identity(), "teacher": teacher_identity()}


def cache_identity(**changed: Any) -> CacheIdentity:
    return CacheIdentity.build(**identity_of(**changed))


@pytest.mark.parametrize("kind", WHOLE)
def test_what_was_read_is_given_back_to_the_last_byte(kind: str) -> None:
    """Keys of a newer version or of a plug-in stay, and so do numbers that another writer spelled in another way."""
    held = WHOLE[kind] | {"of_tomorrow": {"a": [1, 2.0]}, "notes": None}
    if kind == "teacher":
        held |= {
            "taps": [tap | {"stride": int(tap["stride"])} for tap in held["taps"]]
        }  # "2", where difom writes "2.0"
    identity = IDENTITIES[kind].from_dict(json.loads(canonical(held)), "x/identity.json")
    assert canonical(identity.to_dict()) == canonical(held)
    again = pickle.loads(pickle.dumps(identity))
    assert again == identity and again.to_dict() == identity.to_dict()


@pytest.mark.parametrize("kind", WHOLE)
def test_every_key_that_is_missing_or_of_another_type_is_one_line_with_its_file(kind: str) -> None:
    for key in WHOLE[kind]:
        for broken in ({k: v for k, v in WHOLE[kind].items() if k != key}, WHOLE[kind] | {key: object}):
            with pytest.raises(
                CacheFormatError, match=r"^feats/identity\.json .*(version|cannot be read: ).*"
            ) as caught:
                IDENTITIES[kind].from_dict(broken, "feats/identity.json")
            assert key in str(caught.value) and "\n" not in str(caught.value)


def test_an_identity_does_not_change() -> None:
    identity = cache_identity()
    with pytest.raises(ValueError, match="frozen"):
        identity.rows = 3  # type: ignore[misc]
    identity.to_dict()["plan"]["seed"] = 7
    assert (
        identity == cache_identity() and identity.changed(rows=3).rows == 3 and identity.rows == identity_of()["rows"]
    )


def test_an_identity_that_was_fixed_is_read_back(tmp_path: Path) -> None:
    held = fix_identity(tmp_path / "cache", cache_identity(), hint=HINT)
    assert held == cache_identity() == read_identity(tmp_path / "cache", CacheIdentity)


def test_the_same_identity_may_come_again(tmp_path: Path) -> None:
    fix_identity(tmp_path, cache_identity(), hint=HINT)
    before = (tmp_path / "identity.json").stat().st_mtime_ns
    fix_identity(tmp_path, cache_identity(), hint=HINT)
    assert (tmp_path / "identity.json").stat().st_mtime_ns == before


def test_another_identity_is_refused_with_both_values_and_a_way_out(tmp_path: Path) -> None:
    fix_identity(tmp_path, cache_identity(), hint=HINT)
    other = cache_identity(picture_px=16, plan=identity_of()["plan"] | {"seed": 7})
    with pytest.raises(CacheIdentityError) as caught:
        fix_identity(tmp_path, other, hint=HINT)
    assert "picture_px: held 8, this run 16" in str(caught.value)
    assert "plan.seed: held 0, this run 7" in str(caught.value)
    assert str(caught.value).endswith(HINT)
    assert read_identity(tmp_path, CacheIdentity) == cache_identity()


def test_a_teacher_with_other_weights_is_refused_by_its_digests(tmp_path: Path) -> None:
    columns = start_small_cache(tmp_path)
    teacher = teacher_identity()["teacher"] | {"weights_digest": "b" * 64}
    other = TeacherIdentity.build(**teacher_identity(teacher=teacher))
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
    column, identity = cache.columns["teachers/one"], TeacherIdentity.build(**teacher_identity(Shape(records=3)))
    markers = read_markers(tmp_path, column)
    first = content_digest(identity, column, markers)
    assert content_digest(identity.changed(batch=3), column, markers) != first
    assert content_digest(identity, column, {0: markers[0]}) != first
