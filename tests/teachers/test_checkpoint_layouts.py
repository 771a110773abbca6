"""Which layout a file has, what becomes of it, and what it is called; how far features are off is in tests/truth."""

import json
from pathlib import Path

import author_layouts as authors
import old_layouts as old
import pytest
import torch
from author_layouts import SIDE_PX
from old_layouts import fill
from transformers import Dinov2Config

from difom_cache import build_teacher
from difom_cache.errors import WeightsError
from difom_cache.teachers import (
    dinov2,
    dinov3,
    empty_model,
    fill_random,
    find_wrapper,
    load_part,
    pixel_level,
    quiet,
    read_weights,
    sam2,
)

FAMILIES = {"dinov3": dinov3.FAMILY, "mask2former": pixel_level.MASK2FORMER, "sam2": sam2.FAMILY}


def digest(teacher: str, weights: Path) -> str:
    return build_teacher(teacher, weights=str(weights)).spec.weights_digest


def save(folder: Path, held, name: str = "w.pth") -> Path:
    torch.save(held, folder / name)
    return folder / name


def hub_name(key: str) -> str:
    """Return what `convert_dinov2_to_hf.py` calls a tensor of Facebook's, projections apart."""
    if not key.startswith("blocks."):
        names = {"norm": "layernorm", "patch_embed.proj": "embeddings.patch_embeddings.projection"}
        names |= {"pos_embed": "embeddings.position_embeddings"}
        for theirs, own in names.items():
            key = key.replace(theirs, own)
        return f"embeddings.{key}" if key in ("cls_token", "mask_token", "register_tokens") else key
    key = key.replace("blocks.", "encoder.layer.").replace("attn.proj", "attention.output.dense")
    return key.replace("ls1.gamma", "layer_scale1.lambda1").replace("ls2.gamma", "layer_scale2.lambda1")


def hub_dinov2(facebook):
    """Return Facebook's tensors as the hub has them, by the steps of transformers' script."""
    held = {}
    for key, value in facebook.items():
        if ".attn.qkv." not in key:
            held[hub_name(key)] = value
            continue
        layer, kind = key.removeprefix("blocks.").split(".attn.qkv.")
        for part, rows in zip(("query", "key", "value"), (0, 32, 64), strict=True):
            held[f"encoder.layer.{layer}.attention.attention.{part}.{kind}"] = value[rows : rows + 32]
    return held


@pytest.mark.parametrize("registers", [0, 4])
def test_facebooks_file_and_the_hubs_folder_have_one_digest_so_that_a_column_continues(tmp_path, registers):
    facebook = fill(authors.facebook_dinov2(registers=registers))
    config = old.dinov2_config(authors.DINOV2_TINY)
    if registers:
        config |= {"model_type": "dinov2_with_registers", "num_register_tokens": 4}
    folder = old.save_folder(tmp_path / "hub", hub_dinov2(facebook), config)
    teacher = f"dinov2{'_reg' if registers else ''}:tiny"
    assert digest(teacher, save(tmp_path, facebook)) == digest(teacher, folder)


def test_every_tensor_of_facebooks_file_arrives(tmp_path):
    facebook = fill(authors.facebook_dinov2())
    state = load_part(dinov2.FAMILY, "tiny", str(save(tmp_path, facebook)))[0].state_dict()
    key = state["encoder.layer.2.attention.k_proj.weight"]
    assert torch.equal(key, facebook["blocks.2.attn.qkv.weight"][32:64])
    assert torch.equal(state["embeddings.mask_token"], facebook["mask_token"])
    assert sum(v.numel() for v in state.values()) == sum(v.numel() for v in facebook.values())


def test_clip_of_openai_and_of_transformers_have_one_digest(tmp_path):
    hub = old.fill(old.clip(old.CLIP_TINY))
    openai = fill(authors.openai_clip())
    for key in [key for key in openai if key.startswith("visual.")]:
        layer = key.replace("visual.transformer.resblocks.", "vision_model.encoder.layers.")
        for theirs, own in (("attn.out_proj", "self_attn.out_proj"), ("ln_", "layer_norm")):
            layer = layer.replace(theirs, own)
        layer = layer.replace("c_fc", "fc1").replace("c_proj", "fc2")
        if ".attn.in_proj_" in layer:
            block, kind = layer.split(".attn.in_proj_")
            openai[key] = torch.cat([hub[f"{block}.self_attn.{part}_proj.{kind}"] for part in "qkv"])
        elif layer in hub:
            openai[key] = hub[layer]
    top = "vision_model.embeddings"
    openai["visual.class_embedding"] = hub[f"{top}.class_embedding"]
    openai["visual.conv1.weight"] = hub[f"{top}.patch_embedding.weight"]
    openai["visual.positional_embedding"] = hub[f"{top}.position_embedding.weight"]
    for kind in ("weight", "bias"):
        openai[f"visual.ln_pre.{kind}"] = hub[f"vision_model.pre_layrnorm.{kind}"]
    archive = authors.save_openai(openai | authors.OPENAI_MARKS, tmp_path / "clip.pt")
    folder = old.save_folder(tmp_path / "hub", hub, old.clip_config(old.CLIP_TINY))
    assert digest("clip:tiny", archive) == digest("clip:tiny", folder)


def test_a_file_of_another_grid_brings_its_own_positions(tmp_path):
    """DINOv2 trained on at another size has another count of positions; the folder's settings would say so."""
    facebook = fill(authors.facebook_dinov2())
    teacher = build_teacher(f"dinov2:tiny@{SIDE_PX}", weights=str(save(tmp_path, facebook)), taps=["block3@native"])
    held = teacher.network.model.embeddings.position_embeddings
    assert torch.equal(held, facebook["pos_embed"]) and held.shape[1] == 8 * 8 + 1


def test_facebooks_file_of_another_size_names_that_size(tmp_path):
    wide = fill(authors.facebook_dinov2(old.Encoder(768, 12, 12, 28)))
    with pytest.raises(WeightsError, match=r"w\.pth: holds dinov2:base \(use --teacher dinov2:base\), but dinov2:tiny"):
        digest("dinov2:tiny", save(tmp_path, wide))


@pytest.mark.parametrize("what", ["blocks.1.attn.lora_a", "q_norm.weight"])
def test_a_tensor_that_the_layout_does_not_have_is_refused_by_name(tmp_path, what):
    facebook = fill(authors.facebook_dinov2()) | {what: torch.zeros(3)}
    with pytest.raises(WeightsError, match=r"1 unexpected \(.*(lora_a|q_norm)"):
        digest("dinov2:tiny", save(tmp_path, facebook))


def test_a_tensor_too_much_is_refused_even_where_any_head_is_allowed(tmp_path):
    """`hf:` lets heads be; a converted file has no reason to hold more than the network."""
    config = Dinov2Config(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=SIDE_PX)
    config.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(old.IMAGENET_PROCESSOR))
    facebook = fill(authors.facebook_dinov2()) | {"blocks.0.attn.q_norm.weight": torch.zeros(16)}
    with pytest.raises(WeightsError, match=r"1 unexpected \(.*q_norm\.weight\)"):
        digest(f"hf:{tmp_path / 'model'}@{SIDE_PX}", save(tmp_path, facebook))


def test_one_network_at_two_places_is_refused_unless_one_is_the_teacher(tmp_path):
    facebook = fill(authors.facebook_dinov2())
    pair = {f"{name}.{k}": v for name in ("first", "second") for k, v in facebook.items()}
    with pytest.raises(WeightsError, match=r"several networks of dinov2:tiny, below \('first\.', 'second\.'\)"):
        digest("dinov2:tiny", save(tmp_path, pair))
    zeros = {f"student.{k}": torch.zeros_like(v) for k, v in facebook.items()}
    both = save(tmp_path, zeros | {f"teacher.{k}": v for k, v in facebook.items()}, "both.pth")
    assert digest("dinov2:tiny", both) == digest("dinov2:tiny", save(tmp_path, facebook))


def test_periods_of_another_base_are_refused(tmp_path):
    tensors = authors.dinov3()
    tensors["rope_embed.periods"] = tensors["rope_embed.periods"] ** 2
    with pytest.raises(WeightsError, match=r"rope_embed\.periods differs from what the network computes"):
        digest("dinov3:tiny", save(tmp_path, tensors))


@pytest.mark.parametrize("name", FAMILIES)
def test_our_own_layout_is_read_below_any_wrapper(tmp_path, name):
    random = build_teacher(f"{name}:tiny", weights="random")
    family = FAMILIES[name]
    model = empty_model(family.model_class, family.sizes["tiny"].config())
    fill_random(family.part(model), f"{name}:tiny")
    with quiet():
        model.save_pretrained(tmp_path / "folder")
    tensors = read_weights(tmp_path / "folder" / "model.safetensors", ())[0]
    wrapped = {"state_dict": {f"module.net.{k}": v for k, v in tensors.items()} | {"loss.weight": torch.zeros(2)}}
    assert digest(f"{name}:tiny", save(tmp_path, wrapped)) == random.spec.weights_digest


def test_the_wrapper_of_a_network_is_found_by_its_names():
    own = {"a.weight", "a.bias", "b.weight"}
    assert find_wrapper([*own, "head.weight"], own, Path("w")) == ""
    assert find_wrapper([f"module.net.{name}" for name in own], own, Path("w")) == "module.net."
    assert find_wrapper(["x", "y.z"], own, Path("w")) == ""
    with pytest.raises(WeightsError, match=r"several times, below \('ema\.', 'net\.'\)"):
        find_wrapper([f"{place}.{name}" for place in ("ema", "net") for name in sorted(own)], own, Path("w"))
