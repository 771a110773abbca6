import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from difom_cache.errors import RunError, WeightsError
from difom_train import build_student, load_student
from difom_train.students import save_student

RUN_WITHOUT_TEACHER_LIBRARIES = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("transformers", "segment_anything"):
            raise ModuleNotFoundError(f"{name} is hidden", name=name)

sys.meta_path.insert(0, Hidden())
import torch
import difom_train

student = difom_train.load_student(sys.argv[1])
print(tuple(student(torch.rand(1, 3, 64, 64)).shape))
"""


@pytest.fixture
def run(tmp_path):
    save_student(build_student("unet", width=2, neck="difom", seed=3), tmp_path, {"input_px": 64, "recipe": "difom"})
    return tmp_path


def test_a_trained_student_runs_with_no_teacher_library_installed(tmp_path):
    save_student(build_student("pranet", weights="random", neck="difom"), tmp_path, {"input_px": 64})
    done = subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT_TEACHER_LIBRARIES, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 1, 64, 64)"


def test_nothing_but_the_plain_network_is_saved(run):
    names = set(load_file(run / "student.safetensors"))
    assert {name.partition(".")[0] for name in names} == {"encoder", "decoder", "head", "neck"}
    assert json.loads((run / "student.json").read_text())["student"] == {
        "name": "unet",
        "width": 2,
        "neck": "difom",
        "deep_supervision": False,
    }


def test_a_folder_without_a_student_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"holds no trained student \(student.json is absent\)"):
        load_student(tmp_path)


def test_another_format_is_refused_with_both_versions(run):
    description = json.loads((run / "student.json").read_text())
    (run / "student.json").write_text(json.dumps({**description, "format": 9}))
    with pytest.raises(RunError, match="format 9, expected 1"):
        load_student(run)


@pytest.mark.parametrize("file", ["student.json", "student.safetensors"])
def test_a_cut_file_is_damage(run, file):
    (run / file).write_bytes((run / file).read_bytes()[:-9])
    with pytest.raises(WeightsError, match=file):
        load_student(run)


def test_weights_of_another_width_are_refused_by_the_first_difference(run, tmp_path):
    other = tmp_path / "other"
    save_student(build_student("unet", width=3, neck="difom"), other, {"input_px": 64})
    (run / "student.safetensors").write_bytes((other / "student.safetensors").read_bytes())
    with pytest.raises(
        WeightsError, match=r"another network's weights: 'neck.*expected \(256, 32, 1, 1\) \(another width or neck"
    ):
        load_student(run)


def test_a_run_can_be_the_start_of_another_student(run):
    started = build_student("unet", width=2, neck="difom", weights=str(run)).eval()
    pictures = torch.rand(1, 3, 32, 32)
    assert torch.equal(started(pictures), load_student(run)(pictures))
