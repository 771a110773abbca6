import numpy as np
import pytest
import torch

from difom_cache.codecs import CompactBasis, CompactCodec, fit_compact
from difom_cache.errors import CodecError


def low_rank_maps(channels: int, rank: int, seed: int = 0) -> torch.Tensor:
    """Return (6, channels, 8, 8) maps about a mean of 3 that vary along `rank` directions only."""
    own = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(channels, rank, generator=own))[0]
    strength = torch.linspace(4, 1, rank)
    return torch.einsum("cr,brhw->bchw", directions * strength, torch.randn(6, rank, 8, 8, generator=own)) + 3


def test_a_hand_worked_basis():
    # Channel 0 swings by 2 about 5, channel 1 by 1 about 0, the others are still: the first three of eight directions are
    # channel 0, channel 1 and one of no variance.
    feature = torch.zeros(1, 8, 4, 4)
    feature[0, 0] = torch.tensor([7.0, 3.0, 7.0, 3.0]).expand(4, 4)
    feature[0, 1] = torch.tensor([1.0, 1.0, -1.0, -1.0]).expand(4, 4)
    basis = fit_compact([feature])
    assert basis.mean.tolist() == [5, 0, 0, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(basis.directions[:, :2], np.eye(8)[:, :2], atol=1e-7)
    assert basis.directions.shape == (8, 3) and basis.kept_variance == 1.0
    code, scale = CompactCodec(basis).encode(feature)
    assert code[0, 0, 0].tolist() == [127, -127, 127, -127]
    np.testing.assert_allclose(scale[0, :2] * 127, [2, 1], rtol=1e-6)
    torch.testing.assert_close(CompactCodec(basis).decode(code, scale), feature)


def test_features_that_lie_in_the_kept_directions_lose_only_the_rounding():
    feature = low_rank_maps(channels=160, rank=60)  # 3/8 of 160
    basis = fit_compact([feature])
    assert basis.directions.shape == (160, 60)
    assert basis.kept_variance > 0.999999
    code, scale = CompactCodec(basis).encode(feature)
    error = (CompactCodec(basis).decode(code, scale) - feature).square().sum(1)  # (B, h, w)
    bound = (scale / 2).square().sum(1)[:, None, None]
    assert (error <= bound * 1.01).all() and error.max() > bound.max() / 10


def test_kept_variance_is_the_share_that_the_directions_keep():
    feature = torch.randn(8, 128, 8, 8, generator=torch.Generator().manual_seed(0))
    basis = fit_compact([feature])
    code, scale = CompactCodec(basis).encode(feature)
    lost = (CompactCodec(basis).decode(code, scale) - feature).square().sum()
    variance = (feature - feature.mean((0, 2, 3), keepdim=True)).square().sum()
    assert (
        0.37 < basis.kept_variance < 0.65
    )  # white noise: the kept share of directions, and a little for its chance structure
    assert float(1 - lost / variance) == pytest.approx(basis.kept_variance, abs=2e-3)


def test_the_basis_does_not_depend_on_how_the_sample_is_cut_into_batches():
    feature = low_rank_maps(128, 128)
    assert fit_compact([feature]).digest == fit_compact([feature[:1], feature[1:4], feature[4:]]).digest


def test_directions_are_orthonormal_and_their_largest_entry_is_positive():
    directions = fit_compact([low_rank_maps(128, 128)]).directions
    np.testing.assert_allclose(directions.T @ directions, np.eye(48), atol=1e-5)
    assert (directions[np.abs(directions).argmax(axis=0), np.arange(48)] > 0).all()


def test_digest_changes_with_any_number():
    basis = fit_compact([low_rank_maps(128, 40)])
    moved = basis.mean.copy()
    moved[7] = np.nextafter(moved[7], 9)
    assert CompactBasis(moved, basis.directions, basis.kept_variance).digest != basis.digest
    assert CompactBasis(basis.mean.copy(), basis.directions.copy(), 0.5).digest == basis.digest


@pytest.mark.parametrize("features", [[], [torch.zeros(1, 128, 8, 8)]])
def test_a_sample_with_too_few_positions_is_refused(features):
    with pytest.raises(CodecError, match=r"more positions.*found (0|64)"):
        fit_compact(features)


def test_a_sample_with_nan_is_refused():
    feature = low_rank_maps(128, 128)
    feature[3, 4, 0, 0] = torch.nan
    with pytest.raises(CodecError, match="NaN"):
        fit_compact([feature])


def test_a_feature_or_code_of_another_tap_is_refused():
    codec = CompactCodec(fit_compact([low_rank_maps(128, 40)]))
    with pytest.raises(CodecError, match="128 channels, not for 129"):
        codec.encode(torch.zeros(1, 129, 4, 4))
    with pytest.raises(CodecError, match="48 directions, the code 47"):
        codec.decode(np.zeros((1, 47, 4, 4), np.int8), np.ones((1, 47), np.float32))
    with pytest.raises(CodecError, match=r"\(4,\) and \(5, 3\)"):
        CompactBasis(np.zeros(4, np.float32), np.zeros((5, 3), np.float32), 1.0)
