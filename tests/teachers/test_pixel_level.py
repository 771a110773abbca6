"""Mask2Former's and OneFormer's pixel-level modules against transformers' own forward."""

import pytest
import torch
from parity import check_parity
from safetensors.torch import load_file
from torch import Tensor, nn

from difom_cache import build_teacher
from difom_cache.errors import TeacherError, WeightsError
from difom_cache.teachers import empty_model, load_part, pixel_level, quiet

FAMILIES = {"mask2former": pixel_level.MASK2FORMER, "oneformer": pixel_level.ONEFORMER}
NATIVE = ("stage1", "stage2", "stage3", "stage4", "pixel32", "pixel16", "pixel8", "pixel4")


def library_module(name: str, variant: str = "tiny") -> nn.Module:
    return load_part(FAMILIES[name], variant, "random")[0]


def read_library(module, pixels: Tensor) -> dict[str, Tensor]:
    """Return the maps of the library's own forward of the whole pixel-level module."""
    given = module(pixels, output_hidden_states=True)
    if hasattr(given, "decoder_features"):  # OneFormer's names
        stages, levels, mask = given.encoder_features, given.decoder_features, given.decoder_last_feature
    else:
        stages, levels, mask = given.encoder_hidden_states, given.decoder_hidden_states, given.decoder_last_hidden_state
    return dict(zip(NATIVE, [*stages, *levels, mask], strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_level_equals_the_librarys_own_forward(name):
    teacher = build_teacher(f"{name}:tiny@128", weights="random", taps=[f"{tap}@native" for tap in NATIVE])
    check_parity(teacher, library_module(name), read_library)


@pytest.mark.parametrize("name", FAMILIES)
def test_levels_without_the_mask_features_equal_the_librarys_too(name):
    teacher = build_teacher(f"{name}:tiny", weights="random")
    assert {tap.native for tap in teacher.spec.taps} == {"pixel16", "pixel32"}
    check_parity(teacher, library_module(name), read_library, count=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_base_size_equals_the_librarys_own_forward(name):
    teacher = build_teacher(f"{name}:swin_t@352", weights="random", picture_px=352)
    check_parity(teacher, library_module(name, "swin_t"), read_library, count=1)


def save_whole(name: str, folder):
    """Save a whole Mask2Former or OneFormer whose pixel-level module has the random weights of `tiny`."""
    family = FAMILIES[name]
    model = empty_model(family.model_class, family.sizes["tiny"].config())
    model.model.pixel_level_module.load_state_dict(library_module(name).state_dict(), strict=False)
    with quiet():
        model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["folder", "file.safetensors", "file.pth"])
@pytest.mark.parametrize("name", FAMILIES)
def test_weights_saved_in_every_format_give_the_same_digest_and_maps(name, kind, tmp_path):
    path = save_whole(name, tmp_path / "whole")
    if kind == "file.safetensors":
        path = path / "model.safetensors"
    elif kind == "file.pth":
        torch.save(load_file(path / "model.safetensors"), tmp_path / kind)
        path = tmp_path / kind
    teacher = build_teacher(f"{name}:tiny@128", weights=str(path), picture_px=128)
    random = build_teacher(f"{name}:tiny@128", weights="random", picture_px=128)
    assert teacher.spec.weights_digest == random.spec.weights_digest
    pixels = torch.rand(1, 3, 128, 128)
    for tap, feature in teacher.features(pixels).items():
        torch.testing.assert_close(feature, random.features(pixels)[tap])


def test_one_family_is_not_taken_for_the_other(tmp_path):
    folder = save_whole("oneformer", tmp_path)
    with pytest.raises(WeightsError, match="holds a oneformer model, expected mask2former"):
        build_teacher("mask2former:tiny", weights=str(folder))


def test_a_missing_tensor_of_the_used_part_is_named(tmp_path):
    tensors = load_file(save_whole("mask2former", tmp_path) / "model.safetensors")
    del tensors["model.pixel_level_module.decoder.level_embed"]
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 missing \(model\.pixel_level_module\.decoder\.level_embed\)"):
        build_teacher("mask2former:tiny", weights=str(tmp_path / "w.pth"))


def test_the_mask_features_are_not_computed_where_nobody_asks_for_them():
    lean = build_teacher("mask2former:tiny@128", weights="random", picture_px=128)
    assert lean.network.module.decoder.num_fpn_levels == 0
    full = build_teacher("mask2former:tiny@128", weights="random", picture_px=128, taps=["pixel4@8"])
    assert full.network.module.decoder.num_fpn_levels == 1


def test_an_input_that_is_no_multiple_of_32_names_the_nearest():
    with pytest.raises(TeacherError, match="multiples of 32 px, not 600 px; the nearest is mask2former:swin_l@608"):
        build_teacher("mask2former@600", weights="random")
