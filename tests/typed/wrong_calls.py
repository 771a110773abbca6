"""Calls that a type checker must refuse: an error that is no longer found makes its comment unused, and that is an error."""

from difom_cache import open_cache
from difom_train import (
    CacheDataset,
    CacheLoader,
    build_distiller,
    evaluate,
    load_student,
    read_recipe,
    train,
    wrap_student,
)

open_cache(3)  # type: ignore[arg-type]
train("unet", epochs="three")  # type: ignore[arg-type]
train("unet", precision="float64")  # type: ignore[arg-type]
train("unet", epoch=3)  # type: ignore[call-arg]
train(3)  # type: ignore[arg-type]
rate = read_recipe("difom").optimizer.learning_rate  # type: ignore[attr-defined]
evaluate("run", 3)  # type: ignore[arg-type]
load_student(3)  # type: ignore[arg-type]
load_student("run", student=3)  # type: ignore[arg-type]
wrap_student("unet", {"layer2": 8})  # type: ignore[arg-type]
wrap_student(load_student("run"), {"layer2": "8"})  # type: ignore[dict-item]
CacheDataset("feats", split=3)  # type: ignore[arg-type]
CacheLoader("feats", batch_size="8")  # type: ignore[arg-type]
build_distiller("difom", "feats", "unet")  # type: ignore[arg-type]
