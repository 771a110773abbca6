"""The numbers that make one view of a record: whole numbers only, so that a cache can hold them exactly."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import CacheFormatError, SettingsError

REPLAY_VERSION = 1
"""Grows when equal params would no longer give equal views."""


@dataclass(frozen=True)
class ViewParams:
    """One view: crop, then flips, then quarter turns, then rotation, then colour, in this order."""

    top: int
    """First source row of the crop, px."""
    left: int
    """First source column of the crop, px."""
    height: int
    """Rows of the crop, source px."""
    width: int
    """Columns of the crop, source px."""
    flip_h: int = 0
    """1: left and right change places."""
    flip_v: int = 0
    """1: top and bottom change places."""
    quarter_turns: int = 0
    """Quarter turns counterclockwise, 0 to 3."""
    angle_mdeg: int = 0
    """Rotation counterclockwise, thousandths of a degree, above -90000 and below 90000."""
    pad: int = 0
    """1: rotation keeps the scale and leaves corners without picture; 0: it zooms in until none are left."""
    brightness_permille: int = 0
    """Recorded colour: added to a factor of 1000 / 1000 on all values."""
    contrast_permille: int = 0
    """Recorded colour: added to a factor of 1000 / 1000 on the distance from the mean grey."""
    saturation_permille: int = 0
    """Recorded colour: added to a factor of 1000 / 1000 on the saturation."""
    hue_permille: int = 0
    """Recorded colour: thousandths of a full turn of the hue."""

    def __post_init__(self) -> None:
        wrong = [
            f"{name} = {getattr(self, name)} (expected {low} to {high})"
            for name, (low, high) in _RANGES.items()
            if not low <= getattr(self, name) <= high
        ]
        if wrong:
            raise SettingsError("these are no view params: " + ", ".join(wrong))

    @property
    def has_colour(self) -> bool:
        """True where the view changes colours."""
        return any((self.brightness_permille, self.contrast_permille, self.saturation_permille, self.hue_permille))

    @property
    def wholly_valid(self) -> bool:
        """True where every pixel of the view shows a part of the frame."""
        return not (self.pad and self.angle_mdeg)

    def to_row(self) -> NDArray[np.int32]:
        """Return the numbers in the order of `COLUMNS`, (P,) int32."""
        return np.array([getattr(self, name) for name in COLUMNS], dtype=np.int32)

    @classmethod
    def from_row(cls, row: Sequence[int] | NDArray[np.int32]) -> "ViewParams":
        """Return the params that `to_row` wrote.

        Raises:
            CacheFormatError: the row has more or fewer numbers than `COLUMNS`.
            SettingsError: a number outside its range.
        """
        if len(row) != len(COLUMNS):
            raise CacheFormatError(
                f"a row of view params has {len(COLUMNS)} numbers ({', '.join(COLUMNS)}), found {len(row)}"
            )
        return cls(*(int(value) for value in row))


COLUMNS = tuple(field.name for field in fields(ViewParams))
_LARGEST_PX = 2**31 - 1
_RANGES = {
    "top": (0, _LARGEST_PX),
    "left": (0, _LARGEST_PX),
    "height": (1, _LARGEST_PX),
    "width": (1, _LARGEST_PX),
    "flip_h": (0, 1),
    "flip_v": (0, 1),
    "quarter_turns": (0, 3),
    "angle_mdeg": (-89_999, 89_999),
    "pad": (0, 1),
    "brightness_permille": (-1000, 1000),
    "contrast_permille": (-1000, 1000),
    "saturation_permille": (-1000, 1000),
    "hue_permille": (-500, 500),
}
