import json

import pytest
import torch
from PIL import Image
from small_networks import save_onnx

from difom_cache import bench_teacher, build_teacher
from difom_cache.benchmarks import PLAIN, WAYS, build_plain, extraction, format_bench, measure_matmul
from difom_cache.errors import DataError, DeviceError, SettingsError
from difom_cache.teachers import normalise


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
        for number in range(3):
            noise = Image.effect_noise((96, 80), 60 + 10 * number)
            picture = noise.convert("RGB") if kind == "images" else noise.point(lambda level: 255 * (level > 128))
            picture.save(folder / kind / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def result(frames):
    return bench_teacher("dinov2:tiny", data=frames, views=3, repeats=1, device="cpu", batch_size=2)


def test_every_way_is_measured_from_files_to_bytes_and_alone(result):
    assert json.loads(json.dumps(result)) == result
    assert set(result["ways"]) == set(WAYS)
    for way in result["ways"].values():
        assert way["images_per_s"] == pytest.approx(3 / way["whole_s"][0])
        assert way["network_images_per_s"] == pytest.approx(3 / way["network_s"][0])
        assert way["network_images_per_s"] > 0 and len(way["whole_s"]) == 1
    assert (result["views"], result["batch"], result["precision"]) == (3, 2, "float32")


def test_operations_are_counted_over_the_whole_network(result):
    """A block of 32 channels over n tokens takes 2n (12 32^2) for its products, 4n^2 32 for its attention."""
    tokens = 22 * 22 + 1
    block = 2 * tokens * 12 * 32**2 + 4 * tokens**2 * 32
    patches = 2 * 22 * 22 * 32 * 3 * 14**2
    assert result["flops_per_image"] == pytest.approx(4 * block + patches, rel=1e-3)


def test_the_table_names_every_way_and_the_share_of_the_ceiling(result):
    table = format_bench(result)
    assert "dinov2:tiny@308" in table and "of the network's speed from JPEG to bytes" in table
    assert all(any(line.startswith(way) for line in table.splitlines()) for way in WAYS)


def test_one_way_can_be_asked_for_alone(frames):
    result = bench_teacher("sam:tiny", data=frames, views=2, repeats=1, device="cpu", ways=["library"])
    assert set(result["ways"]) == {"library"} and "ours" not in format_bench(result)


def test_a_file_that_holds_its_own_weights_needs_no_word_on_them(frames, tmp_path):
    file = save_onnx(tmp_path / "net.onnx")
    result = bench_teacher(f"onnx:{file}@96", data=frames, views=2, repeats=1, device="cpu", batch_size=2)
    assert set(result["ways"]) == set(WAYS)


def test_backends_and_precisions_are_ways_of_their_own_and_say_how_near_their_features_are(frames):
    kinds = {"backend": "torch", "precision": ("float32", "bfloat16")}
    result = bench_teacher("dinov2:tiny", data=frames, views=3, repeats=1, device="cpu", ways="difom", **kinds)
    ways = result["ways"]
    assert list(ways) == ["difom torch float32", "difom torch bfloat16"]
    assert ways["difom torch float32"]["cosine"] == pytest.approx(1, abs=1e-6)
    assert 0.99 < ways["difom torch bfloat16"]["cosine"] < 1 - 1e-6
    assert result["pictures"] == 3 and "all 3" in format_bench(result)
    alone = bench_teacher("dinov2:tiny", data=frames, views=2, repeats=1, device="cpu", ways="difom", backend="torch")
    assert list(alone["ways"]) == ["difom"]


def test_the_environment_names_the_backend_as_it_does_for_extract(frames, monkeypatch):
    built = []
    load = extraction.load_teacher
    monkeypatch.setattr(extraction, "load_teacher", lambda request: built.append(request) or load(request))
    monkeypatch.setenv("DIFOM_BACKEND", "torch")
    bench_teacher("dinov2:tiny", data=frames, views=1, repeats=1, device="cpu", ways="difom", batch_size=1)
    assert {request.backend for request in built} == {"torch"}


def test_openvino_is_a_way_of_its_own(frames):
    pytest.importorskip("openvino")
    kinds = {"backend": ["torch", "openvino"], "batch_size": 2}
    result = bench_teacher("dinov2:tiny", data=frames, views=3, repeats=1, device="cpu", ways="difom", **kinds)
    assert list(result["ways"]) == ["difom torch float32", "difom openvino float32"]
    for way in result["ways"].values():
        assert way["cosine"] == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_measured_is_refused(frames, tmp_path):
    with pytest.raises(SettingsError, match="ways='fast': must be one of notebook, library, difom"):
        bench_teacher("dinov2:tiny", data=frames, ways=["fast"])
    with pytest.raises(DataError, match="expected at least 64 pictures, found 3; ask for fewer with --views"):
        bench_teacher("dinov2:tiny", data=frames, device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="--device cpu"):
            bench_teacher("dinov2:tiny", data=frames, device="cuda")


def test_the_ceiling_is_a_rate():
    assert measure_matmul(torch.device("cpu"), "float32") > 1e8


@pytest.mark.parametrize("name", PLAIN)
def test_the_librarys_way_computes_what_the_teacher_computes(name):
    taps = {"sam": "neck@native", "oneformer": "pixel16@native", "mask2former": "pixel16@native"}
    taps |= {"dinov3_convnext": "stage4@native", "sam2": "neck4@native", "sam3": "neck_x4@native"}
    teacher = build_teacher(f"{name}:tiny", weights="random", taps=[taps.get(name, "block3@native")])
    network, forward = build_plain(f"{name}:tiny", "random")
    pixels = torch.rand(1, 3, teacher.spec.input_px, teacher.spec.input_px)
    (feature,) = teacher.features(pixels).values()
    plain = forward(network.eval(), normalise(pixels, teacher.spec.mean, teacher.spec.std))
    found = plain[1] if name in ("oneformer", "mask2former") else plain[0]
    if found.ndim == 3:  # tokens, those in front of the patches first
        found = found[:, -(feature.shape[2] ** 2) :].mT.unflatten(2, feature.shape[2:])
    torch.testing.assert_close(found, feature, atol=1e-4, rtol=1e-4)
