"""A process that dies ends the others in one line each."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from difom_train.training import read_checkpoint

LOSES = """
import os, signal, sys

tests, out, how = sys.argv[1:]
sys.path.insert(0, tests)
from memory_cache import MemoryCache
from difom_cache.base.console import run_app
from difom_cache.base.errors import DataError
from difom_cache.store import TapSpec
from difom_train.training import run as training
from difom_train.training.trainer import Trainer

rank, kept = os.environ["RANK"], Trainer.train_step
taps = {"wide/block@16": TapSpec("wide/block@16", "feature", 6, 2, 16, "float16")}
training.open_cache = lambda path, **_: MemoryCache(records=40, views=2, picture_px=32, taps=taps)
about = {"out": out, "width": 4, "input_size": 32, "epochs": 4, "batch_size": 8, "device": "cpu", "logger": "none"}

def train_step(self, batches, epoch, step):
    if epoch == 2 and how == "killed" and rank == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    if epoch == 2 and how == "fails" and rank == "2":
        raise DataError("its disk is gone")
    return kept(self, batches, epoch, step)

Trainer.train_step = train_step
run_app(lambda: training.train("unet", cache="memory", recipe="difom", **about), interrupted="")
"""


@pytest.mark.journey
@pytest.mark.parametrize(("how", "world", "lost"), [("killed", 2, 1), ("fails", 3, 2)])
def test_a_process_that_dies_is_named_by_the_others_in_one_line_each(tmp_path, how, world, lost):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
    }
    command = [sys.executable, "-c", LOSES, str(Path(__file__).parents[1]), str(tmp_path / "run"), how]
    started = [
        subprocess.Popen(
            command,
            env=os.environ | meet | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        told = [process.communicate(timeout=200)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    for rank, process in enumerate(started):
        if rank != lost:
            assert process.returncode == 2 and "Traceback" not in told[rank], told[rank]
            last = told[rank].strip().splitlines()[-1]
            # The first process keeps what the lost one left word in; the others ask it, if it has not ended before.
            who = (f"process {lost}",) if rank == 0 or world == 2 else (f"process {lost}", "one")
            lines = tuple(f"error: {each} of the {world} processes of this run has ended" for each in who)
            assert last.startswith(lines), told[rank]
            assert "--resume" in last
    assert read_checkpoint(tmp_path / "run")[0].epochs_done == 2
