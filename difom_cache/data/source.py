"""Where a command's records come from, and what its user has said about them."""

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from difom_cache.base.errors import SettingsError
from difom_cache.data.images import MAX_PIXELS

EVERY_MS = 500  # between the frames that are taken of a video, unless --every says otherwise; not tuned
_UNITS_MS = {"ms": 1, "s": 1000, "": 1000, "min": 60_000}


@dataclass(frozen=True)
class DataSource:
    """What was given as data.

    Attributes:
        data: a folder, a manifest, a COCO file or a video; None where `images` and `masks` stand in its place.
        images: a folder of pictures.
        masks: the folder of their masks, or their COCO file; None where they have none.
        unlabelled: pictures without a mask are meant.
        negatives: a folder of pictures that show no polyp, in the data or beside it: their masks are empty.
        group_by: a regular expression on file names, or FILE.csv:COLUMN (groups.py); None keeps the groups that are known.
        every: between frames of videos, such as "0.5s" or "500ms"; None takes `EVERY_MS`.
        max_pixels: of one image; a larger one is refused.
    """

    data: Path | None = None
    images: Path | None = None
    masks: Path | None = None
    unlabelled: bool = False
    group_by: str | None = None
    every: str | None = None
    max_pixels: int = MAX_PIXELS
    negatives: Path | None = None

    def __post_init__(self) -> None:
        if self.images is None and self.masks is not None:
            raise SettingsError(f"--masks {self.masks} needs --images: the folder of their pictures")
        if (self.data is None) == (self.images is None):
            raise SettingsError("expected --data, or --images with --masks: one of them")

    @property
    def place(self) -> Path:
        """What messages call the source."""
        return self.data or self.images or Path()

    @property
    def every_ms(self) -> int:
        """Milliseconds between the frames that are taken of a video."""
        return EVERY_MS if self.every is None else parse_every(self.every)


def parse_every(text: str) -> int:
    """Return the milliseconds of "0.5s", "0.5", "500ms" or "2min".

    Raises:
        SettingsError: it is none of these, nothing, or no whole number of milliseconds.
    """
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*(ms|s|min|)", text.strip())
    span_ms = Fraction(match[1]) * _UNITS_MS[match[2]] if match else Fraction(0)
    if span_ms < 1 or span_ms.denominator != 1:
        raise SettingsError(
            f"--every {text}: expected seconds between frames, such as 0.5s, 500ms or 2min; at least 1ms"
        )
    return int(span_ms)
