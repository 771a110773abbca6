import json

import old_layouts as old
import pytest
import torch
from small_networks import save_vit
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    SiglipConfig,
    SiglipModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from difom_cache import build_teacher
from difom_cache.errors import SettingsError, TeacherError, WeightsError
from difom_cache.teachers import fill_random, quiet


def save_processor(folder, name="preprocessor_config.json", **settings):
    settings = settings or {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (folder / name).write_text(json.dumps(settings))


def tap_names(teacher):
    return [tap.name for tap in teacher.spec.taps]


def test_a_vision_transformer_gives_its_states_without_the_class_token(tmp_path):
    folder = save_vit(tmp_path / "vit")
    teacher = build_teacher(f"hf:{folder}", picture_px=64)
    assert teacher.spec.label == "hf-vit" and teacher.spec.input_px == 64
    assert list(teacher.spec.native) == ["state0", "state1", "state2"]
    assert tap_names(teacher) == ["state1@16", "state2@32"]
    pixels = torch.rand(1, 3, 64, 64)
    model = ViTModel.from_pretrained(folder)
    mean, std = torch.tensor(teacher.spec.mean)[:, None, None], torch.tensor(teacher.spec.std)[:, None, None]
    states = model((pixels - mean) / std, output_hidden_states=True).hidden_states
    torch.testing.assert_close(teacher.features(pixels)["state2"].flatten(2).mT, states[2][:, 1:], atol=1e-5, rtol=1e-4)


def test_positions_are_interpolated_for_another_size(tmp_path):
    teacher = build_teacher(f"hf:{save_vit(tmp_path / 'vit')}@128", picture_px=128)
    assert teacher.features(torch.rand(1, 3, 128, 128))["state2"].shape == (1, 32, 8, 8)


@pytest.mark.parametrize(
    ("model", "grids"),
    [
        (SwinModel(SwinConfig(embed_dim=16, depths=[1, 1], num_heads=[1, 2], image_size=64)), [16, 8, 8]),
        (
            ConvNextModel(ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], image_size=64)),
            [16, 16, 8, 4, 2],
        ),
    ],
    ids=["swin", "convnext"],
)
def test_networks_of_several_scales_give_each_of_them(model, grids, tmp_path):
    fill_random(model, "scales")
    with quiet():
        model.save_pretrained(tmp_path)
    save_processor(tmp_path)
    teacher = build_teacher(f"hf:{tmp_path}@64", picture_px=64)
    assert [tap.grid(64) for tap in teacher.spec.native.values()] == grids
    assert all(f.isfinite().all() for f in teacher.features(torch.rand(1, 3, 64, 64)).values())


def test_a_checkpoint_with_a_head_of_its_own_is_taken(tmp_path):
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=64, patch_size=16
    )
    with quiet():
        ViTForImageClassification(config).save_pretrained(tmp_path)
    save_processor(tmp_path)
    first, second = (build_teacher(f"hf:{tmp_path}", picture_px=64).spec.weights_digest for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_mean_and_std_come_from_the_models_own_settings(name, tmp_path):
    folder = save_vit(tmp_path / "vit")
    (folder / "preprocessor_config.json").unlink()
    settings = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    save_processor(folder, name, **({"image_processor": settings} if name.startswith("processor") else settings))
    spec = build_teacher(f"hf:{folder}", picture_px=64).spec
    assert spec.mean == (0.5, 0.5, 0.5) and spec.std == (0.25, 0.25, 0.25)


def test_a_model_that_is_not_normalised_gets_its_pixels_as_they_are(tmp_path):
    folder = save_vit(tmp_path / "vit")
    save_processor(folder, do_normalize=False)
    spec = build_teacher(f"hf:{folder}", picture_px=64).spec
    assert spec.mean == (0.0, 0.0, 0.0) and spec.std == (1.0, 1.0, 1.0)


def test_a_model_that_does_not_say_its_mean_and_std_is_refused(tmp_path):
    folder = save_vit(tmp_path / "vit")
    save_processor(folder, image_mean=[0.5], image_std=[0.5])
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json: expected image_mean and image_std"):
        build_teacher(f"hf:{folder}", picture_px=64)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"vit: expected image_mean and image_std.*in preprocessor_config\.json"):
        build_teacher(f"hf:{folder}", picture_px=64)


def test_siglip_is_read_without_the_head_that_pools_it(tmp_path):
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vision = small | {"image_size": 64, "patch_size": 16}
    config = SiglipConfig(text_config=small | {"vocab_size": 99}, vision_config=vision)
    model = SiglipModel(config)
    fill_random(model, "siglip")
    with quiet():
        model.save_pretrained(tmp_path)
    save_processor(tmp_path)
    teacher = build_teacher(f"hf:{tmp_path}", picture_px=64)
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        states = model.eval().vision_model((pixels - 0.5) / 0.25, output_hidden_states=True).hidden_states
    torch.testing.assert_close(teacher.features(pixels)["state2"].flatten(2).mT, states[2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("teacher", "config"),
    [
        ("oneformer", old.segmenter_config("oneformer", old.TINY)),
        ("mask2former", old.segmenter_config("mask2former", old.TINY)),
        ("sam", old.sam_config(old.SAM_TINY)),
        ("sam2", {"model_type": "sam2_video"}),
    ],
)
def test_a_model_that_has_a_teacher_of_its_own_says_which(teacher, config, tmp_path):
    old.save_folder(tmp_path, {"a": torch.zeros(1)}, config)
    with pytest.raises(WeightsError, match=rf"use --teacher {teacher} --weights {tmp_path}"):
        build_teacher(f"hf:{tmp_path}", picture_px=64)


def test_random_weights_need_the_configuration_alone(tmp_path):
    folder = save_vit(tmp_path / "vit")
    trained = build_teacher(f"hf:{folder}", picture_px=64).spec.weights_digest
    (folder / "model.safetensors").unlink()
    random = build_teacher(f"hf:{folder}", weights="random", picture_px=64).spec
    assert random.weights_source == "random" and random.weights_digest != trained


def test_a_model_without_pictures_is_refused(tmp_path):
    config = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 32, "vocab_size": 99}))
    save_processor(tmp_path)
    with pytest.raises(TeacherError, match="cannot take an input of 224 px"):
        build_teacher(f"hf:{tmp_path}", weights="random")


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"expected a config\.json"):
        build_teacher(f"hf:{tmp_path}")


def test_a_model_must_be_named():
    with pytest.raises(SettingsError, match="--teacher hf:MODEL"):
        build_teacher("hf")
