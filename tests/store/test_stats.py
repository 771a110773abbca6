"""Statistics: sums over cells that merge in any grouping, folded once, and never quietly incomplete."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from small_cache import SmallCache, moments_of, write_small_cache

from difom_cache import open_cache
from difom_cache.errors import CacheDamagedError, CacheIncompleteError
from difom_cache.store import Moments, fold_statistics, pack_moments, read_markers, read_moments, read_statistics, stats

TAP = "block1@2"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> SmallCache:
    return write_small_cache(tmp_path_factory.mktemp("stats") / "small")


@pytest.fixture
def small(written: SmallCache, tmp_path: Path) -> SmallCache:
    """A copy that a test may change."""
    return SmallCache(Path(shutil.copytree(written.path, tmp_path / "small")), written.columns, written.arrays)


def fold(small: SmallCache) -> bool:
    column = small.columns["teachers/one"]
    return fold_statistics(small.path, column, read_markers(small.path, column))


def expected(small: SmallCache) -> np.ndarray:
    """Return every cell of the twelve training rows: (C, cells)."""
    target = small.arrays["one/block1@2/code"][:12].astype(np.float32)
    target *= small.arrays["one/block1@2/scale"][:12, :, None, None]
    return target.transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64)


def test_moments_of_three_cells_worked_by_hand(tmp_path: Path) -> None:
    moments = moments_of(np.array([[[[1.0, 2.0, 3.0]], [[0.0, 0.0, 6.0]]]], np.float32))
    (tmp_path / "m").write_bytes(pack_moments({"tap": moments}))
    read = read_moments(tmp_path / "m")["tap"]
    assert (read.count, read.total.tolist()) == (3, [6.0, 6.0])
    assert read.product.tolist() == [[14.0, 18.0], [18.0, 36.0]]


def test_moments_add_up(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    whole, parts = moments_of(features), moments_of(features[:1]) + moments_of(features[1:])
    assert whole.count == parts.count == 16
    np.testing.assert_allclose(parts.total, whole.total)
    np.testing.assert_allclose(parts.product, whole.product)


@pytest.mark.parametrize("folded", [False, True])
def test_statistics_equal_those_of_numpy_before_and_after_folding(small: SmallCache, folded: bool) -> None:
    assert not folded or fold(small)
    read, cells = open_cache(small.path).stats("one/block1@2"), expected(small)
    assert read.count == cells.shape[1] == 12 * 16
    np.testing.assert_allclose(read.mean, cells.mean(1), rtol=1e-12)
    np.testing.assert_allclose(read.covariance, np.cov(cells, bias=True), atol=1e-6 * (cells**2).mean())


def test_folding_leaves_one_file_and_may_be_done_again(small: SmallCache) -> None:
    assert fold(small)
    assert list((small.path / "teachers/one/moments").iterdir()) == []
    before = (small.path / "teachers/one/statistics.safetensors").read_bytes()
    assert fold(small)
    assert (small.path / "teachers/one/statistics.safetensors").read_bytes() == before


def test_folding_that_was_killed_after_its_totals_drops_the_rest(small: SmallCache, tmp_path: Path) -> None:
    kept = Path(shutil.copytree(small.path / "teachers/one/moments", tmp_path / "moments"))
    assert fold(small)
    shutil.copytree(kept, small.path / "teachers/one/moments", dirs_exist_ok=True)
    assert fold(small)
    assert list((small.path / "teachers/one/moments").iterdir()) == []


def test_nothing_is_folded_before_every_block_is_there(tmp_path: Path) -> None:
    small = write_small_cache(tmp_path, leave_out=(3,))
    assert not fold(small)
    assert not (small.path / "teachers/one/statistics.safetensors").exists()


def test_a_half_finished_cache_has_the_statistics_of_its_finished_blocks(tmp_path: Path) -> None:
    small = write_small_cache(tmp_path, leave_out=(1, 2))
    read = open_cache(small.path).stats("one/block1@2")
    assert read.count == 4 * 16
    np.testing.assert_allclose(read.mean, expected(small)[:, : 4 * 16].mean(1), rtol=1e-12)


def test_blocks_of_validation_views_alone_are_no_statistics(tmp_path: Path) -> None:
    small = write_small_cache(tmp_path, leave_out=(0, 1, 2))
    with pytest.raises(CacheIncompleteError, match="no block with training views is finished"):
        open_cache(small.path).stats("one/block1@2")


def test_lost_moments_are_an_error_and_not_a_smaller_sum(small: SmallCache) -> None:
    (small.path / "teachers/one/moments/000001.safetensors").unlink()
    with pytest.raises(CacheDamagedError, match=r"000001\.safetensors is missing.*difom-cache finish"):
        open_cache(small.path).stats("one/block1@2")
    assert not fold(small)
    assert not (small.path / "teachers/one/statistics.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"short", b"\x00" * 64])
def test_statistics_that_cannot_be_read_are_named(small: SmallCache, content: bytes) -> None:
    (small.path / "teachers/one/moments/000000.safetensors").write_bytes(content)
    with pytest.raises(CacheDamagedError, match=r"000000\.safetensors cannot be read"):
        open_cache(small.path).stats("one/block1@2")


def test_a_flipped_bit_anywhere_in_statistics_is_found(small: SmallCache) -> None:
    path = small.path / "teachers/one/moments/000000.safetensors"
    whole = path.read_bytes()
    for place in range(8, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CacheDamagedError, match=r"000000\.safetensors cannot be read"):
            read_moments(path)


def test_statistics_read_while_another_writer_folds_them_are_whole(
    small: SmallCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    column, whole_read = small.columns["teachers/one"], stats.read_moments
    markers = read_markers(small.path, column)

    def fold_meanwhile(path: Path) -> dict[str, Moments]:
        read = whole_read(path)
        with monkeypatch.context() as other_writer:
            other_writer.setattr(stats, "read_moments", whole_read)
            fold_statistics(small.path, column, markers)
        return read

    monkeypatch.setattr(stats, "read_moments", fold_meanwhile)
    assert read_statistics(small.path, column, markers, TAP).count == 12 * 16


def test_one_channel_has_a_covariance_too(small: SmallCache) -> None:
    read = open_cache(small.path).stats("one/logits@2")
    logits = small.arrays["one/logits@2/code"][:12].astype(np.float64)
    assert read.covariance.shape == (1, 1)
    np.testing.assert_allclose(read.covariance[0, 0], logits.var(), rtol=1e-5)
