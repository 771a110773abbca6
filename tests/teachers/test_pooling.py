import pytest
import torch

from difom_cache.errors import TeacherError
from difom_cache.teachers import area_pool


def brute_force(x: torch.Tensor, grid: int) -> torch.Tensor:
    """Return the means by cutting every old cell into grid x grid pieces, each wholly inside one new cell."""
    pieces = x.double().repeat_interleave(grid, -2).repeat_interleave(grid, -1)
    height, width = x.shape[-2:]
    return pieces.unflatten(-1, (grid, width)).unflatten(-3, (grid, height)).mean((-1, -3)).to(x.dtype)


def test_five_cells_to_two_share_the_middle_one():
    # Rows and columns each weigh (1, 1, 1/2, 0, 0) and (0, 0, 1/2, 1, 1), over 2.5.
    row = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    pooled = area_pool((row * 1.0).expand(1, 1, 5, 5), 2)
    assert (
        pooled[0, 0].tolist() == [[pytest.approx(0.8), pytest.approx(3.2)]] * 2
    )  # (0 + 1 + 2/2) / 2.5, (2/2 + 3 + 4) / 2.5


@pytest.mark.parametrize(("height", "width", "grid"), [(37, 37, 22), (23, 29, 7), (64, 64, 22), (11, 5, 5), (3, 3, 1)])
def test_every_grid_equals_brute_force(height, width, grid):
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(area_pool(x, grid), brute_force(x, grid), rtol=1e-5, atol=1e-6)


def test_the_mean_of_the_map_is_kept():
    x = torch.randn(1, 2, 37, 37, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(area_pool(x, 22).mean((2, 3)), x.mean((2, 3)), rtol=1e-5, atol=1e-6)


def test_a_constant_map_stays_constant():
    torch.testing.assert_close(area_pool(torch.full((1, 1, 37, 41), 3.7), 22), torch.full((1, 1, 22, 22), 3.7))


def test_a_map_on_its_own_grid_is_left_alone():
    x = torch.randn(1, 2, 8, 8)
    assert area_pool(x, 8) is x


def test_mirrored_maps_pool_to_mirrored_maps():
    x = torch.randn(1, 2, 37, 37)
    torch.testing.assert_close(area_pool(x.flip(-1), 22), area_pool(x, 22).flip(-1))


@pytest.mark.parametrize("grid", [0, 8, -1])
def test_a_finer_grid_is_refused(grid):
    with pytest.raises(TeacherError, match=rf"7x9 cells cannot be pooled to {grid}x{grid}: expected 1 to 7"):
        area_pool(torch.zeros(1, 1, 7, 9), grid)
