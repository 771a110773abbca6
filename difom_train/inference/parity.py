"""How close an exported file is to its student, over real frames or noise."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from difom_cache import Record, read_image, replay_mask
from difom_train.inference.frames import FIXED_THRESHOLD, choose_records, dice, read_truth
from difom_train.inference.segmenter import StudentSegmenter, prob_at_size, render_picture, segment, whole_frame


@dataclass(frozen=True)
class Parity:
    """How close an exported file is to its student, at the size at which it answers.

    Attributes:
        frames: how many were compared.
        real: False where they were made of noise, for want of data.
        prob_difference: the largest, over all pixels.
        agreement_frac: share of pixels that both call polyp or both do not.
        student_dice: mean Dice of the student against the masks, None without masks.
        file_dice: the same of the file.
    """

    frames: int
    real: bool
    prob_difference: float
    agreement_frac: float
    student_dice: float | None
    file_dice: float | None

    def render(self) -> str:
        """Return the comparison as one line."""
        kind = "real frames" if self.real else "frames of noise (pass --check DATA for real ones)"
        dice = f"; Dice {self.student_dice:.4f} -> {self.file_dice:.4f}" if self.file_dice is not None else ""
        return (
            f"parity over {self.frames} {kind}: probabilities within {self.prob_difference:.1e}, "
            f"{self.agreement_frac:.3%} of pixels alike{dice}"
        )


def compare_frames(
    segmenter: StudentSegmenter,
    exported: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    *,
    check: Path | str | None,
    frames: int,
) -> Parity:
    """Return how close a file for whole frames is to what `predict` makes of them."""
    pairs = []
    for picture, truth in _whole_frames(check, segmenter.input_px, frames):
        wanted = prob_at_size(segment(segmenter, [picture])[0], *picture.shape[:2])
        pairs.append((wanted, exported(picture[None])[0], truth))
    return _measure_parity(pairs, real=check is not None)


def compare_with_student(
    deployed: nn.Module,
    exported: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    input_px: int,
    *,
    check: Path | str | None,
    frames: int,
) -> Parity:
    """Return how close an exported file is to its student over some frames, one at a time."""
    pairs = []
    for picture, truth in _check_frames(check, input_px, frames):
        with torch.inference_mode():
            wanted = deployed(torch.from_numpy(picture[None]))[0].numpy()
        pairs.append((wanted, exported(picture[None])[0], truth))
    return _measure_parity(pairs, real=check is not None)


def _measure_parity(
    pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_] | None]], *, real: bool
) -> Parity:
    """Return how alike two networks are, from the probabilities (H, W) of each and the truth, frame by frame."""
    worst, alike, dices = 0.0, [], []
    for wanted, found, truth in pairs:
        worst = max(worst, float(np.abs(wanted - found).max()))
        masks = [prob >= FIXED_THRESHOLD for prob in (wanted, found)]
        alike.append(float((masks[0] == masks[1]).mean()))
        if truth is not None:
            dices.append([dice((mask & truth).sum(), mask.sum() + truth.sum()) for mask in masks])
    student_dice, file_dice = np.mean(dices, axis=0).tolist() if dices else (None, None)
    return Parity(len(pairs), real, worst, float(np.mean(alike)), student_dice, file_dice)


def render_frame(record: Record, input_px: int) -> NDArray[np.uint8]:
    """Return a record's frame as an exported file takes it, (input_px, input_px, 3) uint8."""
    pixels = render_picture(read_image(record.image, max_pixels=None), input_px)
    return (pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy()  # (3, S, S) -> (S, S, 3)


def _check_frames(
    check: Path | str | None, input_px: int, frames: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_] | None]]:
    if check is None:
        noise = np.random.default_rng(0)
        for _ in range(frames):
            yield noise.integers(0, 256, (input_px, input_px, 3), dtype=np.uint8), None
        return
    for record in spread(choose_records(Path(check))[0], frames):
        truth = torch.from_numpy(read_truth(record).astype(np.uint8))
        mask = replay_mask(truth, whole_frame(record.width, record.height), input_px)
        yield render_frame(record, input_px), mask.numpy().astype(bool)


def _whole_frames(
    check: Path | str | None, input_px: int, frames: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_] | None]]:
    """Yield frames at their own size with their masks; noise of a frame's shape where there is no data."""
    if check is None:
        noise = np.random.default_rng(0)
        for _ in range(frames):
            yield noise.integers(0, 256, (input_px * 5 // 4, input_px * 3 // 2, 3), dtype=np.uint8), None
        return
    for record in spread(choose_records(Path(check))[0], frames):
        yield read_image(record.image, max_pixels=None), read_truth(record)


def spread(records: Sequence[Record], count: int) -> list[Record]:
    """Return `count` records, evenly spread over the list."""
    picks = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    return [records[pick] for pick in picks]
