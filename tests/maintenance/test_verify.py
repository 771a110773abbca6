"""Verification names what is damaged, and extraction then makes just that anew."""

import json
from pathlib import Path

import numpy as np
import pytest
from painted_folder import paint_folder
from safetensors.numpy import load

from difom_cache import Cache, extract, finish, open_cache, probe, verify
from difom_cache.errors import (
    CacheDamagedError,
    CacheFormatError,
    CacheIdentityError,
    CacheIncompleteError,
    EngineError,
)
from difom_cache.store import canonical, marker_path, shard_path, totals_path

SMALL = {"teacher": "dinov2:tiny@56", "weights": "random", "input_size": 64, "views": 3, "quiet": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_folder(tmp_path_factory.mktemp("data"), frames=14)


@pytest.fixture
def cache(data: Path, tmp_path: Path) -> Cache:
    extract(data=data, cache=tmp_path / "feats", **SMALL)
    return open_cache(tmp_path / "feats")


def shard_of(cache: Cache, block: int) -> Path:
    column = cache.column("teachers/dinov2-tiny-random")
    return shard_path(cache.path, column, column.arrays[0], block)


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def edit_marker(path: Path) -> None:
    marker = json.loads(path.read_text())
    next(iter(marker["files"].values()))["sha256"] = "0" * 64
    path.write_text(json.dumps(marker))


def test_a_sound_cache_is_called_sound(cache: Cache):
    report = verify(cache.path)
    assert report.sound
    assert report.checked_files == sum(len(c.arrays) * c.blocks for c in cache.columns())


@pytest.mark.parametrize("harm", [flip_byte, cut_short, Path.unlink])
def test_a_harmed_shard_is_named_and_extraction_makes_just_its_block_anew(cache: Cache, data: Path, harm):
    before = cache.content_digests()
    harm(shard_of(cache, 1))
    report = verify(cache.path)
    assert report.damaged == {"teachers/dinov2-tiny-random": [1]}
    assert str(shard_of(cache, 1)) in report.render()
    again = extract(data=data, cache=cache.path, **SMALL)
    assert dict(again.computed_blocks) == {"teachers/dinov2-tiny-random": 1}
    assert open_cache(cache.path).content_digests() == before
    assert verify(cache.path).sound


def test_an_edited_marker_is_named_and_its_block_made_anew(cache: Cache, data: Path):
    before = cache.content_digests()
    edit_marker(marker_path(cache.path, cache.column("teachers/dinov2-tiny-random"), 0))
    assert verify(cache.path).damaged == {"teachers/dinov2-tiny-random": [0]}
    assert dict(extract(data=data, cache=cache.path, **SMALL).computed_blocks) == {"teachers/dinov2-tiny-random": 1}
    assert open_cache(cache.path).content_digests() == before


def test_readers_refuse_blocks_that_were_found_damaged(cache: Cache):
    flip_byte(shard_of(cache, 1))
    verify(cache.path)
    start, _ = cache.column("teachers/dinov2-tiny-random").range_of(1)
    with pytest.raises(CacheDamagedError, match="block 1"):
        open_cache(cache.path).gather([start])


def test_lost_statistics_are_a_problem_that_names_the_way_out(cache: Cache):
    totals_path(cache.path, "teachers/dinov2-tiny-random").unlink()
    report = verify(cache.path)
    assert not report.sound
    assert "difom-cache finish" in report.render()


def test_a_flipped_byte_in_the_statistics_is_named_and_mended_as_the_message_says(cache: Cache):
    totals = totals_path(cache.path, "teachers/dinov2-tiny-random")
    whole = totals.read_bytes()
    flip_byte(totals)
    report = verify(cache.path)
    assert [str(totals) in problem for problem in report.problems] == [True]
    totals.unlink()
    finish(cache.path)
    assert verify(cache.path).sound
    mended, meant = load(totals.read_bytes()), load(whole)
    for name in meant:
        np.testing.assert_allclose(mended[name], meant[name], rtol=1e-5, atol=1e-5)


def test_missing_blocks_are_listed_but_are_no_damage(data: Path, tmp_path: Path):
    extract(data=data, cache=tmp_path / "part", part="1/2", **SMALL)
    report = verify(tmp_path / "part")
    assert report.sound
    assert report.missing["teachers/dinov2-tiny-random"] == [1]


def test_recomputed_views_agree_with_what_is_stored(cache: Cache, data: Path):
    report = verify(cache.path, recompute=6, equivariance=True, data=data, weights="random")
    for tap, figures in report.recomputed.items():
        assert figures["cosine_mean"] > 0.999, tap
        assert report.mirrored[tap] < figures["cosine_mean"]  # a mirrored map is not the map of the mirrored picture


def test_maps_warped_by_known_geometry_are_compared_without_pictures_or_teachers(cache: Cache) -> None:
    probe(cache=cache.path, teachers="dinov2", folds=2, name="heads", quiet=True)
    report = verify(cache.path, equivariance=True, data="nowhere")
    assert set(report.warped) == set(open_cache(cache.path).taps) and not report.recomputed
    logits = report.warped["heads/logits@4"]
    assert logits["dice_encoded"] > 0.3 and logits["dice_warped"] > 0.3
    assert all(-1 <= figures["cosine"] < 0.999 and figures["views"] > 10 for figures in report.warped.values())
    text = report.render()
    assert "cosine  Dice encoded  Dice warped" in text and "heads/logits@4" in text


def test_a_cache_of_views_0_has_nothing_to_warp_to(data: Path, tmp_path: Path) -> None:
    extract(data=data, cache=tmp_path / "one", **SMALL | {"views": 1})
    with pytest.raises(CacheIncompleteError, match="holds no view but 0"):
        verify(tmp_path / "one", equivariance=True)


def test_other_pictures_cannot_be_compared(cache: Cache, data: Path, tmp_path: Path):
    other = paint_folder(tmp_path / data.name, frames=14, width=44)
    with pytest.raises(CacheIdentityError, match="not the picture"):
        verify(cache.path, recompute=2, data=other, weights="random")


def test_another_size_of_a_teacher_cannot_be_compared(cache: Cache, data: Path):
    with pytest.raises(CacheFormatError, match="holds none of the teachers dinov2:tiny@70; it has dinov2-tiny-random"):
        verify(cache.path, recompute=2, data=data, teacher=["dinov2:tiny@70"], weights="random")


def test_other_weights_cannot_be_compared(cache: Cache, data: Path):
    path = cache.path / "teachers" / "dinov2-tiny-random" / "identity.json"
    identity = json.loads(path.read_text())
    identity["teacher"]["weights_digest"] = "0" * 64
    path.write_bytes(canonical(identity))
    with pytest.raises(EngineError, match="weights_digest: held 000"):
        verify(cache.path, recompute=2, data=data, weights="random")
