"""What a network's output is: logits, probabilities or a mask; as its graph says for certain, else as real frames show.

A map of the output becomes logits of polyp, whatever it is, so that everything behind it sees one kind.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import TeacherError

if TYPE_CHECKING:
    from torch import Tensor

Values = Literal["logits", "prob", "prob255", "mask"]
By = Literal["graph", "frames", "FILE.json"]
Frames = Callable[[int], "Iterable[tuple[Tensor, Tensor | None]]"]
"""From an input's side in px to frames as a network sees them: pixels (3, S, S) in [0, 1], and mask (S, S) where known."""

PROBED_FRAMES = 16
WORDS = {"logits": "logits", "prob": "probabilities", "prob255": "probabilities times 255", "mask": "a mask"}
KEYS = f'FILE.json beside the file decides: "output" (its name), "values" ({", ".join(get_args(Values))}), "channel"'
_TOPS: dict[Values, float] = {"prob": 1.0, "prob255": 255.0}
_SLACK_FRAC = 0.01  # of the range: what rounding and resizing of halves leave behind
_RINGING_FRAC = 0.15  # of the range: how far a cubic resize of 0 and 1 goes beyond
_LEAST_PROB = 2.0**-24  # of float32, as far from 0 as the largest prob below 1 is from 1
_LARGEST_LOGIT = math.log((1 - _LEAST_PROB) / _LEAST_PROB)
_BETTER_FRAC = 0.95  # of the truth's variance that the second best output leaves unexplained
_ALIKE_IOU = 0.999  # of the masks of all frames: two forms of one map


@dataclass(frozen=True)
class Reading:
    """What is known of one output.

    Attributes:
        output: its name as a tap.
        values: what they are.
        channel: the polyp's, of several; None where there is but one.
        by: who says so.
        span: least and largest value on the frames that were looked at; None where none were.
        frames: how many they were.
    """

    output: str
    values: Values
    channel: int | None
    by: By
    span: tuple[float, float] | None = None
    frames: int = 0

    @property
    def said(self) -> tuple[str, str, int | None]:
        """What decides the logits."""
        return self.output, self.values, self.channel

    def identity(self) -> dict[str, Any]:
        """Return what a teacher's identity holds of it, under the output's name."""
        span = None if self.span is None else list(self.span)
        return {"values": self.values, "channel": self.channel, "by": self.by, "span": span, "frames": self.frames}

    def describe(self) -> str:
        """Return it in words."""
        channel = "" if self.channel is None else f", polyp in channel {self.channel}"
        source = {"graph": "as its graph says", "FILE.json": "as FILE.json says"}.get(self.by, "")
        if self.span is not None and self.by == "frames":
            source = f"from {self.span[0]:.3g} to {self.span[1]:.3g} on {self.frames} frames"
        return f"output {self.output!r} gives {WORDS[self.values]}{channel} ({source})"

    def to_logits(self, maps: NDArray[Any], label: str) -> NDArray[np.float32]:
        """Return the logits (B, 1, h, w) of maps (B, C, h, w).

        Raises:
            TeacherError: a value cannot be what the output was read as.
        """
        maps = maps.astype(np.float32)
        if self.by != "graph" and not self._fits(maps):
            raise TeacherError(
                f"{label}: output {self.output!r} was read as {WORDS[self.values]}, but gives values from {maps.min():.3g} to "
                f"{maps.max():.3g} here; {KEYS}"
            )
        chosen = maps if self.channel is None else maps[:, self.channel : self.channel + 1]
        if self.values == "logits":
            if self.channel is None:
                return chosen
            others = np.delete(maps, self.channel, axis=1)
            return chosen - np.logaddexp.reduce(others, axis=1, keepdims=True)  # the softmax's own log odds
        if self.values == "mask":
            return np.where(chosen > 0, _LARGEST_LOGIT, -_LARGEST_LOGIT).astype(np.float32)
        prob = np.clip(chosen / np.float32(_TOPS[self.values]), _LEAST_PROB, 1 - _LEAST_PROB)
        return np.log(prob) - np.log1p(-prob)

    def _fits(self, maps: NDArray[np.float32]) -> bool:
        if self.values == "logits":
            return True
        if self.values == "mask":
            tops = (1, 255) if self.span is None else (self.span[1],)
            return any(np.isin(maps, (0, top)).all() for top in tops)
        slack = _SLACK_FRAC * _TOPS[self.values]
        return bool(maps.min() >= -slack and maps.max() <= _TOPS[self.values] + slack)


def as_maps(value: Any, batch: int) -> NDArray[Any] | None:
    """Return what a network gave out as (batch, C, h, w): channels may come last or be left out, and so a batch of one.

    None where it is no square map.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        return None
    if value.ndim < 4 and batch == 1 and value.shape[:1] != (1,):
        value = value[None]
    if value.ndim == 3:
        value = value[:, None]  # (B, h, w) -> (B, 1, h, w)
    if value.ndim != 4 or len(value) != batch:
        return None
    if value.shape[2] != value.shape[3] and value.shape[1] == value.shape[2]:
        value = value.transpose(0, 3, 1, 2)  # (B, h, w, C) -> (B, C, h, w)
    return value if value.shape[2] == value.shape[3] > 1 else None


def tell_by_range(maps: Sequence[NDArray[Any]], channel: int | None) -> Values | None:
    """Return what the maps (C, h, w) of real frames are, or None where they may be one thing or another.

    Probabilities of several channels add up to one; logits go below zero somewhere.
    """
    low, high = span_of(maps)
    if not math.isfinite(high - low):
        return None
    several = len(maps[0]) > 1
    if several and channel is None:
        sums = np.concatenate([each.astype(np.float64).sum(axis=0).ravel() for each in maps])
        adds_up = [values for values, top in _TOPS.items() if np.abs(sums / top - 1).max() <= _SLACK_FRAC]
        if adds_up:
            return adds_up[0] if low >= -_SLACK_FRAC * _TOPS[adds_up[0]] else None
        return "logits" if low < -_SLACK_FRAC else None
    if several and channel is not None and low >= -_SLACK_FRAC:  # logits are those of all channels together
        return tell_by_range([each[channel : channel + 1] for each in maps], None)
    levels = {float(level) for each in maps for level in np.unique(each)[:3]}
    if levels in ({0.0, 1.0}, {0.0, 255.0}):
        return "mask"
    for values, top in _TOPS.items():
        # Below 0.5 * 255 there is no polyp, or nothing but: it may be another scale.
        if low >= -_SLACK_FRAC * top and (0 if top == 1 else top / 2) <= high <= (1 + _SLACK_FRAC) * top:
            return values
        if low >= -_RINGING_FRAC * top and top / 2 <= high <= (1 + _RINGING_FRAC) * top:
            return None  # probabilities resized with ringing, or logits of little range
    return "logits" if low < -_SLACK_FRAC else None


def span_of(maps: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """Return the least and largest value of some maps, of which there is at least one."""
    return float(min(each.min() for each in maps)), float(max(each.max() for each in maps))


def choose_output(
    logits: Mapping[str, Sequence[NDArray[np.float32]]], masks: Sequence[NDArray[np.bool_] | None], where: str
) -> str:
    """Return which of several outputs is the answer.

    Where all give the same masks of the frames it is the first. Else masks decide, as they do before training, where logits
    must rise towards them: the answer is the output whose probability has a straight line of rising slope to the truth that
    leaves clearly less of it unexplained than any other's.

    Args:
        logits: output to (h, w) of each frame; outputs may have grids of their own.
        masks: (S, S) of each frame, None where it has none.
        where: names the file in the message.

    Raises:
        TeacherError: frames cannot tell.
    """
    names = list(logits)
    side = max(len(each) for maps in logits.values() for each in maps)
    probs = {name: np.concatenate([1 / (1 + np.exp(-_resize(each, side))) for each in logits[name]]) for name in names}
    polyps = {name: prob >= 0.5 for name, prob in probs.items()}
    if all(_iou(polyps[names[0]], polyps[name]) >= _ALIKE_IOU for name in names[1:]):
        return names[0]
    told = f"{where}: its outputs {', '.join(names)} do not give the same masks"
    if not any(mask is not None and mask.any() for mask in masks):
        raise TeacherError(f"{told}, and no frame with a polyp's mask tells which is the answer; {KEYS}")
    known = np.repeat([mask is not None for mask in masks], side * side)
    truth = np.concatenate([_resize(mask.astype(np.float32), side) for mask in masks if mask is not None])
    explained = {name: _explain(prob[known], truth) for name, prob in probs.items()}
    best, second = sorted(names, key=lambda name: -explained[name])[:2]
    if explained[best] <= 0 or 1 - explained[best] > _BETTER_FRAC * (1 - explained[second]):
        found = ", ".join(f"{name} {share:.3f}" for name, share in explained.items())
        raise TeacherError(
            f"{told}, and frames with masks do not tell which is the answer (explained: {found}); {KEYS}"
        )
    return best


def _resize(values: NDArray[np.float32], side: int) -> NDArray[np.float64]:
    """Return the cells (side * side,) of a square map, interpolated."""
    from torch import from_numpy
    from torch.nn.functional import interpolate

    grid = from_numpy(values)[None, None].double()
    sized: NDArray[np.float64] = interpolate(grid, (side, side), mode="bilinear", align_corners=False).numpy().ravel()
    return sized


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the overlap of two masks; 0 where both are empty, which tells nothing."""
    return float((one & other).sum() / max(1, (one | other).sum()))


def _explain(prob: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Return the share of the truth's variance that a straight line of `prob` explains; below 0 where the line falls."""
    prob, truth = prob - prob.mean(), truth - truth.mean()
    both, own = float(prob @ truth), float(prob @ prob) * float(truth @ truth)
    return math.copysign(both * both / own, both) if own > 0 else 0.0
