from functools import partial

import pytest
import torch
from parity import check_parity
from safetensors.torch import save_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from torch import Tensor, nn

from difom_cache import build_teacher
from difom_cache.errors import WeightsError
from difom_cache.teachers import (
    VARIANTS,
    FusedAttention,
    SamTaps,
    digest_tensors,
    fill_random,
    load_weights,
    plain_encoder,
)

EVERY_TAP = (
    "block0@native",
    "block2@native",
    "block3@native",
    "neck@native",
    "block1.keys@native",
    "block3.keys@native",
)


def library_encoder(name: str = "tiny") -> ImageEncoderViT:
    encoder = plain_encoder(VARIANTS[name])
    load_weights(encoder, "random", name)
    return encoder


def read_library(encoder: ImageEncoderViT, pixels: Tensor) -> dict[str, Tensor]:
    maps: dict[str, Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda _, __, out, i=i: maps.update({f"block{i}": out.permute(0, 3, 1, 2)}))
        for i, block in enumerate(encoder.blocks)
    ]
    hooks += [
        block.register_forward_hook(partial(keep_keys, maps, f"block{i}.keys"))
        for i, block in enumerate(encoder.blocks)
    ]
    maps["neck"] = encoder(pixels)
    for hook in hooks:
        hook.remove()
    return maps


def keep_keys(maps: dict[str, Tensor], tap: str, block: nn.Module, given: tuple[Tensor], _: Tensor) -> None:
    """Put down what the library's attention splits off as keys, put together again from its windows."""
    x = block.norm1(given[0])
    size = x.shape[1:3]
    windows, padded = window_partition(x, block.window_size) if block.window_size else (x, size)
    heads = block.attn.num_heads  # (3, B, heads, h*w, c), as Attention.forward has it
    qkv = block.attn.qkv(windows).reshape(len(windows), -1, 3, heads, x.shape[-1] // heads).permute(2, 0, 3, 1, 4)
    keys = qkv[1].transpose(1, 2).reshape(windows.shape)
    keys = window_unpartition(keys, block.window_size, padded, size) if block.window_size else keys
    maps[tap] = keys.permute(0, 3, 1, 2)


def whole_sam(encoder: ImageEncoderViT) -> Sam:
    """Return the library's whole model around an encoder, as Meta's and MedSAM's checkpoints hold it."""
    decoder = MaskDecoder(transformer_dim=32, transformer=TwoWayTransformer(1, 32, 2, 32))
    prompts = PromptEncoder(embed_dim=32, image_embedding_size=(22, 22), input_image_size=(352, 352), mask_in_chans=4)
    return Sam(encoder, prompts, decoder)


def save_transformers_sam(folder, encoder) -> None:
    """Save the encoder's weights as transformers' SAM holds them."""
    from transformers import SamConfig, SamModel

    vision = {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 352,
        "global_attn_indexes": [0, 1, 2, 3],
        "mlp_dim": 128,
    }
    small = {"hidden_size": 32, "image_size": 352, "image_embedding_size": 22}
    decoder = {"hidden_size": 32, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder |= {"iou_head_hidden_dim": 32}
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=small, mask_decoder_config=decoder))
    names = {
        "patch_embed.projection": "patch_embed.proj",
        "layers.": "blocks.",
        "layer_norm1.": "norm1.",
        "layer_norm2.": "norm2.",
    }
    neck = {"conv1.": "0.", "layer_norm1.": "1.", "conv2.": "2.", "layer_norm2.": "3."}
    own = encoder.state_dict()
    for key, parameter in model.vision_encoder.state_dict().items():
        ours = key
        for theirs, mine in (neck if key.startswith("neck.") else names).items():
            ours = ours.replace(theirs, mine)
        parameter.copy_(own[ours])
    model.save_pretrained(folder)


@pytest.fixture
def saved(tmp_path, request):
    encoder = library_encoder()
    kind = request.param
    path = tmp_path / kind
    if kind == "whole.pth":
        torch.save(whole_sam(encoder).state_dict(), path)
    elif kind == "parallel.pth":
        torch.save({f"module.{k}": v for k, v in whole_sam(encoder).state_dict().items()}, path)
    elif kind == "encoder.pth":
        torch.save(encoder.state_dict(), path)
    elif kind == "whole.safetensors":
        save_file(whole_sam(encoder).state_dict(), path)
    elif kind == "folder":
        path.mkdir()
        torch.save(whole_sam(encoder).state_dict(), path / "sam_vit_x.pth")
    else:
        save_transformers_sam(path, encoder)
    return path


FORMATS = ["whole.pth", "parallel.pth", "encoder.pth", "whole.safetensors", "folder", "transformers"]


def test_random_weights_equal_the_librarys_own_forward():
    check_parity(build_teacher("sam:tiny", weights="random", taps=EVERY_TAP), library_encoder(), read_library)


@pytest.mark.parametrize("saved", FORMATS, indirect=True)
def test_weights_saved_in_every_format_equal_the_librarys_own_forward(saved):
    teacher = build_teacher("sam:tiny", weights=str(saved))
    check_parity(teacher, library_encoder(), read_library, count=1)
    assert teacher.spec.weights_digest == digest_tensors(library_encoder().state_dict())
    assert teacher.spec.weights_source == str(saved)


def test_keys_of_a_block_with_windows_are_those_of_the_whole_picture():
    encoder = ImageEncoderViT(
        img_size=80,
        embed_dim=32,
        depth=2,
        num_heads=2,
        out_chans=32,
        window_size=3,
        global_attn_indexes=(1,),
        use_rel_pos=True,
    )
    fill_random(encoder, "windows")
    pixels = torch.rand(2, 3, 80, 80)
    with torch.no_grad():
        expected = read_library(encoder, pixels)
        taps = SamTaps(encoder)
        taps.keep(("block0.keys", "block1.keys"))
        for tap, keys in taps(pixels).items():
            torch.testing.assert_close(keys, expected[tap])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b"])
def test_the_base_size_equals_the_librarys_own_forward(name):
    taps = ("neck@16", "block8@32", "block9.keys@16")  # the last over windows
    teacher = build_teacher(f"sam:{name}", weights="random", taps=taps)
    check_parity(teacher, library_encoder(name), read_library, count=1)


@pytest.mark.parametrize("windows", [0, 14])
@pytest.mark.parametrize("cells", [(9, 9), (5, 12)])
def test_fused_attention_equals_the_librarys_within_rounding(windows, cells):
    from segment_anything.modeling.image_encoder import Attention

    plain = Attention(32, num_heads=4, use_rel_pos=True, input_size=(windows, windows) if windows else cells)
    fill_random(plain, "attention")
    nn.init.normal_(plain.rel_pos_h)
    nn.init.normal_(plain.rel_pos_w)
    x = torch.randn(3, *cells, 32)
    torch.testing.assert_close(FusedAttention(plain)(x), plain(x), atol=2e-6, rtol=1e-5)


def test_fused_attention_in_pieces_equals_itself_whole(monkeypatch):
    from segment_anything.modeling.image_encoder import Attention

    plain = Attention(32, num_heads=4, use_rel_pos=True, input_size=(9, 9))
    fill_random(plain, "attention")
    x = torch.randn(3, 9, 9, 32)
    whole = FusedAttention(plain)(x)
    monkeypatch.setattr("difom_cache.teachers.sam_attention.MASK_BYTES", {"cpu": 5 * 81 * 81 * 4})
    torch.testing.assert_close(FusedAttention(plain)(x), whole)


def test_fused_attention_keeps_the_librarys_names():
    teacher = build_teacher("sam:tiny", weights="random", taps=["neck@16"], precision="bfloat16")
    own = {k.removeprefix("image_encoder."): v for k, v in teacher.network.state_dict().items()}
    assert digest_tensors(own) == teacher.spec.weights_digest


def test_another_input_size_resamples_positions_and_says_so():
    teacher = build_teacher("sam:tiny@224", weights="random", picture_px=224)
    full = build_teacher("sam:tiny", weights="random")
    assert teacher.spec.options["positions"] == "resampled from 352 px"
    assert "positions" not in full.spec.options
    assert teacher.spec.weights_digest == full.spec.weights_digest
    assert teacher.features(torch.rand(1, 3, 224, 224))["neck"].shape == (1, 32, 14, 14)


def test_blocks_after_the_deepest_tap_are_not_run():
    teacher = build_teacher("sam:tiny", weights="random", taps=["block1@16"])
    assert len(teacher.network.image_encoder.blocks) == 2
    assert sum(p.numel() for p in teacher.network.image_encoder.neck.parameters()) == 0


def test_weights_of_another_variant_are_refused_and_named(tmp_path):
    wide = {k: torch.zeros(1) for k in (f"blocks.{i}.norm1.weight" for i in range(12))}
    torch.save({**wide, "pos_embed": torch.zeros(1, 2, 2, 768)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: holds sam:vit_b, but sam:tiny was asked for"):
        build_teacher("sam:tiny", weights=str(tmp_path / "w.pth"))


def test_tensors_that_are_no_part_of_sam_are_refused(tmp_path):
    state = whole_sam(library_encoder()).state_dict() | {"classifier.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 unexpected \(classifier\.weight\)"):
        build_teacher("sam:tiny", weights=str(tmp_path / "w.pth"))


def test_a_checkpoint_with_a_tensor_missing_is_refused(tmp_path):
    state = library_encoder().state_dict()
    del state["neck.0.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 missing \(neck\.0\.weight\)"):
        build_teacher("sam:tiny", weights=str(tmp_path / "w.pth"))
