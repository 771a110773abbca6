"""OpenVINO runs the same network: equal features, one identity, and nothing that only looks like an answer."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from painted_folder import paint_folder

from difom_cache import build_teacher, extract, open_cache, verify
from difom_cache.errors import CacheIdentityError, DeviceError, SettingsError, TeacherError
from difom_cache.extraction import choose_backend, own_teachers
from difom_cache.store import withdraw_block
from difom_cache.teachers import OpenVinoTeacher, TeacherRequest, openvino_teacher

pytest.importorskip("openvino")
TINY = ("dinov2:tiny@308", "sam:tiny", "mask2former:tiny", "oneformer:tiny")
SMALL = {"teacher": "sam:tiny", "weights": "random", "input_size": 64, "views": 2, "strides": (32,), "quiet": True}
SMALL |= {"codec": "float16"}


def pixels_of(teacher) -> torch.Tensor:
    side = teacher.spec.input_px
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(7))


def cosines(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[float]:
    """Return, for each tap, the cosine of two batches of maps about the first one's mean."""
    assert one.keys() == other.keys()
    found = []
    for name, feature in one.items():
        mean = feature.mean((2, 3), keepdim=True)
        found.append(float(torch.cosine_similarity((feature - mean).flatten(), (other[name] - mean).flatten(), dim=0)))
    return found


@pytest.mark.parametrize("spec", TINY)
def test_float32_gives_pytorchs_features(spec: str) -> None:
    teacher = build_teacher(spec, weights="random")
    found = OpenVinoTeacher(teacher).features(pixels_of(teacher))
    for name, feature in build_teacher(spec, weights="random").features(pixels_of(teacher)).items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], feature, rtol=0, atol=1e-5 * float(feature.abs().max()))


REMARKS = """
import torch
from difom_cache import build_teacher
from difom_cache.teachers import OpenVinoTeacher
from transformers.utils import logging
teacher = build_teacher("mask2former:tiny@128", weights="random", picture_px=128)
OpenVinoTeacher(teacher).features(torch.zeros(1, 3, 128, 128))
logging.get_logger("transformers.any").warning("as loud as before")
"""


def test_no_remark_of_transformers_reaches_the_terminal_while_a_network_is_traced() -> None:
    done = subprocess.run([sys.executable, "-c", REMARKS], capture_output=True, text=True, check=True)
    assert [line for line in done.stderr.splitlines() if "transformers" in line] == ["[transformers] as loud as before"]


@pytest.mark.skipif("BF16" not in openvino_teacher.cpu_capabilities(), reason="this CPU has no bfloat16")
def test_bfloat16_is_another_number_and_near() -> None:
    exact = build_teacher("sam:tiny", weights="random")
    rounded = OpenVinoTeacher(build_teacher("sam:tiny", weights="random", precision="bfloat16"))
    one, other = exact.features(pixels_of(exact)), rounded.features(pixels_of(exact))
    assert rounded.spec.identity()["precision"] == "bfloat16"
    assert all(0.999 < cosine < 0.9999999 for cosine in cosines(one, other))


@pytest.mark.skipif("BF16" not in openvino_teacher.cpu_capabilities(), reason="this CPU has no bfloat16")
def test_cells_that_look_alike_in_noise_are_no_reason_to_refuse_bfloat16() -> None:
    """About their mean, what is left of SAM 2.1's cells of white noise is a quarter rounding."""
    OpenVinoTeacher(build_teacher("sam2:tiny@352", weights="random", precision="bfloat16")).check(1)


def test_bfloat16_is_refused_where_float32_would_be_computed_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_teacher, "cpu_capabilities", lambda: ["FP32", "INT8"])
    with pytest.raises(DeviceError, match=r"--precision bfloat16: this CPU has none.*use --backend torch"):
        OpenVinoTeacher(build_teacher("sam:tiny", weights="random", precision="bfloat16"))
    OpenVinoTeacher(build_teacher("sam:tiny", weights="random"))


def test_a_network_that_has_worked_for_pytorch_is_taken() -> None:
    built = build_teacher("dinov2:tiny", weights="random")
    features = built.features(pixels_of(built))
    taken = OpenVinoTeacher(built)
    taken.check(1)
    assert taken.features(pixels_of(built)).keys() == features.keys()


SIGNAL_AFTER_TWO = """
import os, signal
from difom_cache import build_teacher
from difom_cache.teachers import OpenVinoTeacher

signal.signal(signal.SIGTERM, lambda *_: print("handled"))
one, other = (OpenVinoTeacher(build_teacher("dinov2:tiny", weights="random")) for _ in range(2))
for teacher in (one, other):
    teacher.check(1)
del teacher, one  # the first to come is the first to go
del other
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_signals_are_handled_after_teachers_have_come_and_gone() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNAL_AFTER_TWO], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_a_smaller_batch_is_filled_up_and_a_larger_one_compiled() -> None:
    built = build_teacher("dinov2:tiny", weights="random")
    taken, pixels = OpenVinoTeacher(built), pixels_of(built).repeat(3, 1, 1, 1)
    for batch, compiled in ((2, [2]), (1, [2]), (3, [2, 3]), (1, [2, 3])):
        found = taken.features(pixels[:batch])
        assert list(taken._compiled) == compiled
        assert {len(feature) for feature in found.values()} == {batch}
        assert min(cosines(found, built.features(pixels[:batch]))) > 0.99999


def test_a_network_that_it_gets_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = OpenVinoTeacher(build_teacher("sam:tiny", weights="random"))
    teacher.check(2)
    right = teacher.features
    monkeypatch.setattr(teacher, "features", lambda pixels: {name: 1.01 * each for name, each in right(pixels).items()})
    with pytest.raises(TeacherError, match=r"other features than PyTorch at block2 \(relative error 0\.01"):
        teacher.check(2)


class Stubborn(torch.nn.Module):
    """A network that no graph can be made of."""

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        raise RuntimeError("not in a graph")


def test_a_network_that_it_cannot_take_is_refused_in_one_line() -> None:
    built = build_teacher("sam:tiny", weights="random")
    built.network = Stubborn()
    with pytest.raises(TeacherError, match=r"OpenVINO cannot take this network .*use --backend torch") as told:
        OpenVinoTeacher(built).features(pixels_of(built))
    assert "\n" not in str(told.value)


def test_what_it_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    built = build_teacher("sam:tiny", weights="random")
    with pytest.raises(SettingsError, match="runtime of its own"):
        OpenVinoTeacher(OpenVinoTeacher(built))
    built.device = torch.device("cuda")
    with pytest.raises(DeviceError, match="runs on the CPU, not on cuda"):
        OpenVinoTeacher(built)
    monkeypatch.setattr(openvino_teacher, "has_openvino", lambda: False)
    with pytest.raises(SettingsError, match="pip install '\\.\\[openvino\\]'"):
        OpenVinoTeacher(built)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_folder(tmp_path_factory.mktemp("data") / "frames", frames=6)


def test_a_column_says_what_computed_it_and_goes_on_with_that(data: Path, tmp_path: Path, capsys) -> None:
    cache = tmp_path / "feats"
    assert extract(data=data, cache=cache, backend="auto", **(SMALL | {"quiet": False})).complete
    opened = open_cache(cache)
    label = next(iter(opened.teachers))
    version = sys.modules["openvino"].__version__.split("-")[0]
    assert opened.teachers[label].backend.name == "openvino"
    assert version.startswith(opened.teachers[label].backend.version)
    assert f"teachers/{label}: OpenVINO" in capsys.readouterr().out
    before = opened.content_digests()
    withdraw_block(cache, opened.column(f"teachers/{label}"), 0)
    with pytest.raises(CacheIdentityError, match="backend"):
        extract(data=data, cache=cache, backend="torch", **SMALL)
    assert extract(data=data, cache=cache, backend="auto", **SMALL).computed_blocks == {f"teachers/{label}": 1}
    assert open_cache(cache).content_digests() == before
    report = verify(cache, recompute=2, data=data)
    assert report.sound and all(found["cosine_mean"] > 0.99999 for found in report.recomputed.values())
    assert report.recomputed


def test_a_column_that_pytorch_began_stays_with_pytorch(data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "feats"
    assert extract(data=data, cache=cache, backend="torch", **SMALL).complete
    opened = open_cache(cache)
    (label,) = opened.teachers
    assert "backend" not in opened.teachers[label].to_dict(), "as in every older cache"
    assert not extract(data=data, cache=cache, backend="auto", **SMALL).computed_blocks
    with pytest.raises(CacheIdentityError, match="backend"):
        extract(data=data, cache=cache, backend="openvino", **SMALL)


def test_auto_falls_to_pytorch_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: OpenVinoTeacher, batch: int) -> None:
        raise TeacherError("other features")

    monkeypatch.setattr(OpenVinoTeacher, "check", refuse)
    request = TeacherRequest("sam", "tiny", weights="random", strides=(32,), picture_px=64, backend="auto")
    with own_teachers():
        assert choose_backend(request, None, 2).backend == "torch"
        assert "PyTorch runs this teacher: other features" in capsys.readouterr().err
        with pytest.raises(TeacherError, match="other features"):
            choose_backend(replace(request, backend="openvino"), None, 2)
        with pytest.raises(SettingsError, match="expected auto, torch, openvino, found 'tvm'"):
            choose_backend(replace(request, backend="tvm"), None, 2)
