"""One frame's scores under two named protocols.

`pranet` is what polyp papers print: the probability is stretched to [0, 1] picture by picture, then Dice and IoU are
averaged over 256 thresholds. `fixed` is what a clinic would see: one threshold, 0.5, and no stretching. They differ by
several points and by their treatment of an empty answer, so both are always computed and always named.

| ground truth, mask | pranet                                    | fixed                                |
|--------------------|-------------------------------------------|--------------------------------------|
| empty, empty       | Dice, IoU, wF 0; S, E by background share | every overlap 1, HD95 0              |
| empty, polyp       | Dice, IoU, wF 0; S, E by background share | every overlap 0, HD95 the diagonal   |
| polyp, empty       | stretched, so it never stays empty        | every overlap 0, HD95 the diagonal   |

`pranet` is the published evaluation (DengPingFan/PraNet @ 160e495, eval/main.m), because a protocol of that name must give
its numbers. On an empty ground truth its Fmeasure_calu.m sets Dice and IoU to 0 at every threshold, as it does for any
threshold without a common pixel, and StructureMeasure.m and Enhancedmeasure.m score the share of background; but its
original_WFb.m stops with an error there (bwdist of an empty mask has no nearest pixel), so the wF of 0 is ours, as
pysodmetrics has it. A map without any contrast: MyTest.py stretches a network's output to zeros before it saves it, while
main.m leaves a saved map of one grey level as it is (mapminmax). So a constant output is zeros here, a constant saved map
is not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, distance_transform_edt
from scipy.spatial import KDTree

from difom_train.inference.frames import FIXED_THRESHOLD, dice

PROTOCOLS = ("pranet", "fixed")
THRESHOLDS = 256  # t / 255 for t in 0..255, as PraNet's eval/main.m
EPS = float(np.spacing(1))  # MATLAB's eps, as in the published metrics
WF_REACH_PX = 200  # beyond it the wF weight 2 - 0.5 ** (d / 5) is 2 to 1e-12
WF_WINDOW_PX, WF_SIGMA_PX = 7, 5.0  # Margolin et al. 2014: fspecial('gaussian', 7, 5)
HD_PERCENTILE = 95.0


@dataclass(frozen=True)
class PranetScores:
    """One frame under `pranet`: scores in [0, 1], means over 256 thresholds where there is no other word.

    `e_curve` (256,) is the E-measure at thresholds 0 to 255 / 255. A table's max E is the maximum of the mean curve of
    its frames, as published; `peak_e` is the frame's own maximum, and its mean over frames is never below that.
    """

    dice: float
    iou: float
    weighted_f: float
    s_measure: float
    mean_e: float
    peak_e: float
    mae: float
    e_curve: NDArray[np.float64]


@dataclass(frozen=True)
class FixedScores:
    """One frame under `fixed`: overlaps in [0, 1], HD95 (the larger direction, see `hd95_px`) in pixels of the ground truth."""

    dice: float
    iou: float
    precision: float
    recall: float
    hd95_px: float
    mae: float


def stretch(prob: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return `prob` stretched to fill [0, 1]; a constant picture becomes zeros.

    Source: DengPingFan/PraNet @ 160e495, MyTest.py, without its 1e-8 in the divisor and without its rounding to 8 bits.
    """
    low, high = float(prob.min()), float(prob.max())
    if high == low:
        return np.zeros(prob.shape, np.float64)
    return (prob.astype(np.float64) - low) / (high - low)


def score_pranet(prob: NDArray[np.floating], truth: NDArray[np.bool_]) -> PranetScores:
    """Return one frame's scores as the published evaluation computes them for a network's output.

    Args:
        prob: (H, W) in [0, 1], at the ground truth's size, not stretched.
        truth: (H, W), True on the polyp.
    """
    return _score_stretched(stretch(prob), truth)


def score_pranet_map(levels: NDArray[np.unsignedinteger], truth: NDArray[np.bool_]) -> PranetScores:
    """Return one frame's scores as the published evaluation computes them for a saved map.

    Its rounding is followed: a map is first divided by its type's largest number and then stretched (im2double, mapminmax), so
    that in a map of partial range some levels fall just below a threshold that they would reach in exact fractions.

    Args:
        levels: (H, W) uint8 or uint16, at the ground truth's size; its type's largest number means that polyp is sure.
        truth: (H, W), True on the polyp.
    """
    prob = levels / np.float64(np.iinfo(levels.dtype).max)
    return _score_stretched(prob if prob.min() == prob.max() else stretch(prob), truth)


def _score_stretched(stretched: NDArray[np.float64], truth: NDArray[np.bool_]) -> PranetScores:
    """Return the scores of a probability that fills [0, 1], or of one that is the same everywhere."""
    level = (stretched * (THRESHOLDS - 1)).astype(np.uint16)  # the highest threshold that each pixel reaches
    hit, taken = count_above_thresholds(level, truth)
    polyp = int(np.count_nonzero(truth))
    e_curve = e_measure_curve(hit, taken, polyp, truth.size)
    dice = np.divide(2.0 * hit, taken + polyp, out=np.zeros(THRESHOLDS), where=hit > 0)
    iou = np.divide(1.0 * hit, taken + polyp - hit, out=np.zeros(THRESHOLDS), where=hit > 0)
    return PranetScores(
        dice=float(dice.mean()),
        iou=float(iou.mean()),
        weighted_f=weighted_f(stretched, truth),
        s_measure=s_measure(stretched, truth),
        mean_e=float(e_curve.mean()),
        peak_e=float(e_curve.max()),
        mae=float(np.abs(stretched - truth).mean()),
        e_curve=e_curve,
    )


def score_fixed(prob: NDArray[np.floating], truth: NDArray[np.bool_]) -> FixedScores:
    """Return one frame's scores at threshold 0.5.

    Two empty masks agree (overlaps 1, HD95 0); where just one is empty nothing agrees (overlaps 0, HD95 the diagonal).

    Args:
        prob: (H, W) in [0, 1], at the ground truth's size.
        truth: (H, W), True on the polyp.
    """
    mask = prob >= FIXED_THRESHOLD
    hit, taken, polyp = (int(np.count_nonzero(area)) for area in (mask & truth, mask, truth))
    both_empty = float(taken == 0 and polyp == 0)
    return FixedScores(
        dice=float(dice(hit, taken + polyp)),
        iou=hit / (taken + polyp - hit) if taken + polyp else both_empty,
        precision=hit / taken if taken else both_empty,
        recall=hit / polyp if polyp else both_empty,
        hd95_px=hd95_px(mask, truth),
        mae=float(np.abs(prob.astype(np.float64) - truth).mean()),
    )


def count_above_thresholds(
    level: NDArray[np.uint16], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many polyp pixels, and how many pixels, have a level of at least t, for t = 0..255."""
    place = level + truth.astype(np.uint16) * np.uint16(THRESHOLDS)
    counts = np.bincount(place.ravel(), minlength=2 * THRESHOLDS).reshape(2, THRESHOLDS)
    above = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    return above[1], above.sum(axis=0)


def e_measure_curve(hit: NDArray[np.int64], taken: NDArray[np.int64], polyp: int, pixels: int) -> NDArray[np.float64]:
    """Return the enhanced-alignment measure at every threshold.

    Source: Fan et al. 2018, arXiv:1805.10421, equation 5, summed over the four kinds of pixel. As in the published code
    the sum is divided by pixels - 1, so a perfect mask scores pixels / (pixels - 1).
    """
    if polyp == 0:
        return (pixels - taken) / (pixels - 1 + EPS)
    if polyp == pixels:
        return taken / (pixels - 1 + EPS)
    total = np.zeros(len(hit))
    mask_mean, truth_mean = taken / pixels, polyp / pixels
    counts = {(1, 1): hit, (1, 0): taken - hit, (0, 1): polyp - hit, (0, 0): pixels - taken - polyp + hit}
    for (mask, truth), count in counts.items():
        a, b = mask - mask_mean, truth - truth_mean
        total += ((2 * a * b / (a**2 + b**2 + EPS) + 1) ** 2 / 4) * count
    return total / (pixels - 1 + EPS)


def s_measure(prob: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the structure measure with alpha 0.5.

    Source: Fan et al. 2017, arXiv:1708.00786; centroid and rounding as in pysodmetrics, which follows the MATLAB code.
    """
    share = float(truth.mean())
    if share == 0:
        return 1 - float(prob.mean())
    if share == 1:
        return float(prob.mean())
    whole = share * _object_score(prob[truth]) + (1 - share) * _object_score(1 - prob[~truth])
    rows, columns = truth.sum(axis=1), truth.sum(axis=0)
    height, width = truth.shape
    polyp = rows.sum()
    top = int(np.round(rows @ np.arange(height) / polyp)) + 1  # MATLAB's 1:Y contains Y
    left = int(np.round(columns @ np.arange(width) / polyp)) + 1
    quarters = 0.0
    for vertical in (slice(0, top), slice(top, height)):
        for horizontal in (slice(0, left), slice(left, width)):
            quarter = truth[vertical, horizontal]
            if quarter.size:
                quarters += _similarity(prob[vertical, horizontal], quarter) * quarter.size / truth.size
    return max(0.0, 0.5 * whole + 0.5 * quarters)


def _object_score(values: NDArray[np.float64]) -> float:
    mean = float(values.mean())
    deviation = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + deviation + EPS)


def _similarity(prob: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    freedom = prob.size - 1 + EPS
    x, y = float(prob.mean()), float(truth.mean())
    dx, dy = (prob - x).ravel(), (truth - y).ravel()
    covariance, spread = dx @ dy / freedom, (dx @ dx + dy @ dy) / freedom
    shared, apart = 4 * x * y * covariance, (x**2 + y**2) * spread
    if shared != 0:
        return float(shared / (apart + EPS))
    return float(apart == 0)


def weighted_f(prob: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the weighted F-measure with beta 1; 0 where the ground truth is empty.

    Only a window around the polyp needs its distances: further than WF_REACH_PX every error weighs 2.

    Source: Margolin et al. 2014, "How to evaluate foreground maps?", CVPR, section 4.
    """
    if not truth.any():
        return 0.0
    window = _window_around(truth, WF_REACH_PX)
    near, near_truth = prob[window], truth[window]
    far_error = 2.0 * (float(prob.sum()) - float(near.sum()))
    distance_px, nearest = distance_transform_edt(~near_truth, return_indices=True)
    error = np.abs(near - near_truth)
    inner = _window_around(near_truth, WF_WINDOW_PX // 2)
    spread = error[nearest[0][inner], nearest[1][inner]]  # background takes the error of its nearest polyp pixel
    smooth = _blur(spread)[near_truth[inner]]
    polyp_error = np.minimum(error[near_truth], smooth)
    background = ~near_truth
    false_error = far_error + float((error * (2 - 0.5 ** (distance_px / 5)))[background].sum())
    true_weight = polyp_error.size - float(polyp_error.sum())
    recall = 1 - float(polyp_error.mean())
    precision = true_weight / (true_weight + false_error + EPS)
    return 2 * recall * precision / (recall + precision + EPS)


def _blur(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `error` under a 7 x 7 Gaussian; beyond the window counts as zero, as MATLAB's imfilter has it."""
    reach = np.arange(WF_WINDOW_PX) - WF_WINDOW_PX // 2
    weights = np.exp(-(reach**2) / (2 * WF_SIGMA_PX**2))
    weights /= weights.sum()
    return convolve1d(convolve1d(error, weights, axis=0, mode="constant"), weights, axis=1, mode="constant")


def hd95_px(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the larger of the two directed 95th percentiles of boundary distance, in pixels.

    So it is defined by MONAI. MedPy's hd95 takes one percentile of the distances of both directions together, which gives
    other numbers: say which one, where you print it.

    A boundary pixel has a 4-neighbour outside its mask, and the picture's rim counts as outside. Two empty masks are 0
    apart; if just one is empty, they are as far apart as the picture allows: its diagonal.
    """
    if not mask.any() or not truth.any():
        return 0.0 if mask.any() == truth.any() else float(np.hypot(*truth.shape))
    ours, theirs = boundary_points(mask), boundary_points(truth)
    there = KDTree(theirs).query(ours)[0]
    back = KDTree(ours).query(theirs)[0]
    return float(max(np.percentile(there, HD_PERCENTILE), np.percentile(back, HD_PERCENTILE)))


def boundary_points(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the (row, column) of every pixel of `mask` that touches its outside."""
    window = _window_around(mask, 0)
    inside = mask[window]
    ringed = np.pad(inside, 1)
    surrounded = ringed[:-2, 1:-1] & ringed[2:, 1:-1] & ringed[1:-1, :-2] & ringed[1:-1, 2:]
    corner = np.array([window[0].start, window[1].start])
    return np.argwhere(inside & ~surrounded) + corner


def _window_around(mask: NDArray[np.bool_], margin_px: int) -> tuple[slice, slice]:
    """Return the slices of the box around `mask`, widened by `margin_px` within the picture."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - margin_px), min(mask.shape[0], int(rows[-1]) + 1 + margin_px)),
        slice(max(0, int(columns[0]) - margin_px), min(mask.shape[1], int(columns[-1]) + 1 + margin_px)),
    )
