import json
from math import isnan

import pytest
import torch

from difom_cache.codecs import BINS, Fidelity, measure_fidelity
from difom_cache.errors import CacheFormatError


def everywhere(feature: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(feature), *feature.shape[2:], dtype=torch.bool)


def test_hand_worked_sums():
    # Two cells of two channels, (3, 1) and (1, 1): the mean is (2, 1), the vectors about it (1, 0) and (-1, 0).
    feature = torch.tensor([[[[3.0, 1.0]], [[1.0, 1.0]]]])
    target = torch.tensor([[[[3.0, 3.0]], [[2.0, 0.0]]]])  # about the same mean: (1, 1) and (1, -1)
    fidelity = measure_fidelity(feature, target, everywhere(feature))
    assert fidelity.as_dict() == {
        "positions": 2.0,
        "squared_error": pytest.approx(1.0 + 5.0),
        "squares": 9.0 + 1.0 + 1.0 + 1.0,
        "squares_about_mean": 2.0,
        "cosine_distance": pytest.approx((1 - 0.5**0.5) + (1 + 0.5**0.5)),
        "histogram": {"150": 1, "165": 1},  # 1 + 20 * (8 + log10(0.29289)) = 150.3; with 1.70711, 165.6
    }
    assert fidelity.relative_l2 == pytest.approx(0.5**0.5)
    assert fidelity.kept_variance == pytest.approx(1 - 6 / 2)
    assert fidelity.mean_cosine == pytest.approx(0.0, abs=1e-6)


def test_small_distances_keep_their_digits():
    own = torch.Generator().manual_seed(0)
    feature = torch.randn(2, 64, 9, 9, generator=own)
    target = feature + 1e-5 * torch.randn(2, 64, 9, 9, generator=own)
    fidelity = measure_fidelity(feature, target, everywhere(feature))
    mean = feature.double().mean((2, 3), keepdim=True)
    cosine = torch.cosine_similarity(feature.double() - mean, target.double() - mean, dim=1)
    assert 1 - fidelity.mean_cosine == pytest.approx(float((1 - cosine).mean()), rel=0.01)
    assert float((1 - cosine).mean()) < 1e-10


def test_a_percentile_is_never_better_than_the_truth_and_at_most_a_bin_worse():
    own = torch.Generator().manual_seed(0)
    feature = torch.randn(4, 16, 20, 20, generator=own)
    target = feature + 0.3 * torch.rand(4, 1, 20, 20, generator=own) * torch.randn(4, 16, 20, 20, generator=own)
    fidelity = measure_fidelity(feature, target, everywhere(feature))
    mean = feature.mean((2, 3), keepdim=True)
    truth = float(torch.cosine_similarity(feature - mean, target - mean, dim=1).flatten().sort().values[15])
    read = fidelity.cosine_percentile(1)  # of 1600 positions 16 may lie below
    assert truth - 0.13 * (1 - truth) <= read <= truth


def test_merged_parts_equal_the_whole():
    own = torch.Generator().manual_seed(0)
    feature, target = torch.randn(2, 5, 8, 6, 6, generator=own)
    whole = measure_fidelity(feature, target, everywhere(feature))
    parts = [measure_fidelity(feature[i : i + 1], target[i : i + 1], everywhere(feature[:1])) for i in range(5)]
    merged = sum(parts[1:], start=parts[0])
    torch.testing.assert_close(merged.sums, whole.sums)
    assert torch.equal(merged.histogram, whole.histogram)


def test_cells_that_are_not_valid_count_nowhere():
    own = torch.Generator().manual_seed(0)
    feature, target = torch.randn(2, 1, 8, 4, 4, generator=own)
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    valid[:, :, :2] = True
    cut = measure_fidelity(feature[..., :2], target[..., :2], valid[..., :2])
    masked = measure_fidelity(feature, target, valid)
    torch.testing.assert_close(masked.sums, cut.sums)
    assert torch.equal(masked.histogram, cut.histogram) and masked.positions == 8


def test_equal_maps_are_faithful_even_where_they_are_constant():
    feature = torch.zeros(1, 4, 3, 3)
    fidelity = measure_fidelity(feature, feature, everywhere(feature))
    assert (fidelity.mean_cosine, fidelity.relative_l2, fidelity.kept_variance) == (1.0, 0.0, 1.0)
    assert fidelity.cosine_percentile(1) == pytest.approx(1.0, abs=1e-7)


def test_a_map_that_came_back_as_its_mean_has_no_cosine():
    feature = torch.tensor([[[[1.0, -1.0]]]])
    fidelity = measure_fidelity(feature, torch.zeros_like(feature), everywhere(feature))
    assert (fidelity.mean_cosine, fidelity.kept_variance) == (0.0, 0.0)


def test_the_cosine_of_one_channel_is_taken_over_each_picture():
    # About their means the pictures are (-1, 1, 0) and (-2, 0, 2), the targets (1, 1, 0) and (-2, 0, 2): cosines 0 and 1.
    feature = torch.tensor([[4.0, 6.0, 5.0], [3.0, 5.0, 7.0]]).view(2, 1, 1, 3)
    target = torch.tensor([[6.0, 6.0, 5.0], [3.0, 5.0, 7.0]]).view(2, 1, 1, 3)
    fidelity = measure_fidelity(feature, target, everywhere(feature))
    assert fidelity.mean_cosine == pytest.approx((3 * 0 + 3 * 1) / 6)
    assert fidelity.positions == 6 and fidelity.histogram[0] == 3


def test_nothing_measured_is_nan_not_a_number_that_looks_good():
    feature = torch.ones(1, 2, 2, 2)
    fidelity = measure_fidelity(feature, feature, torch.zeros(1, 2, 2, dtype=torch.bool))
    for value in (fidelity.mean_cosine, fidelity.relative_l2, fidelity.kept_variance, fidelity.cosine_percentile(1)):
        assert value != value


def test_nothing_is_kept_of_a_variance_that_was_not_there():
    """As of maps with a single cell, each of which is its own mean; to describe them ended in a division by zero."""
    feature = torch.full((1, 3, 1, 1), 0.3)
    fidelity = measure_fidelity(feature, feature + 1e-3, everywhere(feature))
    assert isnan(fidelity.kept_variance) and 0 < fidelity.relative_l2 < 0.01


def test_features_with_nan_and_infinity_do_not_break_the_sums():
    feature = torch.ones(1, 2, 2, 2)
    feature[0, 0, 0, 0], feature[0, 1, 1, 1] = torch.nan, torch.inf
    assert measure_fidelity(feature, feature.nan_to_num(), everywhere(feature)).histogram.sum() == 4


def test_sums_survive_json():
    feature, target = torch.randn(2, 3, 8, 5, 5)
    fidelity = measure_fidelity(feature, target, everywhere(feature))
    read = Fidelity.from_dict(json.loads(json.dumps(fidelity.as_dict())))
    assert read.sums.tolist() == fidelity.sums.tolist() and read.histogram.tolist() == fidelity.histogram.tolist()
    assert (read + read).mean_cosine == fidelity.mean_cosine


@pytest.mark.parametrize("change", [{"squares": None}, {"histogram": {str(BINS): 1}}, {"histogram": 3}])
def test_foreign_sums_are_refused(change):
    feature = torch.ones(1, 2, 2, 2)
    stored = measure_fidelity(feature, feature, everywhere(feature)).as_dict() | change
    with pytest.raises(CacheFormatError, match="no fidelity sums"):
        Fidelity.from_dict(stored)
