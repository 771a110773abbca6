"""Every close pair is found that comparing all pairs finds, and the work grows hardly faster than the rows."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.fft import idctn

from difom_cache.data import find_close_bits, find_correlated, find_neighbours


def all_close_bits(here: NDArray[np.bool_], there: NDArray[np.bool_], most: int) -> list[tuple[int, int]]:
    unlike = (here[:, None] != there[None]).sum(-1).max(-1)
    return [(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(unlike <= most, k=1)), strict=True)]


def turn_bits(bits: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return words (2, 256) that differ from `bits` in `count` places of each."""
    turned = bits.copy()
    for word in turned:
        word[rng.choice(256, count, replace=False)] ^= True
    return turned


@pytest.mark.parametrize("most", [0, 5, 20, 33])
def test_words_within_the_bound_are_all_found(most: int):
    rng = np.random.default_rng(most)
    here = rng.integers(0, 2, (60, 2, 256)).astype(bool)
    for row in range(0, 60, 2):  # a few places below the bound, on it and beyond it, some words equal
        here[row + 1] = turn_bits(here[row], int(rng.integers(0, most + 3)), rng)
    there = here[::-1].copy()
    for other in (here, there):
        expected = all_close_bits(here, other, most)
        assert expected and [tuple(pair) for pair in find_close_bits(here, other, most).tolist()] == expected


def test_one_word_of_two_that_is_close_is_no_pair():
    rng = np.random.default_rng(0)
    here = rng.integers(0, 2, (2, 2, 256)).astype(bool)
    here[1, 0] = here[0, 0]
    assert len(find_close_bits(here, here, 20)) == 0


def test_families_of_equal_words_are_paired_whole():
    here = np.repeat(np.random.default_rng(1).integers(0, 2, (3, 2, 256)).astype(bool), 40, axis=0)
    assert len(find_close_bits(here, here, 20)) == 3 * 40 * 39 // 2


def correlated_rows(rows: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return small pictures (N, 1024) about their mean and of length 1, mostly slow waves, in pairs of all degrees."""
    waves = rng.normal(size=(rows, 32, 32)) / (np.add.outer(np.arange(32), np.arange(32)) + 1.0)
    values = idctn(waves, axes=(1, 2), norm="ortho").reshape(rows, 1024)
    for row in range(0, rows, 2):
        share = rng.uniform(0, 0.4)
        values[row + 1] = (1 - share) * values[row] + share * values[row + 1]
    values -= values.mean(axis=1, keepdims=True)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_rows_that_correlate_are_all_found():
    small = correlated_rows(300, np.random.default_rng(0))
    small[7] = 0  # a picture of one colour is like no other
    expected = np.argwhere(np.triu(small @ small.T >= 0.97, k=1)).tolist()
    assert 30 < len(expected) < 200
    assert find_correlated(small, 0.97).tolist() == expected


def test_no_row_and_one_row_make_no_pair():
    for rows in (0, 1):
        assert find_correlated(np.zeros((rows, 1024), np.float32), 0.97).shape == (0, 2)
        assert find_close_bits(np.zeros((rows, 2, 256), bool), np.zeros((rows, 2, 256), bool), 20).shape == (0, 2)


def moving_scene(shifts: list[int]) -> NDArray[np.float32]:
    """Return small pictures of a scene that moves to the right by so many pixels of 1024, about their mean and of length 1."""
    x = np.arange(32)[None, :] - np.array(shifts)[:, None]
    values = np.repeat(np.cos(2 * np.pi * x / 32)[:, None], 32, axis=1).reshape(len(shifts), 1024)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_neighbours_by_number_in_one_scene_are_found():
    # A period of 32 px that moved by d correlates by cos(2 pi d / 32): .98 for d = 1, .92388 for 2, .83 for 3.
    ids = ["set/f_9", "set/f_10", "set/f_011", "set/f_12", "set/f_17", "set/f_18", "other/f_10", "set/g_10"]
    small = moving_scene([0, 1, 2, 3, 3, 3, 1, 1])
    named = [(ids[first], ids[second]) for first, second in find_neighbours(ids, small, 0.92, 5).tolist()]
    assert named == [
        ("set/f_9", "set/f_10"),
        ("set/f_9", "set/f_011"),
        ("set/f_10", "set/f_011"),
        ("set/f_10", "set/f_12"),
        ("set/f_011", "set/f_12"),
        ("set/f_12", "set/f_17"),  # five numbers later; f_18 is six
        ("set/f_17", "set/f_18"),
    ]


def test_names_without_a_series_have_no_neighbours():
    ids = ["set/cju0qkwl2", "set/cju0qoxq3", "set/a1", "set/b2", "set/", "set/x", "1/x"]
    assert find_neighbours(ids, moving_scene([0] * 7), 0.92, 5).shape == (0, 2)
    assert find_neighbours([], np.zeros((0, 1024), np.float32), 0.92, 5).shape == (0, 2)


def test_numbers_of_any_length_and_order_are_compared():
    ids = [f"set/{10**30 + 3}", f"set/{10**30}", f"set/{10**30 + 9}"]
    assert find_neighbours(ids, moving_scene([0] * 3), 0.92, 5).tolist() == [[0, 1]]
    ids = [f"set/{number}" for number in (10, 9, *range(100, 700, 100))]  # as text, 9 comes last
    assert find_neighbours(ids, moving_scene([0] * 8), 0.92, 5).tolist() == [[0, 1]]
