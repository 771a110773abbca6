import pytest
import torch

from difom_train.distill import Comparison, cells_inside, count_moments, resize_to_coarser, summarise_moments


def summarise(*comparisons):
    return summarise_moments(count_moments(comparisons))


def test_a_perfect_copy_explains_all_and_the_mean_explains_nothing():
    target = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    mean = target.mean(dim=(0, 2, 3), keepdim=True).expand_as(target)
    inside = torch.ones(4, 1, 5, 5)
    logged = summarise(
        Comparison("a", "bottleneck", target, target, inside), Comparison("b", "decoder1", mean, target, inside)
    )
    assert logged["distill/explained/a"] == pytest.approx(1)
    assert logged["distill/explained/b"] == pytest.approx(0, abs=1e-6)
    assert logged["distill/student_var/decoder1"] == pytest.approx(0, abs=1e-6)
    assert logged["distill/target_var/a"] == pytest.approx(target.var(dim=(0, 2, 3), correction=0).mean().item())


def test_the_cosine_does_not_see_the_scale_and_one_channel_has_none():
    target = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    inside = torch.ones(2, 1, 4, 4)
    logged = summarise(Comparison("a", "x", 5 * target, target, inside), Comparison("a", "y", -target, target, inside))
    assert logged["distill/cosine/a"] == pytest.approx(0)  # the mean of 1 and -1
    assert summarise(Comparison("a", "x", 5 * target, target, inside))["distill/cosine/a"] == pytest.approx(1)
    assert "distill/cosine/b" not in summarise(Comparison("b", "x", target[:, :1], target[:, :1], inside))


def test_sums_over_batches_are_those_of_one_batch():
    student, target = torch.randn(2, 6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    inside = (torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.3).float()
    whole = count_moments([Comparison("a", "l", student, target, inside)])
    parts = [count_moments([Comparison("a", "l", student[i], target[i], inside[i])]) for i in (slice(2), slice(2, 6))]
    for key, value in whole.items():
        torch.testing.assert_close(parts[0][key] + parts[1][key], value)


def test_several_levels_of_one_tap_are_told_apart():
    target = torch.randn(2, 3, 4, 4)
    inside = torch.ones(2, 1, 4, 4)
    logged = summarise(
        Comparison("a", "encoder4", torch.zeros_like(target), target, inside),
        Comparison("a", "decoder1", target, target, inside),
    )
    assert logged["distill/explained/a:decoder1"] == pytest.approx(1)
    assert logged["distill/explained/a:encoder4"] < 0.01
    assert 0.4 < logged["distill/explained/a"] < 0.6


def test_maps_meet_on_the_coarser_grid():
    fine, coarse = torch.arange(16.0).view(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)
    student, target = resize_to_coarser(fine, coarse)
    assert student.tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]] and target is coarse
    assert resize_to_coarser(coarse, fine)[1].shape == (1, 1, 2, 2)


def test_a_cell_counts_where_half_of_it_shows_the_frame():
    valid = torch.zeros(1, 4, 4, dtype=torch.uint8)
    valid[0, :2] = 1
    valid[0, 2, :3] = 1  # lower left cell: 2 of 4 pixels; lower right: 1 of 4
    like = torch.zeros(1, 7, 2, 2)
    assert cells_inside(valid, like).tolist() == [[[[1, 1], [1, 0]]]]
    assert cells_inside(None, like).tolist() == [[[[1, 1], [1, 1]]]]
