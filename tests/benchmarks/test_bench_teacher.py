import json
import time
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from small_networks import save_onnx

from benchmarks import library_teachers, teachers
from benchmarks.library_teachers import PLAIN, build_plain
from benchmarks.measure import MATMUL_SIDE, describe_gpus, measure_matmul, peak_of, seconds_of
from benchmarks.options import TeacherConfig
from benchmarks.teachers import WAYS, TeacherSpeeds, bench_teacher, fit_batch
from difom_cache import build_teacher
from difom_cache.base.errors import DeviceError
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


@pytest.fixture(autouse=True, scope="module")
def small_ceiling():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MATMUL_SIDE, "cpu", 128)
        yield


def bench(teacher, **options) -> TeacherSpeeds:
    return bench_teacher(TeacherConfig(teacher=teacher, **options))


@pytest.fixture(scope="module")
def result(frames):
    return bench("dinov2:tiny", data=frames, views=3, repeats=1, device="cpu", batch_size=2)


def test_every_way_is_measured_from_files_to_bytes_and_alone(result):
    assert json.loads(json.dumps(result.as_json()))["ways"] == result.ways
    assert set(result.ways) == set(WAYS)
    for way in result.ways.values():
        assert way["images_per_s"] == pytest.approx(3 / way["whole_s"][0])
        assert way["network_images_per_s"] == pytest.approx(3 / way["network_s"][0])
        assert way["network_images_per_s"] > 0 and len(way["whole_s"]) == 1
    assert tuple(result.about[key] for key in ("views", "batch", "precision")) == (3, 2, "float32")


def test_operations_are_counted_over_the_whole_network(result):
    """A block of 32 channels over n tokens takes 2n (12 32^2) for its products, 4n^2 32 for its attention."""
    tokens = 22 * 22 + 1
    block = 2 * tokens * 12 * 32**2 + 4 * tokens**2 * 32
    patches = 2 * 22 * 22 * 32 * 3 * 14**2
    assert result.about["flops_per_image"] == pytest.approx(4 * block + patches, rel=1e-3)


def test_the_table_names_every_way_and_the_share_of_the_ceiling(result):
    table = result.render()
    assert "dinov2:tiny@308" in table and "of the network's speed from JPEG to bytes" in table
    assert all(any(line.startswith(way) for line in table.splitlines()) for way in WAYS)


def test_one_way_can_be_asked_for_alone(frames):
    result = bench("sam:tiny", data=frames, views=2, repeats=1, device="cpu", ways=("library",))
    assert set(result.ways) == {"library"} and "ours" not in result.render()


def test_a_file_that_holds_its_own_weights_needs_no_word_on_them(frames, tmp_path):
    file = save_onnx(tmp_path / "net.onnx")
    result = bench(f"onnx:{file}@96", data=frames, views=2, repeats=1, device="cpu", batch_size=2)
    assert set(result.ways) == set(WAYS)


def test_backends_and_precisions_are_ways_of_their_own_and_say_how_near_their_features_are(frames):
    kinds = {"backend": ("torch",), "precision": ("float32", "bfloat16")}
    result = bench("dinov2:tiny", data=frames, views=3, repeats=1, device="cpu", ways=("difom",), **kinds)
    ways = result.ways
    assert list(ways) == ["difom torch float32", "difom torch bfloat16"]
    assert ways["difom torch float32"]["cosine"] == pytest.approx(1, abs=1e-6)
    assert 0.99 < ways["difom torch bfloat16"]["cosine"] < 1 - 1e-6
    assert result.about["pictures"] == 3 and "all 3" in result.render()
    alone = bench("dinov2:tiny", data=frames, views=2, repeats=1, device="cpu", ways=("difom",), backend=("torch",))
    assert list(alone.ways) == ["difom"]


def test_the_environment_names_the_backend_as_it_does_for_extract(frames, monkeypatch):
    built = []
    load = teachers.load_teacher
    monkeypatch.setattr(teachers, "load_teacher", lambda request: built.append(request) or load(request))
    monkeypatch.setenv("DIFOM_BACKEND", "torch")
    bench("dinov2:tiny", data=frames, views=1, repeats=1, device="cpu", ways=("difom",), batch_size=1)
    assert {request.backend for request in built} == {"torch"}


def test_openvino_is_a_way_of_its_own(frames):
    pytest.importorskip("openvino")
    kinds = {"backend": ("torch", "openvino"), "batch_size": 2}
    result = bench("dinov2:tiny", data=frames, views=3, repeats=1, device="cpu", ways=("difom",), **kinds)
    assert list(result.ways) == ["difom torch float32", "difom openvino float32"]
    for way in result.ways.values():
        assert way["cosine"] == pytest.approx(1, abs=1e-4)


def test_no_cuda_is_one_line(frames):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match="--device cpu"):
        bench("dinov2:tiny", data=frames, device="cuda")


def test_a_few_images_are_shown_over_and_over(frames):
    result = bench("dinov2:tiny", data=frames, views=7, repeats=1, device="cpu", ways=("difom",), batch_size=4)
    assert (result.about["views"], result.about["pictures"]) == (7, 3)
    (way,) = result.ways.values()
    assert way["images_per_s"] == pytest.approx(7 / way["whole_s"][0])


def test_each_network_is_built_once(frames, monkeypatch):
    built = []
    for module, name in (
        (teachers, "build_plain"),
        (import_module("difom_cache.extraction.teachers"), "build_requested"),
    ):
        build = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *each, name=name, build=build: built.append(name) or build(*each))
    bench("dinov2:tiny", data=frames, views=2, repeats=3, device="cpu", batch_size=1, backend=("torch",))
    assert sorted(built) == ["build_plain", "build_plain", "build_requested"]


def test_pixels_are_drawn_before_the_network_is_timed_and_take_turns():
    """A GPU read five to ten times too slow while its pixels were drawn on the CPU inside the timed region."""
    seen, drawn = [], torch.rand(2, 2, 3, 8, 8)
    way = teachers.Way(lambda: 0.0, lambda pixels: seen.append(pixels) or time.sleep(0.01), 2)
    rig = SimpleNamespace(records=range(5), pixels=tuple(drawn), device=torch.device("cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", None)
        seconds = teachers._time_network(way, rig)
    assert [len(each) for each in seen] == [2, 2, 2, 1]  # the first warms up
    assert all(torch.equal(each, drawn[place][: len(each)]) for each, place in zip(seen, (0, 0, 1, 0), strict=True))
    assert 0.03 <= seconds < 0.04 + 0.1


def test_a_batch_is_halved_until_the_device_has_memory_for_it():
    tried = []

    def run(pixels: torch.Tensor) -> None:
        tried.append(len(pixels))
        if len(pixels) > 3:
            raise (
                torch.OutOfMemoryError("CUDA out of memory")
                if len(tried) == 1
                else RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")
            )

    assert fit_batch(run, torch.zeros(12, 1)) == 3 and tried == [12, 6, 3]
    with pytest.raises(torch.OutOfMemoryError):
        fit_batch(lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError("full")), torch.zeros(2, 1))
    with pytest.raises(RuntimeError, match="shapes"):
        fit_batch(lambda _: (_ for _ in ()).throw(RuntimeError("shapes differ")), torch.zeros(2, 1))


@pytest.mark.parametrize("teacher", ["hf:some/model", "student:runs/mine", "onnx:net.onnx"])
def test_a_teacher_without_a_library_of_its_own_stands_on_the_device(monkeypatch, teacher):
    """It is no module that could be moved: the benchmark fed it pixels of a GPU while it stood on the CPU."""
    asked = []
    monkeypatch.setattr(library_teachers, "build_requested", lambda request: asked.append(request.device))
    build_plain(teacher, "hub", torch.device("cuda:1"))
    assert asked == ["cuda:1"]


def test_the_ceiling_is_measured_on_random_numbers(monkeypatch):
    """Of ones a GPU says 13 % too much."""
    products = []
    mm = torch.mm
    monkeypatch.setattr(torch, "mm", lambda left, right, out: products.append(left) or mm(left, right, out=out))
    assert measure_matmul(torch.device("cpu"), "float32") > 1e8
    assert len(products) == 11 and products[0].std() == pytest.approx(1, abs=0.01)


def test_peak_memory_is_what_a_block_held_beyond_what_was_there():
    held = torch.ones(32 << 20, dtype=torch.uint8)
    with peak_of(torch.device("cpu")) as peak:
        torch.ones(64 << 20, dtype=torch.uint8)
    assert len(held) and (peak.held_bytes is None or 60 << 20 < peak.held_bytes < 90 << 20)


def test_the_state_of_gpus_is_what_nvidia_smi_says(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_gpus() == []
    script = tmp_path / "nvidia-smi"
    script.write_text(
        "#!/bin/sh\necho 'name, driver_version, clocks.current.sm [MHz]'\necho 'NVIDIA X, 555.42, 1980 MHz'\n"
    )
    script.chmod(0o755)
    assert describe_gpus() == [{"name": "NVIDIA X", "driver_version": "555.42", "clocks.current.sm [MHz]": "1980 MHz"}]


def test_a_device_without_events_is_timed_by_the_clock():
    assert 0.02 <= seconds_of(lambda: time.sleep(0.02), torch.device("cpu")) < 0.5


@pytest.mark.parametrize("name", PLAIN)
def test_the_librarys_way_computes_what_the_teacher_computes(name):
    taps = {"sam": "neck@native", "oneformer": "pixel16@native", "mask2former": "pixel16@native"}
    taps |= {"dinov3_convnext": "stage4@native", "sam2": "neck4@native", "sam3": "neck_x4@native"}
    teacher = build_teacher(f"{name}:tiny", weights="random", taps=[taps.get(name, "block3@native")])
    network, forward = build_plain(f"{name}:tiny", "random", torch.device("cpu"))
    pixels = torch.rand(1, 3, teacher.spec.input_px, teacher.spec.input_px)
    (feature,) = teacher.features(pixels).values()
    plain = forward(network.eval(), normalise(pixels, teacher.spec.mean, teacher.spec.std))
    found = plain[1] if name in ("oneformer", "mask2former") else plain[0]
    if found.ndim == 3:  # tokens, those in front of the patches first
        found = found[:, -(feature.shape[2] ** 2) :].mT.unflatten(2, feature.shape[2:])
    torch.testing.assert_close(found, feature, atol=1e-4, rtol=1e-4)
