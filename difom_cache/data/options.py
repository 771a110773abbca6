"""The options that say where records come from, for every command that reads them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from difom_cache.base.errors import SettingsError
from difom_cache.base.options import CommandConfig, Config, Opt, Positive
from difom_cache.data.images import MAX_PIXELS, Drawn
from difom_cache.data.source import DataSource

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
    "Time between the frames taken from a video, such as 0.5s (the default) or 500ms."

    def describe_source(self, data: Path | None, *, unlabelled: bool = False) -> DataSource:
        """Return where records come from: `data`, or --images.

        Raises:
            SettingsError: both, or neither.
        """
        if self.images is not None and data is not None:
            raise SettingsError(f"--data {data} and --images {self.images}: give one of them")
        return DataSource(data, self.images, self.masks, unlabelled, every=self.every, max_pixels=self.max_pixels)


class GroupOptions(FolderOptions):
    """The same, where it matters what belongs together."""

    group_by: str | None = None
    "What belongs together: a regular expression on file names, or FILE.csv:COLUMN."

    def describe_source(self, data: Path | None, *, unlabelled: bool = False) -> DataSource:
        """Return where records come from, and how they are grouped; see `FolderOptions`."""
        return replace(super().describe_source(data, unlabelled=unlabelled), group_by=self.group_by)


class UnlabelledOptions(GroupOptions):
    """What is said of pictures, of which some may have no mask."""

    unlabelled: bool = False
    "Images without a mask are intended."
    negatives: Path | None = None
    "Folder of images without a polyp, in the data or beside it: each has an empty mask, and counts as labelled."

    def describe_source(self, data: Path | None, *, unlabelled: bool = False) -> DataSource:
        """Return where records come from, and which of them show no polyp; see `GroupOptions`."""
        return replace(super().describe_source(data, unlabelled=unlabelled), negatives=self.negatives)


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
        return self.describe_source(data, unlabelled=self.unlabelled)


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
        ),
    }

    data: Annotated[tuple[Path, ...], Opt(argument=True)] = ()
    "Folders in known layouts, manifests, COCO files or videos."
    mask_levels: str | None = None
    "Which levels of the masks are polyp: 100, 1,2, 129-255, #ff0000 or alpha."
    exif: Drawn | None = None
    "What masks were drawn on whose images EXIF turns: the image as viewers show it, or its pixels as they are stored."
    bits: Annotated[int, Field(ge=8, le=16)] | None = None
    "Bit depth of 16-bit images whose files do not say it, such as 10 or 12; 16 takes them as they are."
    skip_broken: bool = False
    "Leave out images whose COCO annotations cannot be drawn, such as boxes; each is named."
    out: Path | None = None
    "CSV file to write."
    check: bool = False
    "Look for duplicates, leaks, empty masks, odd sizes; leaks exit with 1."
    allow_leaks: Annotated[bool, Opt(keyword=False)] = False
    "Do not exit with 1 for leaks that --check finds."
    montage: Path | None = None
    "PNG file that shows the pairs found by --check."
    sheet: Path | None = None
    "PNG file of pairs to look at: the smallest, largest, oddest and empty masks, and some at random."
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
            return [self.describe_source(next(iter(self.data), None), unlabelled=self.unlabelled)]
        said = GroupOptions(group_by=self.group_by, every=self.every, max_pixels=self.max_pixels)
        sources = [said.describe_source(each, unlabelled=self.unlabelled) for each in self.data]
        if self.negatives is not None:
            within = [self.negatives.resolve().is_relative_to(each.resolve()) for each in self.data]
            place = within.index(True) if any(within) else 0
            sources[place] = replace(sources[place], negatives=self.negatives)
        return sources
