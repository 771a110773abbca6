import pytest
import torch
from painted_folder import paint_folder

from difom_cache import build_teacher, extract, open_cache
from difom_cache.errors import RunError, SettingsError, TeacherError
from difom_cache.teachers import TeacherRequest
from difom_train import build_student, load_student
from difom_train.students import build, save_student, write_run_masks


def save_run(folder, name="unet", input_px=64, **options):
    save_student(build_student(name, weights="random", seed=1, **options), folder, {"input_px": input_px})
    return folder


@pytest.fixture
def run(tmp_path):
    return save_run(tmp_path / "wide", width=2)


def tap_names(teacher):
    return [tap.name for tap in teacher.spec.taps]


def test_a_run_teaches_under_its_own_name_through_the_catalogue(run):
    teacher = build_teacher(f"student:{run}", picture_px=64)
    assert teacher.spec.label == "student-wide" and teacher.spec.input_px == 64
    assert tap_names(teacher) == ["encoder4@8", "bottleneck@16", "logits@2"]
    assert teacher.spec.native["logits"].kind == "logits"


def test_its_maps_are_the_students_own(run):
    pixels = torch.rand(2, 3, 64, 64)
    maps = build(TeacherRequest(variant=str(run), picture_px=64)).features(pixels)
    output = load_student(run).forward_train(pixels)
    torch.testing.assert_close(maps["bottleneck"], output.levels["bottleneck"])
    torch.testing.assert_close(maps["logits"], output.logits[0])
    assert set(maps) == {"encoder4", "bottleneck", "logits"}


def test_a_small_input_keeps_its_own_grid_where_the_pictures_would_ask_for_a_finer_one(run):
    """A 64 px run on 352 px pictures: its bottleneck has 4 cells a side, which are 88 picture px each."""
    assert tap_names(build(TeacherRequest(variant=str(run)))) == ["encoder4@44", "bottleneck@88", "logits@5.5"]


def test_pranet_gives_one_level_for_each_stride(tmp_path):
    teacher = build(TeacherRequest(variant=str(save_run(tmp_path / "p", "pranet")), picture_px=64))
    assert tap_names(teacher) == ["encoder3@8", "encoder4@16", "bottleneck@32", "logits@2"]


def test_any_level_can_be_named(run):
    teacher = build(TeacherRequest(variant=str(run), picture_px=64, taps=("decoder1@8", "bottleneck@32")))
    assert tap_names(teacher) == ["decoder1@8", "bottleneck@32"]


def test_random_weights_make_another_teacher_of_the_same_shape(run):
    trained, control = (build(TeacherRequest(variant=str(run), weights=weights)) for weights in ("hub", "random"))
    again = build(TeacherRequest(variant=str(run), weights="random"))
    assert trained.spec.weights_digest != control.spec.weights_digest == again.spec.weights_digest
    assert tap_names(trained) == tap_names(control)


def test_a_student_of_random_teachers_teaches_as_random(tmp_path):
    run, meta = tmp_path / "lost", {"input_px": 64, "random_teachers": ["dinov2-random"]}
    save_student(build_student("unet", weights="random", seed=1, width=2), run, meta)
    spec = build_teacher(f"student:{run}", picture_px=64).spec
    assert spec.is_random and spec.label == "student-lost-random" and spec.identity()["weights"] == "random"
    other = save_run(tmp_path / "found", width=2)
    assert not build(TeacherRequest(variant=str(run), weights=str(other / "student.safetensors"))).spec.is_random


def test_the_identity_holds_no_path(run):
    assert str(run.parent) not in str(build(TeacherRequest(variant=str(run))).spec.identity())


def test_its_column_says_which_masks_the_run_has_learnt_from(run, tmp_path):
    data = paint_folder(tmp_path / "data", frames=3)
    settings = {"data": data, "views": 1, "input_size": 64, "quiet": True}
    write_run_masks(run, frozenset(["a" * 64, "b" * 64]))
    extract(teacher=f"student:{run}", cache=tmp_path / "feats", **settings)
    assert open_cache(tmp_path / "feats").seen_masks("student-wide") == {"a" * 64, "b" * 64}
    write_run_masks(run, None)
    extract(teacher=f"student:{run}", cache=tmp_path / "unknown", **settings)
    assert open_cache(tmp_path / "unknown").seen_masks("student-wide") is None
    assert build(TeacherRequest(variant=str(run), weights="random")).spec.seen_masks == frozenset()


def test_what_cannot_teach_is_refused(run, tmp_path):
    with pytest.raises(TeacherError, match="student:RUN"):
        build(TeacherRequest())
    with pytest.raises(RunError, match="holds no trained student"):
        build(TeacherRequest(variant=str(tmp_path)))
    with pytest.raises(SettingsError, match="divide by 16, found 100 px; the nearest is 96 px"):
        build(TeacherRequest(variant=str(run), input_px=100))
