"""A study: recipes x shares of the masks x seeds from one cache, scored on test sets, in one command that resumes."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from difom_cache import load_records, read_image, read_mask
from difom_cache.errors import RunError
from difom_train.inference.segmenter import load_segmenter, prob_at_size, segment
from difom_train.training.run import train

LEFT_OUT = ("CVC-300",)  # its 60 frames lie inside CVC-ColonDB, so a mean over both counts them twice
DICE_FILE = "study-dice.json"


@dataclass(frozen=True)
class Budget:
    """What every run of a study has in common."""

    student: str
    width: int | None
    input_size: int
    batch_size: int
    epochs: int
    device: str | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One run: its recipe, the share of the masks it sees, its seed."""

    recipe: str
    labels: float
    seed: int

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        return f"{Path(self.recipe).stem}-labels{self.labels:g}-seed{self.seed}"


def study(
    cache: str | Path | Sequence[str | Path],
    data: str | Path,
    out: str | Path,
    *,
    recipes: Sequence[str] = ("baseline", "difom", "difom-multiscale"),
    labels: Sequence[float] = (0.1, 1.0),
    seeds: Sequence[int] = (0, 1, 2),
    teachers: Sequence[str] | None = None,
    also: Sequence[str] = (),
    student: str = "unet",
    width: int | None = 16,
    input_size: int = 128,
    batch_size: int = 16,
    epochs: int = 16,
    device: str | None = None,
    changes: Sequence[str] = (),
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Train and score every cell that is not finished yet; return one line for each recipe and share of the masks.

    All runs have equal steps. Scores are Dice at threshold 0.5 at the ground truth's size, averaged over frames, then over
    test sets (CVC-300 is shown, but left out of the mean).

    Args:
        cache: one cache, or several.
        data: test sets.
        out: folder of the runs; also gets study.csv.
        recipes: names or TOML files.
        labels: shares of the training masks.
        seeds: runs of each cell.
        teachers: labels in the cache to learn from.
        also: more to score beside the runs: run folders, or "teacher:SPEC".
        student, width, input_size, batch_size, epochs, device: of every run.
        changes: `dotted.key=value` changes of any setting, for every run.
        limit: frames of each test set.
    """
    budget = Budget(student, width, input_size, batch_size, epochs, device, tuple(changes))
    folder = Path(out)
    cells = [Cell(recipe, share, seed) for share in labels for seed in seeds for recipe in recipes]
    for cell in cells:
        run_cell(cell, budget, cache, folder / cell.folder, teachers)
    scored = {cell: score_once(folder / cell.folder, folder / cell.folder, Path(data), limit) for cell in cells}
    lines = [summarise_cells(recipe, share, scored) for share in labels for recipe in recipes]
    for name in also:
        place = folder / name.replace("/", "_").replace(":", "_")
        lines.append({"recipe": name, "labels": "", "runs": 1} | means_of([score_once(name, place, Path(data), limit)]))
    write_table(lines, folder / "study.csv")
    return lines


def run_cell(
    cell: Cell,
    budget: Budget,
    cache: str | Path | Sequence[str | Path],
    folder: Path,
    teachers: Sequence[str] | None,
) -> None:
    """Train one cell, or go on with it, unless it is finished."""
    state = json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {}
    if state.get("status") == "finished":
        return
    options = asdict(budget) | {"labels": cell.labels, "seed": cell.seed, "teachers": teachers}
    train(cache=cache, recipe=cell.recipe, out=folder, resume=True, **options)


def score_once(source: str | Path, folder: Path, data: Path, limit: int | None) -> dict[str, float]:
    """Return the mean Dice at 0.5 of each test set, measured once and kept in `folder`."""
    kept = folder / DICE_FILE
    if kept.exists():
        held = json.loads(kept.read_text())
        if held["limit"] == limit:
            return dict(held["dice"])
    dice = score_dice(source, data, limit)
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"limit": limit, "dice": dice}, indent=1) + "\n")
    return dice


def score_dice(source: str | Path, data: Path, limit: int | None) -> dict[str, float]:
    """Return the mean Dice at 0.5 and full size over the frames of each test set.

    Raises:
        RunError: there is nothing to score.
    """
    segmenter = load_segmenter(source)
    records = [record for record in load_records(data) if record.split == "test" and record.mask is not None]
    per_set: dict[str, list[float]] = {}
    for record in tqdm(records, desc=f"Dice of {segmenter.name}", unit="frame", disable=None):
        if limit is not None and len(per_set.get(record.dataset, [])) >= limit:
            continue
        truth = read_mask(record.mask) == 1  # type: ignore[arg-type]
        logits = segment(segmenter, [read_image(record.image)])[0]
        per_set.setdefault(record.dataset, []).append(dice_of(prob_at_size(logits, *truth.shape) >= 0.5, truth))
    if not per_set:
        raise RunError(f"{data} holds no test records with masks; give the folder of the test sets with --data")
    return {name: mean(values) for name, values in per_set.items()}


def dice_of(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the Dice overlap; two empty masks agree."""
    total = int(mask.sum()) + int(truth.sum())
    return 2 * int((mask & truth).sum()) / total if total else 1.0


def summarise_cells(recipe: str, share: float, scored: dict[Cell, dict[str, float]]) -> dict[str, Any]:
    """Return one line of the table: means over seeds, and the spread of the mean over sets."""
    own = [dice for cell, dice in scored.items() if cell.recipe == recipe and cell.labels == share]
    return {"recipe": recipe, "labels": share, "runs": len(own)} | means_of(own)


def means_of(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean over runs for each set, the mean over sets, and its standard deviation over runs."""
    over_sets = [mean(value for name, value in dice.items() if name not in LEFT_OUT) for dice in scores]
    line = {name: mean(dice[name] for dice in scores) for name in scores[0]}
    return line | {"mean": mean(over_sets), "std": stdev(over_sets) if len(over_sets) > 1 else 0.0}


def write_table(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the table as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def format_table(lines: Sequence[dict[str, Any]]) -> str:
    """Return the table as text."""
    names = list(lines[0])
    rows = [
        [f"{v:.3f}" if isinstance(v, float) and k != "labels" else str(v) for k, v in line.items()] for line in lines
    ]
    widths = [max(len(row[i]) for row in [names, *rows]) for i in range(len(names))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in [names, *rows])
