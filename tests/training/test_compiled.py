"""A compiled student learns as another does; in a process of its own, where nothing has loaded PyTorch's compiler before."""

import subprocess
import sys
from pathlib import Path

import pytest

from difom_train.training import read_log

CODE = """
import functools, sys
from importlib import import_module
from pathlib import Path
import torch
sys.path[:0] = [sys.argv[1]]
from memory_cache import MemoryCache
from difom_cache.store import TapSpec
taps = {"wide/block@16": TapSpec("wide/block@16", "feature", 6, 2, 16, "float16")}
train = import_module("difom_train.training.run")
train.open_cache = lambda path, **_: MemoryCache(records=12, views=1, picture_px=32, taps=taps)
torch.compile = functools.partial(torch.compile, backend="aot_eager")  # without a C compiler, which takes minutes
for name in ("plain", "compiled"):
    assert "torch._dynamo" not in sys.modules, name
    changes = ["machine.logger=none"] + ["machine.compile=true"] * (name == "compiled")
    options = dict(cache="memory", recipe="difom-multiscale", width=2, input_size=32, epochs=2, batch_size=4)
    train.train("unet", out=Path(sys.argv[2], name), device="cpu", changes=changes, **options)
assert "torch._dynamo" in sys.modules
"""


@pytest.mark.journey
def test_a_compiled_student_learns_as_another_does(tmp_path):
    command = [sys.executable, "-c", CODE, str(Path(__file__).parents[1]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    plain, compiled = read_log(tmp_path / "plain"), read_log(tmp_path / "compiled")
    for line, other in zip(plain, compiled, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert line["distill/gradient_share"] == pytest.approx(other["distill/gradient_share"], rel=1e-2)
