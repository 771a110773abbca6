"""Commands answer at once: asking for help loads no network library."""

import subprocess
import sys
import time

import pytest
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


def test_importing_the_packages_loads_nothing_heavy():
    assert not set(HEAVY) & loaded_by("import difom_cache, difom_train")


def test_asking_a_cache_what_it_holds_loads_no_network_library(tmp_path):
    write_small_cache(tmp_path / "cache")
    loaded = loaded_by(f"import difom_cache; assert difom_cache.info({str(tmp_path / 'cache')!r})['columns']")
    assert "difom_cache" in loaded and not {"torch", "transformers", "matplotlib", "zarr"} & loaded


def test_the_table_of_teachers_loads_no_network_library():
    loaded = loaded_by("import difom_cache; assert len(difom_cache.describe_teachers()) > 40")
    assert "huggingface_hub" in loaded and not {"torch", "transformers", "segment_anything", "onnx"} & loaded


def test_the_table_of_students_loads_no_network_library():
    loaded = loaded_by("from difom_train.students import describe_students; assert len(describe_students()) > 3")
    assert "difom_train" in loaded and not {"torch", "timm", "segmentation_models_pytorch"} & loaded


def test_a_run_starts_without_what_it_does_not_use():
    loaded = loaded_by("import difom_train; difom_train.train")
    assert "torch" in loaded
    unused = {
        "timm",
        "matplotlib",
        "lightning",
        "lightning_fabric",
        "segmentation_models_pytorch",
        "torchmetrics",
        "torchvision",
        "scipy",
        "kornia",
    }
    assert not unused & loaded


FIRST_STEP = """
import sys
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


def test_the_first_step_is_made_without_pytorchs_compiler():
    subprocess.run([sys.executable, "-c", FIRST_STEP], capture_output=True, text=True, check=True)
