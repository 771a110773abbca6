"""The same with Lightning's trainer; batches and distiller are the cache's."""

import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader

from difom_train import (
    CacheDataset,
    CacheLoader,
    build_distiller,
    build_student,
    save_student,
    segmentation_loss,
)


class Distilled(lightning.LightningModule):
    """A student and its distiller, whose heads are trained beside it."""

    def __init__(self, student, distiller):
        super().__init__()
        self.student, self.distiller = student, distiller

    def training_step(self, batch, index):
        levels = self.student.forward_train(batch["image"])
        masks = segmentation_loss("dice_bce", levels.logits, batch["mask"], batch["valid"])
        masks = masks * batch["labelled"]
        terms = self.distiller(levels, batch)
        self.log_dict({"masks": masks.mean(), **terms}, prog_bar=True)
        return masks.mean() + sum(terms.values())

    def validation_step(self, batch, index):
        logits = [self.student(batch["image"])]
        loss = segmentation_loss("dice_bce", logits, batch["mask"], batch["valid"])
        self.log("val_loss", loss.mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


if __name__ == "__main__":  # worker processes that are spawned read this file as well
    student = build_student("unet", width=8, seed=0)
    distiller = build_distiller("difom-multiscale", "feats", student)
    train = CacheLoader("feats", taps=distiller.taps, batch_size=8)
    images = CacheDataset("feats", split="val", view=0, labelled=True, taps=())
    val = DataLoader(images, batch_size=8, num_workers=2)
    trainer = lightning.Trainer(
        max_epochs=4,
        logger=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    model = Distilled(student, distiller)
    trainer.validate(model, val)
    trainer.fit(model, train, val)
    trainer.validate(model, val)
    save_student(student, "runs/lightning", {"input_px": train.form.side_px})
