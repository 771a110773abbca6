import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from landmarks import CROP, HEIGHT, PLACES, VIEWS, WIDTH, expected_place, find_centre, paint_disc, paint_smooth_frame
from PIL import Image

from difom_cache import ViewParams, replay_image, replay_mask
from difom_cache.errors import DataError
from difom_cache.views import replay_images, replay_together, replay_valid


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_a_landmark_lies_at_one_place_in_picture_mask_and_teacher_input(view, place):
    params, disc = VIEWS[view], paint_disc(place)
    for size_px in (352, 224, 518):
        expected = expected_place(place, params, size_px)
        picture = replay_image(disc.expand(3, -1, -1) * 255, params, size_px)[0]
        assert find_centre(picture) == pytest.approx(expected, abs=0.25)
        assert find_centre(replay_mask(disc, params, size_px)) == pytest.approx(expected, abs=0.25)


@pytest.mark.parametrize("size_px", [352, 37, 101, 1024])
@pytest.mark.parametrize(("width", "height"), [(622, 531), (384, 288), (99, 101), (352, 352)])
def test_view_0_is_within_one_grey_level_of_pillows_bilinear(width, height, size_px):
    frame = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    view = replay_image(frame, ViewParams(0, 0, height, width), size_px)
    reference = Image.fromarray(frame.permute(1, 2, 0).numpy()).resize((size_px, size_px), Image.Resampling.BILINEAR)
    difference = view.permute(1, 2, 0).numpy() * 255 - np.asarray(reference, dtype=np.float32)
    assert np.abs(difference).max() <= 1.001


def test_a_frame_of_the_views_own_size_is_left_alone():
    frame = paint_smooth_frame(width=64, height=64)
    assert torch.equal(replay_image(frame, ViewParams(0, 0, 64, 64), 64), frame / 255)


@pytest.mark.parametrize("size_px", [64, 65])
def test_flips_and_quarter_turns_move_pixels_exactly(size_px):
    frame, mask = paint_smooth_frame(), paint_disc((150, 120), radius_px=40)
    plain, plain_mask = replay_image(frame, CROP, size_px), replay_mask(mask, CROP, size_px)
    for change, move in [
        ({"flip_h": 1}, lambda x: x.flip(-1)),
        ({"flip_v": 1}, lambda x: x.flip(-2)),
        ({"quarter_turns": 1}, lambda x: x.transpose(-1, -2).flip(-2)),  # counterclockwise
        ({"quarter_turns": 2}, lambda x: x.flip((-1, -2))),
        ({"flip_v": 1, "quarter_turns": 3}, lambda x: x.flip(-2).transpose(-1, -2).flip(-1)),
    ]:
        params = replace(CROP, **change)
        assert torch.equal(replay_image(frame, params, size_px), move(plain))
        assert torch.equal(replay_mask(mask, params, size_px), move(plain_mask))


def test_a_quarter_turn_counterclockwise_brings_the_right_edge_to_the_top():
    frame = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).expand(3, 2, 2)
    turned = replay_image(frame, ViewParams(0, 0, 2, 2, quarter_turns=1), 2) * 255
    assert turned[0].round().tolist() == [[2, 4], [1, 3]]


@pytest.mark.parametrize("view", VIEWS)
def test_masks_are_crisp_and_keep_their_area(view):
    params, size_px = VIEWS[view], 352
    mask = replay_mask(paint_disc((200, 155), radius_px=30), params, size_px)
    assert mask.dtype == torch.uint8 and set(mask.unique().tolist()) == {0, 1}
    angle = math.radians(params.angle_mdeg / 1000)
    zoom = 1.0 if params.pad else math.cos(angle) + abs(math.sin(angle))
    area = math.pi * 30**2 * (size_px * zoom) ** 2 / (params.width * params.height)
    assert float(mask.sum()) == pytest.approx(area, rel=0.01)


def test_a_pixel_of_the_mask_is_1_where_at_least_half_of_it_was():
    columns = torch.zeros(8, 8, dtype=torch.uint8)
    columns[:, :4] = 1
    plain = ViewParams(0, 0, 8, 8)
    assert replay_mask(columns, plain, 4)[0].tolist() == [1, 1, 0, 0]
    assert replay_mask(columns, plain, 16)[0].tolist() == [1] * 8 + [0] * 8
    assert replay_mask(columns, plain, 1).tolist() == [[1]]  # exactly half


@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks_stay_so_in_every_whole_view(value):
    for params in VIEWS.values():
        if params.wholly_valid:
            assert (replay_mask(torch.full((HEIGHT, WIDTH), value, dtype=torch.uint8), params, 97) == value).all()


@pytest.mark.parametrize("view", VIEWS)
def test_whole_views_show_nothing_from_outside_their_crop(view):
    params = VIEWS[view]
    frame = torch.full((3, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    frame[:, params.top : params.top + params.height, params.left : params.left + params.width] = 100
    shown = replay_image(frame, params, 120) * 255
    inside = shown[:, replay_valid(params, 120).bool()]
    torch.testing.assert_close(inside, torch.full_like(inside, 100), atol=1e-3, rtol=0)


def test_a_padded_rotation_says_where_it_shows_nothing():
    params = ViewParams(0, 0, 100, 100, angle_mdeg=45_000, pad=1)
    valid = replay_valid(params, 200)
    # The frame, a unit square on its tip, covers the view but for four corner triangles of legs 1 - sqrt(1/2).
    assert float(valid.float().mean()) == pytest.approx(1 - 2 * (1 - 0.5**0.5) ** 2, abs=0.005)
    assert valid[0, 0] == 0 and valid[100, 0] == 1 and valid[100, 100] == 1
    white = replay_image(torch.full((3, 100, 100), 255, dtype=torch.uint8), params, 200)[0]
    assert torch.equal(white > 0, valid.bool()) and white[valid.bool()].min() > 0.9999
    full = replay_mask(torch.ones(100, 100, dtype=torch.uint8), params, 200)
    assert torch.equal(full, valid)


def test_views_that_do_not_pad_are_valid_everywhere():
    assert (replay_valid(VIEWS["everything"], 33) == 1).all()


def test_a_rotated_view_is_as_sharp_at_every_size():
    # The same content at twice the size, then halved, is the same picture: nothing depends on how sizes round up.
    frame, params = paint_smooth_frame(), VIEWS["everything"]
    large = replay_image(frame, params, 350)
    halved = torch.nn.functional.avg_pool2d(large, 2)
    assert float((halved - replay_image(frame, params, 175)).abs().max()) < 3 / 255


def test_the_memory_layout_of_a_frame_does_not_matter():
    frame = paint_smooth_frame()
    interleaved = frame.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for params in VIEWS.values():
        assert torch.equal(replay_image(interleaved, params, 90), replay_image(frame, params, 90))


def test_replay_leaves_its_source_and_the_global_generator_alone():
    frame, mask = paint_smooth_frame(), paint_disc((200, 155))
    before, state = (frame.clone(), mask.clone()), torch.random.get_rng_state()
    coloured = replace(VIEWS["everything"], brightness_permille=100, hue_permille=30)
    replay_image(frame, coloured, 64), replay_mask(mask, coloured, 64)
    assert torch.equal(frame, before[0]) and torch.equal(mask, before[1])
    assert torch.equal(torch.random.get_rng_state(), state)


def recoloured(grey: list[int], **change: int) -> list[float]:
    frame = torch.tensor(grey, dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    return [round(v, 3) for v in replay_image(frame, ViewParams(0, 0, 4, 4, **change), 4)[:, 0, 0].tolist()]


def test_recorded_colours_by_hand():
    assert recoloured([51, 102, 153], brightness_permille=500) == [0.3, 0.6, 0.9]
    assert recoloured([51, 102, 153], brightness_permille=-1000) == [0, 0, 0]
    assert recoloured([153, 153, 153], contrast_permille=-500) == [0.6, 0.6, 0.6]  # all at the mean
    assert recoloured([51, 102, 153], saturation_permille=-1000) == [0.6, 0.6, 0.6]  # grey of the largest value
    assert recoloured([204, 51, 51], hue_permille=333) == pytest.approx([0.2, 0.8, 0.2], abs=0.01)  # red to green


def test_recorded_colour_moves_no_pixel_and_no_mask():
    disc = paint_disc((150, 120))
    params = VIEWS["rotate_padded"]
    coloured = replace(
        params, brightness_permille=150, contrast_permille=-200, saturation_permille=100, hue_permille=-20
    )
    assert torch.equal(replay_mask(disc, params, 99), replay_mask(disc, coloured, 99))
    view = replay_image(disc.expand(3, -1, -1) * 255, coloured, 352)
    assert (view[:, replay_valid(params, 352) == 0] == 0).all()
    weight = view[0] - view[0][replay_valid(params, 352).bool()].min()
    assert find_centre(weight.clamp_min(0)) == pytest.approx(expected_place((150, 120), params, 352), abs=0.25)


def test_a_picture_smaller_than_the_crop_is_refused():
    with pytest.raises(DataError, match="ends at row 290, column 375, but the picture has 289 rows and 400 columns"):
        replay_image(torch.zeros(3, 289, 400, dtype=torch.uint8), CROP, 32)
    with pytest.raises(DataError, match="it is not the picture"):
        replay_mask(torch.zeros(310, 374, dtype=torch.uint8), CROP, 32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("view", VIEWS)
def test_the_gpu_shows_the_same_view_within_a_grey_level(view):
    frame = paint_smooth_frame()
    there = replay_image(frame.cuda(), VIEWS[view], 352)
    assert there.is_cuda
    assert float((there.cpu() - replay_image(frame, VIEWS[view], 352)).abs().max()) <= 1.01 / 255


COLOURED = replace(VIEWS["rotate_padded"], brightness_permille=150, contrast_permille=-200, hue_permille=-20)


@pytest.mark.parametrize("size_px", [64, 101])
def test_views_that_are_replayed_together_are_the_views(size_px):
    params = [*VIEWS.values(), COLOURED]
    frames = [paint_smooth_frame(seed) for seed in range(len(params))]
    one_by_one = torch.stack([replay_image(*pair, size_px) for pair in zip(frames, params, strict=True)])
    assert torch.equal(replay_images(frames, params, size_px), one_by_one)
    together = replay_together(frames, params, size_px)
    assert float((together - one_by_one).abs().max()) < 0.02 / 255
    still = [row for row, each in enumerate(params) if not each.angle_mdeg]
    assert torch.equal(together[still], one_by_one[still])
    black = torch.stack([replay_valid(each, size_px) == 0 for each in params])
    assert black.any() and (together.sum(1)[black] == 0).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_replays_a_batch_within_a_grey_level():
    params = list(VIEWS.values())
    frames = [paint_smooth_frame(seed) for seed in range(len(params))]
    there = replay_images([frame.cuda() for frame in frames], params, 352)
    assert there.is_cuda
    assert float((there.cpu() - replay_images(frames, params, 352)).abs().max()) <= 1.01 / 255
