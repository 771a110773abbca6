"""Several caches in one table, and whether they go together."""

import json
from pathlib import Path

from in_process import invoke
from small_cache import Shape, write_small_cache

from difom_cache import info


def told(*caches: Path) -> str:
    return invoke("info", *map(str, caches))


def row_of(text: str, head: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.strip().startswith(head))


def test_two_caches_of_one_making_stand_side_by_side(tmp_path: Path) -> None:
    old = write_small_cache(tmp_path / "old").path
    new = write_small_cache(tmp_path / "new", leave_out=(1,)).path
    text = told(old, new)
    assert row_of(text, "train views") == ["train", "views", "12", "12"]
    assert row_of(text, "records") == ["records", "8", "8"]
    assert row_of(text, "one") == ["one", "complete", "3", "of", "4", "blocks"]
    assert row_of(text, "block1@2")[1:] == ["3", "x", "4²,", "int8", "3", "x", "4²,", "int8"]
    digests = [info(cache)["content_digest"]["cache"][:12] for cache in (old, new)]
    assert row_of(text, "content digest")[2:] == digests
    assert "together: 8 records in 8 groups\n8 images in more than one cache: one record each\n" in text
    assert text.rstrip().endswith("these caches can be trained on together")


def test_images_that_train_in_one_cache_and_validate_in_another_are_named(tmp_path: Path) -> None:
    old = write_small_cache(tmp_path / "old").path
    new = write_small_cache(tmp_path / "new", Shape(records=9)).path  # whose 6 and 7 train
    assert "cannot be trained on together: 2 images train in one cache and validate in another (set/6, set/7)" in told(
        old, new
    )


def test_one_cache_under_two_names_is_said_to_be_one(tmp_path: Path) -> None:
    old = write_small_cache(tmp_path / "old").path
    (tmp_path / "link").symlink_to(old)
    assert f"{old} and {tmp_path / 'link'} are one cache" in told(old, tmp_path / "link")


def test_what_keeps_caches_apart_is_said(tmp_path: Path) -> None:
    old = write_small_cache(tmp_path / "old").path
    wide = write_small_cache(tmp_path / "wide", Shape(channels=5)).path
    large = write_small_cache(tmp_path / "large", Shape(picture_px=16)).path
    assert "one: cannot be trained on together, as they differ in taps" in told(old, wide)
    assert "cannot be trained on together: their pictures have different sizes" in told(old, large)
    (wide / "teachers" / "one").rename(wide / "gone")
    assert "one: not in wide, so no run of all can use it" in told(old, wide)


def test_programs_get_a_list_of_several_and_an_object_of_one(tmp_path: Path) -> None:
    caches = [write_small_cache(tmp_path / name).path for name in ("a", "b")]
    several = json.loads(invoke("info", *map(str, caches), "--json"))
    assert [facts["path"] for facts in several] == [str(cache) for cache in caches]
    together = several[0].pop("together")
    assert json.loads(invoke("info", str(caches[0]), "--json")) == several[0]
    assert together == several[1]["together"] and (together["records"], together["shared"]) == (8, 8)
