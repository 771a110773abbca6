"""Published figures, to stand beside measured ones and be marked as published."""

import csv
from collections.abc import Sequence
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


def read_published(datasets: Sequence[str]) -> tuple[dict[str, dict[str, dict[str, float]]], str]:
    """Return student -> test set -> metric name -> value for the sets asked for, and where they were published."""
    text = files("data_manifests").joinpath("published.csv").read_text(encoding="utf-8")
    table: dict[str, dict[str, dict[str, float]]] = {}
    sources: list[str] = []
    for row in csv.DictReader(text.splitlines()):
        if row["dataset"] not in datasets:
            continue
        name = _NAMES.get(row["student"], row["student"])
        values = {metric: float(row[column]) for column, metric in _COLUMNS.items() if row[column]}
        table.setdefault(name, {})[row["dataset"]] = values
        sources.append(row["source"])
    return table, "; ".join(dict.fromkeys(sources))
