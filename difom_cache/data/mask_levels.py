"""Which levels of a mask are polyp: where the mask says it itself, and where the user must."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.errors import SettingsError

MASK_THRESHOLD = 128  # as PraNet's evaluation: ground truth is polyp where it is above 128
_BLACK, _WHITE = 16, 239  # grey levels up to here, and from here, count as black and white; not tuned
_FEW_LEVELS = 16  # a mask of so few levels has no soft edges: it is a map of classes
_MOST_SOFT = 0.1  # of the frame may lie between black and white
_SAYING = {1, 255, 65535}  # the one level above black that cannot be mistaken
_TOLD = 6


@dataclass(frozen=True)
class MaskLevels:
    """Levels that are polyp: ranges of grey, colours, or whatever is opaque; the rest is background."""

    text: str
    ranges: tuple[tuple[int, int], ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()
    alpha: bool = False


def parse_levels(text: str) -> MaskLevels:
    """Return the levels of "100", "1,2", "129-255", "#ff0000" or "alpha", with commas between.

    Raises:
        SettingsError: a part is none of these.
    """
    ranges, colours, alpha = [], [], False
    for part in (part.strip() for part in text.split(",")):
        if match := re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part):
            ranges.append((int(match[1]), int(match[2] or match[1])))
        elif match := re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", part):
            colours.append((int(match[1], 16), int(match[2], 16), int(match[3], 16)))
        elif part == "alpha":
            alpha = True
        else:
            raise SettingsError(
                f"--mask-levels: expected grey levels (100 or 129-255), colours (#ff0000) or alpha, found {part!r}"
            )
    return MaskLevels(text, tuple(ranges), tuple(colours), alpha)


def choose_polyp(values: NDArray[Any], levels: MaskLevels | None) -> NDArray[np.bool_]:
    """Return where a mask is polyp.

    Args:
        values: (H, W) grey of any depth, or (H, W, 4) RGBA of bytes.
        levels: None for a mask that says it itself.
    """
    grey = _grey_of(values)
    if levels is None:
        binary = values.dtype != np.uint8 or int(grey.max()) == 1
        return np.asarray(grey > (0 if binary else MASK_THRESHOLD))
    polyp = np.zeros(grey.shape, bool)
    for low, high in levels.ranges:
        polyp |= (grey >= low) & (grey <= high)
    if values.ndim == 3:
        for colour in levels.colours:
            polyp |= (values[..., :3] == colour).all(-1)
        if levels.alpha:
            polyp |= np.asarray(values[..., 3]) > MASK_THRESHOLD
    return polyp


def describe_odd_levels(values: NDArray[Any], *, lossy: bool) -> str:
    """Return what a mask's levels are, where they do not say which of them are polyp; else "".

    Args:
        values: as of `choose_polyp`.
        lossy: whether the file is a JPEG, whose levels are never pure.
    """
    if values.ndim == 3:
        alpha = np.unique(values[..., 3])
        if len(alpha) > 1:
            return f"it is drawn in the alpha channel (levels {_tell(alpha)})"
        spread = values[..., :3].max(-1).astype(int) - values[..., :3].min(-1)
        if not lossy and spread.max() > 0:
            colours = np.unique(values[..., :3].reshape(-1, 3), axis=0)
            told = ", ".join("#" + bytes(colour).hex() for colour in colours[:_TOLD])
            return f"it has the colours {told}{' and more' if len(colours) > _TOLD else ''}"
    grey = _grey_of(values)
    found, counts = _count_levels(grey)
    tops = set(found.tolist()) - {0}
    wide = values.dtype != np.uint8
    if not tops or (len(tops) == 1 and tops <= _SAYING and not lossy):
        return ""
    if wide:
        return f"it has the grey levels {_tell(found)}"
    soft = (found > _BLACK) & (found < _WHITE)
    if lossy:
        quiet = found[-1] <= 2 * _BLACK or found[-1] >= _WHITE - 2 * _BLACK  # ringing about black; nearly white
        return "" if quiet else f"it is a JPEG whose grey levels end at {found[-1]}"
    few = soft.any() and len(found) <= _FEW_LEVELS
    if found[-1] >= _WHITE and not few and counts[soft].sum() <= _MOST_SOFT * grey.size:
        return ""
    return f"it has the grey levels {_tell(found)}"


def _count_levels(grey: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    if grey.dtype != np.uint8:
        return np.unique(grey, return_counts=True)
    counts = np.bincount(grey.ravel(), minlength=256)
    found = np.flatnonzero(counts)
    return found, counts[found]


def _grey_of(values: NDArray[Any]) -> NDArray[Any]:
    """Return grey levels (H, W); of RGBA by ITU-R 601, as Pillow converts."""
    if values.ndim == 2:
        return values
    red, green, blue = (values[..., channel].astype(np.int64) for channel in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


def _tell(levels: NDArray[Any]) -> str:
    told = ", ".join(str(level) for level in levels[:_TOLD].tolist())
    return told if len(levels) <= _TOLD else f"{told} and {len(levels) - _TOLD} more up to {levels[-1]}"
