"""What every student promises; a new student adds a line to `CASES`.

`student_template.py` beside this file is a whole student in one file, to copy.
"""

import pytest
import torch

from difom_cache.errors import SettingsError
from difom_train import build_student, load_student
from difom_train.students import BOTTLENECK, STUDENTS, StudentOutput, count_parameters, save_student

CASES = [
    ("unet", None, {"width": 4}),
    ("unet", "difom", {"width": 4}),
    ("unet", "paper", {"width": 4}),
    ("unet", "residual", {"width": 4}),
    ("unet++", None, {"width": 4, "deep_supervision": True}),
    ("unet++", "residual", {"width": 4}),
    ("pranet", None, {"width": 8}),
    ("pranet", "residual", {"width": 8}),
    ("smp:fpn/resnet18", "difom", {}),
    ("smp:fpn/resnet18", "residual", {}),
    ("smp:unet/mit_b0", None, {}),
]
"""Name, neck, and options of a quick one."""
HEIGHT_PX, WIDTH_PX = 64, 96


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]} {case[1]}")
def student(request):
    name, neck, options = request.param
    if name.startswith("smp:"):
        pytest.importorskip("segmentation_models_pytorch")
    return build_student(name, weights="random", neck=neck, seed=1, **options).eval()


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(2, 3, HEIGHT_PX, WIDTH_PX, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def output(student, pictures) -> StudentOutput:
    with torch.no_grad():
        return student.forward_train(pictures)


def test_the_cases_are_all_students():
    assert set(STUDENTS) <= {case[0] for case in CASES}


def test_logits_have_the_size_of_the_picture(student, output, pictures):
    assert all(logits.shape == (2, 1, HEIGHT_PX, WIDTH_PX) for logits in output.logits)
    with torch.no_grad():
        assert torch.equal(student(pictures), output.logits[0])


def test_every_level_is_as_it_is_declared(student, output):
    assert BOTTLENECK in student.levels and set(output.levels) == set(student.levels)
    for name, level in student.levels.items():
        expected = (2, level.channels, HEIGHT_PX // level.stride, WIDTH_PX // level.stride)
        assert output.levels[name].shape == expected, name


def test_the_neck_shows_both_layers_on_the_grid_of_the_bottleneck(student, output):
    if student.settings.neck is None:
        assert output.neck == {}
        return
    level = student.levels[BOTTLENECK]
    expected = (2, 256, HEIGHT_PX // level.stride, WIDTH_PX // level.stride)
    assert {name: tuple(x.shape) for name, x in output.neck.items()} == {"z1": expected, "z2": expected}


def test_every_parameter_has_a_part_in_the_outputs(student, pictures):
    student.zero_grad()
    output = student.forward_train(pictures)
    sum(logits.square().mean() for logits in output.logits).backward()
    without = [name for name, parameter in student.named_parameters() if parameter.grad is None]
    student.zero_grad()
    assert without == []


def test_an_encoder_can_be_frozen_by_itself(student):
    frozen = {id(parameter) for module in student.encoder_modules() for parameter in module.parameters()}
    free = [name for name, parameter in student.named_parameters() if id(parameter) not in frozen]
    assert frozen and free
    assert not any(name.startswith("encoder") for name in free)


def test_input_sides_that_do_not_divide_are_refused_with_the_nearest(student):
    stride = student.largest_stride
    with pytest.raises(SettingsError, match=rf"divide by {stride}, found {2 * stride + 1} px.* {2 * stride} px"):
        student(torch.zeros(1, 3, 2 * stride + 1, 2 * stride))


def test_a_saved_student_is_the_same_student(student, pictures, output, tmp_path):
    save_student(student, tmp_path, {"input_px": WIDTH_PX})
    loaded = load_student(tmp_path)
    assert not loaded.training and loaded.meta == {"input_px": WIDTH_PX}
    assert count_parameters(loaded) == count_parameters(student)
    with torch.no_grad():
        assert torch.equal(loaded(pictures), output.logits[0])


def test_a_seed_decides_the_weights_and_leaves_the_global_generator_alone(student):
    settings = student.settings
    options = {
        "width": settings.width,
        "neck": settings.neck,
        "deep_supervision": settings.deep_supervision,
        "weights": "random",
    }
    before = torch.random.get_rng_state()
    again = build_student(settings.name, seed=1, **options)
    assert torch.equal(before, torch.random.get_rng_state())
    state, expected = again.state_dict(), student.state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.items())
