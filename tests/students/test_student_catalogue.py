import json
import sys

import pytest
from student_table import describe_all

from difom_cache.errors import SettingsError
from difom_train import build_student
from difom_train.students import TABLE, default_weights, describe_students


def test_the_table_says_what_the_networks_are():
    assert json.loads(TABLE.read_text("utf-8")) == list(describe_all()), "run tests/students/student_table.py"


def test_parameters_are_as_published_without_distillation_layers():
    described = {entry["student"]: entry.get("parameters") for entry in describe_students()}
    for name, millions in {"unet": 7.85, "unet++": 9.16, "pranet": 30.5}.items():
        assert described[name] == pytest.approx(millions * 1e6, rel=0.01)


def test_width_is_that_of_the_finest_scale():
    student = build_student("unet", width=16)
    channels = [student.levels[name].channels for name in ("encoder1", "encoder2", "encoder3", "encoder4")]
    assert [*channels, student.levels["bottleneck"].channels] == [16, 32, 64, 128, 256]


def test_pranet_and_smp_start_from_imagenet_and_the_others_from_chance():
    assert {name: default_weights(name) for name in ("unet", "unet++", "pranet", "smp:fpn/resnet18")} == {
        "unet": "random",
        "unet++": "random",
        "pranet": "imagenet",
        "smp:fpn/resnet18": "imagenet",
    }


def test_deep_supervision_shows_four_outputs():
    import torch

    student = build_student("unet++", width=2, deep_supervision=True)
    assert len(student.forward_train(torch.zeros(1, 3, 32, 32)).logits) == 4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unett", {}, "did you mean 'unet'"),
        ("unet", {"neck": "paprika"}, "did you mean 'paper'"),
        ("unet", {"deep_supervision": True}, "an option of unet\\+\\+"),
        ("unet", {"width": 0}, "at least 1, found 0"),
        ("unet", {"weights": "imagenet"}, "unet has no ImageNet weights"),
        ("smp:fpn/resnet18", {"width": 8}, "has no --width"),
        ("smp:fpm/resnet18", {"weights": "random"}, "did you mean 'fpn'"),
        ("smp:fpn/resnet19", {"weights": "random"}, "did you mean 'resnet18'"),
        ("smp:fpn", {"weights": "random"}, "expected smp:ARCH/ENCODER"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(name, options, message):
    if name.startswith("smp:"):
        pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(SettingsError, match=message):
        build_student(name, **options)


def test_without_the_optional_library_smp_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(SettingsError, match=r"pip install '\.\[smp\]'"):
        build_student("smp:fpn/resnet18", weights="random")
