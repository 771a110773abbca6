"""Frames to look at: the worst, the median, the best, and some from all over the range of what the second network gains."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation

from difom_cache import read_image, read_mask
from difom_cache.base.errors import RunError
from difom_cache.base.progress import track
from difom_train.evaluation.files import mask_path
from difom_train.evaluation.summary import FrameInfo
from difom_train.reporting.entries import Entry, eval_folder

SIDE_PX = 384  # longer side of a picture in the report
JPEG_QUALITY = 80
LINE_PX = 2  # still seen when the page shows the picture at half its size
TINT_ALPHA = 56  # of 255
CHOSEN_BY = "fixed/dice"
KINDS = ("worst", "median", "best", "quantiles of the gain")
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Case:
    """One frame of the gallery.

    Attributes:
        dataset: its test set.
        id: its record.
        kinds: why it is shown, out of KINDS.
        picture: JPEG as data URI.
        truth: transparent PNG of the ground truth's outline, as data URI.
        masks: the same for each entry (its first seed).
        dice: Dice at 0.5 for each entry, mean over seeds.
        size: (width, height) of the original, px.
    """

    dataset: str
    id: str
    kinds: tuple[str, ...]
    picture: str
    truth: str
    masks: tuple[str, ...]
    dice: tuple[float, ...]
    size: tuple[int, int]


def choose_cases(dice: NDArray[np.float64], count: int) -> dict[int, list[str]]:
    """Return frame number to why it is shown, for a quarter of `count` of each kind.

    Args:
        dice: (entries, N).
        count: about how many frames; 0 shows none. The gain is the second entry's over the first's: equal parts of the frames,
            ordered by it, each show their middle one, so that losses are shown as often as they happen.
    """
    if count == 0:
        return {}
    each = max(1, count // len(KINDS))
    mean = dice.mean(axis=0)
    gain = dice[min(1, len(dice) - 1)] - dice[0]
    middles = ((np.arange(each) + 0.5) * len(gain) / each).astype(int)
    orders = {
        "worst": np.argsort(mean, kind="stable"),
        "median": np.argsort(np.abs(mean - np.median(mean)), kind="stable"),
        "best": np.argsort(-mean, kind="stable"),
        "quantiles of the gain": np.argsort(gain, kind="stable")[middles if gain.any() else []],
    }
    chosen: dict[int, list[str]] = {}
    for kind, order in orders.items():
        for number in order[:each]:
            chosen.setdefault(int(number), []).append(kind)
    return chosen


def gather_cases(
    entries: Sequence[Entry], *, per_set: int, colours: Sequence[Colour], truth_colour: Colour
) -> list[Case]:
    """Return the gallery's frames, set by set, with pictures and outlines ready for a page.

    Raises:
        RunError: a mask that evaluation wrote is gone, or is of another size than its ground truth.
    """
    wanted = []
    for dataset in entries[0].datasets:
        dice = np.stack([entry.values(dataset, CHOSEN_BY).mean(axis=0) for entry in entries])  # (entries, N)
        frames = entries[0].seeds[0][dataset].frames
        wanted += [
            (dataset, frames[number], tuple(kinds), dice[:, number])
            for number, kinds in choose_cases(dice, per_set).items()
        ]
    cases = []
    for dataset, frame, kinds, dice in track(wanted, "gallery", "frame"):
        truth = read_mask(Path(frame.mask), max_pixels=None).astype(bool)
        masks = [_read_entry_mask(entry, dataset, frame, truth.shape) for entry in entries]
        size = fit(frame.width, frame.height)
        cases.append(
            Case(
                dataset=dataset,
                id=frame.id,
                kinds=kinds,
                picture=_encode_picture(read_image(Path(frame.image), max_pixels=None), size),
                truth=encode_overlay(truth, truth_colour, size),
                masks=tuple(encode_overlay(mask, colour, size) for mask, colour in zip(masks, colours, strict=True)),
                dice=tuple(float(value) for value in dice),
                size=(frame.width, frame.height),
            )
        )
    return cases


def fit(width: int, height: int) -> tuple[int, int]:
    """Return (width, height) scaled down so that neither exceeds SIDE_PX; small pictures stay as they are."""
    scale = min(1.0, SIDE_PX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def encode_overlay(mask: NDArray[np.bool_], colour: Colour, size: tuple[int, int]) -> str:
    """Return a transparent PNG data URI: a light tint on the mask, a line around it, and a dark rim around that."""
    small = np.asarray(Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BOX)) >= 128
    around = np.ones((3, 3), bool)
    line = binary_dilation(small, around, iterations=LINE_PX)
    rim = binary_dilation(line, around)
    layers = np.zeros(small.shape, np.uint8)
    for level, area in ((3, rim), (2, line), (1, small)):
        layers[area] = level
    picture = Image.fromarray(layers, mode="P")
    picture.putpalette([0, 0, 0, *colour, *colour, 14, 18, 22])
    return _to_uri(picture, "png", transparency=bytes([0, TINT_ALPHA, 255, 150]), optimize=True)


def _encode_picture(picture: NDArray[np.uint8], size: tuple[int, int]) -> str:
    small = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    return _to_uri(small, "jpeg", quality=JPEG_QUALITY, optimize=True)


def _to_uri(picture: Image.Image, kind: str, **options: object) -> str:
    data = io.BytesIO()
    picture.save(data, kind, **options)  # type: ignore[arg-type]
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _read_entry_mask(entry: Entry, dataset: str, frame: FrameInfo, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    path = mask_path(eval_folder(entry.runs[0]), dataset, frame.id)
    if not path.is_file():
        raise RunError(f"{path} is gone, so {entry.name} cannot be shown; run `difom-train evaluate` on it again")
    mask = read_mask(path).astype(bool)
    if mask.shape != shape:
        raise RunError(
            f"{path} is {mask.shape[1]} x {mask.shape[0]} px, its ground truth {shape[1]} x {shape[0]}; evaluate again"
        )
    return mask
