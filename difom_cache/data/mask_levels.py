"""Which levels of a mask are polyp: where the mask says it itself, and where the user must."""

import re
from dataclasses import dataclass
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import SettingsError
from difom_cache.data.mask_pixels import (
    LEAST_FLAT_SHARE,
    Level,
    MaskPixels,
    choose_nearest,
    find_ends,
    find_levels,
    name_level,
    share_flat,
)

MASK_THRESHOLD = 128  # as PraNet's evaluation: ground truth is polyp where it is above 128
# Grey levels up to here, and from here, count as black and white; not tuned.
_BLACK, _WHITE, _LOSSY_WHITE = 16, 239, 207
_FEW_LEVELS = 16  # a mask of so few levels has no soft edges: all of it is looked at as a map of classes
_MOST_SOFT = 0.1  # of the frame may lie between black and white
# Of the soft pixels' one main level is flat where they are a class's band of 3 px; of soft edges none is.
_BAND_SHARE = 0.05
_MIDDLE = (48, 206)  # ringing seldom comes so far; soft edges pass through
_EVEN_PX, _EVEN_LEVELS = 5, 24  # a place in the middle that changes by no more over so many px is no edge; not tuned
_RIM_PX = 24  # ringing of JPEG, 8 px, in a file that was enlarged threefold
_MOST_FAR = 0.01  # of the frame: specks and lines of one pixel turn soft where a mask is made smaller
_CLASSES = 4  # levels; so few are no soft edges
_SAYING = {1, 255, 65535}  # the one level above black that cannot be mistaken
_TOLD, _OFFERED = 16, 6


@dataclass(frozen=True)
class MaskLevels:
    """Levels that are polyp: ranges of grey, colours, or whatever is opaque; the rest is background."""

    text: str
    ranges: tuple[tuple[int, int], ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()
    alpha: bool = False

    def split(self) -> "list[MaskLevels]":
        """Return its parts."""
        return [parse_levels(part) for part in self.text.split(",")]


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
    return MaskLevels(text.strip(), tuple(ranges), tuple(colours), alpha)


def choose_polyp(pixels: MaskPixels, levels: MaskLevels | None) -> NDArray[np.bool_]:
    """Return where a mask is polyp.

    Args:
        pixels: of a mask.
        levels: None for a mask that says it itself.
    """
    grey = pixels.grey
    if levels is None:
        binary = grey.dtype != np.uint8 or (int(grey.max()) == 1 and not pixels.lossy)
        return np.asarray(grey > (0 if binary else MASK_THRESHOLD))
    polyp = np.zeros(grey.shape, bool)
    for low, high in levels.ranges:
        # A level of a palette is its index; where it has no such index, the grey of its colours is meant.
        values = grey if pixels.index is None or low >= pixels.palette_size else pixels.index
        if pixels.lossy and low == high:
            if not (low and _is_blank(grey)):
                polyp |= choose_nearest(values[..., None], (low,))
        else:
            polyp |= (values >= low) & (values <= high)
    for colour in levels.colours:
        points = np.repeat(grey[..., None], 3, -1) if pixels.rgb is None else pixels.rgb
        polyp |= choose_nearest(points, colour) if pixels.lossy else (points == colour).all(-1)
    if levels.alpha and pixels.alpha is not None:
        polyp |= pixels.alpha > MASK_THRESHOLD
    return polyp


def describe_odd_levels(pixels: MaskPixels) -> str:
    """Return what a mask's levels are, and how to say which are polyp, where the mask does not say it itself; else ""."""
    if pixels.transparent and pixels.index is None and pixels.alpha is not None:
        return _ask("is drawn in the alpha channel, with levels", find_levels(MaskPixels(pixels.alpha)), ["alpha"])
    if not _is_odd_palette(pixels) and not pixels.coloured and _is_clear(pixels.grey, lossy=pixels.lossy):
        return ""
    levels = find_levels(pixels)
    kind = "colours" if pixels.coloured else "grey levels"
    if pixels.index is not None:
        kind = "indices and colours"
    elif len(levels) == 1 and pixels.lossy:  # what was drawn is too small to be an area, or too faint
        points = pixels.rgb if pixels.coloured and pixels.rgb is not None else pixels.grey[..., None]
        away = np.linalg.norm(points.astype(float) - levels[0].value, axis=-1)
        top = tuple(points[np.unravel_index(away.argmax(), away.shape)].tolist())
        levels.append(Level(name_level(top), "", top, float((away > away.max() / 2).mean())))
    start = f"is a lossy file with {kind} about" if pixels.lossy else f"has the {kind}"
    black = [level for level in levels if not any(level.value)]
    background = black[0] if black else max(levels, key=lambda level: level.share)
    drawn = sorted((level for level in levels if level is not background), key=lambda level: -level.share)
    names = ["1"] if pixels.doubtful else [level.name for level in drawn or levels]
    if len(names) > _TOLD and not pixels.coloured:
        (highest,) = levels[-1].value
        names = [f"{MASK_THRESHOLD + 1}-255" if _WHITE <= highest <= 255 else f"1-{highest}"]
    return _ask(start, levels, names)


def _ask(start: str, levels: list[Level], names: list[str]) -> str:
    told = sorted(levels, key=lambda level: -level.share)[:_TOLD]
    listed = ", ".join(str(level) for level in levels if level in told).replace(")", " of the frame)", 1)
    more = f" and {len(levels) - len(told)} more up to {levels[-1].name}" if len(levels) > len(told) else ""
    choice = f" (or {', '.join(names[1:_OFFERED])}, or several, with commas)" if len(names) > 1 else ""
    return (
        f"it {start} {listed}{more}; say which are polyp with `difom-cache manifest FOLDER --out FILE.csv --mask-levels "
        f"{quote(names[0])}`{choice}, and give FILE.csv as the data"
    )


def _is_odd_palette(pixels: MaskPixels) -> bool:
    """Return whether a palette's indices say more than its colours: transparent ones, two of one colour, black for true."""
    if pixels.index is None or pixels.rgb is None:
        return pixels.doubtful
    colours = {level.about for level in find_levels(pixels)}
    return pixels.transparent or len(colours) < len(np.unique(pixels.index))


def _is_clear(grey: NDArray[Any], *, lossy: bool) -> bool:
    """Return whether grey levels are black and white alone, apart from soft edges: the gate of every mask.

    Whatever is neither the main black nor the main white must be a rim: no area of its own, few pixels, near to both.
    """
    if lossy and _is_blank(grey):
        return True
    found, counts = _count_levels(grey)
    top = int(found[-1])
    if not lossy and (top == 0 or (top in _SAYING and set(found.tolist()) <= {0, top})):
        return True
    white = _LOSSY_WHITE if lossy else _WHITE
    few = len(found) <= _FEW_LEVELS
    if grey.dtype != np.uint8 or top < white or (few and not lossy and found[0] > 0):
        return False
    between = np.ones(len(found), bool)
    for end in map(np.flatnonzero, (found <= _BLACK, found >= white)):
        between[end[counts[end] == counts[end].max(initial=0)][:1]] = False
    if not between.any():
        return True
    soft = between & (found > _BLACK) & (found < white)
    if counts[soft].sum() > _MOST_SOFT * grey.size:
        return False
    most = np.full(len(found), LEAST_FLAT_SHARE)
    if few:
        most[soft & (2 * counts >= counts[soft].sum())] = _BAND_SHARE
    areas = between & (share_flat(grey, found, counts) > most)
    strict = few and not lossy
    if (areas & (soft | strict)).any():
        return False
    loose = np.isin(grey, found[between]) if few else (grey >= _MIDDLE[0]) & (grey <= _MIDDLE[1])
    faint = found[areas & (found <= _BLACK)].tolist()
    if not loose.any() and not faint:
        return True
    low, high = find_ends(grey, 2 * _RIM_PX + 1)
    for level in faint:  # a class is large beside the white, or far from it; else a codec left it
        if 2 * (grey == level).sum() >= (grey >= white).sum() or ((high < white) & (grey == level)).any():
            return False
    far = int((loose & ((low > _BLACK) | (high < white))).sum())
    if far > (_MOST_FAR * grey.size if len(found) > _CLASSES else 0):
        return False
    low, high = find_ends(grey, _EVEN_PX)
    return not ((low >= _MIDDLE[0]) & (high <= _MIDDLE[1]) & (high - low <= _EVEN_LEVELS)).any()


def _is_blank(grey: NDArray[Any]) -> bool:
    """Return whether nothing is drawn in a lossy file: its one black comes out of a JPEG as up to 8."""
    return int(grey.max()) <= _BLACK and grey.min() == grey.max()


def _count_levels(grey: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    if grey.dtype != np.uint8:
        return np.unique(grey, return_counts=True)
    counts = np.bincount(grey.ravel(), minlength=256)
    found = np.flatnonzero(counts)
    return found, counts[found]
