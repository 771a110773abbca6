"""One geometry for teacher, student and mask: what is at one place in a picture is at that place in every map."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from landmarks import VIEWS, expected_place, find_centre, paint_disc, paint_smooth_frame, source_place
from torch import Tensor
from torch.nn import functional

from difom_cache import Teacher, ViewParams, build_teacher, load_records, read_image, replay_image, replay_mask
from difom_cache.teachers import area_pool

PICTURE_PX = 224
TEACHERS = {"sam:tiny@224": "neck", "dinov2:tiny@196": "", "oneformer:tiny@224": "", "mask2former:tiny@224": ""}
"""Teacher: its tap that sees 3x3 cells alike. SAM's neck ends in a 3x3 convolution, which with random weights answers as
strongly beside the landmark as on it: there the 3x3 window of largest change must be centred on the landmark's cell."""
LANDMARKS = 3
"""Paintings of each landmark, their changes added: random weights may be nearly blind to a single one in its own cell."""
MORE_TEACHERS = TEACHERS | {
    "dinov3:tiny@224": "",
    "clip:tiny@224": "",
    "dinov3_convnext:tiny@224": "",
    "sam2:tiny@224": "",
    "radio:tiny@224": "",
}
OPERATIONS = [name for name in VIEWS if not name.startswith("drawn")]
INPUTS_PX = (308, 616, 704, 1024)
"""Sides of the teachers' inputs; the picture's is 352."""
GRIDS = {14, 7}
"""Cells a side of the default taps, at strides 16 and 32."""


def cells_of(grid: int) -> list[tuple[int, int]]:
    """Return five cells (row, column): the middle one, and one in each quarter."""
    near, middle, far = grid // 4, grid // 2, 3 * grid // 4
    return [(middle, middle), (near, near), (near, far), (far, near), (far, far)]


def paint_landmark(frame: Tensor, params: ViewParams, cell: tuple[int, int], grid: int, seed: int) -> Tensor:
    """Return `frame` with a disc of random black and white speckles where the view has `cell`, as wide as the cell."""
    place = source_place(((cell[1] + 0.5) / grid, (cell[0] + 0.5) / grid), params)
    disc = paint_disc(place, radius_px=0.5 / grid * min(params.width, params.height)).bool()
    marked = frame.clone()
    speckles = torch.randint(0, 2, (3, int(disc.sum())), generator=torch.Generator().manual_seed(seed))
    marked[:, disc] = (255 * speckles).byte()
    return marked


def largest_change(without: Tensor, marked: Tensor, window: int) -> tuple[int, int]:
    """Return the cell (row, column) about which maps differ most, over window x window cells.

    Args:
        without: (C, g, g), the map of the frame.
        marked: (L, C, g, g), the maps of the frame with each of the landmarks of one place.
        window: odd.
    """
    change = (marked - without).square().sum((0, 1))[None]  # (1, g, g)
    change = functional.avg_pool2d(change, window, stride=1, padding=window // 2)[0]
    return divmod(int(change.argmax()), change.shape[-1])


def misplaced(teacher: Teacher, frame: Tensor, params: ViewParams, wide_tap: str, grids: set[int]) -> list[str]:
    """Return one line for each tap of one of `grids`, and cell, where the largest change is not the landmark's."""
    marks = [(grid, cell) for grid in sorted(grids) for cell in cells_of(grid)]
    frames = [frame]
    for grid, cell in marks:
        frames += [paint_landmark(frame, params, cell, grid, seed) for seed in range(LANDMARKS)]
    pixels = torch.stack([replay_image(f, params, teacher.spec.input_px) for f in frames])
    with torch.inference_mode():
        native = teacher.features(pixels)
    lines = []
    for tap in teacher.spec.taps:
        maps = area_pool(native[tap.native], tap.grid(PICTURE_PX))
        for (grid, cell), marked in zip(marks, maps[1:].unflatten(0, (-1, LANDMARKS)), strict=True):
            if grid == tap.grid(PICTURE_PX):
                found = largest_change(maps[0], marked, 3 if tap.native == wide_tap else 1)
                if found != cell:
                    lines.append(f"{tap.name}: landmark in cell {cell}, largest change in {found}")
    return lines


@pytest.fixture(scope="module")
def teachers() -> dict[str, Teacher]:
    return {}


def remember(teachers: dict[str, Teacher], name: str) -> Teacher:
    if name not in teachers:
        teachers[name] = build_teacher(name, weights="random", picture_px=PICTURE_PX)
    return teachers[name]


@pytest.mark.parametrize("view", ["plain", "rotate_padded", "everything"])
@pytest.mark.parametrize("name", TEACHERS)
def test_the_cell_of_largest_change_is_the_landmarks_cell(name, view, teachers):
    assert misplaced(remember(teachers, name), paint_smooth_frame(), VIEWS[view], TEACHERS[name], {14}) == []


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", MORE_TEACHERS)
def test_so_it_is_for_every_operation_tap_and_more_teachers(name, view, teachers):
    assert (
        misplaced(remember(teachers, name), paint_smooth_frame(seed=3), VIEWS[view], MORE_TEACHERS[name], GRIDS) == []
    )


@pytest.mark.parametrize("view", OPERATIONS)
def test_a_landmark_is_at_one_place_in_every_teachers_input_the_picture_and_the_mask(view):
    params, place = VIEWS[view], source_place((0.56, 0.43), VIEWS[view])
    disc = paint_disc(place)
    expected = expected_place(place, params, 352)
    assert find_centre(replay_mask(disc, params, 352)) == pytest.approx(expected, abs=0.25)
    for input_px in INPUTS_PX:
        x, y = find_centre(replay_image(disc.expand(3, -1, -1) * 255, params, input_px)[0])
        assert (x * 352 / input_px, y * 352 / input_px) == pytest.approx(expected, abs=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEACHERS)
def test_so_it_is_on_real_frames(name, teachers):
    if "DIFOM_BENCHMARK" not in os.environ:
        pytest.skip("DIFOM_BENCHMARK is not set: no real frames to mark")
    for record in load_records(Path(os.environ["DIFOM_BENCHMARK"]), splits=["test"])[::200]:
        image = torch.from_numpy(np.array(read_image(record.image))).permute(2, 0, 1)
        frame = functional.interpolate(image[None], paint_smooth_frame().shape[1:], mode="bilinear", antialias=True)[0]
        for view in ("plain", "everything", "drawn_1"):
            assert misplaced(remember(teachers, name), frame, VIEWS[view], TEACHERS[name], GRIDS) == [], record.id
