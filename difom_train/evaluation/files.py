"""Scores on disk: one CSV a protocol and test set, one line a frame, and a summary that says how they were made.

RUN/eval/summary.json                what was scored, with which weights, under which protocol version
RUN/eval/pranet/<set>.csv            a line a frame
RUN/eval/pranet/<set>.e-curves.npy   (N, 256) float32, E-measure at each threshold, rows as in the CSV
RUN/eval/fixed/<set>.csv             a line a frame
RUN/eval/masks/<set>/<stem>.png      the mask at threshold 0.5, ground-truth size
"""

import csv
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import RunError
from difom_cache.base.files import read_object, read_plain
from difom_cache.base.text import format_rows, unguard_cell
from difom_train.evaluation.metrics import PROTOCOLS, THRESHOLDS
from difom_train.evaluation.summary import FrameInfo, SetScores

PROTOCOL_VERSION = 1
"""Grows when equal logits would no longer get equal scores."""
MAPS_VERSION = 3
"""Grows when equal saved maps would no longer get equal scores; stands in their identity."""

COLUMNS = {
    "pranet": ("dice", "iou", "weighted_f", "s_measure", "mean_e", "peak_e", "mae"),
    "fixed": ("dice", "iou", "precision", "recall", "hd95_px", "mae"),
}
_INFO = tuple(field.name for field in fields(FrameInfo))


def file_name(dataset: str) -> str:
    """Return a test set's name as a file name: unchanged if it is plain."""
    return quote(dataset, safe=" +,=@()")


def mask_path(folder: Path, dataset: str, record_id: str) -> Path:
    """Return where the mask of a frame lies."""
    stem = record_id.removeprefix(f"{dataset}/")
    return folder / "masks" / file_name(dataset) / f"{file_name(stem)}.png"


def write_set(scores: SetScores, folder: Path) -> None:
    """Write the per-frame files of one test set below `folder` (RUN/eval)."""
    name = file_name(scores.dataset)
    for protocol in PROTOCOLS:
        values = [scores.columns[f"{protocol}/{key}"].tolist() for key in COLUMNS[protocol]]
        lines = [(*_cells_of(frame, folder), *row) for frame, *row in zip(scores.frames, *values, strict=True)]
        text = format_rows((*_INFO, *COLUMNS[protocol]), lines)
        write_atomic(folder / protocol / f"{name}.csv", text.encode())
    curves = io.BytesIO()
    np.save(curves, scores.e_curves.astype(np.float32))
    write_atomic(_curves_path(folder, scores.dataset), curves.getvalue())


def read_set(folder: Path, dataset: str) -> SetScores:
    """Return the scores that `write_set` wrote.

    Raises:
        RunError: a file is missing, has other columns, or the two protocols name other frames.
    """
    columns: dict[str, Any] = {}
    frames: dict[str, tuple[FrameInfo, ...]] = {}
    for protocol in PROTOCOLS:
        path = folder / protocol / f"{file_name(dataset)}.csv"
        lines = _read_lines(path, protocol)
        try:
            frames[protocol] = tuple(_info_of(line, folder) for line in lines)
            for key in COLUMNS[protocol]:
                columns[f"{protocol}/{key}"] = np.array([float(line[key]) for line in lines])
        except (TypeError, ValueError) as error:  # a line is short, or holds no numbers
            raise RunError(f"{path} is damaged ({error}); evaluate the run again") from error
        if not lines or not all(np.isfinite(columns[f"{protocol}/{key}"]).all() for key in COLUMNS[protocol]):
            raise RunError(f"{path} is damaged (no lines, or scores that are no numbers); evaluate the run again")
    if frames["pranet"] != frames["fixed"]:
        raise RunError(f"{folder}: the two protocols' files of {dataset} name other frames; evaluate the run again")
    curves = _curves_path(folder, dataset)
    if not curves.exists():
        raise RunError(f"{curves} is missing; evaluate the run again")
    try:
        e_curves = np.load(io.BytesIO(read_plain(curves)), allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise RunError(f"{curves} is damaged ({error}); evaluate the run again") from error
    wanted = (len(frames["fixed"]), THRESHOLDS)
    if e_curves.shape != wanted or e_curves.dtype != np.float32 or not np.isfinite(e_curves).all():
        raise RunError(
            f"{curves} is damaged (expected {wanted} finite float32 as its CSV has lines); evaluate the run again"
        )
    return SetScores(dataset, frames["fixed"], columns, e_curves)


def write_summary(
    folder: Path, sets: Mapping[str, SetScores], identity: Mapping[str, Any], notes: Mapping[str, Any]
) -> dict[str, Any]:
    """Write and return summary.json; sets that another identity was scored on are forgotten.

    Args:
        folder: RUN/eval.
        sets: what was just scored.
        identity: what decides the scores besides the frames, such as the digest of the weights.
        notes: what else a reader may want to know.
    """
    old = read_summary(folder) if (folder / "summary.json").is_file() else {}
    same = old.get("identity") == dict(identity) and old.get("protocol_version") == PROTOCOL_VERSION
    kept = dict(old["sets"]) if same else {}
    for name, scores in sets.items():
        kept[name] = {"frames": len(scores.frames), "scores": scores.summarise()}
    summary = {"protocol_version": PROTOCOL_VERSION, "identity": dict(identity), **notes, "sets": kept}
    write_atomic(folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def read_summary(folder: Path) -> dict[str, Any]:
    """Return summary.json.

    Raises:
        RunError: it is missing or damaged.
    """
    path = folder / "summary.json"
    if not path.exists():
        raise RunError(
            f"{folder.parent} has not been evaluated ({path} is absent); "
            f"run `difom-train evaluate {folder.parent} --data TESTS` first"
        )
    summary = read_object(path, RunError, "evaluate the run again")
    sets, identity = summary.get("sets"), summary.get("identity")
    if (
        not isinstance(identity, dict)
        or not isinstance(sets, dict)
        or not all(isinstance(s, dict) for s in sets.values())
    ):
        raise RunError(f"{path} is damaged (expected an identity and test sets); evaluate the run again")
    return summary


def _curves_path(folder: Path, dataset: str) -> Path:
    return folder / "pranet" / f"{file_name(dataset)}.e-curves.npy"


def _read_lines(path: Path, protocol: str) -> list[dict[str, str]]:
    if not path.exists():
        raise RunError(f"{path} is missing, so the run has no scores under {protocol}; evaluate it again")
    try:
        rows = csv.DictReader(io.StringIO(read_plain(path).decode()))
        if tuple(rows.fieldnames or ()) != (*_INFO, *COLUMNS[protocol]):
            raise RunError(f"{path}: expected the columns {', '.join((*_INFO, *COLUMNS[protocol]))}; evaluate again")
        lines = list(rows)
        if any(None in line or None in line.values() for line in lines):
            raise ValueError("a line has other columns than its head")
        return lines
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error}); evaluate the run again") from error


def _info_of(line: Mapping[str, str], folder: Path) -> FrameInfo:
    words = {name: unguard_cell(line[name]) for name in _INFO}
    for name in ("image", "mask"):  # written from `folder`; older files have whole paths
        words[name] = os.path.normpath(folder.resolve() / words[name]) if words[name] else ""
    return FrameInfo(**{**words, "width": int(words["width"]), "height": int(words["height"])})  # type: ignore[arg-type]


def _cells_of(frame: FrameInfo, folder: Path) -> list[str | int]:
    """Return a frame as its line has it: pictures by their way from `folder`, so that both can move together."""
    ways = {
        name: os.path.relpath(getattr(frame, name), folder.resolve())
        for name in ("image", "mask")
        if getattr(frame, name)
    }
    return list((asdict(frame) | ways).values())
