"""Trains on a cache in memory; started by torchrun in test_processes.py. Arguments: folder, batch size, accumulate."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from memory_cache import MemoryCache

from difom_cache.store import TapSpec
from difom_train.training import leave_processes

TAPS = {"wide/block@16": TapSpec("wide/block@16", "feature", 6, 2, 16, "float16")}


def run(folder: str, batch_size: str, accumulate: str) -> None:
    train = import_module("difom_train.training.run")
    train.open_cache = lambda path: MemoryCache(records=40, views=2, picture_px=32, taps=TAPS)
    train.train(
        "unet",
        cache="memory",
        recipe="difom",
        out=folder,
        width=4,
        input_size=32,
        epochs=4,
        batch_size=int(batch_size),
        device="cpu",
        changes=["machine.logger=none", f"data.accumulate={accumulate}", "distill.gradient_share=0"],
    )


if __name__ == "__main__":
    run(*sys.argv[1:])
    leave_processes()
