"""How the authors of each network lay its tensors out in a file, and how that becomes the layout of the hub's files.

One row of `LAYOUTS` says by which tensors a layout is known and, for each network of ours that it holds, how it is
converted. Where a row has no conversion for a network, its last words say what to do. A network is known wherever it
lies inside a file: below `module.`, `model.backbone.`, `teacher.backbone.` or whatever its trainer put around it.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from difom_cache.base.errors import WeightsError
from difom_cache.teachers.checkpoint import choose_one, read_checkpoint

Tensors = dict[str, Tensor]
Names = dict[str, str | tuple[str, ...] | None]
"""Pattern to what stands in its place; several names share the rows of a tensor; None leaves it out."""


def rename(tensors: Tensors, names: Names) -> Tensors:
    """Return `tensors` under the names that the patterns give, applied one after the other."""
    renamed: Tensors = {}
    for key, value in tensors.items():
        keys = [key]
        for pattern, place in names.items():
            found = [each for each in keys if re.search(pattern, each)]
            if found:
                parts = () if place is None else (place,) if isinstance(place, str) else place
                keys = [re.sub(pattern, part, each) for each in found for part in parts]
        if len(keys) > 1 and len(value) % len(keys):
            keys = [key]  # not what it seems; refused by its name
        renamed |= zip(keys, value.chunk(len(keys)) if len(keys) > 1 else [value] * len(keys), strict=True)
    return renamed


_VIT: Names = {
    r"^(head|head_dist|fc_norm|linear_head)\.": None,
    r"^blocks\.(?:\d+\.)?(\d+)\.": r"encoder.layer.\1.",  # DINOv2 trains its blocks in numbered pieces
    r"\.attn\.qkv\.": tuple(f".attention.attention.{part}." for part in ("query", "key", "value")),
    r"\.attn\.proj\.": ".attention.output.dense.",
    r"^patch_embed\.proj\.": "embeddings.patch_embeddings.projection.",
    r"^cls_token$": "embeddings.cls_token",
    r"^pos_embed$": "embeddings.position_embeddings",
    r"^norm\.": "layernorm.",
}
_PLAIN_VIT = _VIT | {
    r"\.norm1\.": ".layernorm_before.",
    r"\.norm2\.": ".layernorm_after.",
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"\.mlp\.fc2\.": ".output.dense.",
}
_DINOV2 = _VIT | {
    r"^mask_token$": "embeddings.mask_token",
    r"^(register_tokens|reg_token)$": "embeddings.register_tokens",
    r"\.ls(\d)\.gamma$": r".layer_scale\1.lambda1",
    r"\.mlp\.w12\.": ".mlp.weights_in.",
    r"\.mlp\.w3\.": ".mlp.weights_out.",
}
_DINOV3: Names = {
    r"^(head|local_cls_norm)\.": None,
    r"\.attn\.qkv\.bias_mask$": None,
    r"^blocks\.": "layer.",
    r"\.attn\.qkv\.": tuple(f".attention.{part}_proj." for part in "qkv"),
    r"\.attn\.([qv])_bias$": r".attention.\1_proj.bias",
    r"\.attn\.proj\.": ".attention.o_proj.",
    r"^patch_embed\.proj\.": "embeddings.patch_embeddings.",
    r"^cls_token$": "embeddings.cls_token",
    r"^mask_token$": "embeddings.mask_token",
    r"^(storage_tokens|reg_token)$": "embeddings.register_tokens",
    r"\.(?:ls(\d)\.gamma|gamma_(\d))$": r".layer_scale\1\2.lambda1",
    r"\.mlp\.(w1|fc1_g)\.": ".mlp.gate_proj.",
    r"\.mlp\.(w2|fc1_x|fc1)\.": ".mlp.up_proj.",
    r"\.mlp\.(w3|fc2)\.": ".mlp.down_proj.",
}
_CLIP: Names = {
    r"^proj$": None,
    r"^class_embedding$": "vision_model.embeddings.class_embedding",
    r"^positional_embedding$": "vision_model.embeddings.position_embedding.weight",
    r"^conv1\.": "vision_model.embeddings.patch_embedding.",
    r"^ln_pre\.": "vision_model.pre_layrnorm.",
    r"^ln_post\.": "vision_model.post_layernorm.",
    r"^transformer\.resblocks\.": "vision_model.encoder.layers.",
    r"\.attn\.in_proj_": tuple(f".self_attn.{part}_proj." for part in "qkv"),
    r"\.attn\.out_proj\.": ".self_attn.out_proj.",
    r"\.ln_(\d)\.": r".layer_norm\1.",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
}
_TIMM_CLIP: Names = {
    r"^head\.": None,
    r"^cls_token$": "vision_model.embeddings.class_embedding",
    r"^pos_embed$": "vision_model.embeddings.position_embedding.weight",
    r"^patch_embed\.proj\.": "vision_model.embeddings.patch_embedding.",
    r"^norm_pre\.": "vision_model.pre_layrnorm.",
    r"^norm\.": "vision_model.post_layernorm.",
    r"^blocks\.": "vision_model.encoder.layers.",
    r"\.attn\.qkv\.": tuple(f".self_attn.{part}_proj." for part in "qkv"),
    r"\.attn\.proj\.": ".self_attn.out_proj.",
    r"\.norm(\d)\.": r".layer_norm\1.",
}
_SAM: Names = {  # from transformers' names to segment-anything's
    r"^patch_embed\.projection\.": "patch_embed.proj.",
    r"^layers\.": "blocks.",
    r"^(blocks\.\d+)\.layer_norm(\d)\.": r"\1.norm\2.",
    r"^neck\.conv1\.": "neck.0.",
    r"^neck\.layer_norm1\.": "neck.1.",
    r"^neck\.conv2\.": "neck.2.",
    r"^neck\.layer_norm2\.": "neck.3.",
}
_SAM2: Names = {
    r"^neck\.convs\.(\d+)\.conv\.": r"neck.convs.\1.",
    r"^trunk\.": "backbone.",
    r"\.patch_embed\.proj\.": ".patch_embed.projection.",
    r"\.norm(\d)\.": r".layer_norm\1.",
    r"\.mlp\.layers\.0\.": ".mlp.proj_in.",
    r"\.mlp\.layers\.1\.": ".mlp.proj_out.",
}


def _plain_vit(tensors: Tensors) -> Tensors:
    return rename(_with_class_position(tensors), _PLAIN_VIT)


def _dinov2(tensors: Tensors) -> Tensors:
    """Return DINOv2 as the hub has it; timm leaves out the mask token, which nothing reads once training has ended."""
    held = {"mask_token": torch.zeros(1, tensors["cls_token"].shape[-1])} | _with_class_position(tensors)
    return rename({_gated_name(key, held): value for key, value in held.items()}, _DINOV2)


def _gated_name(key: str, tensors: Tensors) -> str:
    """Return Facebook's name of a layer of the giant's gated MLP, whose halves share a layer that timm calls fc1."""
    block, mlp, _ = key.partition(".mlp.fc")
    up, down = (tensors.get(f"{block}{mlp}{number}.weight") for number in (1, 2))
    if up is None or down is None or up.shape[0] != 2 * down.shape[1]:
        return key
    return key.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.")


def _with_class_position(tensors: Tensors) -> Tensors:
    """Return the tensors with a position of the class token; timm adds it to the token itself where there are registers."""
    positions = tensors["pos_embed"]
    if math.isqrt(positions.shape[1]) ** 2 != positions.shape[1]:
        return tensors
    return tensors | {"pos_embed": torch.cat([torch.zeros_like(positions[:, :1]), positions], 1)}


def _dinov3(tensors: Tensors) -> Tensors:
    """Return DINOv3 as the hub has it, where keys have no bias; Meta's files hold one and a mask of zeros for it."""
    width = tensors["cls_token"].shape[-1]
    held = {"mask_token": torch.zeros(1, 1, width)} | tensors
    if "mask_token" in tensors:
        held["mask_token"] = tensors["mask_token"].reshape(1, 1, width)
    elif "blocks.0.attn.q_bias" not in tensors:  # timm leaves out biases that are zero
        depth = len([key for key in tensors if key.endswith(".attn.qkv.weight")])
        held |= {f"blocks.{i}.attn.{part}_bias": torch.zeros(width) for i in range(depth) for part in "qv"}
    for key in [key for key in held if key.endswith(".attn.qkv.bias")]:
        held[key] = held[key] * held.get(f"{key}_mask", 1)
    renamed = rename(held, _DINOV3)
    return {k: v for k, v in renamed.items() if not (k.endswith("k_proj.bias") and not v.any())}


def _timm_clip(tensors: Tensors) -> Tensors:
    held = tensors | {"cls_token": tensors["cls_token"].flatten(), "pos_embed": tensors["pos_embed"].squeeze(0)}
    return rename(held, _TIMM_CLIP)


@dataclass(frozen=True)
class Layout:
    """How somebody lays a network's tensors out.

    Attributes:
        name: whose layout of which network.
        anchor: the tensor that shows where in the file the network lies.
        networks: that it holds, by transformers' type of model, or "sam".
        marks: patterns of the tensors beside it that tell this layout from others.
        convert: how their tensors come to be called as in the hub's files, by patterns or a function; None where they are.
        way: what to do with it where another network is wanted; "" for transformers' own, of which the library tells.
    """

    name: str
    anchor: str
    networks: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    convert: Names | Callable[[Tensors], Tensors] | None = None
    way: str = ""

    def places(self, names: Collection[str]) -> list[str]:
        """Return the prefixes below which `names` hold such a network."""
        ends = [name.removesuffix(self.anchor) for name in names if f".{name}".endswith(f".{self.anchor}")]
        beside = {end: [name[len(end) :] for name in names if name.startswith(end)] for end in ends}
        return [end for end in ends if all(any(re.match(mark, name) for name in beside[end]) for mark in self.marks)]


def _timm(name: str, network: str, marks: tuple[str, ...], convert: Callable[[Tensors], Tensors], way: str) -> Layout:
    return Layout(name, _PATCHES, (network,), marks, convert, way)


_PATCHES = "patch_embed.proj.weight"
_BLOCK = r"blocks\.[\d.]+\."
_CLASS, _SCALE = (r"cls_token$", r"pos_embed$"), rf"{_BLOCK}ls1\.gamma$"
_QKV, _GAMMA = rf"{_BLOCK}attn\.qkv\.weight$", rf"{_BLOCK}gamma_1$"
_HUB_SAM = (r"layers\.0\.attn\.rel_pos_h$",)
_META_SAM = (r"blocks\.0\.attn\.rel_pos_h$", r"neck\.0\.weight$")
_HIERA, _CONVNEXT = (r"trunk\.pos_embed_window$",), (r"stages\.0\.0\.dwconv\.weight$",)
_SWIN = (r"layers\.0\.blocks\.0\.attn\.relative_position_bias_table$",)
_REGISTERED = "Facebook's or timm's DINOv2 with registers"
_REGISTER_MARKS = (r"(register_tokens|reg_token)$", r"pos_embed$", _SCALE)
_OPENAI = (r"class_embedding$", r"transformer\.resblocks\.0\.attn\.in_proj_weight$")
_CLIP_MARKS = (r"norm_pre\.weight$", *_CLASS, _QKV)
_HUB_HAS_IT = "the hub's files hold the published one (--weights hub)"
_ONLY = f"only transformers' layout of it is read: {_HUB_HAS_IT}"
_DETECTRON2 = (
    f"it is detectron2's: {_HUB_HAS_IT}; one of your own becomes a folder by transformers' script "
    "convert_{}.py (src/transformers/models/{} of its releases 4.x)"
)
_ONEFORMER = _DETECTRON2.format("to_hf_oneformer", "oneformer")
_MASK2FORMER = _DETECTRON2.format("mask2former_original_pytorch_checkpoint_to_pytorch", "mask2former")
_FOLDER = "--teacher hf:FOLDER, timm's own folder of it"
_OR_HF = "or hf:MODEL of a transformers ViT of the same size"
_MASK_FEATURES = "sem_seg_head.pixel_decoder.mask_features.weight"
_DECODER = "model.pixel_level_module.decoder.mask_projection.weight"
_VITS = ("dinov2", "dinov2_with_registers", "vit")

LAYOUTS = (
    Layout("transformers' ViT", "embeddings.patch_embeddings.projection.weight", _VITS),
    Layout("transformers' DINOv3", "embeddings.patch_embeddings.weight", ("dinov3_vit",)),
    Layout("transformers' DINOv3 ConvNeXt", "stages.0.downsample_layers.0.weight", ("dinov3_convnext",)),
    Layout("transformers' CLIP", "vision_model.embeddings.patch_embedding.weight", ("clip_vision_model",)),
    Layout("transformers' SAM 2", "backbone.patch_embed.projection.weight", ("sam2_vision_model",)),
    Layout("transformers' SAM 3", "backbone.embeddings.patch_embeddings.projection.weight", ("sam3_vision_model",)),
    Layout("transformers' Mask2Former or OneFormer", _DECODER, ("mask2former", "oneformer")),
    Layout("NVIDIA's C-RADIO", "radio_model.model.patch_generator.embedder.weight", ("radio",)),
    Layout("transformers' SAM", "patch_embed.projection.weight", ("sam",), _HUB_SAM, _SAM, "use --teacher sam"),
    Layout("segment-anything's SAM", _PATCHES, ("sam",), _META_SAM, way="use --teacher sam"),
    Layout("Meta's SAM 2", f"trunk.{_PATCHES}", ("sam2_vision_model",), _HIERA, _SAM2, "use --teacher sam2"),
    Layout("Meta's SAM 3", f"vision_backbone.trunk.{_PATCHES}", way=_ONLY),
    Layout("the authors' OneFormer", _MASK_FEATURES, marks=(r"text_encoder\.|task_mlp\.",), way=_ONEFORMER),
    Layout("the authors' Mask2Former", _MASK_FEATURES, way=_MASK2FORMER),
    _timm("Meta's DINOv3", "dinov3_vit", (r"storage_tokens$", _QKV), _dinov3, "use --teacher dinov3"),
    Layout("Meta's DINOv3 ConvNeXt", "downsample_layers.0.0.weight", marks=_CONVNEXT, way=_ONLY),
    _timm("timm's DINOv3", "dinov3_vit", (r"reg_token$", _GAMMA, _QKV), _dinov3, "use --teacher dinov3"),
    _timm(_REGISTERED, "dinov2_with_registers", _REGISTER_MARKS, _dinov2, "use --teacher dinov2_reg"),
    _timm("Facebook's or timm's DINOv2", "dinov2", (*_CLASS, _SCALE), _dinov2, "use --teacher dinov2"),
    Layout(
        "OpenAI's or open_clip's CLIP", "conv1.weight", ("clip_vision_model",), _OPENAI, _CLIP, "use --teacher clip"
    ),
    _timm("timm's CLIP", "clip_vision_model", _CLIP_MARKS, _timm_clip, "use --teacher clip"),
    _timm("timm's ViT", "vit", (*_CLASS, _QKV), _plain_vit, f"use {_FOLDER}, {_OR_HF}"),
    Layout("a Swin of timm's or its authors'", _PATCHES, marks=_SWIN, way=f"it is a backbone alone; use {_FOLDER}"),
)
"""The first row that fits is the file's; those of one anchor go from the special to the general."""
NETWORKS = frozenset(network for layout in LAYOUTS for network in layout.networks)


def to_own_layout(
    tensors: Tensors, network: str, source: Path, teacher: str, *, inside: tuple[str, ...] = ()
) -> tuple[Tensors, Layout | None]:
    """Return a checkpoint's tensors of `network` under the names of the hub's files, and the layout that they were in.

    Args:
        tensors: of the file, and of whatever its trainer put around the network.
        network: transformers' type of model, or "sam".
        source: named in messages.
        teacher: named in messages.
        inside: prefixes that are no wrapper but belong to our own layout.

    Returns:
        The tensors, converted, and the layout; as they came, and None, where no layout is known.

    Raises:
        WeightsError: the layout is of another network, or is not converted here; or there are several such networks.
    """
    for layout in LAYOUTS:
        places = layout.places(tensors)
        if not places or (network not in layout.networks and not layout.way):
            continue
        if network not in layout.networks:
            raise WeightsError(f"{source}: holds {layout.name}, which --teacher {teacher} does not read; {layout.way}")
        place = choose_one(places, f"{source}: holds several networks of {teacher}, below") or ""
        if layout.convert is None:
            place = place.removesuffix(next((end for end in inside if place.endswith(end)), ""))
            return below(tensors, place), layout
        held = below(tensors, place)
        return layout.convert(held) if callable(layout.convert) else rename(held, layout.convert), layout
    return tensors, None


def read_weights(path: Path, *networks: Collection[str]) -> list[Tensors]:
    """Return the tensors of a weights file as each of some networks would hold them, out of whatever is around it.

    Args:
        path: a .safetensors file, or one of PyTorch's; no code in it is run.
        networks: of each, the names of its tensors.

    Raises:
        WeightsError: it is no whole weights file, holds more than tensors, several sets of them, or NaN.
    """
    tensors = read_checkpoint(path)
    return [below(tensors, find_wrapper(tensors, own, path)) for own in networks]


def below(tensors: Tensors, wrapper: str) -> Tensors:
    """Return the tensors whose names begin with `wrapper`, without it."""
    return {key.removeprefix(wrapper): value for key, value in tensors.items() if key.startswith(wrapper)}


def find_wrapper(names: Collection[str], own: Collection[str], source: Path) -> str:
    """Return the prefix below which `names` hold a network whose tensors are called `own`; "" where there is none.

    Raises:
        WeightsError: several hold it alike, and half of it at least.
    """
    counts: Counter[str] = Counter()
    for name in names:
        dots = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
        counts.update(name[:dot] for dot in dots if name[dot:] in own)
    most = max(counts.values(), default=0)
    best = [prefix for prefix, count in counts.items() if count == most]
    if not best or "" in best or 2 * most < len(own):
        return best[0] if best and "" not in best else ""
    return choose_one(best, f"{source}: holds the network several times, below") or ""
