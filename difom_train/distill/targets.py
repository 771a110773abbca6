"""From features to a frozen target: centred, projected, and divided by one number for each tap.

Teachers differ by orders of magnitude in scale, and single channels of one teacher too. One isotropic scale for each
tap, after a rotation onto its principal directions, keeps the geometry of its feature space, lets every teacher be
heard, and blows up no dead channel. Everything comes from the statistics that lie in the cache; nothing is trained.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from difom_cache.base.errors import TeacherError


class TapMoments(Protocol):
    """What a cache knows of a tap: mean (C,) and covariance (C, C), float64."""

    @property
    def mean(self) -> NDArray[np.float64]: ...

    @property
    def covariance(self) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Projection:
    """Numbers that make a target of a feature: target = matrix (feature - mean).

    Attributes:
        mean: (C,).
        matrix: (k, C); orthogonal rows, all divided by one scale.
        kept_frac: share of the feature's variance that lies in the k directions.
    """

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]
    kept_frac: float


def fit_projection(tap: str, moments: TapMoments, channels: int, *, equalise: bool = False) -> Projection:
    """Return the projection of a tap on its first principal directions.

    Args:
        tap: its name, for the message.
        moments: from the cache.
        channels: k, at most; a tap with fewer channels, or fewer directions of any variance, gives fewer.
        equalise: rotate once more so that every target channel has variance 1, as losses that look at single elements
            need it (PHI-S, arXiv 2410.01680); otherwise the mean over channels is 1 and the first have most.

    Raises:
        TeacherError: the tap is constant or not finite over the cache, so there is nothing to learn from it.
    """
    covariance = np.asarray(moments.covariance, dtype=np.float64)
    if not np.isfinite(covariance).all() or np.trace(covariance) <= 0:
        raise TeacherError(
            f"tap {tap} has a total variance of {np.trace(covariance):g} over the cache: there is nothing to learn "
            "from it; leave its teacher out with --teachers, or extract another tap"
        )
    variances, directions = np.linalg.eigh(covariance)
    order = np.argsort(variances)[::-1]
    variances, directions = variances[order].clip(min=0), directions[:, order].T  # rows are directions
    alive = int((variances > variances[0] * np.finfo(np.float32).eps).sum())
    count = min(channels, alive)
    kept, rows = variances[:count], _fix_signs(directions[:count])
    if equalise:
        rows = equal_variance_rotation(kept) @ rows
    scale = np.sqrt(kept.mean())
    return Projection(np.asarray(moments.mean, np.float64), rows / scale, float(kept.sum() / variances.sum()))


def _fix_signs(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the directions with their largest component positive: eigenvectors come with either sign."""
    largest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    return directions * signs[:, None]


def equal_variance_rotation(variances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an orthogonal matrix Q such that every diagonal element of Q diag(variances) Q^T is their mean.

    PHI-S multiplies by a Hadamard matrix, which exists for few sizes; plane rotations do it for every size (the
    constructive half of the Schur-Horn theorem). Each rotation mixes one channel above the mean with one below, and
    sets one of the two to the mean; k - 1 of them suffice.

    Args:
        variances: (k,), of uncorrelated channels.
    """
    count = len(variances)
    rotation = np.eye(count)
    covariance = np.diag(np.asarray(variances, dtype=np.float64))
    goal = float(np.mean(variances))
    for _ in range(count - 1):
        diagonal = np.diag(covariance)
        above, below = int(diagonal.argmax()), int(diagonal.argmin())
        if diagonal[above] - goal <= 1e-12 * goal:
            break
        # The new channel (x_above - t x_below) / sqrt(1 + t^2) has variance `goal` where
        # deficit t^2 + 2 shared t - excess = 0.
        excess, deficit, shared = diagonal[above] - goal, goal - diagonal[below], covariance[above, below]
        tangent = (np.sqrt(shared**2 + excess * deficit) - shared) / deficit
        plane = np.array([[1.0, -tangent], [tangent, 1.0]]) / np.sqrt(1 + tangent**2)
        pair = [above, below]
        rotation[pair] = plane @ rotation[pair]
        covariance[pair] = plane @ covariance[pair]
        covariance[:, pair] = covariance[:, pair] @ plane.T
    return rotation


class FrozenTarget(nn.Module):
    """Makes targets of one tap's features; its numbers are buffers, so a checkpoint holds them and no optimizer does."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.channels = len(projection.matrix)
        self.kept_frac = projection.kept_frac
        self.register_buffer("mean", torch.tensor(projection.mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("matrix", torch.tensor(projection.matrix, dtype=torch.float32)[:, :, None, None])

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) float32 features -> (B, k, h, w) target, channels innermost in memory, as the student's maps are."""
        cells = (features - self.mean).flatten(2).transpose(1, 2)  # (B, h * w, C)
        target = torch.bmm(cells, self.matrix[:, :, 0, 0].t().expand(len(cells), -1, -1))
        return target.transpose(1, 2).unflatten(2, features.shape[-2:])
