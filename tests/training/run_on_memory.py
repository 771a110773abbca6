"""Trains on a cache in memory; started by torchrun in test_processes.py. Arguments: folder, batch size, accumulate."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from memory_cache import MemoryCache

from difom_cache.store import TapSpec
from difom_train.training import leave_processes

TAPS = {"wide/block@16": TapSpec("wide/block@16", "feature", 6, 2, 16, "float16")}


def open_memory(path: object) -> MemoryCache:
    return MemoryCache(records=40, views=2, picture_px=32, taps=TAPS)


def run(folder: Path, batch_size: int, accumulate: int) -> Path:
    train = import_module("difom_train.training.run").train
    return train(
        "unet",
        cache="memory",
        recipe="difom",
        out=folder,
        width=4,
        input_size=32,
        epochs=4,
        batch_size=batch_size,
        device="cpu",
        changes=["machine.logger=none", f"data.accumulate={accumulate}", "distill.gradient_share=0"],
    )[0]


if __name__ == "__main__":
    import_module("difom_train.training.run").open_cache = open_memory
    run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    leave_processes()
