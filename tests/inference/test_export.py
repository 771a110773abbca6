"""An exported file gives its student's probabilities, says what it is, and needs nothing of this package to run."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from painted_frames import paint_benchmark, save_small_student
from PIL import Image

import difom_train
from difom_cache import read_image, read_mask
from difom_cache.errors import DifomError, RunError, SettingsError
from difom_train import build_student, export, load_student
from difom_train.inference import (
    Deployed,
    Exported,
    FrameDeployed,
    load_exported,
    load_segmenter,
    prob_at_size,
    segment,
)
from difom_train.students import save_student

onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install '.[onnx]'), so nothing is exported")

SCRIPT = Path(__file__).parents[2] / "docs" / "run_exported.py"
# Warnings of the exporter's own code, which no caller can mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:onnx.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch.*"),
]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_benchmark(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_student(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def onnx_file(run: Path, benchmark: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(run, out=tmp_path_factory.mktemp("onnx") / "student.onnx", dynamic_size=True, check=benchmark)


def student_prob(run: Path, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return Deployed(load_student(run))(torch.from_numpy(pictures)).numpy()


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 32), (2, 48, 80)])
def test_onnx_file_gives_the_students_probabilities_at_any_batch_and_size(
    run: Path, onnx_file: Exported, shape: tuple[int, int, int]
) -> None:
    pictures = noise(*shape)
    prob = load_exported(onnx_file.path)(pictures)
    assert prob.shape == shape and prob.dtype == np.float32
    np.testing.assert_allclose(prob, student_prob(run, pictures), atol=1e-4)


def test_parity_is_measured_on_the_frames_that_were_given_and_printed(onnx_file: Exported) -> None:
    parity = onnx_file.parity
    assert (parity.frames, parity.real) == (9, True)
    assert parity.prob_difference < 1e-4
    assert parity.student_dice == pytest.approx(parity.file_dice, abs=1e-3)
    assert "parity over 9 real frames" in onnx_file.render()
    json.dumps(onnx_file.as_json())


def test_file_says_what_it_is_and_that_it_is_for_research(run: Path, onnx_file: Exported) -> None:
    facts = {prop.key: prop.value for prop in onnx.load(str(onnx_file.path)).metadata_props}
    assert facts["notice"].startswith("For research only. Not a medical device")
    assert json.loads(facts["classes"]) == ["background", "polyp"]
    assert facts["input"].startswith("pictures: uint8 RGB (B, H, W, 3), sides are multiples of 16")
    assert facts["input_px"] == "32"
    assert json.loads(facts["provenance"])["run"] == "small"
    assert len(json.loads(facts["provenance"])["weights_sha256"]) == 64


def test_file_runs_where_difom_and_torch_are_not_installed(
    onnx_file: Exported, benchmark: Path, tmp_path: Path
) -> None:
    folder = benchmark / "TestDataset" / "Kvasir" / "images"
    blocked = textwrap.dedent(
        f"""
        import runpy, sys
        sys.modules.update(dict.fromkeys(["difom_cache", "difom_train", "torch"]))  # importing them fails
        sys.argv = ["run_exported.py", {str(onnx_file.path)!r}, {str(folder)!r}, "masks"]
        runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
        """
    )
    done = subprocess.run([sys.executable, "-c", blocked], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "For research only" in done.stdout
    for path in folder.iterdir():
        assert read_mask(tmp_path / "masks" / path.name).shape == read_image(path).shape[:2]


def versions(path: Path) -> tuple[int, dict[str, int]]:
    """Return a file's IR, and its opsets by domain."""
    model = onnx.load(str(path))
    return model.ir_version, {each.domain: each.version for each in model.opset_import}


def test_file_asks_for_no_newer_runtime_than_its_operators_need(onnx_file: Exported) -> None:
    assert versions(onnx_file.path) == (
        8,
        {"": 18},
    )  # Resize is of opset 18, which came with IR 8: ONNX 1.13, January 2023


def test_an_operator_that_did_not_change_since_needs_no_later_opset() -> None:
    module = sys.modules["difom_train.inference.export"]
    nodes = [onnx.helper.make_node("Relu", ["x"], ["y"]), onnx.helper.make_node("Sigmoid", ["y"], ["prob"])]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "prob")]
    imports = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=imports, ir_version=10
    )
    module._lower_versions(model)
    assert model.ir_version == 7  # ONNX's Versioning.md: opset 14 came with IR 7
    assert [(each.domain, each.version) for each in model.opset_import] == [
        ("", 14)
    ]  # Operators.md: Relu 14, Sigmoid 13


@pytest.mark.slow
def test_files_run_in_a_runtime_of_2023(run: Path, benchmark: Path, tmp_path: Path) -> None:
    python = os.environ.get("DIFOM_OLD_ONNXRUNTIME")
    if not python:
        pytest.skip("set DIFOM_OLD_ONNXRUNTIME to the Python of an environment with onnxruntime 1.16 and 'numpy<2'")
    picture = noise(1, 32, 32)
    np.save(tmp_path / "picture.npy", picture)
    code = (
        "import sys, numpy, onnxruntime; assert onnxruntime.__version__ < '1.17'; "
        "session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider']); "
        "numpy.save('prob.npy', session.run(['prob'], {'pictures': numpy.load('picture.npy')})[0])"
    )
    for options in ({}, {"dynamic_size": True}, {"output_size": "frame"}, {"int8": True, "calibration": benchmark}):
        path = export(run, out=tmp_path / "student.onnx", frames=2, force=True, **options).path
        assert versions(path) == (8, {"": 18})
        subprocess.run([python, "-c", code, path.name], cwd=tmp_path, check=True)
        atol = 1e-3 if "int8" in options else 1e-6
        np.testing.assert_allclose(np.load(tmp_path / "prob.npy"), load_exported(path)(picture), atol=atol)


def test_torch_file_gives_the_students_probabilities_and_holds_its_facts(run: Path, tmp_path: Path) -> None:
    exported = export(run, format="torch", out=tmp_path / "student.pt2", frames=2)
    pictures = noise(3, 32, 32)
    np.testing.assert_allclose(load_exported(exported.path)(pictures), student_prob(run, pictures), atol=1e-5)
    facts = {"difom.json": ""}
    torch.export.load(str(exported.path), extra_files=facts)
    assert json.loads(facts["difom.json"])["student"] == "unet"
    assert "frames of noise (pass --check DATA" in exported.render()


@pytest.fixture(scope="module")
def frame_file(run: Path, benchmark: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    out = tmp_path_factory.mktemp("frame") / "student.onnx"
    return export(run, out=out, output_size="frame", check=benchmark, frames=3)


@pytest.mark.parametrize("shape", [(1, 48, 70), (2, 130, 97), (1, 32, 32), (1, 20, 300)])
def test_a_file_for_whole_frames_answers_at_their_size_as_predict_does(
    run: Path, frame_file: Exported, shape: tuple[int, int, int]
) -> None:
    pictures = noise(*shape)
    prob = load_exported(frame_file.path)(pictures)  # by onnxruntime
    assert prob.shape == shape and prob.dtype == np.float32
    segmenter = load_segmenter(run, device="cpu")
    wanted = np.stack([prob_at_size(segment(segmenter, [each])[0], *each.shape[:2]) for each in pictures])
    np.testing.assert_allclose(prob, wanted, atol=5e-3)  # single pixels fall on the next grey level


def test_a_file_for_whole_frames_resizes_as_pillow_does(run: Path) -> None:
    picture = noise(75, 130)
    student = load_student(run)
    seen = []
    student.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        FrameDeployed(student, 32)(torch.from_numpy(picture[None]))
    pillow = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    off = np.abs((seen[0][0] * 255).permute(1, 2, 0).numpy() - pillow)
    assert off.max() < 1.01 and (off > 0.5).mean() < 0.02


def test_a_file_for_whole_frames_says_so(frame_file: Exported) -> None:
    facts = {each.key: each.value for each in onnx.load(str(frame_file.path)).metadata_props}
    assert facts["output_size"] == "frame" and facts["to_frame_size"] == "is done inside"
    assert "whole frames, sides of 16 to 8192 px" in facts["input"] and "at the frame's size" in facts["output"]
    assert "real frames" in frame_file.parity.render()


def test_a_torch_file_takes_whole_frames_too(run: Path, tmp_path: Path) -> None:
    exported = export(run, format="torch", out=tmp_path / "student.pt2", output_size="frame", frames=1)
    assert load_exported(exported.path)(noise(1, 50, 41)).shape == (1, 50, 41)


def test_whole_frames_and_free_sides_are_two_things(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="takes frames of any size as it is; leave out --dynamic-size"):
        export(run, out=tmp_path / "student.onnx", output_size="frame", dynamic_size=True)


@pytest.mark.journey
def test_int8_file_says_so_and_agrees_on_most_pixels(run: Path, benchmark: Path, tmp_path: Path) -> None:
    exported = export(run, out=tmp_path / "int8.onnx", int8=True, calibration=benchmark, check=benchmark, frames=6)
    assert exported.metadata["precision"] == "int8"
    kinds = {node.op_type for node in onnx.load(str(exported.path)).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert versions(exported.path) == (8, {"": 18})
    assert exported.parity.agreement_frac > 0.9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8.onnx"]


def test_a_file_that_disagrees_with_its_student_is_not_kept_and_the_old_one_is(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["difom_train.inference.export"]  # the package shows the function under the same name
    monkeypatch.setattr(module, "load_exported", lambda path: lambda pictures: np.zeros(pictures.shape[:3]))
    with pytest.raises(RunError, match=r"differs from its student by .* so it was not kept"):
        export(run, format="torch", out=tmp_path / "student.pt2", frames=1)
    assert not (tmp_path / "student.pt2").exists()
    (tmp_path / "student.pt2").write_bytes(b"old")
    with pytest.raises(RunError):
        export(run, format="torch", out=tmp_path / "student.pt2", frames=1, force=True)
    assert [(path.name, path.read_bytes()) for path in tmp_path.glob("*pt2*")] == [("student.pt2", b"old")]


def test_a_file_that_is_there_is_replaced_only_by_force(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "student.pt2"
    path.write_bytes(b"old")
    with pytest.raises(SettingsError, match=r"student\.pt2 exists; .* --force"):
        export(run, format="torch", out=path, frames=1)
    assert path.read_bytes() == b"old"
    assert export(run, format="torch", out=path, frames=1, force=True).size_bytes > 3


@pytest.mark.parametrize("place", ["folder", "file/below", "nowhere"])
def test_an_out_that_cannot_be_a_file_is_refused_before_anything_is_done(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(SettingsError, match="--out"):
        export(tmp_path / "no run", out=tmp_path / place)


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_file_holds_no_path_of_this_machine_and_no_name_where_it_is_to_be_anonymous(
    run: Path, tmp_path: Path, format: str
) -> None:
    private = tmp_path / "anna-2031" / "run"
    shutil.copytree(run, private)
    path = export(private, format=format, out=tmp_path / "student", frames=1, anonymous=True).path
    content = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as book:
            content = b"".join(book.read(name) for name in book.namelist())
    home = str(Path(difom_train.__file__).parents[1])
    for private_words in (home, str(tmp_path), "anna", "site-packages", 'File "', str(Path(sys.prefix))):
        assert private_words.encode() not in content, private_words
    named = export(private, format=format, out=tmp_path / "named", frames=1)
    assert named.metadata["provenance"]["run"] == "run"


def test_torchscript_is_refused_with_the_reason(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"deprecated it for torch\.export; choose --format torch"):
        export(run, format="torchscript", out=tmp_path / "student.pt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "onx"}, "did you mean 'onnx'"),
        ({"format": "torch", "int8": True}, "--int8 is made for --format onnx"),
        ({"int8": True}, "--calibration DATA"),
        ({"calibration": "data"}, "--calibration is for --int8"),
        ({"int8": True, "calibration": "data", "dynamic_size": True}, "leave out --dynamic-size"),
        ({"frames": 0}, "frames=0: must be at least 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run: Path, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        export(run, out=tmp_path / "student.onnx", **options)


def test_run_without_a_student_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(DifomError, match="holds no trained student"):
        export(tmp_path / "run", out=tmp_path / "student.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width", "input_px"), [("unet", 16, 128), ("unet++", 16, 128), ("pranet", None, 352)])
def test_every_student_agrees_with_its_onnx_file_on_real_frames(
    name: str, width: int | None, input_px: int, tmp_path: Path
) -> None:
    benchmark = os.environ.get("DIFOM_BENCHMARK")
    if not benchmark:
        pytest.skip("DIFOM_BENCHMARK is not set: no real frames to compare on")
    student = build_student(name, width=width, weights="random", seed=0)
    save_student(student, tmp_path / "run", {"input_px": input_px})
    frames = Path(benchmark) / "TestDataset" / "Kvasir"
    exported = export(tmp_path / "run", out=tmp_path / "student.onnx", check=frames, frames=8)
    assert exported.parity.frames == 8 and exported.parity.prob_difference < 1e-4
