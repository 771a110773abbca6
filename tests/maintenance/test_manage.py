"""Care of a cache: finish, drop, copy."""

import time
from pathlib import Path

import numpy as np
import pytest
from small_cache import Shape, SmallCache, write_small_cache

from difom_cache import copy, drop, finish, open_cache
from difom_cache.errors import CacheFormatError, CacheIncompleteError, SettingsError
from difom_cache.store import totals_path

WIDE = Shape(records=40, channels=128, grid=8, picture_px=16)


@pytest.fixture
def small(tmp_path: Path) -> SmallCache:
    small = write_small_cache(tmp_path / "feats")
    finish(small.path)
    return small


@pytest.fixture
def wide(tmp_path: Path) -> SmallCache:
    wide = write_small_cache(tmp_path / "wide", WIDE)
    finish(wide.path)
    return wide


def test_finish_names_missing_blocks(tmp_path: Path):
    small = write_small_cache(tmp_path / "feats", leave_out=(1, 2))
    assert finish(small.path) == {"pictures": [], "teachers/one": [1, 2]}


def test_finish_looks_again_before_it_says_that_a_block_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another machine's last ticks are seen late where a file system lists for a while what it listed before."""
    small = write_small_cache(tmp_path / "feats", leave_out=())
    late = small.path / "teachers/one/ticks/000001.json"
    content = late.read_bytes()
    late.unlink()
    monkeypatch.setattr(time, "sleep", lambda _: late.write_bytes(content))
    assert finish(small.path) == {"pictures": [], "teachers/one": []}


def test_finish_sums_statistics_and_drops_those_of_the_blocks(small: SmallCache):
    assert totals_path(small.path, "teachers/one").exists()
    assert not list((small.path / "teachers/one/moments").glob("*"))


def test_lost_statistics_are_summed_again_from_the_codes(small: SmallCache):
    before = open_cache(small.path).stats("one/block1@2")
    totals_path(small.path, "teachers/one").unlink()
    finish(small.path)
    after = open_cache(small.path).stats("one/block1@2")
    assert after.count == before.count
    np.testing.assert_allclose(after.mean, before.mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(after.covariance, before.covariance, rtol=1e-4, atol=1e-6)


def test_finish_removes_what_a_killed_drop_left(small: SmallCache):
    leftover = small.path / "teachers" / ".dropped-0123abcd"
    leftover.mkdir()
    finish(small.path)
    assert not leftover.exists()


def test_a_drop_says_how_much_it_freed(small: SmallCache, run):
    held = sum(path.stat().st_size for path in (small.path / "teachers/one").rglob("*") if path.is_file())
    assert run("drop", small.path, "--teacher", "one")[:2] == (
        0,
        f"{small.path}: dropped one, {held / 1000:.1f} kB freed\n",
    )


def test_a_copy_whose_codec_falls_back_says_so(small: SmallCache, tmp_path: Path, capsys):
    copy(small.path, tmp_path / "copy", codec="packed")
    assert "int8 in place of packed for taps of fewer than 128 channels: one/block1@2" in capsys.readouterr().err


def test_dropping_a_teacher_leaves_the_rest_as_it_was(small: SmallCache):
    before = open_cache(small.path).content_digests()["pictures"]
    drop(small.path, "one")
    after = open_cache(small.path)
    assert not after.teachers
    assert after.content_digests()["pictures"] == before


def test_dropping_an_unknown_teacher_names_the_nearest(small: SmallCache):
    with pytest.raises(CacheFormatError, match="did you mean 'one'"):
        drop(small.path, "onne")


def test_a_whole_copy_has_the_same_digest(small: SmallCache, tmp_path: Path):
    copy(small.path, tmp_path / "copy")
    assert open_cache(tmp_path / "copy").content_digests() == open_cache(small.path).content_digests()


def test_a_copy_of_one_tap_keeps_its_codes_and_statistics(small: SmallCache, tmp_path: Path):
    copy(small.path, tmp_path / "copy", taps=["one/block1@2"], pictures=False)
    source, target = open_cache(small.path), open_cache(tmp_path / "copy")
    assert list(target.taps) == ["one/block1@2"]
    assert not target.has_pictures
    rows = np.arange(small.rows)
    got = target.gather(rows, pictures=False)
    np.testing.assert_array_equal(got["one/block1@2/code"], small.arrays["one/block1@2/code"])
    np.testing.assert_array_equal(target.stats("one/block1@2").mean, source.stats("one/block1@2").mean)


def test_a_compressed_copy_is_smaller_on_disk_and_reads_the_same(small: SmallCache, tmp_path: Path):
    copy(small.path, tmp_path / "copy", compress=True)
    rows = np.array([5, 0, 13, 5])
    got = open_cache(tmp_path / "copy").gather(rows)
    for key, whole in small.arrays.items():
        np.testing.assert_array_equal(got[key], whole[rows])


def test_a_copy_in_float16_keeps_the_targets_to_half_precision(small: SmallCache, tmp_path: Path):
    copy(small.path, tmp_path / "copy", codec="float16")
    rows = np.arange(small.rows)
    source, target = open_cache(small.path), open_cache(tmp_path / "copy")
    before, after = source.gather(rows), target.gather(rows)
    tap = "one/block1@2"
    live = source.decode(tap, before[f"{tap}/code"], before[f"{tap}/scale"])
    np.testing.assert_allclose(target.decode(tap, after[f"{tap}/code"]), live, rtol=2**-10, atol=2**-24)


def test_a_copy_into_compact_is_refused_and_names_packed(wide: SmallCache, tmp_path: Path, run):
    code, _, line = run("copy", wide.path, tmp_path / "copy", "--codec", "compact")
    assert code == 2 and "choose --codec packed" in line and line.count("\n") == 1
    assert not (tmp_path / "copy").exists()


def test_a_packed_copy_has_a_seventh_of_the_codes_and_goes_on_with_its_basis(wide: SmallCache, tmp_path: Path):
    copy(wide.path, tmp_path / "copy", codec="packed")
    opened = open_cache(tmp_path / "copy")
    got = opened.gather(np.arange(4), pictures=False)
    assert got["one/block1@2/code"].shape == (4, 18, 8, 8) and got["one/block1@2/scale"].shape == (4, 129)
    assert got["one/logits@2/code"].dtype == np.float16  # logits keep their own codec
    whole = opened.content_digests()
    next((tmp_path / "copy/teachers/one/ticks").glob("*")).unlink()
    copy(wide.path, tmp_path / "copy", codec="packed")
    assert open_cache(tmp_path / "copy").content_digests() == whole
    copy(tmp_path / "copy", tmp_path / "again")  # a copy of a copy takes its basis as it is
    assert open_cache(tmp_path / "again").content_digests() == whole


def test_a_copy_that_stopped_is_finished_by_running_it_again(small: SmallCache, tmp_path: Path):
    copy(small.path, tmp_path / "copy")
    whole = open_cache(tmp_path / "copy").content_digests()
    next((tmp_path / "copy/teachers/one/ticks").glob("*")).unlink()
    copy(small.path, tmp_path / "copy")
    assert open_cache(tmp_path / "copy").content_digests() == whole


def test_a_copy_onto_itself_or_of_an_unknown_tap_is_refused(small: SmallCache, tmp_path: Path):
    with pytest.raises(SettingsError, match="same folder"):
        copy(small.path, small.path)
    with pytest.raises(CacheIncompleteError, match=r"one/block9@2.*it has one/block1@2"):
        copy(small.path, tmp_path / "copy", taps=["one/block9@2"])
