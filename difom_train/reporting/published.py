"""Published figures, to stand beside measured ones and be marked as published."""

import csv
from collections.abc import Mapping
from importlib.resources import files

FOOTNOTE = "as published, not measured here"
_COLUMNS = {
    "mean_dice": "pranet/dice",
    "mean_iou": "pranet/iou",
    "weighted_f": "pranet/weighted_f",
    "s_measure": "pranet/s_measure",
    "max_e": "pranet/max_e",
    "mae": "pranet/mae",
}
_NAMES = {"unet": "U-Net", "unet++": "U-Net++", "pranet": "PraNet"}


def count_published_frames(dataset: str) -> int | None:
    """Return how many test frames a published set has; None where it is no set of the benchmark."""
    path = files("data_manifests").joinpath(f"{dataset}.csv")
    if not path.is_file():
        return None
    return sum(row["split"] == "test" for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def read_published(frames: Mapping[str, int]) -> tuple[dict[str, dict[str, dict[str, float]]], list[str]]:
    """Return student -> test set -> metric name -> value, and what a reader must know of them, a sentence each.

    Args:
        frames: test set to how many of its frames were scored; figures of a set of another size are left out.
    """
    text = files("data_manifests").joinpath("published.csv").read_text(encoding="utf-8")
    table: dict[str, dict[str, dict[str, float]]] = {}
    sources: list[str] = []
    other: dict[str, str] = {}
    for row in csv.DictReader(text.splitlines()):
        name, whole = row["dataset"], count_published_frames(row["dataset"])
        if name not in frames:
            continue
        if frames[name] != whole:
            other[name] = f"{name} has {whole} frames there and {frames[name]} here"
            continue
        values = {metric: float(row[column]) for column, metric in _COLUMNS.items() if row[column]}
        table.setdefault(_NAMES.get(row["student"], row["student"]), {})[name] = values
        sources.append(row["source"])
    notes = [f"Published figures: {'; '.join(dict.fromkeys(sources))}."] if sources else []
    notes += [f"No published figures beside other frames: {'; '.join(other.values())}."] if other else []
    return table, notes
