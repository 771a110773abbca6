"""Students from outside: found by what is installed or given, and never by what a run folder says."""

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from strange_students import LEVELS, Small, build, build_unet

from difom_cache import build_teacher
from difom_cache.errors import RunError, SettingsError, TeacherError, WeightsError
from difom_train import build_student, load_student, save_student, wrap_student
from difom_train.students import outside

PICTURES = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CODE = "strange_students:build"


@pytest.fixture
def wrapped(tmp_path):
    """Return a run folder of a wrapped module."""
    save_student(wrap_student(Small(), LEVELS).eval(), tmp_path / "wrapped", {"input_px": 32})
    return tmp_path / "wrapped"


@pytest.fixture
def coded(tmp_path):
    """Return a run folder of a student that was named as code."""
    save_student(build_student(CODE, neck="difom", seed=1).eval(), tmp_path / "coded", {"input_px": 32})
    return tmp_path / "coded"


@pytest.fixture
def installed(monkeypatch):
    """Install a student under an entry point."""
    point = EntryPoint("strange", "strange_students:build_unet", outside.ENTRY_POINTS)
    monkeypatch.setattr(outside, "entry_points", lambda group: [point] if group == outside.ENTRY_POINTS else [])


def test_code_is_built_under_its_name_with_the_neck_that_is_asked_for():
    student = build_student(CODE, neck="paper", seed=3)
    assert student.settings.name == CODE and student.settings.neck == "paper" and student.neck is not None
    again = build_student(CODE, neck="paper", seed=3)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in student.state_dict().items())


def test_an_installed_student_is_trained_and_loaded_by_its_name(installed, tmp_path):
    student = build_student("strange", width=3, seed=1).eval()
    assert (student.name, student.settings.width) == ("strange", 3)
    save_student(student, tmp_path, {"input_px": 32})
    assert torch.equal(load_student(tmp_path)(PICTURES), student(PICTURES))
    with pytest.raises(SettingsError, match="no student 'strnge'; did you mean 'strange'"):
        build_student("strnge")


@pytest.mark.parametrize(
    "give",
    [
        Small,
        lambda: CODE,
        lambda: "strange_students:build_network",
        lambda: build,
        lambda: wrap_student(Small(), LEVELS),
    ],
    ids=["module", "code", "code of a network", "function", "student"],
)
def test_a_wrapped_run_is_loaded_with_what_is_handed_in_which_stays_as_it_is(wrapped, give):
    given = give()
    before = [each.clone() for each in given.parameters()] if isinstance(given, torch.nn.Module) else []
    loaded = load_student(wrapped, student=given)
    saved = load_file(wrapped / "student.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in loaded.state_dict().items())
    after = list(given.parameters()) if before else []
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_run_folder_names_no_code(coded, wrapped, monkeypatch):
    monkeypatch.delitem(sys.modules, "strange_students")
    with pytest.raises(RunError, match=f"names no code to import: give it again, --student {CODE}"):
        load_student(coded)
    with pytest.raises(RunError, match=r"of .*wrapped is Small, from outside .* --student package\.module:Factory"):
        load_student(wrapped)
    with pytest.raises(TeacherError, match=rf"--teacher student:{coded}#package\.module:Factory"):
        build_teacher(f"student:{coded}")
    assert "strange_students" not in sys.modules


def test_a_student_from_outside_teaches(coded):
    teacher = build_teacher(f"student:{coded}#{CODE}@32", picture_px=32)
    assert teacher.spec.label == "student-coded"
    maps = teacher.features(PICTURES)
    torch.testing.assert_close(maps["logits"], load_student(coded, student=CODE)(PICTURES))


def test_of_several_students_a_run_takes_the_one_of_its_name(coded, wrapped):
    for run in (coded, wrapped):
        assert load_student(run, student=[Small(), CODE])(PICTURES).shape == (1, 1, 32, 32)
    with pytest.raises(RunError, match="give it again"):
        load_student(coded, student=[Small(), "other.code:build"])


def test_another_network_is_refused_by_its_weights(wrapped, coded):
    with pytest.raises(WeightsError, match="another network's weights"):
        load_student(coded, student=build_unet)
    with pytest.raises(RunError, match=r"no module 'backbone\.2'"):
        load_student(wrapped, student=torch.nn.Conv2d(3, 1, 1))


def test_runs_of_built_in_students_do_without(tmp_path):
    save_student(build_student("unet", width=2), tmp_path, {"input_px": 32})
    assert load_student(tmp_path, student="nowhere.code:build").name == "unet"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.code:build", "nowhere.code cannot be imported .* start from the folder that holds it"),
        ("strange_students:bild", "strange_students has no 'bild'"),
        ("strange_students:NO_FACTORY", "NO_FACTORY is a int; expected what makes a student"),
        ("builtins:repr", "made a str; expected a student"),
        ("shutil:copyfile", r"needs more than a student's settings.*def build\(\) .*def build\(settings\)"),
        ("strange_students:ThreeClasses", "gives logits of 3 classes; build it with one"),
        ("torch.nn:Flatten", r"returns a tensor \(1, 196608\); expected logits"),
    ],
)
def test_code_that_makes_no_student_is_one_line(name, message):
    with pytest.raises(SettingsError, match=message):
        build_student(name)


@pytest.mark.parametrize("name", ["Small", "build_network", "make_small"])
def test_a_plain_network_is_a_student_whether_its_maker_takes_settings_or_nothing(name, capsys):
    code = f"strange_students:{name}"
    student = build_student(code, neck="difom", seed=3)
    assert student.settings.wrap is not None
    assert student.settings.wrap.strides == {"backbone.3": 4, "backbone": 8} and student.neck is not None
    assert capsys.readouterr().err == f"{code}: levels backbone.3 (stride 4), backbone (stride 8); others by levels=\n"
    assert student(PICTURES).shape == (1, 1, 32, 32)


def test_what_goes_wrong_inside_a_maker_is_its_authors_to_see_whole(monkeypatch):
    monkeypatch.setattr("strange_students.make_small", lambda: len(3))
    with pytest.raises(TypeError, match="has no len"):
        build_student("strange_students:make_small")


def test_a_student_without_the_neck_is_refused(monkeypatch):
    monkeypatch.setattr("strange_students.build_unet", lambda settings: build_student("unet", width=2))
    with pytest.raises(SettingsError, match="was built with neck None, and 'difom' is needed; build it with"):
        build_student("strange_students:build_unet", neck="difom")


def test_a_module_in_the_current_folder_is_found_after_those_that_are_installed(tmp_path, monkeypatch):
    (tmp_path / "my_own_student.py").write_text("from strange_students import build\n")
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong torch')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert build_student("my_own_student:build").name == "my_own_student:build"


def test_weights_of_a_file_fill_the_wrapped_module(tmp_path):
    torch.manual_seed(5)
    source = Small()
    torch.save(source.state_dict(), tmp_path / "mine.pth")
    student = build_student(CODE, weights=str(tmp_path / "mine.pth"), seed=1)
    assert torch.equal(student.network.head.weight, source.head.weight)
    with pytest.raises(SettingsError, match="no ImageNet weights of strange_students:build"):
        build_student(CODE, weights="imagenet")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strides", []),
        ("strides", {"backbone.2": "4"}),
        ("mean", [0.0]),
        ("std", "abc"),
        ("input_px", 1e9),
        ("more", 1),
    ],
)
def test_a_damaged_description_is_one_line(wrapped: Path, field, value):
    description = json.loads((wrapped / "student.json").read_text())
    description["student"]["wrap"][field] = value
    (wrapped / "student.json").write_text(json.dumps(description))
    with pytest.raises(RunError, match=r"student\.json does not describe a student"):
        load_student(wrapped, student=Small())
