"""Several teachers in one cache: two sizes of one, a file, a run, random weights; each in its place, and told apart."""

import json
from pathlib import Path

import pytest
from painted_folder import paint_folder
from small_networks import save_onnx
from stand_ins import register, save_weights

from difom_cache import copy, extract, info, open_cache, verify
from difom_cache.errors import WeightsError
from difom_train import build_student, compare, evaluate, train
from difom_train.students import save_student
from difom_train.training import read_run

pytestmark = pytest.mark.journey

SMALL = {"input_size": 64, "views": 2, "device": "cpu", "quiet": True}
TINY = {"width": 4, "input_size": 32, "batch_size": 4, "epochs": 1, "device": "cpu", "changes": ["machine.logger=none"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_folder(tmp_path_factory.mktemp("data") / "frames", frames=16)


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as `weights fetch --to` makes it, of small networks that bear the names of published sizes."""
    register(monkeypatch.setitem)
    return save_weights(tmp_path / "weights")


def test_a_cache_of_two_sizes_teaches_with_the_ones_that_are_named(fetched: Path, data: Path, tmp_path: Path) -> None:
    feats = tmp_path / "feats"
    extract(teacher=["sam", "sam:vit_h", "dinov2"], weights=str(fetched), data=data, cache=feats, **SMALL)
    assert list(open_cache(feats).teachers) == ["dinov2", "sam", "sam-vit_h"]
    assert open_cache(feats).random_teachers == []
    [folder] = train(
        "unet", cache=feats, recipe="difom", out=tmp_path / "run", teachers=["sam-vit_h", "dinov2"], **TINY
    )
    facts = read_run(folder)
    assert {tap.partition("/")[0] for tap in facts["taps"]} == {"sam-vit_h", "dinov2"}
    assert facts["random_teachers"] == []
    assert "random" not in evaluate(folder, data, workers=0).render()


def test_every_teacher_is_found_again_to_recompute_it(fetched: Path, data: Path, tmp_path: Path) -> None:
    file, student = save_onnx(tmp_path / "net.onnx"), tmp_path / "student"
    save_student(build_student("unet", width=2, weights="random", seed=1), student, {"input_px": 64})
    feats = tmp_path / "feats"
    teachers = ["sam:vit_h", f"onnx:{file}@64", f"student:{student}", "dinov2:tiny@56"]
    weights = [f"sam={fetched}", "random"]
    extract(teacher=teachers, weights=weights, data=data, cache=feats, **SMALL)
    labels = {"sam-vit_h", "onnx-net", "student-student", "dinov2-tiny-random"}
    copy(feats, tmp_path / "part", taps=[tap for tap in open_cache(feats).taps if not tap.endswith("@32")])
    for cache in (feats, tmp_path / "part"):
        report = verify(cache, recompute=2, data=data)
        assert {tap.partition("/")[0] for tap in report.recomputed} == labels
        assert set(report.recomputed) == set(open_cache(cache).taps)
        assert all(figures["cosine_mean"] > 0.99 for figures in report.recomputed.values()), report.recomputed
    file.rename(tmp_path / "moved.onnx")
    student.rename(tmp_path / "moved")
    with pytest.raises(WeightsError) as caught:
        verify(feats, recompute=2, data=data)
    for said in ("--weights onnx-net=FILE", "--weights student-student=RUN"):
        assert said in str(caught.value)
    moved = [f"onnx-net={tmp_path / 'moved.onnx'}", f"student-student={tmp_path / 'moved'}"]
    report = verify(feats, recompute=2, data=data, weights=moved)
    assert {tap.partition("/")[0] for tap in report.recomputed} == labels


def test_random_weights_are_told_from_the_first_command_to_the_last(run, data: Path, tmp_path: Path) -> None:
    feats, out = tmp_path / "feats", tmp_path / "run"
    warning = "warning: sam-tiny-random has random weights"
    options = ["--teacher", "sam:tiny@64", "--weights", "random", "--input-size", 64, "--views", 2, "--device", "cpu"]
    code, said, _ = run("extract", *options, "--data", data, "--cache", feats)
    assert code == 0 and warning in said
    held = json.loads((feats / "teachers/sam-tiny-random/identity.json").read_text())
    assert held["teacher"]["weights"] == "random"
    assert warning in run("info", feats)[1]
    assert info(feats)["columns"]["teachers/sam-tiny-random"]["weights"] == "random"
    assert warning in run("show", feats, "--out", tmp_path / "view.png")[2]
    train("unet", cache=feats, recipe="difom", out=out, **TINY)
    assert read_run(out)["random_teachers"] == ["sam-tiny-random"]
    assert warning in evaluate(out, data, workers=0).render()
    compared = compare([out], out=tmp_path / "report", published=False, cost=False, resamples=10)
    assert warning in compared.render() and warning in (tmp_path / "report/table.md").read_text()
    assert warning in (tmp_path / "report/report.html").read_text()
