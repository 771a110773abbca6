"""SAM 2, SAM 3, DINOv3's ConvNeXts and C-RADIO against transformers' own forward, and from checkpoints as the hub has them."""

import json
import shutil

import pytest
import torch
from parity import check_parity
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Sam2VideoConfig, Sam2VideoModel, Sam3VideoConfig, Sam3VideoModel
from transformers.models.sam3.modeling_sam3 import window_partition, window_unpartition

from difom_cache import build_teacher
from difom_cache.errors import TeacherError, WeightsError
from difom_cache.teachers import dinov3_convnext, load_part, quiet, radio, sam2, sam3

FAMILIES = {
    "dinov3_convnext": dinov3_convnext.FAMILY,
    "sam2": sam2.FAMILY,
    "sam3": sam3.FAMILY,
    "radio": radio.FAMILY,
}
TAPS = {
    "dinov3_convnext": ["stage1", "stage2", "stage3", "stage4"],
    "sam2": ["stage1", "stage2", "stage3", "stage4", "neck4", "neck8", "neck16"],
    "sam3": ["block0", "block3", "block0.keys", "block3.keys", "neck", "neck_x2", "neck_x4"],
    "radio": ["block0", "block3", "block2.keys"],
}


def as_map(tokens: Tensor, side: int) -> Tensor:
    return tokens[:, -side * side :].mT.unflatten(2, (side, side))


def read_convnext(model, pixels: Tensor) -> dict[str, Tensor]:
    given = model(pixels, output_hidden_states=True)
    maps = dict(zip(TAPS["dinov3_convnext"], given.hidden_states[-4:], strict=True))
    return maps | {"stage4": as_map(given.last_hidden_state, pixels.shape[-1] // 32)}


def read_sam2(model, pixels: Tensor) -> dict[str, Tensor]:
    stages = [stage.permute(0, 3, 1, 2) for stage in model.backbone(pixels).intermediate_hidden_states]
    return dict(zip(TAPS["sam2"], [*stages, *model(pixels).fpn_hidden_states], strict=True))


def read_sam3(model, pixels: Tensor) -> dict[str, Tensor]:
    maps: dict[str, Tensor] = {}

    def keep(number: int, block, given: tuple[Tensor], out: Tensor) -> None:
        maps[f"block{number}"] = out.permute(0, 3, 1, 2)
        x = block.layer_norm1(given[0])
        windows, padded = window_partition(x, block.window_size) if block.window_size else (x, x.shape[1:3])
        keys = block.attention.k_proj(windows)
        keys = window_unpartition(keys, block.window_size, padded, x.shape[1:3]) if block.window_size else keys
        maps[f"block{number}.keys"] = keys.permute(0, 3, 1, 2)

    hooks = [
        block.register_forward_hook(lambda block, given, out, i=i: keep(i, block, given, out))
        for i, block in enumerate(model.backbone.layers)
    ]
    levels = model(pixels).fpn_hidden_states
    for hook in hooks:
        hook.remove()
    return maps | dict(zip(("neck_x4", "neck_x2", "neck"), levels[:3], strict=True))


def read_radio(model, pixels: Tensor) -> dict[str, Tensor]:
    keys: dict[str, Tensor] = {}
    hook = model.encoder.layer[2].attention.k_proj.register_forward_hook(lambda _, __, out: keys.update(k=out))
    given = model(pixels, output_hidden_states=True)
    hook.remove()
    side = pixels.shape[-1] // 16
    maps = {f"block{i}": as_map(state, side) for i, state in enumerate(given.hidden_states[-4:])}
    assert torch.equal(given.features, maps["block3"].flatten(2).mT)  # what the authors call the spatial features
    return maps | {"block2.keys": as_map(keys["k"], side)}


READ = {"dinov3_convnext": read_convnext, "sam2": read_sam2, "sam3": read_sam3, "radio": read_radio}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_tap_equals_the_librarys_own_forward(name):
    teacher = build_teacher(f"{name}:tiny", weights="random", taps=[f"{tap}@native" for tap in TAPS[name]])
    library, _, _ = load_part(FAMILIES[name], "tiny", "random")
    check_parity(teacher, library, READ[name], count=1)


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["dinov3_convnext:convnext_tiny@352", "sam2:hiera_t@512"])
def test_a_published_size_equals_the_librarys_own_forward(teacher):
    name, _, variant = teacher.partition("@")[0].partition(":")
    library, _, _ = load_part(FAMILIES[name], variant, "random")
    check_parity(build_teacher(teacher, weights="random"), library, READ[name], count=1)


def test_sam_3_at_another_size_equals_the_library_built_for_that_size():
    teacher = build_teacher("sam3:tiny@182", weights="random", taps=["block3@native", "neck@native"])
    library, config, _ = load_part(sam3.FAMILY, "tiny", "random")
    config.backbone_config.image_size = 182
    for block in library.backbone.layers:
        block.position_ids = block.precompute_positions(config.backbone_config, block.window_size)
    check_parity(teacher, library, read_sam3, count=1)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_no_tap_needs_is_not_held(name):
    first = TAPS[name][0]
    small = build_teacher(f"{name}:tiny", weights="random", taps=[f"{first}@native"])
    full = build_teacher(f"{name}:tiny", weights="random", taps=[f"{tap}@native" for tap in TAPS[name]])
    held = [sum(p.numel() for p in teacher.network.parameters()) for teacher in (small, full)]
    assert held[0] < 0.6 * held[1]
    pixels = torch.rand(1, 3, small.spec.input_px, small.spec.input_px)
    torch.testing.assert_close(small.features(pixels)[first], full.features(pixels)[first])


def whole_model(name: str):
    """Return the library's whole model around the random encoder of the tiny variant, as the hub's files hold it."""
    encoder, config, _ = load_part(FAMILIES[name], "tiny", "random")
    if name == "sam2":
        small = {"num_layers": 1, "hidden_size": 32}
        whole = Sam2VideoModel(Sam2VideoConfig(vision_config=config.to_dict(), memory_attention_num_layers=1, **small))
        whole.vision_encoder.load_state_dict(encoder.state_dict())
        return whole
    if name == "sam3":
        text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        text |= {"vocab_size": 64, "projection_dim": 32, "max_position_embeddings": 8}
        detector = {"vision_config": config.to_dict(), "text_config": {"model_type": "clip_text_model", **text}}
        detector |= {"detr_encoder_config": {"num_layers": 1}, "detr_decoder_config": {"num_layers": 1}}
        whole = Sam3VideoModel(Sam3VideoConfig(detector_config=detector))
        whole.detector_model.vision_encoder.load_state_dict(encoder.state_dict())
        return whole
    return encoder


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request, tmp_path_factory):
    """A tiny checkpoint in the layout of the hub's files: its teacher, and its folder; tests copy it to change it."""
    folder = tmp_path_factory.mktemp(request.param) / "folder"
    with quiet(), torch.random.fork_rng():
        whole_model(request.param).save_pretrained(folder)
    return request.param, folder


SOME_KEY = {
    "dinov3_convnext": "stages.0.",
    "sam2": "vision_encoder.backbone.blocks.0.",
    "sam3": "detector_model.vision_encoder.backbone.layers.0.",
    "radio": "radio_model.model.blocks.0.",
}
"""How files of the hub begin a tensor's name, by the libraries' conversion tables."""


def test_a_checkpoint_as_the_hub_has_it_gives_the_same_digest_and_maps(saved):
    name, folder = saved
    assert any(key.startswith(SOME_KEY[name]) for key in load_file(folder / "model.safetensors"))
    random = build_teacher(f"{name}:tiny", weights="random")
    teacher = build_teacher(f"{name}:tiny", weights=str(folder))
    assert teacher.spec.weights_digest == random.spec.weights_digest
    pixels = torch.rand(1, 3, teacher.spec.input_px, teacher.spec.input_px)
    for tap, feature in teacher.features(pixels).items():
        torch.testing.assert_close(feature, random.features(pixels)[tap])


def test_a_tensor_that_is_no_part_of_the_model_is_refused(saved, tmp_path):
    name, folder = saved[0], shutil.copytree(saved[1], tmp_path / "folder")
    path = folder / "model.safetensors"
    save_file(load_file(path) | {"strange.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"1 unexpected \(strange\.weight\)"):
        build_teacher(f"{name}:tiny", weights=str(folder))


def test_a_folder_of_another_size_is_refused(saved):
    name, folder = saved
    default = {"dinov3_convnext": "convnext_base", "sam2": "hiera_b_plus", "sam3": "large", "radio": "h"}[name]
    with pytest.raises(WeightsError, match=f"holds {name}:tiny .*but {name}:{default} was asked for"):
        build_teacher(name, weights=str(folder))


def test_code_beside_a_checkpoint_of_radio_is_not_run(tmp_path):
    folder = tmp_path / "folder"
    with quiet():
        whole_model("radio").save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "hf_model.RADIOConfig", "AutoModel": "hf_model.RADIOModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "hf_model.py").write_text("raise SystemExit('foreign code ran')")
    random = build_teacher("radio:tiny", weights="random")
    assert build_teacher("radio:tiny", weights=str(folder)).spec.weights_digest == random.spec.weights_digest


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("sam2@1000", "multiples of 32 px, not 1000 px; the nearest is sam2:hiera_b_plus@992"),
        ("sam3@1000", "multiples of 14 px, not 1000 px; the nearest is sam3:large@994"),
        ("dinov3_convnext@700", "multiples of 32 px, not 700 px; the nearest is dinov3_convnext:convnext_base@704"),
    ],
)
def test_an_input_that_the_network_cannot_take_names_the_nearest(teacher, message):
    with pytest.raises(TeacherError, match=message):
        build_teacher(teacher, weights="random")
