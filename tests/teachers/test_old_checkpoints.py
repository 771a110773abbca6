"""Checkpoints in the layouts that lie on the hub since 2022 and 2023, which today's libraries no longer write."""

import os
import re
from pathlib import Path

import old_layouts as old
import pytest
import torch
from torch import Tensor

from difom_cache import build_teacher
from difom_cache.errors import WeightsError
from difom_cache.teachers import dinov2, load_part, pixel_level, read_tensors

SEGMENTERS = {
    "mask2former": (old.mask2former, pixel_level.MASK2FORMER),
    "oneformer": (old.oneformer, pixel_level.ONEFORMER),
}


def checkpoint(name: str) -> dict[str, Tensor]:
    return old.fill(SEGMENTERS[name][0](old.TINY))


def save(folder, name: str, tensors, form: str = old.FORMATS[0]):
    return old.save_folder(folder, tensors, old.segmenter_config(name, old.TINY), form)


# today's names, left, and those of the files, right; whatever is not here has kept its name
RENAMED = {
    ".encoder.swin.": ".encoder.",
    "attention.q_proj.": "attention.self.query.",
    "attention.k_proj.": "attention.self.key.",
    "attention.v_proj.": "attention.self.value.",
    "attention.o_proj.": "attention.output.dense.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
    "attention.relative_position_bias.": "attention.self.",
}


def old_dinov2_name(key: str) -> str:
    for part in ("query", "key", "value"):
        key = key.replace(f"attention.{part[0]}_proj.", f"attention.attention.{part}.")
    return key.replace("attention.o_proj.", "attention.output.dense.")


def old_name(key: str) -> str:
    name = f"model.pixel_level_module.{key}"
    if ".encoder.swin." in name:
        for now, then in RENAMED.items():
            name = name.replace(now, then)
    return name


@pytest.mark.parametrize("form", old.FORMATS)
@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_segmenter_of_2023_is_read_tensor_by_tensor(name, form, tmp_path):
    tensors = checkpoint(name)
    part, _, _ = load_part(SEGMENTERS[name][1], "tiny", str(save(tmp_path, name, tensors, form)))
    state = part.state_dict()
    for key, value in state.items():
        assert torch.equal(value, tensors[old_name(key)]), key
    used = [k for k in tensors if k.startswith("model.pixel_level_module.") and "position_index" not in k]
    assert len(state) == len(used)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_half_precision_files_give_the_values_that_they_hold(name, tmp_path):
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in checkpoint(name).items()}
    half = build_teacher(f"{name}:tiny", weights=str(save(tmp_path / "half", name, tensors)))
    full = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    whole = build_teacher(f"{name}:tiny", weights=str(save(tmp_path / "full", name, full)))
    assert half.spec.weights_digest == whole.spec.weights_digest


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_single_file_of_2023_is_read_like_its_folder(name, tmp_path):
    folder = save(tmp_path, name, checkpoint(name), "pytorch_model.bin")
    found = {
        build_teacher(f"{name}:tiny", weights=str(path)).spec.weights_digest
        for path in (folder, folder / "pytorch_model.bin")
    }
    assert len(found) == 1


def test_another_order_of_positions_is_refused_and_named(tmp_path):
    tensors = checkpoint("mask2former")
    key = next(k for k in tensors if k.endswith("layers.2.blocks.0.attention.self.relative_position_index"))
    tensors[key] = tensors[key].flip(0)
    with pytest.raises(WeightsError, match=rf"{re.escape(key)} differs from what the network computes"):
        build_teacher("mask2former:tiny", weights=str(save(tmp_path, "mask2former", tensors)))


@pytest.mark.parametrize(
    "key",
    ["classifier.weight", "model.pixel_level_module.decoder.surprise.weight", "model.surprise", "text_mapper.weight"],
)
@pytest.mark.parametrize("name", SEGMENTERS)
def test_any_other_key_is_refused_and_named(name, key, tmp_path):
    tensors = checkpoint(name) | {key: torch.zeros(3)}
    with pytest.raises(WeightsError, match=rf"1 unexpected \({re.escape(key)}\)"):
        build_teacher(f"{name}:tiny", weights=str(save(tmp_path, name, tensors)))


def test_heads_for_other_labels_do_not_matter(tmp_path):
    """Somebody's fine-tuned network has as many classes as they needed; single files come without a config."""
    tensors = checkpoint("mask2former")
    plain = build_teacher("mask2former:tiny", weights=str(save(tmp_path / "plain", "mask2former", tensors)))
    tensors |= {"class_predictor.weight": torch.zeros(3, 64), "class_predictor.bias": torch.zeros(3)}
    tuned = save(tmp_path / "tuned", "mask2former", tensors)
    for path in (tuned, tuned / "model.safetensors"):
        teacher = build_teacher("mask2former:tiny", weights=str(path))
        assert teacher.spec.weights_digest == plain.spec.weights_digest


def test_training_is_switched_off_whatever_the_folder_says(tmp_path):
    tensors = checkpoint("oneformer")
    assert old.segmenter_config("oneformer", old.TINY)["is_training"]
    teacher = build_teacher("oneformer:tiny@64", weights=str(save(tmp_path, "oneformer", tensors)), picture_px=64)
    pixels = torch.rand(2, 3, 64, 64)
    first, second = teacher.features(pixels), teacher.features(pixels)
    for tap, feature in first.items():
        assert torch.equal(feature, second[tap]), tap


@pytest.mark.parametrize("form", old.FORMATS)
def test_dinov2_of_2023_is_read(form, tmp_path):
    tensors = old.fill(old.dinov2(old.DINOV2_TINY))
    folder = old.save_folder(tmp_path, tensors, old.dinov2_config(old.DINOV2_TINY), form)
    state = load_part(dinov2.FAMILY, "tiny", str(folder))[0].state_dict()
    assert len(state) == len(tensors)
    for key, value in state.items():
        assert torch.equal(value, tensors[old_dinov2_name(key)]), key


@pytest.mark.skipif("DIFOM_DINOV2" not in os.environ, reason="DIFOM_DINOV2 names no folder of the real DINOv2 ViT-S/14")
def test_the_real_dinov2_is_read():
    folder = Path(os.environ["DIFOM_DINOV2"])
    tensors = read_tensors(folder, "dinov2:small")
    for key, value in load_part(dinov2.FAMILY, "small", str(folder))[0].state_dict().items():
        assert torch.equal(value, tensors[old_dinov2_name(key)].float()), key


def test_dinov2_with_a_classifier_is_read(tmp_path):
    """As facebook/dinov2-base-imagenet1k-1-layer holds it: the network below `dinov2.`, a head beside it."""
    plain = old.fill(old.dinov2(old.DINOV2_TINY))
    whole = {f"dinov2.{k}": v for k, v in plain.items()}
    whole |= {"classifier.weight": torch.zeros(7, 64), "classifier.bias": torch.zeros(7)}
    config = old.dinov2_config(old.DINOV2_TINY)
    digests = {
        build_teacher("dinov2:tiny", weights=str(old.save_folder(tmp_path / name, tensors, config))).spec.weights_digest
        for name, tensors in (("plain", plain), ("whole", whole))
    }
    assert len(digests) == 1


@pytest.mark.parametrize("form", old.FORMATS[:2])
def test_clip_of_2021_is_read_with_its_position_ids(form, tmp_path):
    tensors = old.fill(old.clip(old.CLIP_TINY))
    config = old.clip_config(old.CLIP_TINY)
    teacher = build_teacher("clip:tiny", weights=str(old.save_folder(tmp_path / "right", tensors, config, form)))
    assert teacher.features(torch.rand(1, 3, 352, 352))["block3"].isfinite().all()
    tensors["vision_model.embeddings.position_ids"] = tensors["vision_model.embeddings.position_ids"].flip(1)
    with pytest.raises(WeightsError, match=r"vision_model\.embeddings\.position_ids differs"):
        build_teacher("clip:tiny", weights=str(old.save_folder(tmp_path / "wrong", tensors, config, form)))


def sam_files(tmp_path, meta):
    """Return one SAM encoder in both layouts, and the encoder's tensors under segment-anything's names."""
    torch.save(meta, tmp_path / "sam_vit_x.pth")
    hub = old.fill(old.sam_hub(old.SAM_TINY), seed=1)
    own = {k.removeprefix("image_encoder."): v for k, v in meta.items() if k.startswith("image_encoder.")}
    names = [k for k in hub if k.startswith("vision_encoder.")]
    for key, (name, value) in zip(names, own.items(), strict=True):  # both lists go through the network in one order
        assert hub[key].shape == value.shape, (key, name)
        hub[key] = value
    return old.save_folder(tmp_path / "hub", hub, old.sam_config(old.SAM_TINY)), own


def test_sam_in_metas_layout_and_in_the_hubs_is_one_network(tmp_path):
    folder, own = sam_files(tmp_path, old.fill(old.sam_meta(old.SAM_TINY)))
    teachers = [build_teacher("sam:tiny", weights=str(path)) for path in (tmp_path / "sam_vit_x.pth", folder)]
    assert teachers[0].spec.weights_digest == teachers[1].spec.weights_digest
    assert own["blocks.1.norm2.weight"].std() > 0
    state = teachers[1].network.state_dict()
    assert torch.equal(state["image_encoder.blocks.1.norm2.weight"], own["blocks.1.norm2.weight"])


PIXEL_MEAN = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
PIXEL_STD = torch.tensor([58.395, 57.12, 57.375])[:, None, None]


def test_sams_own_mean_and_std_are_compared(tmp_path):
    """A Sam whose `pixel_mean` and `pixel_std` were saved as well, as forks of segment-anything do it."""
    meta = old.fill(old.sam_meta(old.SAM_TINY))
    torch.save(meta | {"pixel_mean": PIXEL_MEAN, "pixel_std": PIXEL_STD}, tmp_path / "right.pth")
    assert build_teacher("sam:tiny", weights=str(tmp_path / "right.pth")).spec.mean == (0.485, 0.456, 0.406)
    torch.save(meta | {"pixel_mean": PIXEL_MEAN / 255, "pixel_std": PIXEL_STD}, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match=r"wrong\.pth: pixel_mean differs from what the network computes"):
        build_teacher("sam:tiny", weights=str(tmp_path / "wrong.pth"))
