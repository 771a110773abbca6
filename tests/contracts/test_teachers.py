"""What every teacher promises; a new teacher adds a line to `CASES`.

`teacher_template.py` beside this file is a whole teacher in one file, to copy.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import teacher_template
import torch
from small_networks import save_onnx, save_vit
from torch import Tensor

from difom_cache import Teacher
from difom_cache.errors import DeviceError, TeacherError
from difom_cache.teachers import TEACHERS, TeacherRequest, fill_random, find_builder, outline_teacher, parse_teacher
from difom_train import build_student
from difom_train.students import save_student

PICTURE_PX = 128


def save_run(folder: Path) -> Path:
    """Save a narrow untrained student where a run would put it."""
    student = build_student("unet", width=2, weights="random", seed=1)
    fill_random(student, "run")
    save_student(student, folder, {"input_px": PICTURE_PX})
    return folder


CASES: dict[str, Callable[[Path], str]] = {
    "sam": lambda tmp: "sam:tiny@128",
    "dinov2": lambda tmp: "dinov2:tiny@112",
    "dinov2_reg": lambda tmp: "dinov2_reg:tiny@112",
    "dinov3": lambda tmp: "dinov3:tiny@128",
    "dinov3_convnext": lambda tmp: "dinov3_convnext:tiny@128",
    "sam2": lambda tmp: "sam2:tiny@128",
    "sam3": lambda tmp: "sam3:tiny@112",
    "radio": lambda tmp: "radio:tiny@128",
    "clip": lambda tmp: "clip:tiny@128",
    "oneformer": lambda tmp: "oneformer:tiny@128",
    "mask2former": lambda tmp: "mask2former:tiny@128",
    "onnx": lambda tmp: f"onnx:{save_onnx(tmp / 'small.onnx')}@128",
    "hf": lambda tmp: f"hf:{save_vit(tmp / 'vit')}@128",
    "student": lambda tmp: f"student:{save_run(tmp / 'run')}",
    "template": lambda tmp: "template@128",
}
"""Teacher: the specification of a small one, given a folder to put files in."""

OWN_WEIGHTS = {"onnx", "student"}  # the file or run brings them


@pytest.fixture(scope="module", params=CASES)
def order(request, tmp_path_factory) -> tuple[Callable[[TeacherRequest], Teacher], TeacherRequest]:
    asked = parse_teacher(CASES[request.param](tmp_path_factory.mktemp(request.param)))
    builder = teacher_template.build if asked.name == "template" else find_builder(asked.name)
    weights = "hub" if asked.name in OWN_WEIGHTS else "random"
    return builder, dataclasses.replace(asked, weights=weights, picture_px=PICTURE_PX)


@pytest.fixture(scope="module")
def teacher(order) -> Teacher:
    builder, asked = order
    return builder(asked)


def draw_pixels(teacher: Teacher, count: int = 2) -> Tensor:
    px = teacher.spec.input_px
    return torch.rand(count, 3, px, px, generator=torch.Generator().manual_seed(3))


def test_the_cases_are_all_teachers():
    assert set(CASES) == {*TEACHERS, "student", "template"}


def test_maps_have_the_channels_and_grid_that_the_specification_says(teacher):
    maps = teacher.features(draw_pixels(teacher))
    assert set(maps) == {tap.native for tap in teacher.spec.taps}
    for name, feature in maps.items():
        native = teacher.spec.native[name]
        side = native.grid(teacher.spec.input_px)
        assert feature.shape == (2, native.channels, side, side)
        assert feature.dtype == torch.float32 and torch.isfinite(feature).all() and feature.std() > 0
        assert not feature.requires_grad


def test_a_tap_is_never_finer_than_the_teachers_own_grid(teacher):
    for tap in teacher.spec.taps:
        assert tap.grid(PICTURE_PX) <= teacher.spec.native[tap.native].grid(teacher.spec.input_px)


def test_every_native_tap_can_be_asked_for_alone(order):
    builder, asked = order
    for name, native in builder(asked).spec.native.items():
        teacher = builder(dataclasses.replace(asked, taps=(f"{name}@native",)))
        maps = teacher.features(draw_pixels(teacher, 1))
        assert set(maps) == {name} and maps[name].shape[1] == native.channels


def test_a_tap_asked_for_alone_equals_itself_among_others(order, teacher):
    builder, asked = order
    pixels = draw_pixels(teacher)
    together = teacher.features(pixels)
    for tap in teacher.spec.taps:
        alone = builder(dataclasses.replace(asked, taps=(tap.name,))).features(pixels)
        torch.testing.assert_close(alone[tap.native], together[tap.native])


def test_the_outline_without_weights_says_the_same_of_every_tap(order, teacher):
    builder, asked = order
    name = teacher.spec.name
    if name not in TEACHERS or name in OWN_WEIGHTS:
        pytest.skip("it is built as it is: from its own file, or by another package")
    every = dataclasses.replace(asked, taps=tuple(f"{tap}@native" for tap in teacher.spec.native))
    outline, built = outline_teacher(every), builder(every).spec
    for fact in ("label", "taps", "native", "variant", "input_px", "mean", "std", "licence", "precision", "is_random"):
        assert getattr(outline, fact) == getattr(built, fact), fact
    size = f"-{asked.variant}" if asked.variant else ""
    assert outline.label == (teacher.spec.label if name == "hf" else f"{name}{size}-random")


def test_identity_is_plain_json_without_a_path(teacher, tmp_path_factory):
    identity = json.dumps(teacher.spec.identity())
    assert str(tmp_path_factory.getbasetemp()) not in identity
    assert re.fullmatch("[0-9a-f]{64}", teacher.spec.weights_digest)
    assert re.fullmatch("[A-Za-z0-9._-]+", teacher.spec.label)


def test_built_twice_it_is_the_same_teacher_whatever_the_global_generator(order, teacher):
    builder, asked = order
    torch.manual_seed(1234)
    before = torch.get_rng_state()
    again = builder(asked)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.spec == teacher.spec
    pixels = draw_pixels(teacher)
    for name, feature in teacher.features(pixels).items():
        assert torch.equal(again.features(pixels)[name], feature)


def test_the_same_pixels_give_the_same_bits_twice(teacher):
    pixels = draw_pixels(teacher)
    first = teacher.features(pixels)
    for name, feature in teacher.features(pixels).items():
        assert torch.equal(feature, first[name]), name


def test_a_picture_has_the_same_map_alone_and_in_a_batch(teacher):
    pixels = draw_pixels(teacher, 3)
    together = teacher.features(pixels)
    for name, feature in teacher.features(pixels[1:2]).items():
        torch.testing.assert_close(feature, together[name][1:2], atol=1e-4, rtol=1e-4)


def test_a_landmark_changes_most_the_cell_that_shows_it(teacher):
    px = teacher.spec.input_px
    plain = draw_pixels(teacher, 1) * 0.2 + 0.4
    before = teacher.features(plain)
    side = px // 8
    for row, column in [(1, 1), (1, 6), (4, 4), (6, 1), (6, 6)]:  # eighths; a padded border may answer louder
        top, left = row * side, column * side
        marked = plain.clone()
        marked[..., top : top + side, left : left + side] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        for name, feature in teacher.features(marked).items():
            change = (feature - before[name]).square().sum(1)[0]
            found = divmod(int(change.argmax()), change.shape[1])
            cell_px = px / change.shape[1]
            for cell, start in zip(found, (top, left), strict=True):
                assert start - cell_px <= cell * cell_px <= start + side, (name, found)


def test_another_size_of_pixels_is_refused(teacher):
    px = teacher.spec.input_px
    with pytest.raises(TeacherError, match=rf"\(B, 3, {px}, {px}\).*\(1, 3, {px}, {px - 1}\)"):
        teacher.features(torch.rand(1, 3, px, px - 1))


def test_an_unknown_tap_is_refused_naming_those_there_are(order, teacher):
    builder, asked = order
    with pytest.raises(TeacherError, match=next(iter(teacher.spec.native))):
        builder(dataclasses.replace(asked, taps=("nowhere",)))


def test_a_stride_that_is_too_fine_is_refused(order, teacher):
    builder, asked = order
    coarsest = max(teacher.spec.native.values(), key=lambda tap: tap.stride_native)
    with pytest.raises(TeacherError, match=rf"{coarsest.name}@1 asks for 128 x 128 cells"):
        builder(dataclasses.replace(asked, taps=(f"{coarsest.name}@1",)))


def test_an_absent_device_is_refused(order):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    builder, asked = order
    with pytest.raises(DeviceError, match="--device cpu"):
        builder(dataclasses.replace(asked, device="cuda"))


def test_bfloat16_is_recorded_and_near_float32(order, teacher):
    builder, asked = order
    if teacher.spec.name == "onnx":
        pytest.skip("onnxruntime runs the precision that the graph has")
    rounded = builder(dataclasses.replace(asked, precision="bfloat16"))
    assert rounded.spec.identity()["precision"] == "bfloat16"
    pixels = draw_pixels(teacher)
    for name, feature in teacher.features(pixels).items():
        error = (rounded.features(pixels)[name] - feature).norm() / feature.norm()
        assert 0 < error < 0.05
