"""Every public name of `difom_train` once.

It reads the cache ./feats and the images ./data that use_cache.py leaves.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from difom_train import (
    CacheDataset,
    CacheLoader,
    EncoderDecoder,
    LoopDistiller,
    Student,
    StudentOutput,
    StudentSettings,
    TrainConfig,
    WrappedStudent,
    build_distiller,
    build_student,
    compare,
    curves,
    evaluate,
    export,
    load_student,
    predict,
    read_recipe,
    save_student,
    segmentation_loss,
    study,
    train,
    wrap_student,
)

# Runs: a recipe says what is taught; `train` takes every option by keyword.
config: TrainConfig = read_recipe("difom")
print(config.optimizer.lr, config.distill.kind)
runs: list[Path] = []
for recipe in ("baseline", "difom"):
    runs += train(
        "unet",
        cache="feats",
        recipe=recipe,
        width=4,
        input_size=64,
        epochs=1,
        device="cpu",
        out=f"runs/{recipe}",
    )
curves(runs, "curves.png")

# What a run is worth, and what it is used for.
means = evaluate(runs[0], "data", limit=2, device="cpu").means()
evaluate(runs[1], "data", limit=2, device="cpu")
compare(runs, out="comparison", cost=False, resamples=100, device="cpu")
predict(runs[0], "data/TrainDataset/image", out="found", device="cpu")
export(runs[0], out="student.pt2", format="torch")
student: Student = load_student(runs[0])
logits: Tensor = student(torch.rand(1, 3, 64, 64))
table = study(
    "feats",
    "data",
    "study",
    recipes=["baseline"],
    labels=[1.0],
    seeds=[0],
    width=4,
    input_size=64,
    epochs=1,
)


# Students: ours by name, any module wrapped, or a class of your own.
def build(settings: StudentSettings) -> WrappedStudent:
    """Return a network of one's own; `--student my_module:build` finds it."""
    first = nn.Conv2d(3, 8, 3, stride=4, padding=1)
    encoder = nn.Sequential(first, nn.ReLU(), nn.Conv2d(8, 1, 1))
    return wrap_student(encoder, levels={"1": 4}, neck=settings.neck)


print(issubclass(type(build_student("unet", width=4)), EncoderDecoder))
own: Student = build(StudentSettings("own"))

# A loop of your own: batches of a dataset or of our loader, losses, distillation terms.
distiller: LoopDistiller = build_distiller("difom-multiscale", "feats", own)
item = CacheDataset("feats", taps=distiller.taps)[0]
for batch in CacheLoader("feats", taps=distiller.taps, batch_size=4, device="cpu"):
    output: StudentOutput = own.forward_train(batch["image"])
    loss = segmentation_loss("dice_bce", output.logits, batch["mask"]).mean()
    loss = loss + sum(distiller(output, batch).values())
save_student(own, "runs/own", {"input_px": 64})
