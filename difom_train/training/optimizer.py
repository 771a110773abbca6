"""What moves and how fast: the optimizer, the learning rate of every step, and the phase of every epoch."""

import math
from collections.abc import Iterable, Sequence
from itertools import chain

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from difom_cache.base.compat import never_compiled
from difom_train.config import OptimizerConfig
from difom_train.students.base import Student

_FLOOR = 0.01  # of the highest rate, where the cosine ends
_SGD_MOMENTUM = 0.9
FEW_IMAGES = 100  # of validation: 14 and 28 chose epochs 2 to 5 points of Dice below the last one on 300 other images


def build_optimizer(
    options: OptimizerConfig, student: Student, others: Iterable[nn.Parameter], *, pretrained: bool
) -> Optimizer:
    """Return an optimizer over the student and `others`; vectors (biases, norms) do not decay.

    Args:
        options: of the run.
        student: to be trained.
        others: parameters that are trained with it, such as projection heads.
        pretrained: whether the student's encoder starts from pretrained weights, and so moves at a rate of its own.
    """
    encoder = {id(each) for part in student.encoder_modules() for each in part.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in [*student.parameters(), *others]:
        factor = options.pretrained_encoder_lr_factor if pretrained and id(parameter) in encoder else 1.0
        decay = options.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    tables = [
        {"params": parameters, "lr": options.lr * factor, "highest_lr": options.lr * factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]
    # Fused: one pass over a parameter in place of ten, on CPUs and GPUs alike.
    if options.name == "sgd":
        return never_compiled(torch.optim.SGD)(tables, momentum=_SGD_MOMENTUM, fused=True)
    kind = never_compiled({"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.name])
    return kind(tables, fused=True)


def rate_factor(options: OptimizerConfig, step: int, steps: int) -> float:
    """Return the factor on the highest learning rate at `step` of `steps`, counted from 0."""
    warmup = round(options.warmup_frac * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if options.schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def ema_decay_at(decay: float, step: int) -> float:
    """Return the decay of averaged weights at `step`, counted from 0: what is asked for, but (1 + step) / (10 + step) at first.

    Else the average of a short run holds its first weights for most of it. Source: TensorFlow's ExponentialMovingAverage.
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def follow(average: AveragedModel, student: nn.Module, decay: float) -> None:
    """Move averaged weights and statistics towards the student's by 1 - `decay`; the first time they become the student's.

    As `AveragedModel.update_parameters` does, which copies its counter to a GPU in every step and waits for that.
    """
    networks = (average.module, student)
    owns, theirs = (list(chain(each.parameters(), each.buffers())) for each in networks)
    for dtype in dict.fromkeys(own.dtype for own in owns):
        kind = [(own, each) for own, each in zip(owns, theirs, strict=True) if own.dtype == dtype]
        if average.n_averaged == 0:
            for own, each in kind:
                own.copy_(each)
        else:
            get_ema_multi_avg_fn(decay)(*map(list, zip(*kind, strict=True)), average.n_averaged)
    average.n_averaged += 1


def keeps_last(options: OptimizerConfig, validation_images: int) -> bool:
    """Whether a run keeps its last epoch's weights rather than its best epoch's."""
    if options.keep == "auto":
        return validation_images < FEW_IMAGES and options.patience_epochs == 0
    return options.keep == "last"


def ramp(frac: float, step: int, steps: int) -> float:
    """Return the factor in (0, 1] on the terms at `step` of `steps`: exp(-5 (1 - t)^2) over the first `frac` of them, then 1.

    Source: Laine and Aila 2017 (arXiv:1610.02242), section 2.1.
    """
    rise = frac * steps
    return math.exp(-5 * (1 - step / rise) ** 2) if step < rise else 1.0


def set_rate(optimizer: Optimizer, factor: float) -> float:
    """Set every group to `factor` of its highest rate; return the rate of the last group."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest_lr"] * factor
    return float(optimizer.param_groups[-1]["lr"])


def phase_of(epoch: int, epochs: int, until_fracs: Sequence[float]) -> int:
    """Return the number of the phase that `epoch` (from 0) lies in.

    Args:
        epoch: counted from 0.
        epochs: of the whole run.
        until_fracs: where each phase ends, as rising shares of the run, the last 1. A phase may hold no epoch.
    """
    ends = [round(frac * epochs) for frac in until_fracs]
    return next(number for number, end in enumerate(ends) if epoch < end)


def set_mode(student: Student, *, freeze_encoder: bool) -> None:
    """Put the student into training, its encoder perhaps left out: weights and batch-norm statistics alike."""
    student.train()
    for part in student.encoder_modules():
        part.train(not freeze_encoder)
        part.requires_grad_(not freeze_encoder)
