"""Checkpoints as their authors publish them, made of random numbers: names and shapes, and timm's networks to compare with.

Key names are written out here: of facebookresearch/dinov2 and dinov3 (`models/vision_transformer.py`), openai/CLIP
(`clip/model.py`) and facebookresearch/sam2 (`modeling/backbones`). timm reads each of them by a conversion of its own,
which is what ours is compared with. The names of CLIP were compared once, by hand, with those of open_clip_torch 3.3.0.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from old_layouts import Encoder, Named, conv, fill, linear, norm
from safetensors.torch import save_file
from timm.models import eva, hieradet_sam2, vision_transformer
from torch import Tensor, nn

Tensors = dict[str, Tensor]
SIDE_PX = 112
DINOV2_TINY = Encoder(32, 4, 2, SIDE_PX)
CLIP_TINY = Encoder(32, 4, 2, 224)  # a single file has the catalogue's 14 x 14 positions


def vit_block(of: Encoder, block: str, *, scale: bool) -> Named:
    yield from norm(f"{block}.norm1", of.width)
    yield from linear(f"{block}.attn.qkv", 3 * of.width, of.width)
    yield from linear(f"{block}.attn.proj", of.width, of.width)
    if scale:
        yield f"{block}.ls1.gamma", (of.width,)
    yield from norm(f"{block}.norm2", of.width)


def facebook_dinov2(of: Encoder = DINOV2_TINY, *, registers: int = 0, gated: bool = False) -> Named:
    """`dinov2_vits14_pretrain.pth`; with registers `dinov2_vits14_reg4_pretrain.pth`; gated as the giant's."""
    yield "cls_token", (1, 1, of.width)
    yield "pos_embed", (1, (of.image_px // 14) ** 2 + 1, of.width)
    if registers:
        yield "register_tokens", (1, registers, of.width)
    yield "mask_token", (1, of.width)
    yield from conv("patch_embed.proj", of.width, 3, 14)
    inner = (int(4 * of.width * 2 / 3) + 7) // 8 * 8
    for number in range(of.depth):
        block = f"blocks.{number}"
        yield from vit_block(of, block, scale=True)
        if gated:
            yield from linear(f"{block}.mlp.w12", 2 * inner, of.width)
            yield from linear(f"{block}.mlp.w3", of.width, inner)
        else:
            yield from linear(f"{block}.mlp.fc1", 4 * of.width, of.width)
            yield from linear(f"{block}.mlp.fc2", of.width, 4 * of.width)
        yield f"{block}.ls2.gamma", (of.width,)
    yield from norm("norm", of.width)


def meta_dinov3(of: Encoder = DINOV2_TINY, *, mlp: int = 64) -> Named:
    """`dinov3_vits16_pretrain_lvd1689m.pth`; its mask and periods are set by `dinov3`."""
    yield "cls_token", (1, 1, of.width)
    yield "storage_tokens", (1, 4, of.width)
    yield "mask_token", (1, of.width)
    yield from conv("patch_embed.proj", of.width, 3, 16)
    yield "rope_embed.periods", (of.width // of.heads // 4,)
    for number in range(of.depth):
        block = f"blocks.{number}"
        yield from vit_block(of, block, scale=True)
        yield f"{block}.attn.qkv.bias_mask", (3 * of.width,)
        yield from linear(f"{block}.mlp.fc1", mlp, of.width)
        yield from linear(f"{block}.mlp.fc2", of.width, mlp)
        yield f"{block}.ls2.gamma", (of.width,)
    yield from norm("norm", of.width)


def openai_clip(of: Encoder = CLIP_TINY) -> Named:
    """`ViT-B-16.pt`'s state dict, and open_clip's: both sides; OpenAI's archive holds three numbers more."""
    for side, tokens in (("visual.", (of.image_px // 16) ** 2 + 1), ("", 77)):
        yield f"{side}positional_embedding", (tokens, of.width)
        for number in range(of.depth):
            block = f"{side}transformer.resblocks.{number}"
            yield f"{block}.attn.in_proj_weight", (3 * of.width, of.width)
            yield f"{block}.attn.in_proj_bias", (3 * of.width,)
            yield from linear(f"{block}.attn.out_proj", of.width, of.width)
            yield from norm(f"{block}.ln_1", of.width)
            yield from linear(f"{block}.mlp.c_fc", 4 * of.width, of.width)
            yield from linear(f"{block}.mlp.c_proj", of.width, 4 * of.width)
            yield from norm(f"{block}.ln_2", of.width)
    yield "visual.class_embedding", (of.width,)
    yield "visual.proj", (of.width, of.width)
    yield "visual.conv1.weight", (of.width, 3, 16, 16)
    yield from norm("visual.ln_pre", of.width)
    yield from norm("visual.ln_post", of.width)
    yield "token_embedding.weight", (99, of.width)
    yield from norm("ln_final", of.width)
    yield "text_projection", (of.width, of.width)
    yield "logit_scale", ()


OPENAI_MARKS = {
    "input_resolution": torch.tensor(224),
    "context_length": torch.tensor(77),
    "vocab_size": torch.tensor(99),
}


def meta_sam2(width: int = 16, blocks: tuple[int, ...] = (1, 1, 2, 1), neck: int = 32) -> Named:
    """`sam2.1_hiera_tiny.pt`, below `model`: the image encoder, and a few of the memory's tensors."""
    top = "image_encoder.trunk"
    yield f"{top}.pos_embed", (1, width, 7, 7)
    yield f"{top}.pos_embed_window", (1, width, 8, 8)
    yield from conv(f"{top}.patch_embed.proj", width, 3, 7)
    number, into = 0, width
    for stage, count in enumerate(blocks):
        for _ in range(count):
            out, block = width * 2**stage, f"{top}.blocks.{number}"
            yield from norm(f"{block}.norm1", into)
            yield from linear(f"{block}.attn.qkv", 3 * out, into)
            yield from linear(f"{block}.attn.proj", out, out)
            yield from norm(f"{block}.norm2", out)
            yield from linear(f"{block}.mlp.layers.0", 4 * out, out)
            yield from linear(f"{block}.mlp.layers.1", out, 4 * out)
            if out != into:
                yield from linear(f"{block}.proj", out, into)
            number, into = number + 1, out
    for level in range(4):
        yield from conv(f"image_encoder.neck.convs.{level}.conv", neck, width * 2 ** (3 - level))
    yield "maskmem_tpos_enc", (7, 1, 1, 8)
    yield "no_mem_embed", (1, 1, neck)


def read_sam2(tensors: Tensors, trunk: nn.Module, pixels: Tensor) -> Tensors:
    """Return the maps of timm's trunk, and of the neck as `modeling/backbones/image_encoder.py` (FpnNeck) works them out."""
    stages = trunk.forward_intermediates(pixels, intermediates_only=True)
    lateral = [
        F.conv2d(
            stage, *(tensors[f"image_encoder.neck.convs.{3 - i}.conv.{kind}"].to(pixels) for kind in ("weight", "bias"))
        )
        for i, stage in enumerate(stages)
    ]
    upwards = F.interpolate(lateral[3], scale_factor=2.0, mode="nearest")  # into the two coarsest levels alone
    necks = {"neck4": lateral[0], "neck8": lateral[1], "neck16": lateral[2] + upwards}
    return {f"stage{i}": stage for i, stage in enumerate(stages, 1)} | necks


def some(*names: str) -> Tensors:
    """Return a few tensors by which a layout is known, of a file that is only named."""
    return {name: torch.zeros(2) for name in names}


def dinov3(of: Encoder = DINOV2_TINY) -> Tensors:
    """Return Meta's DINOv3, its keys' biases masked out, its periods as the authors compute them (base 100)."""
    tensors = fill(meta_dinov3(of))
    for key in [key for key in tensors if key.endswith("bias_mask")]:
        tensors[key] = torch.ones(3, of.width).index_fill(0, torch.tensor(1), 0).flatten()
    quarter = of.width // of.heads // 4
    return tensors | {"rope_embed.periods": 100.0 ** (torch.arange(quarter) / quarter)}


def timm_vit(name: str, **sizes: Any) -> nn.Module:
    settings = {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": SIDE_PX, "num_classes": 0}
    return timm.create_model(name, **settings | sizes)


def timm_dinov2(tensors: Tensors, name: str = "vit_small_patch14_dinov2", **sizes: Any) -> nn.Module:
    """Return timm's DINOv2 with the tensors of a file of Facebook's."""
    model = timm_vit(name, **sizes)
    model.load_state_dict(vision_transformer.checkpoint_filter_fn(dict(tensors), model))
    return model


def timm_dinov3(tensors: Tensors) -> nn.Module:
    """Return timm's DINOv3 with the tensors of a file of Meta's."""
    model = timm_vit("vit_small_patch16_dinov3_qkvb", mlp_ratio=2)
    model.load_state_dict(eva.checkpoint_filter_fn(dict(tensors), model))
    return model


def timm_clip(tensors: Tensors, *, quick: bool) -> nn.Module:
    """Return timm's vision tower with the tensors of a file of OpenAI's or open_clip's."""
    name = f"vit_base_patch16_clip_{'quickgelu_' if quick else ''}224"
    model = timm_vit(name, img_size=224, num_classes=32)
    model.load_state_dict(vision_transformer.checkpoint_filter_fn(dict(tensors), model))
    return model


def timm_sam2(tensors: Tensors) -> nn.Module:
    """Return timm's Hiera with the trunk of a file of Meta's."""
    sizes = {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 2, 1), "global_att_blocks": (3,), "num_classes": 0}
    model = hieradet_sam2.HieraDet(**sizes)
    held = hieradet_sam2.checkpoint_filter_fn(tensors, prefix="image_encoder.trunk.")
    assert not model.load_state_dict(held, strict=False).unexpected_keys
    return model


def read_blocks(
    model: nn.Module, pixels: Tensor, *, normed: bool = True, tap: str = "block", first: int = 0
) -> Tensors:
    """Return timm's maps after each block, under the names of taps from `first` on."""
    maps = model.forward_intermediates(pixels, norm=normed, intermediates_only=True)
    return {f"{tap}{number}": each for number, each in enumerate(maps, first)}


def save_timm(folder: Path, model: nn.Module, name: str, **sizes: Any) -> Path:
    """Save what `timm.save_for_hf` puts into a folder, as the hub has it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    trained = {
        "input_size": [3, SIDE_PX, SIDE_PX],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "num_classes": 0,
    }
    arguments = {key: value for key, value in sizes.items() if key != "num_classes"}
    held = {"architecture": name, "num_classes": 0, "model_args": arguments, "pretrained_cfg": trained}
    (folder / "config.json").write_text(json.dumps(held))
    return folder


def save_openai(tensors: Tensors, path: Path) -> Path:
    """Save a TorchScript archive of modules that hold `tensors`, as OpenAI publishes CLIP."""
    root = nn.Module()
    for name, value in tensors.items():
        place = root
        *parents, last = name.split(".")
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, nn.Module())
            place = getattr(place, parent)
        place.register_buffer(last, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; the published files are what they are
        torch.jit.script(root).save(str(path))
    return path
