import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest

from difom_cache import ViewParams
from difom_cache.errors import SettingsError
from difom_cache.views import POLICIES, ViewPolicy, draw_params, draw_table, policy_named
from difom_cache.views.draw import _draw_numbers

SIZES = [(622, 531), (384, 288), (33, 500), (1, 1), (1920, 1080)]


def draw_many(policy, width, height, count=300):
    return [draw_params(policy, width, height, 0, f"Kvasir/{i}", 1) for i in range(count)]


def seen_frac(params, width, height):
    angle = math.radians(params.angle_mdeg / 1000)
    cut = 1 if params.pad else (math.cos(angle) + abs(math.sin(angle))) ** -2
    return params.height * params.width / (width * height) * cut


@pytest.mark.parametrize("policy", POLICIES)
def test_view_0_is_the_whole_frame_as_it_is(policy):
    assert draw_params(POLICIES[policy], 622, 531, 5, "Kvasir/a", 0) == ViewParams(0, 0, 531, 622)


def test_plain_views_are_all_view_0():
    assert set(draw_many(POLICIES["plain"], 622, 531)) == {ViewParams(0, 0, 531, 622)}


def test_hand_worked_draw():
    # The generator is PCG64 seeded with SHA-256 of "seed\nview\nid"; thirteen numbers in the order of the docstrings.
    key = hashlib.sha256(b"7\n3\nETIS/12").digest()
    u = np.random.Generator(np.random.PCG64(int.from_bytes(key, "big"))).random(13)
    policy = replace(POLICIES["default"], rotate_frac=0.0)
    keep, aspect = 0.6 + 0.4 * u[2], 1.2 ** (2 * u[3] - 1)
    height, width = math.ceil(966 * math.sqrt(keep * aspect)), math.ceil(1225 * math.sqrt(keep / aspect))
    height, width = min(height, 966), min(width, 1225)
    assert draw_params(policy, 1225, 966, 7, "ETIS/12", 3) == ViewParams(
        top=int(u[4] * (966 - height + 1)),
        left=int(u[5] * (1225 - width + 1)),
        height=height,
        width=width,
        flip_h=int(u[6] < 0.5),
        flip_v=int(u[7] < 0.5),
        quarter_turns=int(4 * u[8]),
    )


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_crop_lies_inside_the_frame(policy, width, height):
    for params in draw_many(POLICIES[policy], width, height):
        assert params.top + params.height <= height and params.left + params.width <= width


@pytest.mark.parametrize("policy", ["default", "pad"])
def test_a_view_shows_at_least_three_fifths_of_the_frame(policy):
    seen = [seen_frac(params, 622, 531) for params in draw_many(POLICIES[policy], 622, 531)]
    assert 0.6 <= min(seen) < 0.63
    assert max(seen) > 0.9


def test_the_default_plan_stays_wholly_inside_the_frame():
    assert all(params.wholly_valid for params in draw_many(POLICIES["default"], 622, 531))
    assert not all(params.wholly_valid for params in draw_many(POLICIES["pad"], 622, 531))


def test_aspect_changes_mildly():
    for params in draw_many(POLICIES["default"], 622, 531):
        assert 1 / 1.21 < (params.height / 531) / (params.width / 622) < 1.21


def test_flips_turns_and_rotations_come_in_their_shares():
    drawn = draw_many(POLICIES["default"], 622, 531, count=2000)
    assert np.mean([p.flip_h for p in drawn]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([p.flip_v for p in drawn]) == pytest.approx(0.5, abs=0.04)
    assert np.bincount([p.quarter_turns for p in drawn]) / 2000 == pytest.approx([0.25] * 4, abs=0.04)
    angles = np.array([p.angle_mdeg for p in drawn])
    assert np.mean(angles != 0) == pytest.approx(0.5, abs=0.04)
    assert -15_000 <= angles.min() < -14_500 and 14_500 < angles.max() <= 15_000
    assert not any(p.has_colour for p in drawn)


def test_the_flips_policy_only_flips():
    assert set(draw_many(POLICIES["flips"], 622, 531)) == {
        ViewParams(0, 0, 531, 622, flip_h=h, flip_v=v) for h in (0, 1) for v in (0, 1)
    }


def test_recorded_colour_is_drawn_where_asked_for_and_moves_no_other_number():
    for plain, coloured in zip(*(draw_many(POLICIES[name], 622, 531) for name in ("default", "colour")), strict=True):
        assert (
            replace(coloured, brightness_permille=0, contrast_permille=0, saturation_permille=0, hue_permille=0)
            == plain
        )
        assert abs(coloured.brightness_permille) <= 200 and abs(coloured.hue_permille) <= 20
    assert coloured.has_colour


def test_seed_record_and_view_each_give_other_views():
    draws = {
        draw_params(POLICIES["default"], 622, 531, seed, record, view)
        for seed in range(5)
        for record in ("a", "b", "1\na")
        for view in range(1, 6)
    }
    assert len(draws) == 75


def test_switching_one_operation_off_moves_no_other():
    no_flips = replace(POLICIES["default"], flips=False)
    for with_flips, without in zip(
        draw_many(POLICIES["default"], 622, 531), draw_many(no_flips, 622, 531), strict=True
    ):
        assert replace(with_flips, flip_h=0, flip_v=0) == without


def test_an_unknown_policy_is_named_with_its_nearest():
    with pytest.raises(SettingsError, match="did you mean 'default'"):
        policy_named("defualt")


def test_the_defaults_of_a_policy_draw_plain_views():
    assert ViewPolicy() == POLICIES["plain"]


@pytest.mark.parametrize("policy", POLICIES)
def test_views_drawn_together_are_those_drawn_one_by_one(policy):
    rng = np.random.default_rng(3)
    ids = [f"set {i}/\u00e9{i}" for i in range(3000)]
    sizes = np.array([SIZES[i % len(SIZES)] for i in range(len(ids))])
    views = rng.integers(0, 9, len(ids))
    one_by_one = [
        draw_params(POLICIES[policy], *size, 11, name, view).to_row()
        for size, name, view in zip(sizes.tolist(), ids, views.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(draw_table(POLICIES[policy], sizes, 11, ids, views), np.stack(one_by_one))


def test_many_generators_give_numpys_own_numbers():
    keys = [hashlib.sha256(bytes([i])).digest() for i in range(200)]
    keys += [b"\xff" * 32, b"\0\0\0\1" + b"\0" * 28, b"\0" * 4 + b"\7" * 28, b"\0" * 32]  # the last two are short
    expected = [np.random.Generator(np.random.PCG64(int.from_bytes(key, "big"))).random(13) for key in keys]
    np.testing.assert_array_equal(_draw_numbers(keys), expected)
