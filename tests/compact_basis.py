"""Bases of codec `compact` as FORMAT.md says them: columns of an earlier version have such ones; none are fitted now."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from difom_cache.codecs import CompactBasis


def fit_compact(features: Sequence[Tensor]) -> CompactBasis:
    """Return the first 3/8 principal directions of maps (B, C, h, w), each with its largest entry positive."""
    cells = torch.cat([feature.double().transpose(0, 1).flatten(1) for feature in features], dim=1).numpy()  # (C, n)
    variance, directions = np.linalg.eigh(np.cov(cells, bias=True))
    kept = 3 * len(cells) // 8
    variance, directions = variance[::-1], directions[:, ::-1][:, :kept]
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(kept)])
    share = float(variance[:kept].sum() / variance.sum())
    return CompactBasis(cells.mean(axis=1).astype(np.float32), directions.astype(np.float32), share)
