"""The decoder: its answer by torch's own modules, its turns by NumPy, and what it tells apart inside a cell."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from difom_cache.probing import Lesson, decoder_head, dice_of

C, CELLS, GRID = 6, 8, 32


def draw_head(seed: int = 0) -> dict[str, Tensor]:
    return decoder_head.draw_weights(C, 0.2, torch.Generator().manual_seed(seed))


def test_its_logits_are_those_of_the_same_network_of_torch_modules() -> None:
    head = draw_head()
    for name in head:
        if name.endswith("bias"):
            head[name] = torch.randn(head[name].shape)
    reduce, coarse, fine, last = (
        nn.Conv2d(inputs, outputs, side, padding=side // 2)
        for inputs, outputs, side in (
            (C, 48, 1),
            (48, 24, 3),
            (24, 24, 3),
            (24, 1, 1),
        )
    )
    network = nn.Sequential(
        reduce, nn.ReLU(), coarse, nn.ReLU(), nn.Upsample((GRID, GRID), mode="bilinear"), fine, nn.ReLU(), last
    )
    keys = ("reduce", "reduce_bias", "coarse", "coarse_bias", "fine", "fine_bias", "weight", "bias")
    network.load_state_dict(dict(zip(network.state_dict(), (head[key] for key in keys), strict=True)))
    features = torch.randn(2, CELLS, CELLS, C)
    wanted = network(features.permute(0, 3, 1, 2))[:, 0]
    torch.testing.assert_close(decoder_head.speak(head, features, GRID), wanted, atol=1e-5, rtol=1e-4)


def test_its_first_answer_is_the_polyps_share() -> None:
    prob = decoder_head.speak(draw_head(), torch.zeros(1, CELLS, CELLS, C), GRID).sigmoid()
    torch.testing.assert_close(prob, torch.full_like(prob, 0.2))


@pytest.mark.parametrize("turns", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_a_view_is_turned_upside_down_then_mirrored_then_transposed(turns: tuple[int, int, int]) -> None:
    maps = torch.randn(2, 3, 5, 5)
    both = torch.zeros(3, 2, dtype=torch.bool)
    both[:, 1] = torch.tensor(turns, dtype=torch.bool)
    wanted = maps[1].numpy()
    wanted = np.flip(wanted, 1) if turns[0] else wanted
    wanted = np.flip(wanted, 2) if turns[1] else wanted
    wanted = np.swapaxes(wanted, 1, 2) if turns[2] else wanted
    turned = decoder_head.turn(maps, both)
    np.testing.assert_array_equal(turned[0], maps[0])
    np.testing.assert_array_equal(turned[1], wanted)
    np.testing.assert_array_equal(decoder_head.turn(maps[:, 0] > 0, both)[1], wanted[0] > 0)


def test_features_turned_behind_the_first_map_are_as_if_they_had_been_turned_before_it() -> None:
    head, features = draw_head(), torch.randn(4, CELLS, CELLS, C)
    turns = torch.rand((3, 4)) < 0.5
    before = decoder_head.turn(features.permute(0, 3, 1, 2), turns).permute(0, 2, 3, 1)
    everything = torch.ones(4, 48, 1, 1)
    torch.testing.assert_close(
        decoder_head.speak(head, features, GRID, everything, turns),
        decoder_head.speak(head, before, GRID),
        atol=1e-5,
        rtol=1e-4,
    )


def paint_discs(frames: int) -> Tensor:
    """Return masks (N, 32, 32) of one disc each, of 3 to 9 cells radius."""
    random = np.random.default_rng(0)
    ys, xs = np.mgrid[:GRID, :GRID] + 0.5
    discs = [
        (ys - y) ** 2 + (xs - x) ** 2 < radius**2
        for y, x, radius in zip(*random.uniform(8, 24, (2, frames)), random.uniform(3, 9, frames), strict=True)
    ]
    return torch.from_numpy(np.stack(discs)).float()


def test_it_draws_borders_inside_cells_that_cells_alone_cannot() -> None:
    """Features say how much of each cell is polyp; the best mask of whole cells is far from the truth, and it beats that."""
    truth = paint_discs(60)
    share = nn.functional.avg_pool2d(truth[:, None], GRID // CELLS)  # (N, 1, 8, 8)
    noise = torch.randn(60, CELLS, CELLS, C - 1, generator=torch.Generator().manual_seed(0))
    features = torch.cat([(share[:, 0, :, :, None] - 0.2) / 0.4, noise], dim=3)
    lesson = Lesson(features, truth, torch.ones_like(truth, dtype=torch.bool), (30, 60))
    head = decoder_head.fit(lesson, 0, 0)  # on the second half
    logits = decoder_head.speak(head, features[:30], GRID)[:, None]
    everywhere = torch.ones_like(truth[:30]).byte()
    cells = share[:30].repeat_interleave(GRID // CELLS, 2).repeat_interleave(GRID // CELLS, 3) - 0.5
    by_cells = dice_of(cells, truth[:30].byte(), everywhere).mean()
    found = dice_of(logits, truth[:30].byte(), everywhere).mean()
    assert by_cells < 0.88 and found > by_cells + 0.05
