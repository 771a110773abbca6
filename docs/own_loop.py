"""A loop and a network of your own over the cache in ./feats, in plain PyTorch."""

import torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import difom_train
from difom_train import CacheLoader, build_distiller, segmentation_loss, wrap_student

network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=1)
student = wrap_student(network, levels={"backbone.4": 8, "backbone.16": 16})
distiller = build_distiller("difom-multiscale", "feats", student)
batches = CacheLoader("feats", taps=distiller.taps, batch_size=8, device="cpu")
optimizer = torch.optim.AdamW([*student.parameters(), *distiller.parameters()], lr=1e-3)

for epoch in range(4):
    losses = []
    for batch in batches:
        levels = student.forward_train(batch["image"])
        masks = segmentation_loss("dice_bce", levels.logits, batch["mask"], batch["valid"])
        masks = masks * batch["labelled"]
        terms = distiller(levels, batch)
        loss = masks.mean() + sum(terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.4f}")

difom_train.save_student(student, "runs/own-loop", {"input_px": batches.form.side_px})
