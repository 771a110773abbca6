"""Codes are pooled before they are decoded, and nothing else comes out than when they are decoded before they are pooled."""

import numpy as np
import pytest
import torch

from difom_cache.codecs import CompactBasis, CompactCodec, build_codec
from difom_cache.teachers import area_pool
from difom_train.distill import count_shares, pool_codes

CHANNELS = 12


def draw_codes(cells, channels=CHANNELS):
    generator = torch.Generator().manual_seed(cells)
    return torch.randint(-127, 128, (2, channels, cells, cells), dtype=torch.int8, generator=generator)


@pytest.mark.parametrize(
    ("cells", "grid"), [(22, 8), (11, 8), (22, 11), (37, 5), (44, 22), (3, 1), (70, 69), (8, 8), (4, 8)]
)
def test_whole_numbers_give_the_means_of_floats(cells, grid):
    code = draw_codes(cells)
    expected = code.double() if grid >= cells else area_pool(code.double(), grid)
    torch.testing.assert_close(pool_codes(code, grid), expected.float(), rtol=1e-6, atol=1e-5)


def test_a_cell_of_too_many_parts_is_left_to_floats():
    assert count_shares(22, 8) is not None
    assert count_shares(70, 69) is None  # 69 x 69 parts


@pytest.mark.parametrize("name", ["int8", "compact", "float16"])
def test_pooling_before_decoding_changes_no_feature(name):
    generator = torch.Generator().manual_seed(0)
    if name == "compact":
        directions = np.linalg.qr(np.random.default_rng(0).normal(size=(32, CHANNELS)))[0].astype(np.float32)
        codec = CompactCodec(CompactBasis(np.arange(32, dtype=np.float32), directions, 0.9))
    else:
        codec = build_codec(name, CHANNELS)
    code = draw_codes(22) if codec.has_scale else torch.randn(2, CHANNELS, 22, 22, generator=generator).half()
    scale = torch.rand(2, CHANNELS, generator=generator) if codec.has_scale else None
    torch.testing.assert_close(
        codec.decode(pool_codes(code, 8), scale), area_pool(codec.decode(code, scale), 8), rtol=1e-5, atol=1e-5
    )
