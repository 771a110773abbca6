"""A stored batch becomes what the student sees: pixels at the step's size, in colours of their own."""

from typing import NamedTuple

import torch
from torch import Tensor

from difom_train.config import TrainConfig
from difom_train.data.feed import Feed
from difom_train.data.loader import Batch
from difom_train.data.photometric import draw_colours, draw_scale, recolour, to_pixels, to_side
from difom_train.students.base import nearest_side_px


class Inputs(NamedTuple):
    """What one forward pass takes, beside the targets (shapes: see `Learner.forward`)."""

    pixels: Tensor
    mask: Tensor
    labelled: Tensor
    valid: Tensor | None


def prepare_inputs(
    batch: Batch, feed: Feed, config: TrainConfig, *, stride: int, epoch: int, step: int, own_pass: int
) -> Inputs:
    """Return a training batch's pictures at the step's size, in colours of their own.

    Args:
        batch: stored rows on the device.
        feed: that gave the batch.
        config: of the run.
        stride: the student's largest, which every side divides by.
        epoch, step, own_pass: of the batch, counted from 0.
    """
    options, seed = config.data, config.seed
    scale = draw_scale(options.scales, seed=seed, epoch=epoch, step=step)
    side_px = options.input_px if scale == 1 else nearest_side_px(int(options.input_px * scale), stride)
    pixels = to_pixels(batch.tensors["image"], side_px)
    if any(config.colour.reach):
        keys = feed.cache.record_key[batch.rows]
        factors = draw_colours(config.colour.reach, keys, feed.slots(step, own_pass), seed=seed, epoch=epoch)
        pixels = recolour(pixels, torch.from_numpy(factors))
    if config.machine.channels_last:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    return Inputs(
        pixels=pixels,
        mask=to_side(batch.tensors["mask"], side_px),
        labelled=torch.from_numpy(feed.selection.supervised[batch.rows]).to(pixels.device),
        valid=to_side(batch.tensors["valid"], side_px) if feed.cache.pads else None,
    )
