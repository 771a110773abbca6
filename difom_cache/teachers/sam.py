"""Segment Anything's image encoder (Kirillov et al. 2023, arXiv:2304.02643), from segment-anything itself.

Taps: `block0` and on (the tokens after a block), `block0.keys` and on, and `neck` (the 256-channel embedding). Four
blocks attend over the whole picture, the others over windows of 14 x 14; the third of the four is a default tap.
`--weights` takes Meta's `.pth`, any checkpoint of the same shape such as MedSAM's, or a folder of transformers' SAM.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from difom_cache.base.errors import WeightsError
from difom_cache.teachers import buffers
from difom_cache.teachers.base import (
    NativeTap,
    TapRequest,
    TeacherRequest,
    TeacherSpec,
    Weights,
    check_input_px,
    choose_variant,
    label_variant,
    versions,
)
from difom_cache.teachers.checkpoint import only_file, read_tensors
from difom_cache.teachers.hub import locate
from difom_cache.teachers.layouts import to_own_layout
from difom_cache.teachers.network import NetworkTeacher, TapNetwork, assemble
from difom_cache.teachers.preprocess import IMAGENET_MEAN, IMAGENET_STD, Triple
from difom_cache.teachers.sam_attention import fuse_attention
from difom_cache.teachers.tokens import KEYS, block_number, block_taps, is_keys
from difom_cache.teachers.weights import (
    digest_tensors,
    fill_random,
    is_outline,
    load_exact,
    outline_weights,
    refuse_mismatch,
)

PATCH_PX = 16


@dataclass(frozen=True)
class Variant:
    """One size of the encoder, as segment_anything/build_sam.py has it."""

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, int, int, int]
    repository: str
    input_px: int = 1024
    neck_channels: int = 256


VARIANTS = {
    "vit_b": Variant(768, 12, 12, (2, 5, 8, 11), "facebook/sam-vit-base"),
    "vit_l": Variant(1024, 24, 16, (5, 11, 17, 23), "facebook/sam-vit-large"),
    "vit_h": Variant(1280, 32, 16, (7, 15, 23, 31), "facebook/sam-vit-huge"),
    "tiny": Variant(32, 4, 2, (0, 1, 2, 3), "", input_px=352, neck_channels=32),
}
DEFAULT_VARIANT = "vit_b"
PREFIX, OTHERS = "image_encoder.", ("prompt_encoder.", "mask_decoder.")  # of the parts of a whole SAM


def _per_channel(values: Triple) -> buffers.Compute:
    """Return what gives `values` of pixels in [0, 255], in the shape (3, 1, 1)."""
    return lambda found: 255 * torch.tensor(values)[:, None, None]


# Sam's own buffers; segment-anything no longer saves them, forks of it do
COMPUTED = buffers.COMMON | {"pixel_mean": _per_channel(IMAGENET_MEAN), "pixel_std": _per_channel(IMAGENET_STD)}


class SamTaps(TapNetwork):
    """The library's encoder, read after chosen blocks and its neck."""

    def __init__(self, encoder: ImageEncoderViT) -> None:
        super().__init__()
        self.image_encoder = encoder
        self.key_projections = nn.ModuleDict()

    def keep(self, taps: tuple[str, ...]) -> None:
        """Give these taps from now on, and drop the blocks after the deepest."""
        super().keep(taps)
        if "neck" not in taps:
            deepest = max(block_number(tap) for tap in taps)
            self.image_encoder.blocks = self.image_encoder.blocks[: deepest + 1]
            self.image_encoder.neck = nn.Identity()
        for tap in filter(is_keys, taps):
            number = block_number(tap)
            self.key_projections[str(number)] = _key_projection(self.image_encoder.blocks[number].attn.qkv)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the map (B, C, h, w) of each kept tap, of normalised pixels (B, 3, S, S)."""
        x = self.image_encoder.patch_embed(pixels) + self.image_encoder.pos_embed  # (B, h, w, C)
        maps = {}
        for number, block in enumerate(self.image_encoder.blocks):
            if f"block{number}{KEYS}" in self.taps:  # of the whole picture, also where the block attends over windows
                keys = self.key_projections[str(number)](block.norm1(x))
                maps[f"block{number}{KEYS}"] = keys.permute(0, 3, 1, 2)
            x = block(x)
            if f"block{number}" in self.taps:
                maps[f"block{number}"] = x.permute(0, 3, 1, 2)
        if "neck" in self.taps:
            maps["neck"] = self.image_encoder.neck(x.permute(0, 3, 1, 2))
        return maps


def _key_projection(qkv: nn.Linear) -> nn.Linear:
    """Return the part of a block's projection that makes keys: the middle third of its rows."""
    width = qkv.in_features
    keys = nn.utils.skip_init(nn.Linear, width, width, device=qkv.weight.device)
    keys.weight = nn.Parameter(qkv.weight[width : 2 * width].detach().clone())
    keys.bias = nn.Parameter(qkv.bias[width : 2 * width].detach().clone())
    return keys


def build(request: TeacherRequest) -> NetworkTeacher:
    """Return the encoder that `request` asks for, with fused attention.

    Inputs of another size than 1024 px are taken too, in multiples of 16 px: absolute positions are resampled
    (bicubic) and relative ones interpolated as the library does it; the specification's options say so.
    """
    name = choose_variant("sam", request.variant or DEFAULT_VARIANT, VARIANTS)
    variant = VARIANTS[name]
    input_px = request.input_px or variant.input_px
    check_input_px(input_px, PATCH_PX, f"sam:{name}")
    encoder = plain_encoder(variant)
    weights = load_weights(encoder, request.weights, name)
    _resample_positions(encoder, input_px // PATCH_PX)
    resampled = {"positions": f"resampled from {variant.input_px} px"} if input_px != variant.input_px else {}
    spec = TeacherSpec(
        label=label_variant("sam", name, DEFAULT_VARIANT),
        name="sam",
        variant=name,
        input_px=input_px,
        weights=weights,
        mean=IMAGENET_MEAN,  # build_sam.py has the same numbers, times 255
        std=IMAGENET_STD,
        native=block_taps(variant.depth, variant.width, PATCH_PX)
        | {"neck": NativeTap("neck", variant.neck_channels, PATCH_PX)},
        # the third of the four blocks that attend over the whole picture and, deeper and so coarser, the neck
        taps=(TapRequest(f"block{variant.global_blocks[2]}", 16), TapRequest("neck", 32)),
        licence="Apache-2.0",
        usual_px=variant.input_px,
        libraries=versions("segment-anything"),
        options={"attention": "fused"} | resampled,
    )
    return assemble(request, spec, SamTaps(fuse_attention(encoder)))


def plain_encoder(variant: Variant) -> ImageEncoderViT:
    """Return the library's own encoder, its weights not yet decided."""
    with torch.random.fork_rng(devices=[]):
        return ImageEncoderViT(
            depth=variant.depth,
            embed_dim=variant.width,
            img_size=variant.input_px,
            mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=variant.heads,
            patch_size=PATCH_PX,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=variant.global_blocks,
            window_size=14,
            out_chans=variant.neck_channels,
        )


def load_weights(encoder: ImageEncoderViT, weights: str, name: str) -> Weights:
    """Put `weights` ("hub", "hub@REVISION", "random" or a path) into the library's encoder of variant `name`."""
    teacher = f"sam:{name}"
    if is_outline():
        return outline_weights(weights)
    if weights == "random":
        fill_random(encoder, teacher)
        return Weights("random", digest_tensors(encoder.state_dict()))
    found, recorded = locate(weights, teacher, VARIANTS[name].repository)
    source = only_file(found)
    held, _ = to_own_layout(read_tensors(source, teacher), "sam", source, teacher, inside=(PREFIX,))
    held = buffers.drop_computed(held, COMPUTED, source)
    tensors = _encoder_tensors(held, source, teacher)
    load_exact(encoder, tensors, source, teacher)
    return Weights(recorded, digest_tensors(encoder.state_dict()))


def _encoder_tensors(tensors: Mapping[str, Tensor], source: Path, teacher: str) -> dict[str, Tensor]:
    """Return the image encoder's tensors of a whole SAM, or of the encoder alone, and refuse what is neither."""
    bare = not any(key.startswith(PREFIX) for key in tensors)
    strange = [key for key in tensors if not (bare or key.startswith((PREFIX, *OTHERS)))]
    refuse_mismatch(source, teacher, missing=[], unexpected=strange, shapes={})
    own = {k.removeprefix(PREFIX): v for k, v in tensors.items() if bare or k.startswith(PREFIX)}
    depth = len({key.split(".")[1] for key in own if key.startswith("blocks.")})
    width = own["pos_embed"].shape[-1] if "pos_embed" in own else None
    for name, variant in VARIANTS.items():
        if (width, depth) == (variant.width, variant.depth) and teacher != f"sam:{name}":
            raise WeightsError(f"{source}: holds sam:{name}, but {teacher} was asked for; use --teacher sam:{name}")
    return own


def _resample_positions(encoder: ImageEncoderViT, cells: int) -> None:
    if encoder.pos_embed.shape[1] == cells:
        return
    positions = encoder.pos_embed.data.permute(0, 3, 1, 2)
    resampled = F.interpolate(positions, size=(cells, cells), mode="bicubic", align_corners=False)
    encoder.pos_embed = nn.Parameter(resampled.permute(0, 2, 3, 1))
