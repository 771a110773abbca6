"""Saved maps that are scored: under `pranet` as pysodmetrics does, which agrees with the published code in Octave; and how many.

Frames are counted by hand: each is scored, or named as left out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import py_sod_metrics as sod
from numpy.typing import NDArray
from PIL import Image
from truth_case import Case

from difom_train import evaluate

Map = Callable[[NDArray[np.float64]], NDArray[Any]]
"""From a probability to the grey levels that someone has saved."""


def paint(kind: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a noisy probability that fills [0, 1], and the polyp that it means."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:60, :80]
    polyp = np.hypot(y - 30, x - 45) < {"small": 3, "none": 0}.get(kind, 14)
    noise = rng.normal(0, 0.6, polyp.shape)
    prob = 1 / (1 + np.exp(-(14 - np.hypot(y - 28, x - 42)) / 3 - noise))
    return (prob - prob.min()) / (prob.max() - prob.min()), polyp


def ranged(low: int, high: int) -> Map:
    """Return what saves a probability as 8-bit levels of a range."""
    return lambda prob: np.rint(low + prob * (high - low)).astype(np.uint8)


def ours(save: Map, kind: str) -> Callable[[Path], Any]:
    """Return a reader of what `evaluate MAPS` says of one frame."""

    def read(folder: Path) -> Any:
        prob, polyp = paint(kind)
        home = folder / "data" / "TestDataset" / "Kvasir"
        levels = {"images": np.zeros((*polyp.shape, 3), np.uint8), "masks": polyp.astype(np.uint8) * 255}
        for part, pixels in levels.items():
            (home / part).mkdir(parents=True)
            Image.fromarray(pixels).save(home / part / "1.png")
        (folder / "maps" / "Kvasir").mkdir(parents=True)
        Image.fromarray(save(prob)).save(folder / "maps" / "Kvasir" / "1.png")
        means = evaluate(folder / "maps", folder / "data", workers=0, out=folder / "out").means()["Kvasir"]
        return {
            name: means[f"pranet/{name}"]
            for name in ("dice", "iou", "weighted_f", "s_measure", "mean_e", "max_e", "mae")
        }

    return read


def theirs(save: Map, kind: str) -> dict[str, float]:
    """Return pysodmetrics' scores of the same 8 bits."""
    prob, polyp = paint(kind)
    levels = save(prob)
    levels = levels if levels.dtype == np.uint8 else (levels // 257).astype(np.uint8)
    overlap = sod.FmeasureV2({"dice": sod.DICEHandler(True, False), "iou": sod.IOUHandler(True, False)})
    meters = (overlap, sod.WeightedFmeasure(), sod.Smeasure(), sod.Emeasure(), sod.MAE())
    for meter in meters:
        meter.step(levels, polyp.astype(np.uint8) * 255)
    curves, weighted, structure, enhanced, error = (meter.get_results() for meter in meters)
    return {
        "dice": float(curves["dice"]["dynamic"].mean()),
        "iou": float(curves["iou"]["dynamic"].mean()),
        "weighted_f": float(weighted["wfm"]),
        "s_measure": float(structure["sm"]),
        "mean_e": float(enhanced["em"]["curve"].mean()),
        "max_e": float(enhanced["em"]["curve"].max()),
        "mae": float(error["mae"]),
    }


_SAVED: dict[str, tuple[Map, str]] = {
    "levels 114 to 204": (ranged(114, 204), ""),
    "levels 0 to 255": (ranged(0, 255), ""),
    "levels 0 to 90": (ranged(0, 90), ""),
    "levels 200 to 255": (ranged(200, 255), ""),
    "two levels, 127 and 128": (ranged(127, 128), ""),
    "levels 114 to 204, a small polyp": (ranged(114, 204), "small"),
    "levels 114 to 204, no polyp": (ranged(114, 204), "none"),
    "levels 114 to 204 in 16 bits": (lambda prob: ranged(114, 204)(prob).astype(np.uint16) * 257, ""),
}


def count_frames(places: dict[str, int], **options: Any) -> Callable[[Path], Any]:
    """Return a reader of how many frames are scored and left out where sets lie side by side.

    Args:
        places: folder of a set below the data's to how many frames it has.
        **options: of `evaluate`.
    """

    def read(folder: Path) -> Any:
        for place, frames in places.items():
            for stem in range(1, frames + 1):
                for part, shape in (("images", (60, 80, 3)), ("masks", (60, 80))):
                    (folder / "data" / place / part).mkdir(parents=True, exist_ok=True)
                    pixels = np.random.default_rng(stem).integers(0, 2, shape).astype(np.uint8) * 255
                    Image.fromarray(pixels).save(folder / "data" / place / part / f"{stem}.png")
                    name = place.removeprefix("TestDataset/")
                    (folder / "maps" / name).mkdir(parents=True, exist_ok=True)
                    if part == "masks":
                        Image.fromarray(pixels).save(folder / "maps" / name / f"{stem}.png")
        found = evaluate(folder / "maps", folder / "data", workers=0, out=folder / "out", **options)
        left: dict[str, int] = {}
        for each in found.left_out:
            left[each.dataset] = left.get(each.dataset, 0) + each.frames
        return {"scored": {name: len(scores.frames) for name, scores in found.sets.items()}, "left out": left}

    return read


_SETS: dict[str, tuple[dict[str, int], dict[str, Any], dict[str, int], dict[str, int]]] = {
    "known sets alone": ({"TestDataset/Kvasir": 3, "TestDataset/CVC-300": 2}, {}, {"CVC-300": 2, "Kvasir": 3}, {}),
    "an unknown set alone": ({"Clinic": 12}, {}, {"Clinic": 12}, {}),
    "two unknown sets": ({"Clinic": 3, "Praxis": 4}, {}, {"Clinic": 3, "Praxis": 4}, {}),
    "a known and an unknown set": ({"TestDataset/Kvasir": 3, "Clinic": 12}, {}, {"Kvasir": 3}, {"Clinic": 12}),
    "test frames of one's own beside an unknown set": (
        {"Own/test": 2, "Own/train": 5, "Clinic": 3},
        {},
        {"Own": 2},
        {"Own": 5, "Clinic": 3},
    ),
    "an unknown set in the folder of the test sets": (
        {"TestDataset/Kvasir": 3, "TestDataset/Clinic": 4},
        {},
        {"Clinic": 4, "Kvasir": 3},
        {},
    ),
    "a limit": ({"TestDataset/Kvasir": 5, "Clinic": 3}, {"limit": 2}, {"Kvasir": 2}, {"Kvasir": 3, "Clinic": 3}),
}
CASES = [Case(f"metrics: {name}", ours(*saved), theirs(*saved)) for name, saved in _SAVED.items()]
CASES += [
    Case(f"evaluate: {name}", count_frames(places, **options), {"scored": scored, "left out": left})
    for name, (places, options, scored, left) in _SETS.items()
]
