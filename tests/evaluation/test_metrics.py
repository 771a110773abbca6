"""Scores of one frame: against pysodmetrics, against a plain float64 loop, and against cases worked by hand."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import py_sod_metrics as sod
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from difom_train.evaluation import metrics

EMPTY = np.zeros((4, 4), bool)
HALF = np.repeat([[True, True, False, False]], 4, axis=0)


def painted_case(seed: int, height: int = 61, width: int = 83) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a noisy probability and the round polyp it means."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    centre = rng.uniform(0, 1, 2) * (height, width)
    truth = np.hypot(y - centre[0], x - centre[1]) < rng.uniform(4, 20)
    return noisy_prob(truth, rng), truth


def noisy_prob(truth: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    noise = gaussian_filter(rng.standard_normal(truth.shape), 2) * 12
    logits = gaussian_filter(np.where(truth, 4.0, -4.0), 2) + noise
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def looped_overlaps(prob: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Return (Dice, IoU) averaged over the 256 thresholds, one threshold at a time, as PraNet's MATLAB loop does."""
    stretched = prob.astype(np.float64)
    stretched = (stretched - stretched.min()) / (stretched.max() - stretched.min())
    dice, iou = [], []
    for threshold in range(256):
        mask = stretched >= threshold / 255
        hit, taken, polyp = (mask & truth).sum(), mask.sum(), truth.sum()
        dice.append(2 * hit / (taken + polyp) if hit else 0.0)
        iou.append(hit / (taken + polyp - hit) if hit else 0.0)
    return float(np.mean(dice)), float(np.mean(iou))


def looped_e_curve(prob: NDArray[np.float64], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the E-measure at each threshold from the whole alignment matrix."""
    curve = []
    for threshold in range(256):
        mask = prob >= threshold / 255
        a, b = mask - mask.mean(), truth - truth.mean()
        alignment = 2 * a * b / (a * a + b * b + metrics.EPS)
        curve.append(((alignment + 1) ** 2 / 4).sum() / (truth.size - 1))
    return np.array(curve)


def sod_scores(prob: NDArray[np.float32], truth: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Return pysodmetrics' scores of the stretched probability."""
    return run_sod(metrics.stretch(prob), truth, normalize=False)


def sod_scores_of_map(levels: NDArray[np.uint8], truth: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Return pysodmetrics' scores of a saved map, read and stretched by itself."""
    return run_sod(levels, truth.astype(np.uint8) * 255, normalize=True)


def run_sod(prob: NDArray[Any], truth: NDArray[Any], *, normalize: bool) -> dict[str, NDArray[np.float64]]:
    overlap = sod.FmeasureV2({"dice": sod.DICEHandler(True, False), "iou": sod.IOUHandler(True, False)})
    meters = {"wf": sod.WeightedFmeasure(), "s": sod.Smeasure(), "e": sod.Emeasure(), "mae": sod.MAE()}
    for meter in (overlap, *meters.values()):
        meter.step(prob, truth, normalize=normalize)
    curves = overlap.get_results()
    return {
        "dice": curves["dice"]["dynamic"].mean(),
        "iou": curves["iou"]["dynamic"].mean(),
        "weighted_f": meters["wf"].get_results()["wfm"],
        "s_measure": meters["s"].get_results()["sm"],
        "e_curve": meters["e"].get_results()["em"]["curve"][::-1],
        "mae": meters["mae"].get_results()["mae"],
    }


def assert_agrees(prob: NDArray[np.float32], truth: NDArray[np.bool_], tolerance: float = 1e-6) -> None:
    ours = asdict(metrics.score_pranet(prob, truth))
    for name, value in sod_scores(prob, truth).items():
        np.testing.assert_allclose(ours[name], value, atol=tolerance, rtol=0, err_msg=name)
    np.testing.assert_allclose((ours["dice"], ours["iou"]), looped_overlaps(prob, truth), atol=tolerance, rtol=0)


@pytest.mark.parametrize("seed", range(8))
def test_pranet_scores_agree_with_pysodmetrics_and_with_a_plain_loop(seed: int) -> None:
    assert_agrees(*painted_case(seed))


def test_weighted_f_of_a_far_false_alarm_agrees_although_only_a_window_is_measured() -> None:
    prob, truth = painted_case(3, height=500, width=620)
    prob[470:, 580:] = 0.9
    assert_agrees(prob, truth)


def test_e_curve_equals_the_mean_of_the_alignment_matrix() -> None:
    prob, truth = painted_case(1)
    stretched = metrics.stretch(prob)
    ours = metrics.score_pranet(prob, truth).e_curve
    np.testing.assert_allclose(ours, looped_e_curve(stretched, truth), atol=1e-9)


def test_a_perfect_mask_scores_one_except_at_threshold_zero() -> None:
    scores = metrics.score_pranet(HALF.astype(np.float32), HALF)
    # threshold 0 takes all 16 pixels: Dice 16/24, IoU 8/16; the other 255 thresholds are perfect
    assert scores.dice == pytest.approx((255 + 2 / 3) / 256, abs=1e-12)
    assert scores.iou == pytest.approx((255 + 0.5) / 256, abs=1e-12)
    assert scores.weighted_f == pytest.approx(1, abs=1e-12)
    assert scores.mae == 0
    assert scores.peak_e == pytest.approx(16 / 15)  # the published code divides by pixels - 1


def test_fixed_scores_of_a_half_covered_polyp_are_as_worked_by_hand() -> None:
    mask = np.zeros((4, 4))
    mask[:, 1:3] = 0.5  # at the threshold counts as polyp; covers column 1 of columns 0-1, and column 2 beside it
    scores = metrics.score_fixed(mask, HALF)
    assert (scores.dice, scores.iou) == (0.5, pytest.approx(1 / 3))
    assert (scores.precision, scores.recall) == (0.5, 0.5)
    assert scores.mae == pytest.approx((4 * 1 + 4 * 0.5 + 4 * 0.5) / 16)
    assert scores.hd95_px == 1  # every boundary pixel lies 0 or 1 px from the other boundary, half of them 1


def test_hd95_is_the_larger_direction_and_forgives_one_pixel_in_twenty() -> None:
    truth, mask = np.zeros((50, 50), bool), np.zeros((50, 50), bool)
    truth[10, 5:30] = mask[10, 5:30] = True  # a line of 25 boundary pixels
    mask[40, 40] = True  # one of 26 is far away: less than 5 %
    assert metrics.hd95_px(mask, truth) == 0
    mask[40, 40:44] = True  # four of 29 are more than 5 %, in one direction only
    there = [0.0] * 25 + [np.hypot(30, 11 + k) for k in range(4)]
    assert metrics.hd95_px(mask, truth) == pytest.approx(np.percentile(there, 95))


@pytest.mark.parametrize(
    ("case", "prob", "truth", "overlap", "hd95_px"),
    [
        ("both empty", EMPTY, EMPTY, 1.0, 0.0),
        ("empty ground truth", HALF, EMPTY, 0.0, np.hypot(4, 4)),
        ("empty mask", EMPTY, HALF, 0.0, np.hypot(4, 4)),
    ],
)
def test_fixed_scores_of_empty_masks_are_defined_by_name(
    case: str, prob: NDArray[np.bool_], truth: NDArray[np.bool_], overlap: float, hd95_px: float
) -> None:
    scores = metrics.score_fixed(prob.astype(np.float32), truth)
    assert (scores.dice, scores.iou, scores.precision, scores.recall) == (overlap,) * 4, case
    assert scores.hd95_px == hd95_px
    assert scores.mae == np.mean(prob != truth)


def test_empty_ground_truth_scores_zero_overlap_under_pranet_whatever_the_mask() -> None:
    for prob in (EMPTY, HALF):
        scores = metrics.score_pranet(prob.astype(np.float32), EMPTY)
        assert (scores.dice, scores.iou, scores.weighted_f) == (0, 0, 0)
        assert scores.s_measure == 1 - prob.mean()
        # threshold 0 takes every pixel, so no background is left; the other 255 take the mask
        assert scores.mean_e == pytest.approx(255 / 256 * np.count_nonzero(~prob) / 15)


def test_stretching_makes_a_polyp_of_a_nearly_empty_output_and_the_fixed_threshold_does_not() -> None:
    faint = HALF * 0.01 + 0.001
    assert metrics.score_pranet(faint, HALF).dice > 0.99
    assert metrics.score_fixed(faint, HALF).dice == 0


def test_a_constant_output_is_stretched_to_zeros() -> None:
    scores = metrics.score_pranet(np.full((4, 4), 0.7), HALF)
    assert scores.dice == pytest.approx(2 * 8 / 24 / 256)  # only threshold 0 takes any pixel, and it takes all
    assert scores.mae == 0.5


def test_a_saved_map_of_one_grey_level_stays_as_it_is() -> None:
    white, grey = np.full((4, 4), 255, np.uint8), np.full((4, 4), 51, np.uint8)
    empty = metrics.score_pranet_map(white, EMPTY)
    assert (empty.s_measure, empty.mae, empty.dice) == (0, 1, 0)  # everything is called polyp, and nothing is
    # 51 / 255 = 0.2 reaches thresholds 0 to 51, which take all 16 pixels: Dice 16 / 24
    half = metrics.score_pranet_map(grey, HALF)
    assert half.dice == pytest.approx(52 / 256 * 2 / 3, abs=1e-12)
    assert half.mae == pytest.approx((8 * 0.8 + 8 * 0.2) / 16)
    black = metrics.score_pranet_map(np.zeros((4, 4), np.uint8), EMPTY)
    assert (black.s_measure, black.mae) == (1, 0)


@pytest.mark.parametrize(("low", "high"), [(114, 204), (10, 61), (0, 255), (0, 254), (1, 255), (128, 131), (7, 8)])
def test_saved_maps_of_any_range_agree_with_pysodmetrics(low: int, high: int) -> None:
    """The published code, run in Octave, gives the numbers of pysodmetrics on maps of 114 to 204 as well."""
    for seed in range(4):
        prob, truth = painted_case(seed)
        levels = np.rint(low + metrics.stretch(prob) * (high - low)).astype(np.uint8)
        assert (levels.min(), levels.max()) == (low, high)
        ours, theirs = asdict(metrics.score_pranet_map(levels, truth)), sod_scores_of_map(levels, truth)
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, atol=1e-6, rtol=0, err_msg=name)


def test_sixteen_bits_of_a_map_score_as_its_eight_bits() -> None:
    prob, truth = painted_case(5)
    eight = (114 + 90 * prob).astype(np.uint8)
    ours, wide = (asdict(metrics.score_pranet_map(each, truth)) for each in (eight, eight.astype(np.uint16) * 257))
    for name, value in ours.items():
        np.testing.assert_allclose(wide[name], value, atol=1e-12, rtol=0, err_msg=name)


@pytest.mark.parametrize("level", [0, 51, 255])
def test_constant_saved_maps_agree_with_pysodmetrics(level: int) -> None:
    levels = np.full((20, 30), level, np.uint8)
    truth = painted_case(2, 20, 30)[1]
    ours = asdict(metrics.score_pranet_map(levels, truth))
    meters = {"weighted_f": sod.WeightedFmeasure(), "s_measure": sod.Smeasure(), "mae": sod.MAE()}
    keys = {"weighted_f": "wfm", "s_measure": "sm", "mae": "mae"}
    for name, meter in meters.items():
        meter.step(levels, truth.astype(np.uint8) * 255)
        assert ours[name] == pytest.approx(meter.get_results()[keys[name]], abs=1e-6), name


def test_a_polyp_that_fills_the_frame_is_scored() -> None:
    full = np.ones((4, 4), bool)
    scores = metrics.score_pranet(HALF.astype(np.float32), full)
    assert scores.s_measure == 0.5
    # threshold 0 finds all 16; the other 255 find 8: Dice 16/24
    assert scores.dice == pytest.approx((1 + 255 * 2 / 3) / 256)
    assert_agrees(HALF.astype(np.float32), full)


@pytest.mark.slow
def test_hundred_real_masks_agree_with_pysodmetrics_and_the_loop_to_one_in_a_million() -> None:
    benchmark = os.environ.get("DIFOM_BENCHMARK")
    if not benchmark:
        pytest.skip("DIFOM_BENCHMARK is not set: no real masks to score")
    from difom_cache import read_mask

    sets = sorted(path for path in (Path(benchmark) / "TestDataset").iterdir() if path.is_dir())
    paths = [path for folder in sets for path in sorted((folder / "masks").iterdir())[:20]]
    assert len(paths) == 100
    for seed, path in enumerate(paths):
        truth = read_mask(path).astype(bool)
        assert_agrees(noisy_prob(truth, np.random.default_rng(seed)), truth)
