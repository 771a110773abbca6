"""Checkpoints as their authors uploaded them in 2022 and 2023, made of random numbers: names, shapes and buffers.

Key names are written out here rather than taken from the installed library, which has renamed many of them since:
`convert_mask2former_original_pytorch_checkpoint_to_pytorch.py`, `convert_to_hf_oneformer.py`, `convert_sam_to_hf.py`
and `convert_dinov2_to_hf.py` of transformers 4.26 to 4.31 for the hub's files, segment_anything's modules for Meta's.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

Named = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Segmenter:
    """Sizes of a Mask2Former or OneFormer with a Swin backbone; the defaults are those of Swin-T as published."""

    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    channels: int = 256
    encoder_layers: int = 6
    encoder_ffn: int = 1024
    attention_heads: int = 8
    decoder_layers: int = 10
    decoder_ffn: int = 2048
    queries: int = 100
    labels: int = 133
    text_layers: int = 6
    vocabulary: int = 49408


SWIN_T = Segmenter()
SWIN_L = Segmenter(192, (2, 2, 18, 2), (6, 12, 24, 48), 12, queries=200)
TINY = Segmenter(16, (1, 1, 1, 1), (1, 2, 4, 8), 7, 64, 1, 64, 2, 2, 64, 4, 5, 1, 99)
"""The catalogue's `tiny` of both families."""


def linear(name: str, out: int, into: int) -> Named:
    yield f"{name}.weight", (out, into)
    yield f"{name}.bias", (out,)


def conv(name: str, out: int, into: int, side: int = 1) -> Named:
    yield f"{name}.weight", (out, into, side, side)
    yield f"{name}.bias", (out,)


def norm(name: str, width: int) -> Named:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def packed_attention(name: str, width: int) -> Named:
    """As torch.nn.MultiheadAttention names its parts."""
    yield f"{name}.in_proj_weight", (3 * width, width)
    yield f"{name}.in_proj_bias", (3 * width,)
    yield from linear(f"{name}.out_proj", width, width)


def swin_backbone(of: Segmenter) -> Named:
    """SwinBackbone before its parts moved below `swin.`; `relative_position_index` was a persistent buffer."""
    top, side = "model.pixel_level_module.encoder", of.window
    yield from conv(f"{top}.embeddings.patch_embeddings.projection", of.width, 3, 4)
    yield from norm(f"{top}.embeddings.norm", of.width)
    for stage, (depth, heads) in enumerate(zip(of.depths, of.heads, strict=True)):
        width = of.width * 2**stage
        for number in range(depth):
            block = f"{top}.encoder.layers.{stage}.blocks.{number}"
            yield from norm(f"{block}.layernorm_before", width)
            yield f"{block}.attention.self.relative_position_bias_table", ((2 * side - 1) ** 2, heads)
            yield f"{block}.attention.self.relative_position_index", (side * side, side * side)
            for name in ("query", "key", "value"):
                yield from linear(f"{block}.attention.self.{name}", width, width)
            yield from linear(f"{block}.attention.output.dense", width, width)
            yield from norm(f"{block}.layernorm_after", width)
            yield from linear(f"{block}.intermediate.dense", 4 * width, width)
            yield from linear(f"{block}.output.dense", width, 4 * width)
        if stage < len(of.depths) - 1:
            yield f"{top}.encoder.layers.{stage}.downsample.reduction.weight", (2 * width, 4 * width)
            yield from norm(f"{top}.encoder.layers.{stage}.downsample.norm", 4 * width)
        yield from norm(f"{top}.hidden_states_norms.stage{stage + 1}", width)


def pixel_decoder(of: Segmenter) -> Named:
    top, width = "model.pixel_level_module.decoder", of.channels
    yield f"{top}.adapter_1.0.weight", (width, of.width, 1, 1)
    yield from norm(f"{top}.adapter_1.1", width)
    yield f"{top}.layer_1.0.weight", (width, width, 3, 3)
    yield from norm(f"{top}.layer_1.1", width)
    for level in range(3):
        yield from conv(f"{top}.input_projections.{level}.0", width, of.width * 2 ** (3 - level))
        yield from norm(f"{top}.input_projections.{level}.1", width)
    yield f"{top}.level_embed", (3, width)
    samples = of.attention_heads * 3 * 4  # heads, levels, points
    for number in range(of.encoder_layers):
        layer = f"{top}.encoder.layers.{number}"
        yield from linear(f"{layer}.self_attn.sampling_offsets", 2 * samples, width)
        yield from linear(f"{layer}.self_attn.attention_weights", samples, width)
        yield from linear(f"{layer}.self_attn.value_proj", width, width)
        yield from linear(f"{layer}.self_attn.output_proj", width, width)
        yield from norm(f"{layer}.self_attn_layer_norm", width)
        yield from linear(f"{layer}.fc1", of.encoder_ffn, width)
        yield from linear(f"{layer}.fc2", width, of.encoder_ffn)
        yield from norm(f"{layer}.final_layer_norm", width)
    yield from conv(f"{top}.mask_projection", width, width)


def mask2former(of: Segmenter) -> Named:
    """Every tensor of a Mask2FormerForUniversalSegmentation."""
    yield from swin_backbone(of)
    yield from pixel_decoder(of)
    top, width = "model.transformer_module", of.channels
    for name in ("queries_embedder", "queries_features"):
        yield f"{top}.{name}.weight", (of.queries, width)
    yield f"{top}.level_embed.weight", (3, width)
    for number in range(of.decoder_layers - 1):
        layer = f"{top}.decoder.layers.{number}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from linear(f"{layer}.self_attn.{name}", width, width)
        yield from norm(f"{layer}.self_attn_layer_norm", width)
        yield from packed_attention(f"{layer}.cross_attn", width)
        yield from norm(f"{layer}.cross_attn_layer_norm", width)
        yield from linear(f"{layer}.fc1", of.decoder_ffn, width)
        yield from linear(f"{layer}.fc2", width, of.decoder_ffn)
        yield from norm(f"{layer}.final_layer_norm", width)
    yield from norm(f"{top}.decoder.layernorm", width)
    for number in range(3):
        yield from linear(f"{top}.decoder.mask_predictor.mask_embedder.{number}.0", width, width)
    yield from linear("class_predictor", of.labels + 1, width)
    yield "criterion.empty_weight", (of.labels + 1,)


def oneformer(of: Segmenter) -> Named:
    """Every tensor of a OneFormerForUniversalSegmentation saved with `is_training`, the text mapper among them."""
    yield from swin_backbone(of)
    yield from pixel_decoder(of)
    top, width = "model.transformer_module", of.channels
    yield f"{top}.queries_embedder.weight", (of.queries, width)
    yield f"{top}.level_embed.weight", (3, width)
    yield from norm(f"{top}.decoder.decoder_norm", width)
    yield from conv(f"{top}.decoder.query_input_projection", width, width)
    yield from linear(f"{top}.decoder.class_embed", of.labels + 1, width)
    for number in range(3):
        yield from linear(f"{top}.decoder.mask_embed.layers.{number}.0", width, width)
    yield from norm(f"{top}.decoder.query_transformer.decoder.norm", width)
    for number in range(2):
        layer = f"{top}.decoder.query_transformer.decoder.layers.{number}"
        for name in ("self_attn", "multihead_attn"):
            yield from packed_attention(f"{layer}.{name}", width)
        for name in ("norm1", "norm2", "norm3"):
            yield from norm(f"{layer}.{name}", width)
        yield from linear(f"{layer}.linear1", of.decoder_ffn, width)
        yield from linear(f"{layer}.linear2", width, of.decoder_ffn)
    for number in range(of.decoder_layers - 1):
        layer = f"{top}.decoder.layers.{number}"
        yield from packed_attention(f"{layer}.cross_attn.multihead_attn", width)
        yield from norm(f"{layer}.cross_attn.norm", width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from linear(f"{layer}.self_attn.self_attn.{name}", width, width)
        yield from norm(f"{layer}.self_attn.norm", width)
        yield from linear(f"{layer}.ffn.linear1", of.decoder_ffn, width)
        yield from linear(f"{layer}.ffn.linear2", width, of.decoder_ffn)
        yield from norm(f"{layer}.ffn.norm", width)
    yield from linear("model.task_encoder.task_mlp.layers.0.0", width, 77)
    yield from linear("model.task_encoder.task_mlp.layers.1.0", width, width)
    text = "model.text_mapper.text_encoder"
    yield f"{text}.positional_embedding", (77, width)
    yield f"{text}.token_embedding.weight", (of.vocabulary, width)
    for number in range(of.text_layers):
        layer = f"{text}.transformer.layers.{number}"
        yield from packed_attention(f"{layer}.self_attn", width)
        yield from norm(f"{layer}.layer_norm1", width)
        yield from linear(f"{layer}.mlp.fc1", 4 * width, width)
        yield from linear(f"{layer}.mlp.fc2", width, 4 * width)
        yield from norm(f"{layer}.layer_norm2", width)
    yield from norm(f"{text}.ln_final", width)
    for number in range(2):
        yield from linear(f"model.text_mapper.text_projector.{number}.0", width, width)
    yield "model.text_mapper.prompt_ctx.weight", (16, width)
    yield "criterion.empty_weight", (of.labels + 1,)
    yield "criterion.logit_scale", ()


@dataclass(frozen=True)
class Encoder:
    """Sizes of a plain vision transformer; SAM's further parts have those of the published decoder."""

    width: int
    depth: int
    heads: int
    image_px: int
    neck: int = 256
    global_blocks: tuple[int, ...] = ()
    decoder_width: int = 256
    decoder_ffn: int = 2048


SAM_B = Encoder(768, 12, 12, 1024, global_blocks=(2, 5, 8, 11))
SAM_TINY = Encoder(32, 4, 2, 352, 32, (0, 1, 2, 3), 32, 32)
DINOV2_B = Encoder(768, 12, 12, 518)
DINOV2_TINY = Encoder(32, 4, 2, 308)
CLIP_TINY = Encoder(32, 4, 2, 224)


def sam_blocks(of: Encoder, top: str, names: tuple[str, str, str]) -> Named:
    blocks, first, second = names
    for number in range(of.depth):
        block, cells = f"{top}.{blocks}.{number}", of.image_px // 16 if number in of.global_blocks else 14
        yield from norm(f"{block}.{first}", of.width)
        for axis in ("h", "w"):
            yield f"{block}.attn.rel_pos_{axis}", (2 * cells - 1, of.width // of.heads)
        yield from linear(f"{block}.attn.qkv", 3 * of.width, of.width)
        yield from linear(f"{block}.attn.proj", of.width, of.width)
        yield from norm(f"{block}.{second}", of.width)
        yield from linear(f"{block}.mlp.lin1", 4 * of.width, of.width)
        yield from linear(f"{block}.mlp.lin2", of.width, 4 * of.width)


def sam_attention(name: str, width: int, inner: int) -> Named:
    for part in ("q_proj", "k_proj", "v_proj"):
        yield from linear(f"{name}.{part}", inner, width)
    yield from linear(f"{name}.out_proj", width, inner)


def sam_decoder(of: Encoder, norms: tuple[str, str, str, str, str]) -> Named:
    """The two-way transformer; the two layouts name its norms differently."""
    top, width = "mask_decoder.transformer", of.decoder_width
    for number in range(2):
        layer = f"{top}.layers.{number}"
        yield from sam_attention(f"{layer}.self_attn", width, width)
        yield from sam_attention(f"{layer}.cross_attn_token_to_image", width, width // 2)
        yield from sam_attention(f"{layer}.cross_attn_image_to_token", width, width // 2)
        yield from linear(f"{layer}.mlp.lin1", of.decoder_ffn, width)
        yield from linear(f"{layer}.mlp.lin2", width, of.decoder_ffn)
        for name in norms[:4]:
            yield from norm(f"{layer}.{name}", width)
    yield from sam_attention(f"{top}.final_attn_token_to_image", width, width // 2)
    yield from norm(f"{top}.{norms[4]}", width)
    yield "mask_decoder.iou_token.weight", (1, width)
    yield "mask_decoder.mask_tokens.weight", (4, width)


def sam_meta(of: Encoder) -> Named:
    """Meta's `sam_vit_b_01ec64.pth`."""
    top, cells, width = "image_encoder", of.image_px // 16, of.decoder_width
    yield f"{top}.pos_embed", (1, cells, cells, of.width)
    yield from conv(f"{top}.patch_embed.proj", of.width, 3, 16)
    yield from sam_blocks(of, top, ("blocks", "norm1", "norm2"))
    yield f"{top}.neck.0.weight", (of.neck, of.width, 1, 1)
    yield from norm(f"{top}.neck.1", of.neck)
    yield f"{top}.neck.2.weight", (of.neck, of.neck, 3, 3)
    yield from norm(f"{top}.neck.3", of.neck)
    yield "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", (2, width // 2)
    for number in range(4):
        yield f"prompt_encoder.point_embeddings.{number}.weight", (1, width)
    yield "prompt_encoder.not_a_point_embed.weight", (1, width)
    yield from conv("prompt_encoder.mask_downscaling.0", 4, 1, 2)
    yield from norm("prompt_encoder.mask_downscaling.1", 4)
    yield from conv("prompt_encoder.mask_downscaling.3", 16, 4, 2)
    yield from norm("prompt_encoder.mask_downscaling.4", 16)
    yield from conv("prompt_encoder.mask_downscaling.6", width, 16)
    yield "prompt_encoder.no_mask_embed.weight", (1, width)
    yield from sam_decoder(of, ("norm1", "norm2", "norm3", "norm4", "norm_final_attn"))
    for number in range(4):
        for layer in range(3):
            yield from linear(f"mask_decoder.output_hypernetworks_mlps.{number}.layers.{layer}", width, width)


def sam_hub(of: Encoder) -> Named:
    """The `model.safetensors` of facebook/sam-vit-base, saved by transformers 4.29."""
    top, cells, width = "vision_encoder", of.image_px // 16, of.decoder_width
    yield "shared_image_embedding.positional_embedding", (2, width // 2)
    yield f"{top}.pos_embed", (1, cells, cells, of.width)
    yield from conv(f"{top}.patch_embed.projection", of.width, 3, 16)
    yield from sam_blocks(of, top, ("layers", "layer_norm1", "layer_norm2"))
    yield f"{top}.neck.conv1.weight", (of.neck, of.width, 1, 1)
    yield from norm(f"{top}.neck.layer_norm1", of.neck)
    yield f"{top}.neck.conv2.weight", (of.neck, of.neck, 3, 3)
    yield from norm(f"{top}.neck.layer_norm2", of.neck)
    yield "prompt_encoder.shared_embedding.positional_embedding", (2, width // 2)
    for number in range(4):
        yield f"prompt_encoder.point_embed.{number}.weight", (1, width)
    yield "prompt_encoder.not_a_point_embed.weight", (1, width)
    yield from conv("prompt_encoder.mask_embed.conv1", 4, 1, 2)
    yield from norm("prompt_encoder.mask_embed.layer_norm1", 4)
    yield from conv("prompt_encoder.mask_embed.conv2", 16, 4, 2)
    yield from norm("prompt_encoder.mask_embed.layer_norm2", 16)
    yield from conv("prompt_encoder.mask_embed.conv3", width, 16)
    yield "prompt_encoder.no_mask_embed.weight", (1, width)
    norms = ("layer_norm1", "layer_norm2", "layer_norm3", "layer_norm4", "layer_norm_final_attn")
    yield from sam_decoder(of, norms)
    for number in range(4):
        head = f"mask_decoder.output_hypernetworks_mlps.{number}"
        for layer in ("proj_in", "layers.0", "proj_out"):
            yield from linear(f"{head}.{layer}", width, width)


def dinov2(of: Encoder) -> Named:
    """The `pytorch_model.bin` and `model.safetensors` of facebook/dinov2-base, saved by transformers 4.31."""
    yield "embeddings.cls_token", (1, 1, of.width)
    yield "embeddings.mask_token", (1, of.width)
    yield "embeddings.position_embeddings", (1, (of.image_px // 14) ** 2 + 1, of.width)
    yield from conv("embeddings.patch_embeddings.projection", of.width, 3, 14)
    for number in range(of.depth):
        layer = f"encoder.layer.{number}"
        yield from norm(f"{layer}.norm1", of.width)
        for name in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.attention.{name}", of.width, of.width)
        yield from linear(f"{layer}.attention.output.dense", of.width, of.width)
        yield f"{layer}.layer_scale1.lambda1", (of.width,)
        yield from norm(f"{layer}.norm2", of.width)
        yield from linear(f"{layer}.mlp.fc1", 4 * of.width, of.width)
        yield from linear(f"{layer}.mlp.fc2", of.width, 4 * of.width)
        yield f"{layer}.layer_scale2.lambda1", (of.width,)
    yield from norm("layernorm", of.width)


def clip(of: Encoder) -> Named:
    """A CLIPModel of 2021: both sides, with `position_ids` as persistent buffers."""
    yield "logit_scale", ()
    for side, tokens in (("text_model", 77), ("vision_model", (of.image_px // 16) ** 2 + 1)):
        yield f"{side}.embeddings.position_ids", (1, tokens)
        yield f"{side}.embeddings.position_embedding.weight", (tokens, of.width)
        for number in range(of.depth):
            layer = f"{side}.encoder.layers.{number}"
            for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
                yield from linear(f"{layer}.self_attn.{name}", of.width, of.width)
            yield from norm(f"{layer}.layer_norm1", of.width)
            yield from linear(f"{layer}.mlp.fc1", 4 * of.width, of.width)
            yield from linear(f"{layer}.mlp.fc2", of.width, 4 * of.width)
            yield from norm(f"{layer}.layer_norm2", of.width)
    yield "text_model.embeddings.token_embedding.weight", (99, of.width)
    yield from norm("text_model.final_layer_norm", of.width)
    yield "vision_model.embeddings.class_embedding", (of.width,)
    yield "vision_model.embeddings.patch_embedding.weight", (of.width, 3, 16, 16)
    yield from norm("vision_model.pre_layrnorm", of.width)  # the library's own spelling
    yield from norm("vision_model.post_layernorm", of.width)
    yield "visual_projection.weight", (of.width, of.width)
    yield "text_projection.weight", (of.width, of.width)


def relative_position_index(window: int) -> Tensor:
    """Return Swin's table of offsets, by the recipe of the authors' `swin_transformer.py`."""
    across = torch.arange(window)
    places = torch.stack(torch.meshgrid(across, across, indexing="ij")).flatten(1)  # (2, w*w)
    offsets = (places[:, :, None] - places[:, None, :]).permute(1, 2, 0) + window - 1
    return offsets[..., 0] * (2 * window - 1) + offsets[..., 1]


def fill(named: Named, seed: int = 0) -> dict[str, Tensor]:
    """Return the named tensors with random numbers in them; buffers hold what the library put there."""
    own = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in named:
        if name.endswith("relative_position_index"):
            tensors[name] = relative_position_index(round(shape[0] ** 0.5))
        elif name.endswith("position_ids"):
            tensors[name] = torch.arange(shape[1])[None]
        else:
            near = 1.0 if len(shape) == 1 and not name.endswith("bias") else 0.0
            tensors[name] = near + torch.randn(shape, generator=own) * 0.02
    return tensors


def swin_config(of: Segmenter) -> dict[str, Any]:
    """Return the backbone's settings as the files of that time spell them out."""
    return {
        **{"model_type": "swin", "architectures": ["SwinForImageClassification"], "torch_dtype": "float32"},
        **{"embed_dim": of.width, "depths": list(of.depths), "num_heads": list(of.heads), "window_size": of.window},
        **{"image_size": 384 if of.window == 12 else 224, "patch_size": 4, "num_channels": 3, "num_layers": 4},
        **{"hidden_size": 8 * of.width, "mlp_ratio": 4.0, "qkv_bias": True, "path_norm": True, "hidden_act": "gelu"},
        **{"drop_path_rate": 0.3, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        **{"use_absolute_embeddings": False, "encoder_stride": 32, "layer_norm_eps": 1e-05, "initializer_range": 0.02},
        **{"stage_names": ["stem", "stage1", "stage2", "stage3", "stage4"], "is_decoder": False},
        **{"out_features": ["stage1", "stage2", "stage3", "stage4"], "transformers_version": "4.26.0.dev0"},
    }


def segmenter_config(family: str, of: Segmenter) -> dict[str, Any]:
    """Return the `config.json` of a hub model; `family` is "mask2former" or "oneformer"."""
    labels = {str(i): f"label {i}" for i in range(of.labels)}
    held = {
        **{"model_type": family, "torch_dtype": "float32", "transformers_version": "4.26.0.dev0"},
        **{"backbone_config": swin_config(of), "id2label": labels, "label2id": {v: int(k) for k, v in labels.items()}},
        **{"encoder_layers": of.encoder_layers, "encoder_feedforward_dim": of.encoder_ffn, "common_stride": 4},
        **{"num_attention_heads": of.attention_heads, "decoder_layers": of.decoder_layers, "hidden_dim": of.channels},
        **{"dim_feedforward": of.decoder_ffn, "num_queries": of.queries, "init_std": 0.02, "init_xavier_std": 1.0},
        **{"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0, "no_object_weight": 0.1, "pre_norm": False},
        **{"train_num_points": 12544, "oversample_ratio": 3.0, "importance_sample_ratio": 0.75},
        **{"use_auxiliary_loss": True, "enforce_input_proj": False, "num_hidden_layers": of.decoder_layers},
    }
    if family == "mask2former":
        held |= {"architectures": ["Mask2FormerForUniversalSegmentation"], "feature_size": of.channels}
        return held | {"mask_feature_size": of.channels, "dropout": 0.0, "ignore_value": 255}
    held |= {"architectures": ["OneFormerForUniversalSegmentation"], "conv_dim": of.channels, "mask_dim": of.channels}
    held |= {"is_training": True, "dropout": 0.1, "query_dec_layers": 2, "task_seq_len": 77, "max_seq_len": 77}
    held |= {"text_encoder_width": of.channels, "text_encoder_context_length": 77, "text_encoder_n_ctx": 16}
    held |= {"text_encoder_num_layers": of.text_layers, "text_encoder_vocab_size": of.vocabulary}
    return held | {"text_encoder_proj_layers": 2, "contrastive_weight": 0.5, "contrastive_temperature": 0.07}


def sam_config(of: Encoder) -> dict[str, Any]:
    vision = {"hidden_size": of.width, "num_hidden_layers": of.depth, "num_attention_heads": of.heads}
    vision |= {
        "image_size": of.image_px,
        "patch_size": 16,
        "output_channels": of.neck,
        "model_type": "sam_vision_model",
    }
    vision |= {"global_attn_indexes": list(of.global_blocks), "window_size": 14, "use_rel_pos": True}
    return {"model_type": "sam", "architectures": ["SamModel"], "vision_config": vision, "torch_dtype": "float32"}


def dinov2_config(of: Encoder) -> dict[str, Any]:
    held = {"model_type": "dinov2", "architectures": ["Dinov2Model"], "hidden_size": of.width, "mlp_ratio": 4}
    held |= {"num_hidden_layers": of.depth, "num_attention_heads": of.heads, "image_size": of.image_px}
    return held | {"patch_size": 14, "layerscale_value": 1.0, "use_swiglu_ffn": False, "torch_dtype": "float32"}


def clip_config(of: Encoder) -> dict[str, Any]:
    vision = {"hidden_size": of.width, "num_hidden_layers": of.depth, "num_attention_heads": of.heads}
    vision |= {"intermediate_size": 4 * of.width, "image_size": of.image_px, "patch_size": 16}
    text = {"hidden_size": of.width, "num_hidden_layers": of.depth, "num_attention_heads": of.heads, "vocab_size": 99}
    both = {"vision_config": vision, "text_config": text | {"intermediate_size": 4 * of.width}}
    return {"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": of.width, **both}


IMAGENET_PROCESSOR = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

FORMATS = ("model.safetensors", "pytorch_model.bin", "sharded safetensors", "sharded bin")


def save_folder(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], form: str = FORMATS[0]) -> Path:
    """Save a hub model's files and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET_PROCESSOR, indent=2))
    kind = "safetensors" if form.endswith("safetensors") else "bin"
    if not form.startswith("sharded"):
        _save(tensors, folder / form)
        return folder
    stem = "model" if kind == "safetensors" else "pytorch_model"
    names = sorted(tensors)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    files = [f"{stem}-0000{number}-of-00002.{kind}" for number in (1, 2)]
    for file, part in zip(files, halves, strict=True):
        _save({name: tensors[name] for name in part}, folder / file)
    held = {name: file for file, part in zip(files, halves, strict=True) for name in part}
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": held}
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index))
    return folder


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        torch.save(tensors, path)


def of_depth(of: Segmenter, *depths: int) -> Segmenter:
    """Return the same network with fewer blocks: geometry as published, less to compute."""
    return replace(of, depths=depths, encoder_layers=1, decoder_layers=2, text_layers=1, vocabulary=99)
