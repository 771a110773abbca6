"""Colours change by explicit numbers, sizes change antialiased, and nothing draws from a global generator."""

import math

import numpy as np
import pytest
import torch
from kornia import enhance
from torch.nn.functional import interpolate

from difom_train.data import draw_colours, draw_scale, keys_of, recolour, to_pixels, to_side

REACH = (0.2, 0.3, 0.4, 0.05)
NONE = (0.0, 0.0, 0.0, 0.0)


def draw(reach=REACH, records=200, seed=0, epoch=0):
    return draw_colours(reach, keys_of(map(str, range(records))), np.arange(records), seed=seed, epoch=epoch)


def test_colours_fill_their_ranges():
    factors = draw(records=2000)
    for column, (low, high) in enumerate([(0.8, 1.2), (0.7, 1.3), (0.6, 1.4)]):
        assert low <= factors[:, column].min() < low + 0.02
        assert high - 0.02 < factors[:, column].max() <= high
    assert np.abs(factors[:, 3]).max() == pytest.approx(0.05 * 2 * np.pi, rel=0.02)


def test_colours_depend_on_seed_epoch_record_and_place_alone():
    before = torch.get_rng_state()
    assert np.array_equal(draw(), draw())
    assert not np.array_equal(draw(), draw(seed=1))
    assert not np.array_equal(draw(), draw(epoch=1))
    assert torch.equal(torch.get_rng_state(), before)
    twice = draw_colours(REACH, keys_of(["a", "a"]), np.array([0, 1]), seed=0, epoch=0)
    assert not np.array_equal(twice[0], twice[1])


def test_no_range_leaves_pixels_alone():
    pixels = torch.rand(2, 3, 8, 8)
    assert not any(NONE) and any(REACH)
    torch.testing.assert_close(recolour(pixels, torch.from_numpy(draw(NONE, records=2))), pixels, atol=1e-5, rtol=0)


def test_brightness_multiplies():
    pixels = torch.full((1, 3, 4, 4), 0.5)
    changed = recolour(pixels, torch.tensor([[1.2, 1.0, 1.0, 0.0]]))
    torch.testing.assert_close(changed, torch.full_like(pixels, 0.6), atol=1e-5, rtol=0)


def test_pixels_stay_in_range():
    changed = recolour(torch.rand(8, 3, 8, 8), torch.from_numpy(draw(records=8)))
    assert changed.min() >= 0 and changed.max() <= 1 and changed.isfinite().all()


def test_colours_in_one_pass_are_kornias_one_after_the_other():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(64, 3, 16, 16, generator=generator)
    pixels[0], pixels[1], pixels[2, 1:] = 0, 1, 0  # black, white, pure reds
    pixels[3] = (pixels[3] * 4).floor() / 4  # channels that are equal
    factors = torch.from_numpy(draw((0.5, 0.5, 1.0, 0.5), records=64))
    brightness, contrast, saturation, hue = factors.unbind(1)
    expected = (pixels * brightness[:, None, None, None]).clamp(0, 1)
    expected = enhance.adjust_contrast_with_mean_subtraction(expected, contrast)
    expected = enhance.adjust_hue(enhance.adjust_saturation(expected, saturation), hue)
    before = pixels.clone()
    torch.testing.assert_close(recolour(pixels, factors), expected, atol=1e-5, rtol=0)
    assert torch.equal(pixels, before)


def test_a_third_of_a_circle_turns_red_into_green():
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1)
    turned = recolour(red, torch.tensor([[1.0, 1.0, 1.0, 2 * math.pi / 3]]))
    torch.testing.assert_close(turned.flatten(), torch.tensor([0.2, 0.8, 0.2]), atol=1e-6, rtol=0)


def test_a_resized_picture_is_within_a_grey_level_of_floats():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, 88, 88, 3), dtype=torch.uint8, generator=generator)
    for side in (32, 47, 100):
        wanted = interpolate(image.permute(0, 3, 1, 2).float() / 255, (side, side), mode="bilinear", antialias=True)
        assert (
            to_pixels(image, side) - wanted
        ).abs().max() * 255 <= 1.05  # noise; rounded twice, after columns and after rows
        assert to_pixels(image, side).is_contiguous()


def test_stored_picture_becomes_channels_first_floats():
    image = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    image[..., 1] = 255
    pixels = to_pixels(image, 4)
    assert pixels.shape == (1, 3, 4, 4)
    assert torch.equal(pixels[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]))


def test_resizing_is_antialiased():
    stripes = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    inner = to_pixels(stripes, 2)
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), atol=0.05, rtol=0)


def test_mask_is_one_where_half_of_it_was():
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    mask[:, :2] = 1
    assert to_side(mask, 2).tolist() == [[[1, 1], [0, 0]]]


def test_one_scale_a_step_is_drawn_evenly():
    drawn = [draw_scale((0.75, 1.0, 1.25), seed=0, epoch=0, step=step) for step in range(600)]
    assert [drawn.count(scale) for scale in (0.75, 1.0, 1.25)] == pytest.approx([200] * 3, rel=0.2)
    assert draw_scale((1.0,), seed=0, epoch=0, step=3) == 1.0
