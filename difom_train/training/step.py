"""One step: stored rows become pixels and targets, forward passes are accumulated, the weights move once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from difom_train.data.feed import Feed
from difom_train.data.loader import Batch
from difom_train.data.photometric import ColourRange, draw_colours, draw_scale, recolour, to_pixels, to_side
from difom_train.students.base import nearest_side_px
from difom_train.training.losses import Losses


@dataclass(frozen=True)
class InputOptions:
    """What a stored picture goes through before the student sees it."""

    input_px: int
    scales: tuple[float, ...]
    stride: int
    "The student's largest, which every side divides by."
    colours: ColourRange
    pads: bool
    "Whether views may have an invalid area."
    channels_last: bool
    seed: int


@dataclass
class Inputs:
    """What one forward pass takes, beside the targets."""

    pixels: Tensor
    mask: Tensor
    labelled: Tensor
    valid: Tensor | None


def prepare_inputs(batch: Batch, feed: Feed, options: InputOptions, *, epoch: int, step: int, own_pass: int) -> Inputs:
    """Return a training batch's pictures at the step's size, in colours of their own."""
    scale = draw_scale(options.scales, seed=options.seed, epoch=epoch, step=step)
    side_px = options.input_px if scale == 1 else nearest_side_px(int(options.input_px * scale), options.stride)
    pixels = to_pixels(batch.tensors["image"], side_px)
    if not options.colours.is_empty:
        keys = feed.cache.record_key[batch.rows]
        factors = draw_colours(options.colours, keys, feed.slots(step, own_pass), seed=options.seed, epoch=epoch)
        pixels = recolour(pixels, torch.from_numpy(factors))
    if options.channels_last:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    supervised = torch.from_numpy(feed.selection.supervised[batch.rows]).to(pixels.device)
    return Inputs(
        pixels=pixels,
        mask=to_side(batch.tensors["mask"], side_px),
        labelled=supervised,
        valid=to_side(batch.tensors["valid"], side_px) if options.pads else None,
    )


def run_pass(learner: Any, inputs: Inputs, targets: dict[str, Tensor], factors: tuple[float, float]) -> Losses:
    """Return the losses of one forward pass."""
    return Losses(*learner(inputs.pixels, inputs.mask, inputs.labelled, inputs.valid, targets, factors))


def move_weights(fabric: Fabric, learner: Any, optimiser: Optimizer, clip_norm: float) -> None:
    """Take one step along the gradients gathered so far, and clear them."""
    if clip_norm > 0:
        fabric.clip_gradients(learner, optimiser, max_norm=clip_norm, error_if_nonfinite=False)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


class Averages:
    """Means of the losses over an epoch, kept on the device; each value is looked at one step late.

    Looking at a number makes a GPU's queue run dry, so that a loss that is not finite is found one step after.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._last: tuple[Tensor, Sequence[Any]] | None = None

    def add(self, losses: dict[str, Tensor], rows: Sequence[Any]) -> Sequence[Any] | None:
        """Take the losses of one step; return the previous step's rows if its loss was not finite."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        broken = self.check()
        self._last = (losses["loss"], rows)
        return broken

    def check(self) -> Sequence[Any] | None:
        """Return the last step's rows if its loss was not finite."""
        if self._last is None or math.isfinite(float(self._last[0])):
            return None
        return self._last[1]

    @property
    def last_loss(self) -> float:
        """The loss of the last step, which waits for the device."""
        return float(self._last[0]) if self._last else math.nan

    def means(self) -> dict[str, float]:
        """Return the mean of each loss."""
        return {name: float(value) / self._counts[name] for name, value in self._sums.items()}
