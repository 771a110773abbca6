import math

import pytest
import torch

from difom_train.distill import fill_outside, halfwidth_cycles, split_as_published, split_bands


def split_by_fft(x):
    """The paper's recipe, word by word, with a symmetric window."""
    height, width = x.shape[-2:]
    halfwidth = min(height, width) // 6
    rows = torch.fft.fftfreq(height).mul(height).round().abs() <= halfwidth
    columns = torch.fft.fftfreq(width).mul(width).round().abs() <= halfwidth
    low = torch.fft.ifft2(torch.fft.fft2(x) * (rows[:, None] & columns[None, :]))
    assert low.imag.abs().max() < 1e-6  # a symmetric window leaves nothing to drop
    return low.real, x - low.real


@pytest.mark.parametrize("grid", [(22, 22), (11, 11), (8, 8), (4, 4), (22, 30), (7, 12), (1, 1)])
def test_the_split_equals_fft_window_and_inverse_fft(grid):
    x = torch.randn(2, 3, *grid, generator=torch.Generator().manual_seed(0))
    for band, expected in zip(split_bands(x), split_by_fft(x), strict=True):
        torch.testing.assert_close(band, expected, atol=2e-6, rtol=1e-5)


def test_bands_sum_to_the_map_and_share_nothing():
    x = torch.randn(2, 3, 22, 22, generator=torch.Generator().manual_seed(0))
    low, high = split_bands(x)
    torch.testing.assert_close(low + high, x)
    torch.testing.assert_close((low * high).sum(dim=(2, 3)), torch.zeros(2, 3), atol=1e-3, rtol=0)


def test_a_constant_is_all_low_and_a_checkerboard_all_high():
    constant = torch.full((1, 1, 12, 12), 3.5)
    torch.testing.assert_close(split_bands(constant)[0], constant)
    board = torch.tensor([[(-1.0) ** (i + j) for j in range(12)] for i in range(12)])[None, None]
    torch.testing.assert_close(split_bands(board)[1], board)


def test_the_window_ends_where_the_paper_says_in_cycles_per_picture():
    assert halfwidth_cycles(22, 22) == 3
    position = torch.arange(22) / 22
    for cycles, is_low in ((3, True), (4, False)):
        wave = torch.cos(2 * math.pi * cycles * position).expand(1, 1, 22, 22)
        low, high = split_bands(wave)
        torch.testing.assert_close(low if is_low else high, wave, atol=1e-5, rtol=0)


def test_cells_outside_the_frame_get_the_mean_of_those_inside():
    x = torch.tensor([[[[1.0, 3.0], [99.0, 5.0]]]])
    inside = torch.tensor([[[[1.0, 1.0], [0.0, 1.0]]]])
    assert fill_outside(x, inside).tolist() == [[[[1.0, 3.0], [3.0, 5.0]]]]


def test_the_notebooks_window_lacks_one_side_of_its_highest_frequency():
    """-r..r-1: of a cosine at r cycles only half comes through; r - 1 cycles pass whole."""
    position = torch.arange(64) / 64
    for cycles, share in ((9, 1.0), (10, 0.5), (11, 0.0)):
        wave = torch.cos(2 * math.pi * cycles * position).expand(1, 1, 64, 64)
        low, _ = split_as_published(wave)
        torch.testing.assert_close(low, share * wave, atol=1e-5, rtol=0)
