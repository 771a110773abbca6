"""Commands answer at once: asking for help loads no network library."""

import subprocess
import sys
import time

import pytest
from painted_folder import paint_folder
from small_cache import write_small_cache

HEAVY = ("torch", "transformers", "zarr", "matplotlib", "lightning_fabric", "scipy", "distributed", "onnxruntime")
PATIENCE_S = 10  # far beyond what it takes, for a machine that is busy with other things

ASK = """
import gc
import sys
from importlib import import_module
main = import_module(sys.argv[1]).main
sys.argv = [sys.argv[1], "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print(f"threshold {gc.get_threshold()[0]}")
print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("module", ["difom_cache.cli", "difom_train.cli"])
def test_help_is_quick_and_loads_nothing_heavy(module: str) -> None:
    started_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", ASK, module], capture_output=True, text=True, check=True)
    took_s = time.perf_counter() - started_s
    help_text, _, loaded = done.stdout.rpartition("LOADED")
    assert "Usage" in help_text
    assert "threshold 200000" in help_text  # thousands of objects are made and kept: not each 700 is worth a look
    assert not set(HEAVY) & set(loaded.split())
    assert took_s < PATIENCE_S


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_what_is_asked_of_caches_and_tables_loads_no_network_library(tmp_path):
    write_small_cache(tmp_path / "cache")
    paint_folder(tmp_path / "data", frames=4)
    asked = f"""
import difom_cache, difom_train.students
assert difom_cache.info({str(tmp_path / "cache")!r})["columns"]
assert len(difom_cache.describe_teachers()) > 40 and len(difom_train.students.describe_students()) > 3
report = difom_cache.extract(data={str(tmp_path / "data")!r}, teacher=("sam", "dinov2"), dry_run=True, quiet=True, device="cpu")
assert report.estimate.total_bytes > 0
"""
    loaded = loaded_by(asked)
    assert "huggingface_hub" in loaded and "difom_train" in loaded
    assert not {"torch", "transformers", "segment_anything", "timm", "onnx", "matplotlib", "zarr", "kornia"} & loaded


FIRST_STEP = """
import sys
import difom_train
difom_train.train
unused = {"timm", "matplotlib", "lightning", "lightning_fabric", "segmentation_models_pytorch", "torchmetrics", "torchvision"}
assert "torch" in sys.modules and not (unused | {"scipy", "kornia"}) & sys.modules.keys()
import torch
from difom_train import build_student
from difom_train.config import OptimizerConfig
from difom_train.training import build_optimizer, open_processes
student = build_student("unet", width=2, seed=0)
optimizer = build_optimizer(OptimizerConfig(), student, [], pretrained=False)
model = open_processes(torch.device("cpu"), "float32").wrap(student)
assert model is student
model(torch.ones(2, 3, 32, 32)).sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""


def test_a_run_starts_without_what_it_does_not_use_and_its_first_step_without_pytorchs_compiler():
    done = subprocess.run([sys.executable, "-c", FIRST_STEP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
