"""Distillation terms, one number per picture, over the cells inside the frame."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity, smooth_l1_loss

COSINE_SHARE = 0.9  # as Theia (arXiv 2407.20179); the rest is smooth L1
SMOOTH = 1.0


def mean_inside(values: Tensor, inside: Tensor) -> Tensor:
    """Return the mean over channels and over the cells inside: (B, C, h, w), (B, 1, h, w) -> (B,).

    A picture without any cell inside gives 0.
    """
    return (values.mean(dim=1, keepdim=True) * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3)).clamp_min(1.0)


def squared_error(student: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Return the mean squared error of each picture (B,), of maps (B, k, h, w)."""
    return mean_inside((student - target).square(), inside)


def cosine_and_smooth_l1(student: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Return 0.9 (1 - cosine over channels) + 0.1 smooth L1 of each picture (B,), of maps (B, k, h, w)."""
    cosine = cosine_similarity(student, target, dim=1, eps=1e-6).unsqueeze(1)  # (B, 1, h, w)
    distance = smooth_l1_loss(student, target, reduction="none")
    return COSINE_SHARE * mean_inside(1 - cosine, inside) + (1 - COSINE_SHARE) * mean_inside(distance, inside)


def cosine_distance(student: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Return 1 - cosine over channels of each picture (B,), of maps (B, k, h, w): direction counts, scale does not."""
    return mean_inside(1 - cosine_similarity(student, target, dim=1, eps=1e-6).unsqueeze(1), inside)


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
