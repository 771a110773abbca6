"""The optimiser, and the learning rate of every step as a pure function."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from difom_train.students.base import Student

_FLOOR = 0.01  # of the highest rate, where the cosine ends
_SGD_MOMENTUM = 0.9


@dataclass(frozen=True)
class RateSchedule:
    """How the learning rate moves over `steps` steps."""

    steps: int
    shape: str
    warmup_frac: float

    def factor(self, step: int) -> float:
        """Return the factor on the highest rate at `step`, counted from 0."""
        warmup = round(self.warmup_frac * self.steps)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.shape == "constant":
            return 1.0
        done = (step - warmup) / max(1, self.steps - warmup)
        return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_optimiser(
    name: str,
    student: Student,
    others: Iterable[nn.Parameter],
    *,
    lr: float,
    encoder_factor: float,
    weight_decay: float,
) -> Optimizer:
    """Return an optimiser over the student and `others`; vectors (biases, norms) do not decay.

    Args:
        name: adam, adamw or sgd.
        student: to be trained.
        others: parameters that are trained with it, such as projection heads.
        lr: highest learning rate.
        encoder_factor: on `lr`, for the student's encoder.
        weight_decay: of matrices and kernels.
    """
    encoder = {id(each) for part in student.encoder_modules() for each in part.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in [*student.parameters(), *others]:
        factor = encoder_factor if id(parameter) in encoder else 1.0
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    tables = [
        {"params": parameters, "lr": lr * factor, "highest_lr": lr * factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]
    if name == "sgd":
        return torch.optim.SGD(tables, momentum=_SGD_MOMENTUM)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](tables)


def set_rate(optimiser: Optimizer, factor: float) -> float:
    """Set every group to `factor` of its highest rate; return the rate of the last group."""
    for group in optimiser.param_groups:
        group["lr"] = group["highest_lr"] * factor
    return float(optimiser.param_groups[-1]["lr"])
