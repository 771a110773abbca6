"""Where a command's records come from, what its user has said about them, and the options that say so."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from difom_cache.base.errors import SettingsError
from difom_cache.base.options import CommandConfig, Config, Opt, Positive
from difom_cache.data.images import MAX_PIXELS, Drawn

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


DEFAULT_DATA = Path("data")


class PixelOptions(Config):
    """What is said of image files of unknown origin."""

    max_pixels: Positive = MAX_PIXELS
    "Largest image to read, width times height in px."


class FolderOptions(PixelOptions):
    """What is said of pictures, or in place of their layout; every command that reads records takes these beside its data."""

    images: Path | None = None
    "Folder of images, instead of --data."
    masks: Path | None = None
    "Folder of their masks, or a COCO file; used with --images."
    every: str | None = None
    "Interval between frames taken from a video, such as 0.5s (the default) or 500ms."

    def describe_source(self, data: Path | None) -> DataSource:
        """Return where records come from, `data` or --images, and all that was said of them.

        Raises:
            SettingsError: both, or neither.
        """
        if self.images is not None and data is not None:
            raise SettingsError(f"--data {data} and --images {self.images}: give one of them")
        own = [each.name for each in fields(DataSource) if each.name in type(self).model_fields and each.name != "data"]
        return DataSource(data, **{name: getattr(self, name) for name in own})


class GroupOptions(FolderOptions):
    """The same, where it matters what belongs together."""

    group_by: str | None = None
    "How to group frames of one polyp or patient: a regular expression on file names, or FILE.csv:COLUMN."


class UnlabelledOptions(GroupOptions):
    """What is said of pictures, of which some may have no mask."""

    unlabelled: bool = False
    "Accept images without a mask."
    negatives: Path | None = None
    "Folder of images without a polyp, inside the data or elsewhere; each gets an empty mask and counts as labelled."


class DataOptions(UnlabelledOptions):
    """Where records come from."""

    data: Annotated[Path | None, Opt(default=str(DEFAULT_DATA))] = None
    "Manifest, folder in a known layout or any folder inside it, COCO file, video or folder of videos."

    def find_source(self) -> DataSource:
        """Return what was given as data.

        Raises:
            SettingsError: both --data and --images.
        """
        data = DEFAULT_DATA if self.data is None and self.images is None else self.data
        return self.describe_source(data)


class ManifestConfig(CommandConfig, UnlabelledOptions):
    """Data sets as records."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Data": (
            "images",
            "masks",
            "group_by",
            "every",
            "unlabelled",
            "negatives",
            "mask_levels",
            "exif",
            "bits",
            "skip_broken",
        )
    }

    data: Annotated[tuple[Path, ...], Opt(argument=True)] = ()
    "Folders in known layouts, manifests, COCO files or videos."
    mask_levels: str | None = None
    "Mask levels that mean polyp, such as 100; 1,2; 129-255; #ff0000; or alpha."
    exif: Drawn | None = None
    "For images that EXIF rotates: whether masks were drawn on the image as viewers show it, or on its stored pixels."
    bits: Annotated[int, Field(ge=8, le=16)] | None = None
    "Bit depth of 16-bit images whose files do not state it, such as 10 or 12; 16 = take the values as they are."
    skip_broken: bool = False
    "Skip images whose COCO annotations cannot be drawn, such as boxes, and list them."
    out: Path | None = None
    "CSV file to write."
    check: bool = False
    "Look for duplicates, leaks, empty masks and odd sizes; exit with 1 if there are leaks."
    allow_leaks: Annotated[bool, Opt(keyword=False)] = False
    "Do not exit with 1 if --check finds leaks."
    montage: Path | None = None
    "PNG file that shows the pairs found by --check."
    sheet: Path | None = None
    "PNG file of image and mask pairs to look at: smallest, largest, oddest and empty masks, and a random sample."
    names: Path | None = None
    "Folder for a CSV of names, splits and groups of each data set."
    force: bool = False
    "Overwrite existing files at --out, --montage and --sheet."

    def find_sources(self) -> list[DataSource]:
        """Return what was given as data, set by set; one more for --images.

        Raises:
            SettingsError: neither data nor --images.
        """
        if self.images is not None or self.masks is not None or not self.data:
            return [self.describe_source(next(iter(self.data), None))]
        sources = [replace(self.describe_source(each), negatives=None) for each in self.data]
        if self.negatives is not None:
            within = [self.negatives.resolve().is_relative_to(each.resolve()) for each in self.data]
            place = within.index(True) if any(within) else 0
            sources[place] = replace(sources[place], negatives=self.negatives)
        return sources
