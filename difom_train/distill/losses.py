"""Distillation terms, one number per picture, over the cells inside the frame."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from difom_train.distill.comparison import INSIDE_FRAC, to_grid

COSINE_SHARE = 0.9  # as Theia (arXiv 2407.20179); the rest is smooth L1
SMOOTH = 1.0
RELATED_GRID = 12
"""Most cells a side that `relation_error` compares; the number of pairs grows with the fourth power of it."""
_EPS = 1e-6  # least norm of a cell, as in PyTorch's cosine_similarity


def mean_inside(values: Tensor, inside: Tensor) -> Tensor:
    """Return the mean over channels and over the cells inside: (B, C, h, w), (B, 1, h, w) -> (B,).

    A picture without any cell inside gives 0.
    """
    values = values.mean(dim=1, keepdim=True) if values.shape[1] > 1 else values
    return (values * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3)).clamp_min(1.0)


def squared_error(student: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Return the mean squared error of each picture (B,), of maps (B, k, h, w)."""
    return mean_inside((student - target).square(), inside)


def cosine_and_smooth_l1(student: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Return 0.9 (1 - cosine over channels) + 0.1 smooth L1 of each picture (B,), of maps (B, k, h, w)."""
    each: Tensor = _CosineAndSmoothL1.apply(student.permute(0, 2, 3, 1), target.permute(0, 2, 3, 1))  # (B, h, w)
    return mean_inside(each.unsqueeze(1), inside)


class _CosineAndSmoothL1(torch.autograd.Function):
    """0.9 (1 - cosine) + 0.1 smooth L1 over the last axis, and its gradient in the same few passes over the maps.

    It is the largest thing that distillation adds to a narrow student's step; PyTorch's own two functions and their gradients
    take three times as long. The target has no gradient.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, target: Tensor) -> Tensor:
        channels = student.shape[-1]
        distance = student - target
        inner = distance.clamp(-1, 1)  # the gradient of smooth L1
        smooth = distance.sub_(inner, alpha=0.5).mul_(inner).mean(dim=-1)
        norm, target_norm = (torch.linalg.vector_norm(x, dim=-1) for x in (student, target))
        size = norm.clamp_min(_EPS)
        product = size * target_norm.clamp_min(_EPS)
        cosine = torch.mul(student, target, out=distance).sum(dim=-1).div_(product)
        if ctx.needs_input_grad[0]:
            gradient = inner.mul_((1 - COSINE_SHARE) / channels)
            gradient.addcmul_(target, (-COSINE_SHARE / product).unsqueeze(-1))
            turned = (COSINE_SHARE * cosine / size.square()).masked_fill_(norm <= _EPS, 0.0)
            ctx.save_for_backward(gradient.addcmul_(student, turned.unsqueeze(-1)))
        return COSINE_SHARE * (1 - cosine) + (1 - COSINE_SHARE) * smooth

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0].unsqueeze(-1), None


def cosine_distance(student: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Return 1 - cosine over channels of each picture (B,), of maps (B, k, h, w): direction counts, scale does not."""
    return mean_inside(1 - cosine_similarity(student, target, dim=1, eps=_EPS).unsqueeze(1), inside)


def relation_error(student: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Return how differently the cells of each picture resemble each other, (B,); 0 where they do so equally.

    The mean squared difference of cosines over all pairs of cells, as the pair-wise distillation of Liu et al. (CVPR 2019,
    arXiv 1903.04197), of maps about their own mean and on at most `RELATED_GRID` cells a side.

    Args:
        student: (B, k, h, w).
        target: (B, k, h, w).
        inside: (B, 1, h, w), 1 or 0.
    """
    if inside.shape[-1] > RELATED_GRID:
        shown = to_grid(inside, RELATED_GRID)
        student, target = (to_grid(x * inside, RELATED_GRID) / shown.clamp_min(INSIDE_FRAC) for x in (student, target))
        inside = (shown >= INSIDE_FRAC).float()
    own, wanted = (x.permute(0, 2, 3, 1).flatten(1, 2) for x in (student, target))  # (B, cells, k)
    each: Tensor = _RelationError.apply(own, wanted, inside.flatten(1))
    return each


class _RelationError(torch.autograd.Function):
    """The mean squared difference of cosines, and its gradient from one product where PyTorch's own takes two and twice as long.

    Of maps (B, cells, k) and the cells among (B, cells) of 1 and 0. The target has no gradient.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, target: Tensor, among: Tensor) -> Tensor:
        count = among.sum(dim=1, keepdim=True).clamp_min(1.0)
        shares = among / count
        if student.is_cuda:  # in half as many launches; a CPU is faster with what stays in its caches
            both = _cosines_of_cells(torch.cat([student, target]), shares.repeat(2, 1))
            (cells, _), (cosines, wanted), (per_length, _) = (each.chunk(2) for each in both)
        else:
            cells, cosines, per_length = _cosines_of_cells(student, shares)
            wanted = _cosines_of_cells(target, shares)[1]
        distance = cosines - wanted
        distance.mul_(among.unsqueeze(1)).mul_(among.unsqueeze(2))
        pairs = count.squeeze(1).square()
        error = distance.square().sum(dim=(1, 2)) / pairs
        if ctx.needs_input_grad[0]:
            # A cosine is x . y / (|x| |y|): its gradient by x is y / (|x| |y|), less what only makes x longer. A cell of no
            # length has been given one, which stays.
            longer = (distance * cosines).sum(dim=2) * per_length.square() * (_EPS * per_length < 0.99)
            factors = distance.mul_(per_length.unsqueeze(1)).mul_(per_length.unsqueeze(2))
            factors.diagonal(dim1=1, dim2=2).sub_(longer)
            ctx.save_for_backward(factors.mul_((4 / pairs).view(-1, 1, 1)), cells, shares)
        return error

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        factors, cells, shares = ctx.saved_tensors
        centred = factors - shares.unsqueeze(2) * factors.sum(dim=1, keepdim=True)  # the mean moves with each cell
        return (centred * outer[0].view(-1, 1, 1)) @ cells, None, None


def _cosines_of_cells(cells: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return cells about their mean (B, cells, k), their cosines (B, cells, cells), and one over their lengths (B, cells).

    Args:
        cells: (B, cells, k).
        shares: (B, cells), what each adds to the mean.
    """
    cells = cells - shares.unsqueeze(1) @ cells
    products = cells @ cells.mT
    per_length = products.diagonal(dim1=1, dim2=2).clamp_min(_EPS**2).rsqrt()
    return cells, products.mul_(per_length.unsqueeze(1)).mul_(per_length.unsqueeze(2)), per_length


def soft_mask_loss(logits: Tensor, prob: Tensor, inside: Tensor) -> Tensor:
    """Return how far a student's mask is from a teacher's soft one, for each picture (B,); 0 where they are equal.

    The binary Kullback-Leibler divergence plus one minus the soft Dice with squared sums in its denominator (with
    plain sums a soft target would not be its own best answer).

    Args:
        logits: (B, 1, h, w), the student's.
        prob: (B, 1, h, w), the teacher's, in (0, 1).
        inside: (B, 1, h, w), 1 or 0.
    """
    entropy = -(prob.xlogy(prob) + (1 - prob).xlogy(1 - prob))
    divergence = binary_cross_entropy_with_logits(logits, prob, reduction="none") - entropy
    own = logits.sigmoid()
    overlap = (own * prob * inside).sum(dim=(1, 2, 3))
    squares = ((own.square() + prob.square()) * inside).sum(dim=(1, 2, 3))
    return mean_inside(divergence, inside) + 1 - (2 * overlap + SMOOTH) / (squares + SMOOTH)
