"""Segmentation losses, one number per picture, so that a batch is averaged once whatever terms its pictures carry."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits

from difom_cache.errors import SettingsError, name_nearest

SMOOTH = 1.0  # added to both sides of each fraction, so that an empty mask met with an empty answer costs nothing
EDGE_WINDOW_PX = 31  # as PraNet (arXiv 2006.11392) at 352 px input; not tuned here
EDGE_GAIN = 5.0  # as PraNet: a pixel on the border of the mask weighs up to 1 + 5

PictureLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def dice_bce(logits: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """Return the mean binary cross-entropy plus one minus the soft Dice, over the valid area of each picture.

    Args:
        logits: (B, 1, H, W).
        mask: (B, 1, H, W), in [0, 1].
        valid: (B, 1, H, W), 1 inside the frame and 0 outside.

    Returns:
        (B,).
    """
    entropy = binary_cross_entropy_with_logits(logits, mask, reduction="none")
    prob = logits.sigmoid() * valid
    overlap = _sum(prob * mask)
    dice = (2 * overlap + SMOOTH) / (_sum(prob) + _sum(mask * valid) + SMOOTH)
    return _sum(entropy * valid) / _sum(valid).clamp_min(1.0) + 1 - dice


def structure_loss(logits: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """Return PraNet's weighted binary cross-entropy plus weighted IoU loss of each picture.

    Pixels weigh 1 + 5 |local mean of the mask - mask|, so borders count most. This is the formula of the paper
    (arXiv 2006.11392, section 3.4; the weights are those of F3Net, arXiv 1911.11445). The published code passes
    `reduce='none'` to the cross-entropy, which torch reads as "take the mean": its weights then cancel and the first
    term is the plain mean over the batch. Here the weights act.

    Args:
        logits: (B, 1, H, W).
        mask: (B, 1, H, W), in [0, 1].
        valid: (B, 1, H, W), 1 inside the frame and 0 outside.

    Returns:
        (B,).
    """
    local_mean = avg_pool2d(mask, EDGE_WINDOW_PX, stride=1, padding=EDGE_WINDOW_PX // 2)
    weight = (1 + EDGE_GAIN * (local_mean - mask).abs()) * valid
    entropy = binary_cross_entropy_with_logits(logits, mask, reduction="none")
    weighted_entropy = _sum(weight * entropy) / _sum(weight).clamp_min(1.0)
    prob = logits.sigmoid()
    overlap = _sum(prob * mask * weight)
    union = _sum((prob + mask) * weight) - overlap
    return weighted_entropy + 1 - (overlap + SMOOTH) / (union + SMOOTH)


LOSSES: dict[str, PictureLoss] = {"dice_bce": dice_bce, "structure": structure_loss}


def segmentation_loss(name: str, logits: Sequence[Tensor], mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the loss called `name`, summed over a student's outputs (deep supervision), for each picture.

    Args:
        name: "dice_bce" or "structure".
        logits: each (B, 1, H, W), of any floating type; the loss itself is computed in float32.
        mask: (B, H, W), 0 or 1; the row of a picture without a mask may hold anything, and its result means nothing.
        valid: (B, H, W), 1 inside the frame; None where every pixel is.

    Returns:
        (B,), finite.
    """
    if name not in LOSSES:
        raise SettingsError(name_nearest("segmentation loss", name, list(LOSSES)))
    truth = mask.clamp(max=1).float().unsqueeze(1)  # (B, H, W) -> (B, 1, H, W)
    inside = torch.ones_like(truth) if valid is None else valid.float().unsqueeze(1)
    return torch.stack([LOSSES[name](output.float(), truth, inside) for output in logits]).sum(dim=0)


def _sum(values: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B,)."""
    return values.sum(dim=(1, 2, 3))
