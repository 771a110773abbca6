"""A teacher's logits become probabilities: sigmoid(a t + b), with a and b fitted on the masks of training records.

A network's raw logits may sit far from any sensible threshold (a background at -1.7, say); matched as they are, they
teach the student their offset. Two numbers put that right and cannot change which pixels the teacher prefers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from difom_cache.base.errors import TeacherError

CELLS_PER_PICTURE = 4096  # an even subsample is plenty for two numbers
RIDGE = 1e-4  # keeps a teacher that separates all training pixels from asking for an infinite slope
STEPS = 50


@dataclass(frozen=True)
class Calibration:
    """prob = sigmoid(slope * logit + offset)."""

    slope: float
    offset: float


def sample_cells(values: Tensor) -> Tensor:
    """Return at most about CELLS_PER_PICTURE evenly spaced cells of each picture: (B, 1, h, w) -> (B, n)."""
    flat = values.flatten(1)
    return flat[:, :: max(1, flat.shape[1] // CELLS_PER_PICTURE)]


def fit_calibration(tap: str, logits: Tensor, mask: Tensor) -> Calibration:
    """Return the slope and offset with the least binary cross-entropy (Platt 1999), by Newton's method in float64.

    Args:
        tap: its name, for the message.
        logits: (n,), the teacher's.
        mask: (n,), the share of each cell that the mask covers, in [0, 1].

    Raises:
        TeacherError: there are no cells, or the logits do not rise where the masks are.
    """
    if logits.numel() == 0:
        raise TeacherError(f"logits of {tap} cannot be calibrated: no training record in the cache has a mask")
    values, truth = logits.double(), mask.double()
    centre, spread = values.mean(), values.std(correction=0).clamp_min(1e-6)
    inputs = torch.stack([(values - centre) / spread, torch.ones_like(values)])  # (2, n)
    weights = torch.zeros(2, dtype=torch.float64, device=values.device)
    ridge = RIDGE * torch.eye(2, dtype=torch.float64, device=values.device)
    loss = _loss(weights, inputs, truth)
    for _ in range(STEPS):
        prob = (weights @ inputs).sigmoid()
        gradient = inputs @ (prob - truth) / truth.numel() + RIDGE * weights
        curvature = (inputs * (prob * (1 - prob))) @ inputs.T / truth.numel() + ridge
        step = torch.linalg.solve(curvature, gradient)
        while _loss(weights - step, inputs, truth) > loss and float(step.abs().max()) > 1e-12:
            step = step / 2
        weights = weights - step
        loss = _loss(weights, inputs, truth)
        if float(step.abs().max()) < 1e-9:
            break
    slope = float(weights[0] / spread)
    if slope <= 0:
        raise TeacherError(
            f"logits of {tap} do not rise where the training masks are (slope {slope:.3g}): they are no polyp logits; "
            "set distill.logits_weight to 0, or leave the teacher out with --teachers"
        )
    return Calibration(slope, float(weights[1] - weights[0] * centre / spread))


def _loss(weights: Tensor, inputs: Tensor, truth: Tensor) -> float:
    logits = weights @ inputs
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    return float(entropy + 0.5 * RIDGE * weights.square().sum())
