"""Two processes with batches of b take the very steps of one process that accumulates two batches of b."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import run_on_memory
import torch

from difom_train.training import read_checkpoint, read_log, read_run

SCRIPT = Path(__file__).with_name("run_on_memory.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
MEANS = ("loss", "segmentation", "low", "high")


def train_in_two(folder, batch_size, accumulate):
    command = [*TORCHRUN, "2", str(SCRIPT), str(folder), str(batch_size), str(accumulate)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.journey
def test_two_processes_equal_one_that_accumulates(tmp_path, monkeypatch):
    two = train_in_two(tmp_path / "two", batch_size=16, accumulate=1)
    monkeypatch.setattr("difom_train.training.run.open_cache", run_on_memory.open_memory)
    one = run_on_memory.run(tmp_path / "one", batch_size=16, accumulate=2)
    assert read_run(two)["hardware"]["processes"] == 2
    assert read_run(two)["steps_per_epoch"] == 1, "so that a line of the log is a step"
    for line, other in zip(read_log(two), read_log(one), strict=True):
        for name in MEANS:
            if name in other:
                assert line[name] == pytest.approx(other[name], rel=1e-5)
    learners = [read_checkpoint(run)[1]["learner"] for run in (two, one)]
    statistics = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm: each process keeps its own
    for name in [name for name in learners[0] if not name.endswith(statistics)]:
        torch.testing.assert_close(learners[0][name], learners[1][name], rtol=1e-3, atol=1e-4)
