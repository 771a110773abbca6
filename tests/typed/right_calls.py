"""Calls as a user of the packages writes them; types must hold, strictly. Type checkers read it, nothing runs it."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from difom_cache import open_cache
from difom_train import (
    CacheDataset,
    CacheLoader,
    Student,
    StudentOutput,
    TrainConfig,
    build_distiller,
    compare,
    evaluate,
    export,
    load_student,
    read_recipe,
    save_student,
    segmentation_loss,
    train,
    wrap_student,
)

cache = open_cache("feats")
shape: tuple[int, ...] = cache.gather([0, 1, 2])["image"].shape

runs: list[Path] = train("unet", cache="feats", recipe="difom", epochs=3, labels=0.1, seeds=[0, 1], stage="ram")
config: TrainConfig = read_recipe("difom-multiscale")
runs += train(config)
rate: float = config.optimizer.lr

dice: float = evaluate(runs[0], "data/TestDataset", limit=10).means()["Kvasir"]["fixed/dice"]
compare(runs, out="report")

logits: torch.Tensor = load_student(runs[0])(torch.zeros(1, 3, 352, 352))

network = nn.Conv2d(3, 1, 1)
student: Student = wrap_student(network, levels={"layer2": 8, "layer4": 16}, neck=None)
runs += train(student, cache=["feats"], epochs=3)
evaluate(runs[-1], "data", student=network)
export(runs[-1], out="mine.onnx", student="my_package.students:build")
distiller = build_distiller(read_recipe("difom-multiscale"), cache, student)
items: DataLoader[dict[str, Tensor]] = DataLoader(CacheDataset(cache, split="val", taps=distiller.taps), num_workers=2)
for batch in CacheLoader("feats", taps=distiller.taps, batch_size=8):
    levels: StudentOutput = student.forward_train(batch["image"])
    masks: Tensor = segmentation_loss("dice_bce", levels.logits, batch["mask"])
    terms: dict[str, Tensor] = distiller(levels, batch)
save_student(student, "runs/mine", {"input_px": 352})
