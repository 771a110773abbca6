"""Checkpoints as their authors publish them: read, and how far from the authors' network or timm's, or named.

Where a file is read, the answer is how far the worst of the teacher's maps is from the library's in float64, as a share of
that map's size; what rounding to float32 leaves is less than 1e-6.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import author_layouts as authors
import old_layouts as old
import timm
import torch
from author_layouts import SIDE_PX, Tensors, read_blocks, timm_vit
from old_layouts import fill
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from transformers import Dinov2Config, ViTConfig
from truth_case import Case, Refused

from difom_cache import build_teacher
from difom_cache.teachers import VARIANTS, fill_random, normalise, plain_encoder

BLOCKS = [f"block{i}@native" for i in range(4)]
Read = Callable[[nn.Module, Tensor], Tensors]


@torch.no_grad()
def error_of(teacher: str, weights: Path, library: nn.Module, read: Read, taps: list[str] | None = None) -> float:
    """Return how far a teacher's worst map is from the library's in float64, as a share of the map's size."""
    px = int(teacher.rpartition("@")[2])
    built = build_teacher(teacher, weights=str(weights), taps=taps, picture_px=px)
    pixels = torch.rand(1, 3, px, px, generator=torch.Generator().manual_seed(5))
    maps = built.features(pixels)
    exact = read(library.eval().double(), normalise(pixels.double(), built.spec.mean, built.spec.std))
    assert maps, "a teacher without maps is within any distance"
    return max(float((maps[tap].double() - exact[tap]).norm() / exact[tap].norm()) for tap in maps)


def save(folder: Path, held: Any, name: str = "w.pth") -> Path:
    torch.save(held, folder / name)
    return folder / name


def below(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + key: value for key, value in tensors.items()}


DINOV2 = fill(authors.facebook_dinov2())
REGISTERS = fill(authors.facebook_dinov2(registers=4))
DINOV3 = authors.dinov3()
CLIP = fill(authors.openai_clip())
SAM2 = fill(authors.meta_sam2())
REG4 = "vit_small_patch14_reg4_dinov2"
WRAPPED: dict[str, Callable[[], Any]] = {
    "as published": lambda: DINOV2,
    "below model and module., with an optimizer and its arguments": lambda: {
        "model": below("module.", DINOV2),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(lr=0.1),
        "epoch": 3,
    },
    "of Lightning, with a head": lambda: {
        "state_dict": below("model.backbone.", DINOV2) | {"model.decoder.weight": torch.zeros(3)},
        "hyper_parameters": {"lr": 0.1},
    },
    "an average alone, of torch's AveragedModel": lambda: {
        "ema": {"module": below("module._orig_mod.", DINOV2) | {"n_averaged": torch.tensor(7)}}
    },
    "of DINOv2's own training, blocks in pieces, beside the student": lambda: {
        "student": below("backbone.", {k: torch.zeros_like(v) for k, v in DINOV2.items()}),
        "teacher": {f"backbone.{k.replace('blocks.', 'blocks.0.')}": v for k, v in DINOV2.items()}
        | {"dino_head.mlp.0.weight": torch.zeros(2)},
    },
}


def dinov2(held: Callable[[], Any], folder: Path) -> float:
    weights = save(folder, held())
    return error_of(f"dinov2:tiny@{SIDE_PX}", weights, authors.timm_dinov2(DINOV2), read_blocks, BLOCKS)


def registers(folder: Path) -> float:
    weights, library = save(folder, REGISTERS), authors.timm_dinov2(REGISTERS, REG4)
    return error_of(f"dinov2_reg:tiny@{SIDE_PX}", weights, library, read_blocks, BLOCKS)


def timms_dinov2(teacher: str, tensors: Tensors, name: str, folder: Path) -> float:
    library = authors.timm_dinov2(tensors, name)
    weights = authors.save_timm(folder, library, name)
    return error_of(f"{teacher}:tiny@{SIDE_PX}", weights, library, read_blocks, BLOCKS)


def giant(layout: str, folder: Path) -> float:
    """The giant's gated blocks, in a small network that a folder of settings describes."""
    tensors = fill(authors.facebook_dinov2(gated=True))
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": SIDE_PX}
    model = settings(folder / "model", Dinov2Config(**sizes, use_swiglu_ffn=True))
    library = authors.timm_dinov2(tensors, "vit_giant_patch14_dinov2", mlp_ratio=5.5)
    weights = save(folder, tensors if layout == "Facebook's" else library.state_dict())
    read = partial(read_blocks, normed=False, tap="state", first=1)
    return error_of(f"hf:{model}@{SIDE_PX}", weights, library, read, ["state1@native", "state3@native"])


def settings(folder: Path, config: Any) -> Path:
    config.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(old.IMAGENET_PROCESSOR))
    return folder


def dinov3(layout: str, folder: Path) -> float:
    library = authors.timm_dinov3(DINOV3)
    weights = save(folder, DINOV3 if layout == "Meta's" else library.state_dict())
    return error_of(f"dinov3:tiny@{SIDE_PX}", weights, library, read_blocks, BLOCKS)


def openai(folder: Path) -> float:
    half = {k: v.half() for k, v in CLIP.items()}
    weights = authors.save_openai(half | authors.OPENAI_MARKS, folder / "ViT-T-16.pt")
    library = authors.timm_clip({k: v.float() for k, v in half.items()}, quick=True)
    return error_of("clip:tiny@224", weights, library, partial(read_blocks, normed=False), BLOCKS)


def open_clip(quick: bool, folder: Path) -> float:
    held = {"epoch": 32, "name": "run", "state_dict": below("module.", CLIP)}
    weights = save(folder, held, "open_clip_pytorch_model.bin")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 32, "quick_gelu": quick}}))
    library = authors.timm_clip(CLIP, quick=quick)
    teacher = f"clip:tiny{'' if quick else '_gelu'}@224"
    return error_of(teacher, folder if quick else weights, library, partial(read_blocks, normed=False), BLOCKS)


def timms_clip(folder: Path) -> float:
    library = authors.timm_clip(CLIP, quick=True)
    weights = authors.save_timm(folder, library, "vit_base_patch16_clip_quickgelu_224")
    return error_of("clip:tiny@224", weights, library, partial(read_blocks, normed=False), BLOCKS)


def timms_vit(folder: Path) -> float:
    """A classifier of timm's, beside the settings of a transformers ViT of its size."""
    library = timm_vit("vit_base_patch16_224", num_classes=7)
    fill_random(library, "vit")
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 128}
    model = settings(folder / "model", ViTConfig(**sizes, image_size=SIDE_PX, layer_norm_eps=1e-6))
    read = partial(read_blocks, normed=False, tap="state", first=1)
    weights = save(folder, {"state_dict": library.state_dict()}, "model_best.pth.tar")
    return error_of(f"hf:{model}@{SIDE_PX}", weights, library, read, ["state1@native", "state3@native"])


def timms_folder(name: str, sizes: dict[str, Any], folder: Path) -> float:
    library = timm.create_model(name, **sizes)
    fill_random(library, name)
    place = authors.save_timm(folder, library, name, **sizes)
    return error_of(f"hf:{place}@{SIDE_PX}", place, library, partial(read_blocks, normed=False, tap="state"))


def sam2(folder: Path) -> float:
    weights, library = save(folder, {"model": SAM2}, "sam2.1_hiera_x.pt"), authors.timm_sam2(SAM2)
    taps = [f"{tap}@native" for tap in ("stage1", "stage2", "stage3", "stage4", "neck4", "neck8", "neck16")]
    return error_of("sam2:tiny@224", weights, library, partial(authors.read_sam2, SAM2), taps)


def read_sam(encoder: ImageEncoderViT, pixels: Tensor) -> Tensors:
    return {"neck": encoder(pixels)}


def sam(wrap: Callable[[Tensors], Any], half: bool, folder: Path) -> float:
    tensors = fill(old.sam_meta(old.SAM_TINY))
    tensors |= {"pixel_mean": torch.tensor([123.675, 116.28, 103.53])[:, None, None]}
    tensors |= {"pixel_std": torch.tensor([58.395, 57.12, 57.375])[:, None, None]}
    if half:
        tensors = {k: v.half() for k, v in tensors.items()}
    encoder = plain_encoder(VARIANTS["tiny"])
    encoder.load_state_dict({k[14:]: v.float() for k, v in tensors.items() if k.startswith("image_encoder.")})
    return error_of("sam:tiny@352", save(folder, wrap(tensors)), encoder, read_sam, ["neck@native"])


def named(teacher: str, *names: str, file: str = "w.pth") -> Callable[[Path], None]:
    """Read a file that holds some tensors of these names."""
    return lambda folder: open_for(teacher, save(folder, authors.some(*names), file))


def held(teacher: str, content: Any, file: str = "w.pth") -> Callable[[Path], None]:
    return lambda folder: open_for(teacher, save(folder, content, file))


def written(teacher: str, content: bytes, file: str = "w.pth") -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        (folder / file).write_bytes(content)
        open_for(teacher, folder / file)

    return read


def open_for(teacher: str, weights: Path) -> str:
    return build_teacher(teacher, weights=str(weights)).spec.weights_digest


M2F = ("backbone.patch_embed.proj.weight", "sem_seg_head.pixel_decoder.mask_features.weight")
SWIN = ("patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table")
SAM3 = "detector.backbone.vision_backbone.trunk.patch_embed.proj.weight"
CONVNEXT = ("downsample_layers.0.0.weight", "stages.0.0.dwconv.weight")
VIT_SIZES = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": SIDE_PX, "num_classes": 0}
SWIN_SIZES = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2), "img_size": SIDE_PX, "num_classes": 0}

CASES = [
    *(Case(f"checkpoints: Facebook's DINOv2, {how}", partial(dinov2, held), 0.0) for how, held in WRAPPED.items()),
    Case("checkpoints: Facebook's DINOv2 with registers", registers, 0.0),
    Case("checkpoints: Facebook's DINOv2, the giant's blocks", partial(giant, "Facebook's"), 0.0),
    Case("checkpoints: timm's DINOv2, the giant's blocks", partial(giant, "timm's"), 0.0),
    Case("checkpoints: timm's DINOv2", partial(timms_dinov2, "dinov2", DINOV2, "vit_small_patch14_dinov2"), 0.0),
    Case("checkpoints: timm's DINOv2 with registers", partial(timms_dinov2, "dinov2_reg", REGISTERS, REG4), 0.0),
    Case("checkpoints: Meta's DINOv3", partial(dinov3, "Meta's"), 0.0),
    Case("checkpoints: timm's DINOv3", partial(dinov3, "timm's"), 0.0),
    Case("checkpoints: OpenAI's CLIP, a TorchScript archive in half precision", openai, 0.0),
    Case("checkpoints: open_clip's CLIP, of its training, with GELU", partial(open_clip, False), 0.0),
    Case("checkpoints: open_clip's CLIP, a folder that says QuickGELU", partial(open_clip, True), 0.0),
    Case("checkpoints: timm's CLIP, a folder", timms_clip, 0.0),
    Case("checkpoints: timm's ViT, .pth.tar with a classifier", timms_vit, 0.0),
    Case("checkpoints: timm's ViT, a folder", partial(timms_folder, "vit_base_patch16_224", VIT_SIZES), 0.0),
    Case("checkpoints: timm's Swin, a folder", partial(timms_folder, "swin_tiny_patch4_window7_224", SWIN_SIZES), 0.0),
    Case("checkpoints: Meta's SAM 2", sam2, 0.0),
    Case(
        "checkpoints: a fine-tuned SAM below model and sam.",
        partial(sam, lambda t: {"model": below("sam.", t)}, False),
        0.0,
    ),
    Case("checkpoints: SAM in half precision, pixel_mean rounded", partial(sam, lambda t: t, True), 0.0),
    Case(
        "checkpoints: the authors' Mask2Former",
        named("mask2former:tiny", *M2F),
        Refused("the authors' Mask2Former", "detectron2", "--weights hub", "convert_mask2former_original"),
    ),
    Case(
        "checkpoints: the authors' OneFormer",
        named("oneformer:tiny", *M2F, "task_mlp.layers.0.weight"),
        Refused("the authors' OneFormer", "--weights hub", "convert_to_hf_oneformer.py"),
    ),
    Case(
        "checkpoints: detectron2's .pkl",
        written("mask2former:tiny", b"\x80\x04.", "model_final.pkl"),
        Refused("model_final.pkl", "detectron2", "torch.save"),
    ),
    Case(
        "checkpoints: a Swin alone for Mask2Former",
        named("mask2former:tiny", *SWIN),
        Refused("a Swin", "backbone alone", "--teacher hf:FOLDER"),
    ),
    Case(
        "checkpoints: Meta's SAM 3",
        named("sam3:tiny", SAM3, file="sam3.pt"),
        Refused("sam3.pt", "Meta's SAM 3", "--weights hub"),
    ),
    Case(
        "checkpoints: Meta's DINOv3 ConvNeXt",
        named("dinov3_convnext:tiny", *CONVNEXT),
        Refused("Meta's DINOv3 ConvNeXt", "--weights hub"),
    ),
    Case(
        "checkpoints: open_clip's file that says no activation",
        held("clip:tiny", CLIP),
        Refused("GELU or QuickGELU", "--teacher clip:base_gelu", "open_clip_config.json"),
    ),
    Case(
        "checkpoints: OpenAI's for GELU",
        held("clip:tiny_gelu", CLIP | authors.OPENAI_MARKS),
        Refused("quick_gelu", "expected gelu"),
    ),
    Case(
        "checkpoints: registers for a DINOv2 without",
        held("dinov2:tiny", REGISTERS),
        Refused("Facebook's or timm's DINOv2 with registers", "--teacher dinov2_reg"),
    ),
    Case(
        "checkpoints: Facebook's DINOv2 for SAM",
        held("sam:tiny", DINOV2),
        Refused("Facebook's or timm's DINOv2", "--teacher dinov2"),
    ),
    Case(
        "checkpoints: Facebook's DINOv2 of another size",
        held("dinov2:small", DINOV2),
        Refused("holds dinov2:tiny", "but dinov2:small was asked for"),
    ),
    Case(
        "checkpoints: a state and its average side by side",
        held("dinov2:tiny", {"state_dict": DINOV2, "state_dict_ema": DINOV2}),
        Refused("several sets of weights ('state_dict', 'state_dict_ema')"),
    ),
    Case(
        "checkpoints: keys with a bias that DINOv3 masks",
        held("dinov3:tiny", {k: v for k, v in DINOV3.items() if not k.endswith("bias_mask")}),
        Refused("unexpected", "k_proj.bias"),
    ),
    Case(
        "checkpoints: 'Repository not found' as .pth",
        written("dinov2:tiny", b"Repository not found"),
        Refused("w.pth", "text", "Repository not found"),
    ),
    Case(
        "checkpoints: a web page as .safetensors",
        written("dinov2:tiny", b"<!doctype html>\n<html>", "w.safetensors"),
        Refused("w.safetensors", "a web page"),
    ),
    Case(
        "checkpoints: a Git LFS pointer as .bin",
        written("sam:tiny", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "w.bin"),
        Refused("w.bin", "a Git LFS pointer"),
    ),
]
