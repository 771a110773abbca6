"""What a stranger sends is read, or refused in one line that names it: special files, garbled files, numbers without end."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from painted_folder import paint_folder
from painted_frames import save_small_student
from PIL import Image
from small_cache import write_small_cache

from difom_cache import export_hdf5, fetch_weights, import_hdf5, make_manifest
from difom_cache.base.console import run_app
from difom_cache.base.files import guard_decoder
from difom_cache.base.hardware import resolve_device
from difom_cache.base.options import read_call, read_toml
from difom_cache.errors import (
    CacheFormatError,
    DataError,
    DeviceError,
    DifomError,
    ImageError,
    SettingsError,
    WeightsError,
)
from difom_cache.probing import ProbeConfig
from difom_cache.teachers import read_tensors, read_weights
from difom_train import export
from difom_train.config import compose_keywords
from difom_train.evaluation import read_map
from difom_train.inference import list_pictures
from difom_train.students import read_run_masks
from difom_train.training import count_processes


def raise_it(problem: Exception) -> None:
    raise problem


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (IndexError("pop from empty list"), "pop from empty list"),
        (RecursionError("too deep"), "too deep"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "invalid start byte"),
        (KeyError("zfp"), "zfp"),
        (ValueError(), "ValueError"),
        (OSError(5, "Input/output error"), "input/output error"),
        (ValueError("two\nlines of <_io.BytesIO object at 0x7f00>"), "two lines of"),
    ],
)
def test_whatever_a_decoder_raises_is_one_line_with_the_name(tmp_path: Path, problem: Exception, said: str):
    path = tmp_path / "x.bin"
    path.write_bytes(b"x")
    with pytest.raises(DataError) as caught, guard_decoder(path, DataError, "a thing", "fetch it again"):
        raise_it(problem)
    told = str(caught.value)
    assert (
        told.startswith(f"{path}: expected a thing")
        and said in told
        and told.endswith("; fetch it again")
        and "\n" not in told
    )


def test_errors_of_ours_and_a_lack_of_memory_pass_through_the_guard(tmp_path: Path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"x")
    for problem in (ImageError("of its own"), MemoryError()):
        with pytest.raises(type(problem)), guard_decoder(path, DataError, "a thing"):
            raise_it(problem)


@pytest.mark.parametrize("read", [list_pictures, read_map, read_toml, lambda path: guarded(path)])
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_plain_file_is_never_waited_for(tmp_path: Path, read: Callable[[Path], object], kind: str):
    path = tmp_path / "list.txt"
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises(DifomError, match="FIFO" if kind == "fifo" else "device"):
        read(path)


def guarded(path: Path) -> None:
    with guard_decoder(path, DataError, "a thing"):
        raise AssertionError("it was opened")


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM"])
def test_a_map_of_another_format_under_the_name_of_a_png_is_refused(tmp_path: Path, kind: str):
    Image.new("RGB" if kind == "EPS" else "L", (8, 8)).save(tmp_path / "map.png", kind)
    with pytest.raises(
        ImageError, match=r"map\.png: expected a grey picture of probabilities \(PNG, BMP, TIFF, JPEG\)"
    ):
        read_map(tmp_path / "map.png")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "JPEG"])
def test_a_map_is_read_whatever_its_name_says(tmp_path: Path, kind: str):
    Image.new("L", (8, 6), 77).save(tmp_path / "map.png", kind)
    assert read_map(tmp_path / "map.png").shape == (6, 8) and abs(int(read_map(tmp_path / "map.png").max()) - 77) <= 1


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.safetensors"])
def test_a_page_that_says_not_found_is_no_weights(tmp_path: Path, name: str):
    (tmp_path / name).write_text("Repository not found")
    with pytest.raises(WeightsError, match=name):
        read_weights(tmp_path / name, ())
    with pytest.raises(WeightsError, match=name):
        read_tensors(tmp_path / name, "dinov2")


@pytest.mark.parametrize("text", ["a=" + "[" * 50_000, "a=" + "{b=" * 50_000])
def test_nested_toml_is_one_line(tmp_path: Path, text: str):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(SettingsError, match="is not TOML"):
        read_toml(tmp_path / "recipe.toml")
    with pytest.raises(SettingsError, match="nested too deeply"):
        compose_keywords(changes=["student.width=" + text[2:]])


@pytest.mark.parametrize("text", ["[" * 200_000, '{"masks":' * 200_000, "[]", "{}"])
def test_a_runs_list_of_masks_that_is_none_is_one_line(tmp_path: Path, text: str):
    (tmp_path / "masks.json").write_text(text)
    with pytest.raises(DifomError, match=r"masks\.json") as caught:
        read_run_masks(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("student.width=100000000", "at most 4096"),
        ("data.scales=[1e9]", r"in \(0, 16\]"),
        ("data.input_px=1000000", "at most 16384"),
        ("data.batch_size=1000000000", "at most 65536"),
        ("optimizer.epochs=100000000000", "at most 1000000"),
        ("optimizer.lr=1e300", "at most 1000000000"),
        ("data.labels_seed=100000000000000000000", "at most 9223372036854775807"),
    ],
)
def test_numbers_that_nothing_can_hold_are_refused_before_anything_is_made(setting: str, said: str):
    with pytest.raises(SettingsError, match=said):
        compose_keywords(changes=[setting])


@pytest.mark.parametrize(
    "setting", ["student.width=512", "data.scales=[0.75,1.0,1.25]", "data.input_px=1024", "data.labels_seed=4294967296"]
)
def test_large_numbers_that_people_use_are_taken(setting: str):
    assert compose_keywords(changes=[setting])


def test_a_width_of_twenty_digits_and_a_stride_of_nothing_are_refused():
    with pytest.raises(SettingsError, match="at most 4096"):
        compose_keywords(width=10**20)
    with pytest.raises(SettingsError, match=r"in \[1, 16384\]"):
        read_call(ProbeConfig, {"teachers": ("one",), "stride": 1e-320})


def test_there_is_one_cpu():
    with pytest.raises(DeviceError, match="no device 'cpu:7'"):
        resolve_device("cpu:7")
    assert resolve_device("cpu:0").type == resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_NTASKS": "x"},
        {"LOCAL_WORLD_SIZE": "0", "WORLD_SIZE": "2"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_NNODES": "-1"},
    ],
)
def test_an_environment_without_a_number_of_processes_names_the_variable(environment: dict[str, str]):
    with pytest.raises(SettingsError, match="in the environment; expected a number of processes"):
        count_processes(environment)


def test_a_manifest_is_never_written_onto_a_picture_or_mask(tmp_path: Path):
    data = paint_folder(tmp_path / "data", 3)
    for kind in ("images", "masks"):
        path = data / kind / "000.png"
        before = path.read_bytes()
        for options in ({"out": path}, {"out": tmp_path / "m.csv", "montage": path}):
            with pytest.raises(SettingsError, match="is an input"):
                make_manifest(data, force=True, **options)
        assert path.read_bytes() == before
    assert len(make_manifest(data, tmp_path / "m.csv", force=True, check=False)[0]) == 3
    assert len(make_manifest(tmp_path / "m.csv", tmp_path / "m.csv", force=True, check=False)[0]) == 3


def test_an_exported_cache_with_an_unknown_codec_names_it(tmp_path: Path):
    export_hdf5(write_small_cache(tmp_path / "feats").path, tmp_path / "feats.h5")
    with h5py.File(tmp_path / "feats.h5", "r+") as book:
        identity = json.loads(book["teachers/one"].attrs["identity"])
        identity["taps"][0]["codec"]["name"] = "zfp"
        book["teachers/one"].attrs["identity"] = json.dumps(identity)
    with pytest.raises(CacheFormatError, match="codec 'zfp', which this difom does not know"):
        import_hdf5(tmp_path / "feats.h5", tmp_path / "back")


def test_a_name_that_is_utf8_is_not_said_to_be_none_under_an_ascii_locale(tmp_path: Path):
    data = paint_folder(tmp_path / "data", 2)
    for kind in ("images", "masks"):
        (data / kind / "000.png").rename(data / kind / "Käse.png")
    code = "import sys, pathlib, difom_cache; difom_cache.load_records(pathlib.Path(sys.argv[1]), quiet=True)"
    plain = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(data)], env=os.environ | plain, capture_output=True, text=True, check=False
    )
    assert "Python reads names as ascii here" in ended.stderr and "PYTHONUTF8=1" in ended.stderr


def test_pytorch_without_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    problem = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    def fail(*about: object, **how: object) -> None:
        raise problem

    monkeypatch.setattr(sys, "argv", ["difom-cache"])
    with pytest.raises(SystemExit) as ended:
        run_app(fail, interrupted="")  # type: ignore[arg-type]
    err = capsys.readouterr().err
    assert (
        ended.value.code == 2 and err.startswith("error: there is not enough memory for this") and err.count("\n") == 1
    )


def test_an_export_is_never_written_onto_its_run(tmp_path: Path):
    run = save_small_student(tmp_path / "run")
    before = {path: path.read_bytes() for path in run.iterdir()}
    for path in before:
        with pytest.raises(SettingsError, match="is an input"):
            export(run, out=path, force=True)
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    for _ in range(2):  # an earlier export is replaced
        assert export(run, out=run / "student.pt2", format="torch", frames=1, force=True).size_bytes


@pytest.mark.parametrize("sha", ["../../..", "/tmp/elsewhere", "main", "z" * 40])
def test_a_hub_whose_commit_is_none_is_given_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sha: str):
    answer = SimpleNamespace(sha=sha, siblings=[])
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *about, **how: answer)
    with pytest.raises(WeightsError, match="it names its commit"):
        fetch_weights("dinov2:small", tmp_path / "weights")
    assert not list(tmp_path.rglob("*"))


def test_a_batch_of_maps_needs_no_numpy_object(tmp_path: Path):
    np.save(tmp_path / "map.npy", np.zeros((4, 4)))
    (tmp_path / "map.npy").rename(tmp_path / "map.png")
    with pytest.raises(ImageError, match="expected a grey picture"):
        read_map(tmp_path / "map.png")
