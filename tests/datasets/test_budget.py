"""A budget of masks: whole groups, nested shares, one seed."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difom_cache import draw_budget
from difom_cache.errors import SettingsError

SEQUENCES = [f"seq{number // 7}" for number in range(70)] + [f"frame{number}" for number in range(130)]
ALL = np.ones(len(SEQUENCES), bool)


def test_smaller_budgets_lie_inside_larger_ones_of_the_same_seed() -> None:
    for seed in range(20):
        budgets = [draw_budget(SEQUENCES, ALL, share=share, labels_seed=seed) for share in (0.05, 0.1, 0.25, 0.9, 1.0)]
        for small, large in pairwise(budgets):
            assert not (small & ~large).any()
            assert small.sum() < large.sum()
        assert budgets[-1].all()


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 5),
)
def test_a_budget_holds_whole_groups_and_is_off_by_half_a_group_at_most(
    sizes: list[int], share: float, seed: int
) -> None:
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    labelled = np.ones(len(groups), bool)
    try:
        budget = draw_budget(groups, labelled, share=share, labels_seed=seed)
    except SettingsError as error:
        assert "holds none" in str(error) and share * len(groups) <= max(sizes) / 2
        return
    assert budget.any() and abs(budget.sum() - share * len(groups)) <= max(sizes) / 2
    for name in set(groups):
        assert len({bool(kept) for kept, group in zip(budget, groups, strict=True) if group == name}) == 1


def test_a_tenth_of_frames_without_sequences_is_a_tenth() -> None:
    frames = [f"frame{number}" for number in range(1000)]
    labelled = np.ones(1000, bool)
    assert draw_budget(frames, labelled, share=0.1, labels_seed=0).sum() == 100
    assert draw_budget(frames[:100], labelled[:100], share=0.29, labels_seed=0).sum() == 29


def test_the_seed_alone_chooses_and_records_without_a_mask_are_never_in() -> None:
    labelled = np.arange(len(SEQUENCES)) % 3 > 0
    one = draw_budget(SEQUENCES, labelled, share=0.3, labels_seed=1)
    assert not (one & ~labelled).any()
    np.testing.assert_array_equal(one, draw_budget(SEQUENCES, labelled, share=0.3, labels_seed=1))
    assert (one != draw_budget(SEQUENCES, labelled, share=0.3, labels_seed=2)).any()


def test_the_order_of_records_does_not_matter_and_new_groups_move_no_other() -> None:
    shuffled = np.random.default_rng(0).permutation(len(SEQUENCES))
    there = draw_budget([SEQUENCES[place] for place in shuffled], ALL, share=0.2, labels_seed=0)
    here = draw_budget(SEQUENCES, ALL, share=0.2, labels_seed=0)
    np.testing.assert_array_equal(there, here[shuffled])
    more = [*SEQUENCES, *(f"new{number}" for number in range(200))]
    larger = draw_budget(more, np.ones(len(more), bool), share=0.4, labels_seed=0)[: len(SEQUENCES)]
    smaller = draw_budget(more, np.ones(len(more), bool), share=0.02, labels_seed=0)[: len(SEQUENCES)]
    assert not (smaller & ~here).any() and not (here & ~larger).any()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_outside_of_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(SettingsError, match=r"it must be in \(0, 1\]"):
        draw_budget(SEQUENCES, ALL, share=share, labels_seed=0)


def test_a_share_that_holds_no_group_names_the_group_and_its_size() -> None:
    with pytest.raises(SettingsError, match=r"0\.1 of 12 masks holds none.*has 6; use a larger share"):
        draw_budget(["a"] * 6 + ["b"] * 6, np.ones(12, bool), share=0.1, labels_seed=3)
