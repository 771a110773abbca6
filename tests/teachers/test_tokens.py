"""DINOv2, DINOv3 and CLIP against transformers' own forward."""

import json

import pytest
import torch
from parity import check_parity
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    Dinov2Backbone,
    Dinov2WithRegistersBackbone,
    DINOv3ViTBackbone,
)

from difom_cache import build_teacher
from difom_cache.errors import TeacherError, WeightsError
from difom_cache.teachers import clip, dinov2, dinov3, load_part, quiet

FAMILIES = {
    "dinov2": dinov2.FAMILY,
    "dinov2_reg": dinov2.REGISTERED,
    "dinov3": dinov3.FAMILY,
    "clip": clip.FAMILY,
}


def library_model(name: str, variant: str = "tiny", *, backbone: bool = True):
    """Return transformers' own network with the random weights of a variant."""
    model, config, _ = load_part(FAMILIES[name], variant, "random")
    if name == "clip" or not backbone:
        return model
    stages = [f"stage{i}" for i in range(1, config.num_hidden_layers + 1)]
    backbones = {"dinov2": Dinov2Backbone, "dinov2_reg": Dinov2WithRegistersBackbone, "dinov3": DINOv3ViTBackbone}
    backbone_class = backbones[name]
    held = backbone_class(type(config)(**{**config.to_dict(), "out_features": stages, "out_indices": None}))
    held.load_state_dict(model.state_dict(), strict=False)
    return held


def read_library(model, pixels: Tensor) -> dict[str, Tensor]:
    """Return the library's maps: the backbone's feature maps, or CLIP's hidden states without the class token; keys."""
    keys: dict[str, Tensor] = {}
    projections = [module for place, module in model.named_modules() if place.endswith("k_proj")]
    hooks = [p.register_forward_hook(lambda _, __, out, i=i: keys.update({i: out})) for i, p in enumerate(projections)]
    if hasattr(model, "out_features"):
        maps = {f"block{i}": feature for i, feature in enumerate(model(pixels).feature_maps)}
    else:
        states = model(pixels, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states[1:]
        side = round((states[0].shape[1] - 1) ** 0.5)
        maps = {f"block{i}": s[:, 1:].mT.unflatten(2, (side, side)) for i, s in enumerate(states)}
    for hook in hooks:
        hook.remove()
    side = maps["block0"].shape[-1]
    return maps | {f"block{i}.keys": k[:, -side * side :].mT.unflatten(2, (side, side)) for i, k in keys.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_block_equals_the_librarys_own_forward(name):
    teacher = build_teacher(f"{name}:tiny", weights="random", taps=[f"block{i}@native" for i in range(4)])
    check_parity(teacher, library_model(name), read_library)


@pytest.mark.parametrize("name", FAMILIES)
def test_keys_are_what_the_librarys_attention_projects(name):
    teacher = build_teacher(
        f"{name}:tiny", weights="random", taps=["block1.keys@native", "block3.keys@16", "block2@16"]
    )
    check_parity(teacher, library_model(name), read_library)


def test_blocks_after_the_deepest_keys_are_not_run():
    assert len(build_teacher("dinov2:tiny", weights="random", taps=["block1.keys@16"]).network.blocks) == 2


def test_the_gated_sizes_of_dinov3_gate_with_silu():
    # arXiv:2508.10104, table 2 (SwiGLU); a file of weights brings no configuration that could say so
    gated = {name: size.config() for name, size in dinov3.FAMILY.sizes.items() if size.config().use_gated_mlp}
    assert set(gated) == {"small_plus", "huge_plus", "7b"}
    assert {config.hidden_act for config in gated.values()} == {"silu"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_base_size_equals_the_librarys_own_forward(name):
    teacher = build_teacher(f"{name}:base", weights="random")
    check_parity(teacher, library_model(name, "base"), read_library, count=1)


def save_as(name: str, kind: str, tmp_path):
    model = library_model(name, backbone=False)
    folder = tmp_path / "folder"
    if name == "clip" and kind == "whole":
        whole = CLIPModel(
            CLIPConfig(vision_config=model.config.to_dict(), text_config=CLIPTextConfig(num_hidden_layers=1))
        )
        whole.vision_model.load_state_dict(model.state_dict(), strict=False)
        model = whole
    with quiet():
        model.save_pretrained(folder)
    if kind in ("folder", "whole"):
        return folder
    if kind == "file.safetensors":
        return folder / "model.safetensors"
    tensors = load_file(folder / "model.safetensors")
    if kind == "file.pth":
        torch.save(tensors, tmp_path / "file.pth")
        return tmp_path / "file.pth"
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("kind", ["folder", "file.safetensors", "file.pth", "folder with .bin"])
@pytest.mark.parametrize("name", FAMILIES)
def test_weights_saved_in_every_format_give_the_same_digest_and_maps(name, kind, tmp_path):
    random = build_teacher(f"{name}:tiny", weights="random")
    teacher = build_teacher(f"{name}:tiny", weights=str(save_as(name, kind, tmp_path)))
    assert teacher.spec.weights_digest == random.spec.weights_digest
    pixels = torch.rand(1, 3, teacher.spec.input_px, teacher.spec.input_px)
    for tap, feature in teacher.features(pixels).items():
        torch.testing.assert_close(feature, random.features(pixels)[tap])


def test_the_picture_side_of_a_whole_clip_is_found(tmp_path):
    teacher = build_teacher("clip:tiny", weights=str(save_as("clip", "whole", tmp_path)))
    assert teacher.spec.weights_digest == build_teacher("clip:tiny", weights="random").spec.weights_digest


def test_the_last_block_is_what_the_library_calls_its_last_hidden_state():
    model = library_model("dinov2", backbone=False).eval()
    teacher = build_teacher("dinov2:tiny", weights="random", taps=["block3@16"])
    pixels = torch.rand(1, 3, 308, 308)
    mean, std = torch.tensor(teacher.spec.mean), torch.tensor(teacher.spec.std)
    last = model((pixels - mean[:, None, None]) / std[:, None, None]).last_hidden_state
    feature = teacher.features(pixels)["block3"]
    torch.testing.assert_close(feature.flatten(2).mT, last[:, 1:], atol=1e-5, rtol=1e-4)


def test_blocks_after_the_deepest_tap_are_not_run():
    teacher = build_teacher("dinov2:tiny", weights="random", taps=["block1@16"])
    assert len(teacher.network.blocks) == 2
    full = build_teacher("dinov2:tiny", weights="random")
    pixels = torch.rand(1, 3, 308, 308)
    torch.testing.assert_close(teacher.features(pixels)["block1"], full.features(pixels)["block1"])


def test_a_folder_of_another_variant_is_refused_and_named(tmp_path):
    folder = save_as("dinov2", "folder", tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"hidden_size": 384, "num_hidden_layers": 12}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        WeightsError, match=r"holds dinov2:small \(use --teacher dinov2:small\), but dinov2:base was asked"
    ):
        build_teacher("dinov2:base", weights=str(folder))


def test_a_folder_of_another_network_is_refused_and_named(tmp_path):
    folder = save_as("dinov2", "folder", tmp_path)
    with pytest.raises(WeightsError, match="holds a dinov2 model, expected dinov3_vit"):
        build_teacher("dinov3:tiny", weights=str(folder))


def test_a_folder_without_config_is_refused(tmp_path):
    folder = save_as("dinov2", "folder", tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"expected a config\.json beside the weights"):
        build_teacher("dinov2:tiny", weights=str(folder))


def test_a_configuration_that_wants_foreign_code_is_refused(tmp_path):
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('foreign code ran')")
    with pytest.raises(WeightsError, match="without running foreign code"):
        build_teacher("dinov2:tiny", weights=str(tmp_path))


def test_a_file_of_another_size_is_refused_naming_a_tensor(tmp_path):
    path = save_as("dinov2", "file.pth", tmp_path)
    tensors = torch.load(path)
    tensors["embeddings.cls_token"] = torch.zeros(1, 1, 99)
    torch.save(tensors, path)
    with pytest.raises(WeightsError, match=r"embeddings\.cls_token is \(1, 1, 99\), expected \(1, 1, 32\)"):
        build_teacher("dinov2:tiny", weights=str(path))


def test_missing_and_unexpected_tensors_are_named(tmp_path):
    path = save_as("dinov3", "file.pth", tmp_path)
    tensors = torch.load(path)
    del tensors["norm.bias"]
    torch.save({**tensors, "classifier.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=r"1 missing \(norm\.bias\) and 1 unexpected \(classifier\.weight\)"):
        build_teacher("dinov3:tiny", weights=str(path))


def test_an_input_that_is_no_multiple_of_the_patch_names_the_nearest():
    with pytest.raises(TeacherError, match="multiples of 14 px, not 352 px; the nearest is dinov2:base@350"):
        build_teacher("dinov2@352", weights="random")
