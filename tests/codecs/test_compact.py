import numpy as np
import pytest
import torch
from compact_basis import fit_compact

from difom_cache.codecs import CompactBasis, CompactCodec
from difom_cache.errors import CodecError


def low_rank_maps(channels: int, rank: int, seed: int = 0) -> torch.Tensor:
    """Return (6, channels, 8, 8) maps about a mean of 3 that vary along `rank` directions only."""
    own = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(channels, rank, generator=own))[0]
    strength = torch.linspace(4, 1, rank)
    return torch.einsum("cr,brhw->bchw", directions * strength, torch.randn(6, rank, 8, 8, generator=own)) + 3


def test_a_hand_worked_code():
    # Channel 0 swings by 2 about 5, channel 1 by 1 about 0, the others are still: three of eight directions are kept.
    feature = torch.zeros(1, 8, 4, 4)
    feature[0, 0] = torch.tensor([7.0, 3.0, 7.0, 3.0]).expand(4, 4)
    feature[0, 1] = torch.tensor([1.0, 1.0, -1.0, -1.0]).expand(4, 4)
    mean = np.array([5, 0, 0, 0, 0, 0, 0, 0], np.float32)
    codec = CompactCodec(CompactBasis(mean, np.eye(8, 3, dtype=np.float32), 1.0))
    code, scale = codec.encode(feature)
    assert code[0, 0, 0].tolist() == [127, -127, 127, -127]
    np.testing.assert_allclose(scale[0, :2] * 127, [2, 1], rtol=1e-6)
    torch.testing.assert_close(codec.decode(code, scale), feature)


def test_features_that_lie_in_the_kept_directions_lose_only_the_rounding():
    feature = low_rank_maps(channels=160, rank=60)  # 3/8 of 160
    basis = fit_compact([feature])
    assert basis.directions.shape == (160, 60)
    assert basis.kept_variance > 0.999999
    code, scale = CompactCodec(basis).encode(feature)
    error = (CompactCodec(basis).decode(code, scale) - feature).square().sum(1)  # (B, h, w)
    bound = (scale / 2).square().sum(1)[:, None, None]
    assert (error <= bound * 1.01).all() and error.max() > bound.max() / 10


def test_digest_changes_with_any_number():
    basis = fit_compact([low_rank_maps(128, 40)])
    moved = basis.mean.copy()
    moved[7] = np.nextafter(moved[7], 9)
    assert CompactBasis(moved, basis.directions, basis.kept_variance).digest != basis.digest
    assert CompactBasis(basis.mean.copy(), basis.directions.copy(), 0.5).digest == basis.digest


def test_a_feature_or_code_of_another_tap_is_refused():
    codec = CompactCodec(fit_compact([low_rank_maps(128, 40)]))
    with pytest.raises(CodecError, match="128 channels, not for 129"):
        codec.encode(torch.zeros(1, 129, 4, 4))
    with pytest.raises(CodecError, match="48 directions, the code 47"):
        codec.decode(np.zeros((1, 47, 4, 4), np.int8), np.ones((1, 47), np.float32))
    with pytest.raises(CodecError, match=r"\(4,\) and \(5, 3\)"):
        CompactBasis(np.zeros(4, np.float32), np.zeros((5, 3), np.float32), 1.0)
