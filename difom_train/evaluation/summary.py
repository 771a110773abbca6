"""Scores of a test set become one line of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEFT_OUT = {"CVC-300": "CVC-ColonDB"}
"""Sets that lie inside another set: shown, but left out of means, which would count their frames twice."""


@dataclass(frozen=True)
class Metric:
    """One column of a table: where it comes from, and how it is written."""

    protocol: str
    key: str
    label: str
    decimals: int = 3
    rises: bool = True  # higher is better

    @property
    def name(self) -> str:
        """Return the metric's full name, such as "fixed/dice"."""
        return f"{self.protocol}/{self.key}"


METRICS = (
    Metric("pranet", "dice", "mDice"),
    Metric("pranet", "iou", "mIoU"),
    Metric("pranet", "weighted_f", "wF"),
    Metric("pranet", "s_measure", "S"),
    Metric("pranet", "mean_e", "meanE"),
    Metric("pranet", "max_e", "maxE"),
    Metric("pranet", "mae", "MAE", rises=False),
    Metric("fixed", "dice", "mDice"),
    Metric("fixed", "iou", "mIoU"),
    Metric("fixed", "precision", "precision"),
    Metric("fixed", "recall", "recall"),
    Metric("fixed", "hd95_px", "HD95 px", decimals=1, rises=False),
    Metric("fixed", "mae", "MAE", rises=False),
)
PROTOCOL_TITLES = {
    "pranet": "pranet: mean over 256 thresholds, stretched frame by frame",
    "fixed": "fixed: one threshold, 0.5, nothing stretched",
}


@dataclass(frozen=True)
class FrameInfo:
    """What a table needs to know of a frame besides its scores."""

    id: str
    group: str
    image: str
    mask: str
    image_sha256: str
    mask_sha256: str
    width: int
    height: int


@dataclass(frozen=True)
class SetScores:
    """The scores of one test set's frames.

    Attributes:
        dataset: the set's name.
        frames: N of them.
        columns: metric name such as "fixed/dice" to (N,); every metric but max_e, which has no value per frame.
        e_curves: (N, 256), E-measure at each threshold.
    """

    dataset: str
    frames: tuple[FrameInfo, ...]
    columns: Mapping[str, NDArray[np.float64]]
    e_curves: NDArray[np.float32]

    def keep(self, rows: NDArray[np.bool_]) -> "SetScores":
        """Return the same scores for the frames where `rows` (N,) is True."""
        frames = tuple(frame for frame, kept in zip(self.frames, rows, strict=True) if kept)
        columns = {name: values[rows] for name, values in self.columns.items()}
        return SetScores(self.dataset, frames, columns, self.e_curves[rows])

    def summarise(self) -> dict[str, float]:
        """Return the mean of every metric; max E is the maximum of the mean curve, as published."""
        means = {name: float(values.mean()) for name, values in self.columns.items()}
        means["pranet/max_e"] = float(self.e_curves.mean(axis=0, dtype=np.float64).max())
        return {metric.name: means[metric.name] for metric in METRICS}


def mean_of_sets(sets: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the plain mean over test sets, without those that lie inside another one of them."""
    counted = counted_sets(list(sets))
    return {metric.name: float(np.mean([sets[name][metric.name] for name in counted])) for metric in METRICS}


def counted_sets(names: Sequence[str]) -> list[str]:
    """Return the sets that a mean counts."""
    return [name for name in names if LEFT_OUT.get(name) not in names]


def mean_label(names: Sequence[str]) -> str:
    """Return what a mean over these sets is called."""
    outside = [name for name in names if name not in counted_sets(names)]
    return "mean without " + ", ".join(outside) if outside else "mean"


def format_value(metric: Metric, value: float) -> str:
    """Return a score as it stands in a table."""
    return f"{value:.{metric.decimals}f}"
