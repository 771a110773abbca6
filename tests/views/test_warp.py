"""View 0 through another view's geometry is what replay makes of the source."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from difom_cache import ViewParams, replay_image, replay_mask
from difom_cache.views import replay_valid, warp_view

WIDTH, HEIGHT, SIDE = 200, 150, 64
FRAME = ViewParams(top=0, left=0, height=HEIGHT, width=WIDTH)


def draw(rng: np.random.Generator) -> ViewParams:
    height, width = int(rng.integers(70, HEIGHT + 1)), int(rng.integers(80, WIDTH + 1))
    return ViewParams(
        top=int(rng.integers(0, HEIGHT - height + 1)),
        left=int(rng.integers(0, WIDTH - width + 1)),
        height=height,
        width=width,
        flip_h=int(rng.integers(2)),
        flip_v=int(rng.integers(2)),
        quarter_turns=int(rng.integers(4)),
        angle_mdeg=int(rng.choice([0, rng.integers(-40_000, 40_000)])),
        pad=int(rng.integers(2)),
    )


@pytest.fixture
def smooth() -> torch.Tensor:
    """A picture without fine detail, so that sampling it twice loses little; no symmetry."""
    coarse = torch.rand((1, 3, 5, 7), generator=torch.Generator().manual_seed(0))
    picture = functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic", align_corners=True)[0]
    return (picture.clamp(0, 1) * 255).round().byte()


def test_a_warped_view_0_is_the_replayed_view(smooth: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    params = [draw(rng) for _ in range(40)]
    whole = replay_image(smooth, FRAME, SIDE)
    warped = warp_view(whole.expand(len(params), -1, -1, -1), params, [(WIDTH, HEIGHT)] * len(params))
    for each, found in zip(params, warped, strict=True):
        shown = replay_valid(each, SIDE).bool()
        inner = shown & (torch.arange(SIDE) > 1) & (torch.arange(SIDE) < SIDE - 2)
        inner &= ((torch.arange(SIDE) > 1) & (torch.arange(SIDE) < SIDE - 2))[:, None]
        assert (found - replay_image(smooth, each, SIDE))[:, inner].abs().mean() < 0.01, each


def test_the_frame_itself_stays_as_it_is() -> None:
    whole = torch.rand((1, 2, 9, 9), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(warp_view(whole, [FRAME], [(WIDTH, HEIGHT)]), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"flip_h": 1}, [[2.0, 1.0], [4.0, 3.0]]),
        ({"flip_v": 1}, [[3.0, 4.0], [1.0, 2.0]]),
        ({"quarter_turns": 1}, [[2.0, 4.0], [1.0, 3.0]]),
        ({"flip_h": 1, "quarter_turns": 1}, [[1.0, 3.0], [2.0, 4.0]]),
    ],
)
def test_flips_and_quarter_turns_move_whole_cells(change: dict[str, int], wanted: list[list[float]]) -> None:
    params = ViewParams(top=0, left=0, height=HEIGHT, width=WIDTH, **change)
    found = warp_view(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), [params], [(WIDTH, HEIGHT)])
    torch.testing.assert_close(found[0, 0], torch.tensor(wanted))


def test_a_warped_mask_is_the_mask_of_the_view() -> None:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mask = torch.from_numpy((np.hypot(y - 70, x - 90) < 45).astype(np.uint8))
    whole = replay_mask(mask, FRAME, SIDE).float()[None, None]
    for each in (draw(rng) for _ in range(20)):
        found = warp_view(whole, [each], [(WIDTH, HEIGHT)])[0, 0] >= 0.5
        truth = replay_mask(mask, each, SIDE).bool()
        found &= replay_valid(each, SIDE).bool()
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.95, each
