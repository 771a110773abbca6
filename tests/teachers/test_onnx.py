import json
import os
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException
from small_networks import save_onnx

from difom_cache import build_teacher
from difom_cache.base.hardware import explain_memory
from difom_cache.errors import DeviceError, SettingsError, TeacherError, WeightsError
from difom_cache.extraction import ExtractConfig, request_teachers
from difom_cache.teachers import open_session, place_teacher


def tap_names(teacher):
    return [tap.name for tap in teacher.spec.taps]


@pytest.fixture
def file(tmp_path):
    return save_onnx(tmp_path / "Small Net.onnx")


def test_outputs_and_the_last_inner_tensors_are_the_default_taps(file):
    teacher = build_teacher(f"onnx:{file}@128", picture_px=128)
    assert teacher.spec.label == "onnx-Small-Net"
    assert tap_names(teacher) == ["mask@4", "inner8@8", "inner16@16", "inner32@32"]
    assert teacher.spec.options["tensors"] == {
        "mask": "mask",
        "inner8": "/stage8/Relu",
        "inner16": "/stage16/Conv",
        "inner32": "/stage16/Conv",
    }
    assert teacher.spec.native["mask"].kind == "logits" and teacher.spec.native["inner8"].kind == "feature"


def test_inner_tensors_are_chosen_by_the_stride_in_the_stored_picture(file):
    """At 352 px a stride of 16 asks for 22 cells: the 8 px stage has them at an input of 176 px, the 16 px one not."""
    teacher = build_teacher(f"onnx:{file}@176", strides=[16, 32])
    assert teacher.spec.options["tensors"]["inner16"] == "/stage8/Relu"
    assert teacher.spec.options["tensors"]["inner32"] == "/stage16/Conv"


def test_features_equal_the_graphs_own(file):
    teacher = build_teacher(f"onnx:{file}@64", picture_px=64)
    pixels = torch.rand(3, 3, 64, 64)
    mean, std = torch.tensor(teacher.spec.mean)[:, None, None], torch.tensor(teacher.spec.std)[:, None, None]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (mask,) = session.run(["mask"], {"pixels": ((pixels - mean) / std).numpy()})
    np.testing.assert_allclose(teacher.features(pixels)["mask"].numpy(), mask, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(teacher.features(pixels.requires_grad_())["mask"].numpy(), mask, rtol=1e-5, atol=1e-6)


def test_logits_are_read_before_a_last_sigmoid(tmp_path):
    file = save_onnx(tmp_path / "prob.onnx", sigmoid=True)
    teacher = build_teacher(f"onnx:{file}@64", picture_px=64)
    assert teacher.spec.options["tensors"]["mask"] == "score"
    assert teacher.features(torch.rand(1, 3, 64, 64))["mask"].min() < 0


def test_settings_beside_the_file_give_size_mean_std_and_logits(file):
    settings = {"size": 96, "mean": [0, 0, 0], "std": [1, 1, 0.5], "logits": []}
    Path(f"{file}.json").write_text(json.dumps(settings))
    spec = build_teacher(f"onnx:{file}", picture_px=96).spec
    assert (spec.input_px, spec.mean, spec.std) == (96, (0, 0, 0), (1, 1, 0.5))
    assert spec.native["mask"].kind == "feature"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sise": 96}, "did you mean 'size'"),
        ({"size": 96, "std": [1, 1, 0]}, "std must be three numbers"),
        ({"size": 96, "mean": "x"}, "mean must be three numbers"),
        ({"size": 96, "logits": ["masks"]}, r"Small Net\.onnx\.json: logits: .*did you mean 'mask'"),
    ],
)
def test_settings_that_are_wrong_are_refused(file, settings, message):
    Path(f"{file}.json").write_text(json.dumps(settings))
    with pytest.raises(SettingsError, match=message):
        build_teacher(f"onnx:{file}", picture_px=96)


def test_a_precision_that_the_graph_does_not_compute_in_is_refused(file):
    with pytest.raises(
        SettingsError, match=r"Small Net\.onnx computes in the precision of its graph; leave out --precision"
    ):
        build_teacher(f"onnx:{file}@96", picture_px=96, precision="bfloat16")
    assert build_teacher(f"onnx:{file}@96", picture_px=96, precision="float32").spec.precision == "float32"


def test_a_graph_of_one_size_needs_no_other(tmp_path):
    file = save_onnx(tmp_path / "fixed.onnx", size=64, batch=1)
    teacher = build_teacher(f"onnx:{file}", picture_px=64)
    assert teacher.spec.input_px == 64
    assert teacher.features(torch.rand(3, 3, 64, 64))["mask"].shape == (3, 1, 16, 16)
    with pytest.raises(TeacherError, match="takes inputs of 64 px, not 96 px; the nearest is @64"):
        build_teacher(f"onnx:{file}@96", picture_px=64)


def test_a_graph_of_any_size_asks_for_one(file):
    with pytest.raises(TeacherError, match=r"takes any size; name one .*@224"):
        build_teacher(f"onnx:{file}")


def test_a_named_tensor_becomes_a_tap_under_its_alias(file):
    teacher = build_teacher(f"onnx:{file}@64", picture_px=64, taps=["deep=/stage16/Conv@32", "mask@8"])
    assert tap_names(teacher) == ["deep@32", "mask@8"]
    assert teacher.features(torch.rand(1, 3, 64, 64))["deep"].shape == (1, 16, 4, 4)
    assert teacher.spec.identity()["options"] == {"tensors": {"deep": "/stage16/Conv", "mask": "mask"}}


def test_an_unknown_tensor_names_the_nearest(file):
    with pytest.raises(TeacherError, match="did you mean '/stage16/Conv'"):
        build_teacher(f"onnx:{file}@64", picture_px=64, taps=["deep=/stage16/conv"])


def test_an_alias_must_be_a_plain_name(file):
    with pytest.raises(SettingsError, match="an alias is letters"):
        build_teacher(f"onnx:{file}@64", picture_px=64, taps=["a/b=/stage16/Conv"])


def test_the_digest_is_the_files_and_weights_cannot_be_named_apart(file, tmp_path):
    (tmp_path / "other").mkdir()
    moved = tmp_path / "other" / "moved.onnx"
    moved.write_bytes(file.read_bytes())
    first, second = (build_teacher(f"onnx:{path}@64", picture_px=64).spec for path in (file, moved))
    assert first.weights_digest == second.weights_digest and first.label != second.label
    with pytest.raises(WeightsError, match="holds its own weights"):
        build_teacher(f"onnx:{file}@64", weights="random")


def test_a_damaged_or_missing_file_is_refused_and_named(tmp_path, file):
    with pytest.raises(WeightsError, match=r"nowhere\.onnx: there is no such file"):
        build_teacher(f"onnx:{tmp_path / 'nowhere.onnx'}")
    (tmp_path / "cut.onnx").write_bytes(file.read_bytes()[:-400])
    with pytest.raises(WeightsError, match=r"cut\.onnx: not a whole ONNX file"):
        build_teacher(f"onnx:{tmp_path / 'cut.onnx'}@64")


def test_a_graph_that_the_runtime_takes_and_the_checker_does_not_is_taken(file):
    model = onnx.load(file)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    file.write_bytes(model.SerializeToString())
    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(onnx.load(file))
    assert build_teacher(f"onnx:{file}@64", picture_px=64).features(torch.rand(1, 3, 64, 64))["mask"].shape[-1] == 16


def test_a_file_that_only_the_runtime_reads_is_not_called_damaged(file, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "net.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    with pytest.raises(
        WeightsError, match=r"net\.ort: onnxruntime loads it, but its graph cannot be read .*plain ONNX file"
    ):
        build_teacher(f"onnx:{tmp_path / 'net.ort'}@64")


def test_a_session_follows_the_number_of_threads(file):
    teacher = build_teacher(f"onnx:{file}@64", picture_px=64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        teacher.features(torch.rand(1, 3, 64, 64))
        assert teacher.threads == before + 1
    finally:
        torch.set_num_threads(before)


FULL = (  # as version 1.19 says it of a T4
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. Name:'/stem/Conv' "
    "Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::"
    "AllocateRawInternal(size_t, bool, onnxruntime::Stream*, bool, onnxruntime::WaitNotificationFn) Failed to allocate memory "
    "for requested buffer of size 4585490528"
)


@pytest.mark.parametrize(("said", "kind"), [(FULL, DeviceError), ("[ONNXRuntimeError] : 2 : shape", RuntimeException)])
def test_a_gpu_that_is_full_is_told_as_of_any_other_teacher(file, monkeypatch, said, kind):
    teacher = build_teacher(f"onnx:{file}@64", picture_px=64)

    class Full:
        get_inputs = teacher._session.get_inputs

        def run(self, *_):
            raise RuntimeException(said)

    monkeypatch.setattr(teacher, "_session", Full())
    with (
        pytest.raises(
            kind, match=r"ran out of memory: .*Conv node.* --batch-size$" if kind is DeviceError else "shape"
        ),
        explain_memory("--batch-size"),
    ):
        teacher.features(torch.rand(1, 3, 64, 64))


@pytest.mark.weights
def test_the_trained_segmenter_finds_the_polyp():
    path = os.environ.get("DIFOM_TEACHER_ONNX")
    data = os.environ.get("DIFOM_BENCHMARK")
    if not path or not data:
        pytest.skip("set DIFOM_TEACHER_ONNX to a trained ONNX segmenter and DIFOM_BENCHMARK to the benchmark")
    from difom_cache import load_records, read_image, read_mask

    teacher = build_teacher(f"onnx:{path}@224")
    dice = []
    for record in load_records(Path(data), splits=("test",), limit=4):
        image = torch.from_numpy(read_image(record.image).copy()).permute(2, 0, 1)[None] / 255
        pixels = torch.nn.functional.interpolate(image, (224, 224), mode="bilinear", antialias=True)
        mask = torch.from_numpy(read_mask(record.mask).copy())[None, None].float()
        truth = torch.nn.functional.interpolate(mask, (224, 224), mode="area") > 0.5
        found = teacher.features(pixels)["logits"] > 0
        dice.append(float(2 * (found & truth).sum() / (found.sum() + truth.sum())))
    assert sum(dice) / len(dice) > 0.5


def edit(file: Path, change) -> str:
    model = onnx.load(file)
    change(model)
    Path(file).write_bytes(model.SerializeToString())
    return str(file)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", onnx.TensorProto.UINT8), "takes uint8"),
        (lambda m: setattr(m.opset_import[0], "version", 99), "Net.onnx"),
        (lambda m: setattr(m, "ir_version", 99), "Net.onnx"),
        (lambda m: setattr(m.graph.node[0], "op_type", "Nothing"), "Net.onnx"),
        (lambda m: m.graph.input.pop(), "Net.onnx"),
    ],
)
def test_a_graph_that_cannot_be_run_is_refused_in_one_line(file, change, line):
    with pytest.raises((TeacherError, WeightsError), match=line):
        build_teacher(f"onnx:{edit(file, change)}@64", picture_px=64)


def test_of_a_name_that_is_no_text_the_runtime_says_nothing_by_itself(file, capfd):
    file.write_bytes(file.read_bytes().replace(b"/stage16/Conv", b"/stage16/\xafonv"))
    with pytest.raises((TeacherError, WeightsError), match=r"Net\.onnx"):
        build_teacher(f"onnx:{file}@64", picture_px=64)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"mean": [NaN, 0, 0]}', "mean must be three numbers"),
        ('{"std": [1, 1, Infinity]}', "std must be three numbers"),
        ('{"mean": [true, 0, 0]}', "mean must be three numbers"),
        ('{"size": "64"}', "size must be a whole number"),
        ('{"size": -64}', "size must be a whole number"),
        ('{"size": 1e99}', "size must be a whole number"),
        ('{"logits": 3}', "logits must be a list"),
        ('{"logits": [3]}', "logits must be a list"),
        ('{"logits": ["mask"], "values": "prob"}', "logits is a list"),
        ('{"output": 3}', "output must be the name"),
        ('{"output": "masks"}', "output: .*did you mean 'mask'"),
        ('{"values": "probability"}', "values must be one of logits, prob, prob255, mask"),
        ('{"channel": -1}', "channel must be a number from 0"),
        ('{"channel": true}', "channel must be a number from 0"),
        ('{"channel": 1}', "channel 1: 'mask' has 1"),
    ],
)
def test_settings_beside_a_file_that_cannot_be_are_named(file, text, line):
    Path(f"{file}.json").write_text(text)
    with pytest.raises(SettingsError, match=rf"Net\.onnx\.json: {line}"):
        build_teacher(f"onnx:{file}@64", picture_px=64)


def test_on_cuda_the_runtime_is_told_to_compute_in_float32(monkeypatch):
    asked = {}
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        "onnxruntime.InferenceSession",
        lambda model, options, providers, **_: asked.update(enumerate(providers)) or Session(BOTH),
    )
    open_session(b"", torch.device("cuda", 1))
    assert asked == {0: ("CUDAExecutionProvider", {"device_id": 1, "use_tf32": 0}), 1: "CPUExecutionProvider"}


class Session:
    """A runtime's session that says it runs on `providers`."""

    def __init__(self, providers):
        self.providers = providers

    def get_providers(self):
        return self.providers


@pytest.fixture
def gpu_machine(monkeypatch):
    """A machine on which PyTorch has a GPU; called with what onnxruntime has, and what a session on it then runs on."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("difom_cache.base.hardware.has_driver", lambda: True)

    def set_up(available, runs_on):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
        monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: Session(runs_on))

    return set_up


CPU, BOTH = ["CPUExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("available", "runs_on", "stands"), [(CPU, CPU, "cpu"), (BOTH, CPU, "cpu"), (BOTH, BOTH, "cuda")]
)
def test_auto_puts_an_onnx_file_where_its_runtime_computes_and_sam_beside_it_on_the_gpu(
    gpu_machine, capsys, available, runs_on, stands
):
    gpu_machine(available, runs_on)
    requests = request_teachers(ExtractConfig(teacher=("sam", "onnx:net.onnx"), device="auto"), "auto")
    assert [request.device for request in requests] == ["cuda", stands]
    assert capsys.readouterr().err.count("NOTE: ONNX files run on the CPU") == (stands == "cpu")


@pytest.mark.parametrize(
    ("available", "message"),
    [(CPU, "CPUExecutionProvider; install onnxruntime-gpu"), (BOTH, "would run on the CPU; install the CUDA")],
)
def test_a_gpu_that_is_asked_for_by_name_is_never_replaced_by_the_cpu(gpu_machine, available, message):
    gpu_machine(available, CPU)
    assert place_teacher("onnx", "cuda") == "cuda"
    with pytest.raises(DeviceError, match=f"--device cuda: .*{message}"):
        open_session(b"", torch.device("cuda"))


def test_the_runtime_may_come_from_the_package_for_gpus_alone(file, monkeypatch):
    found = metadata.version

    def find(name):
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr("difom_cache.teachers.base.version", find)
    assert build_teacher(f"onnx:{file}@64", picture_px=64).spec.libraries["onnxruntime"] == onnxruntime.__version__
