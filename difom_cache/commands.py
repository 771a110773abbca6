"""Options of the commands that need no more than a few; a command with many keeps its own in the room that does the work."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from difom_cache.base.options import Access, CodecName, CommandConfig, Config, Count, Opt, Positive, SidePx, Size

Above0 = Annotated[float, Field(ge=1e-9, le=1e12)]


class CacheOptions(Config):
    """A cache that is there."""

    cache: Annotated[Path, Opt(argument=True)] = Path("feats")
    "Folder of the cache."


class InfoConfig(CommandConfig):
    """What caches hold."""

    caches: Annotated[tuple[Path, ...], Opt(argument=True)] = (Path("feats"),)
    "Folders of caches; several are shown side by side."


class FinishConfig(CommandConfig, CacheOptions):
    """What writers left."""


class DropConfig(Config):
    """One teacher less."""

    cache: Annotated[Path, Opt(argument=True)]
    "Folder of the cache."
    teacher: str
    "Label of the teacher, as shown by `difom-cache info`."


class ExportConfig(Config):
    """A cache as one file."""

    cache: Annotated[Path, Opt(argument=True)]
    "Folder of the cache."
    file: Annotated[Path, Opt(argument=True)]
    "HDF5 file to write."


class ImportConfig(Config):
    """A file as a cache."""

    file: Annotated[Path, Opt(argument=True)]
    "HDF5 file of an exported cache."
    cache: Annotated[Path, Opt(argument=True)]
    "Folder to fill."


class ListConfig(CommandConfig):
    """What there is."""


class TeachersConfig(ListConfig):
    """Teachers and variants."""

    everything: Annotated[bool, Opt(flag="--all")] = False
    "Also show taps, weights and the tiny variants for tests; wider than 80 columns."


class FetchConfig(Config):
    """Weights for machines without network."""

    name: Annotated[str, Opt(argument=True)]
    "NAME[:VARIANT] of a teacher."
    to: Path
    "Folder to put the weights into."
    revision: str = "main"
    "Branch, tag or commit of the hub model."


class ShowConfig(CacheOptions):
    """One view as a picture."""

    record: str | None = None
    "Record id; the first by default."
    view: Count = 0
    "View number."
    out: Path = Path("view.png")
    "PNG file to write."
    force: bool = False
    "Overwrite an existing file."


class SampleConfig(Config):
    """A painted benchmark."""

    out: Annotated[Path, Opt(argument=True)] = Path("data")
    "Folder to paint into."
    seed: Count = 0
    "Random seed of the paintings."
    train: Annotated[Positive, Field(le=1_000_000)] = 240
    "Number of training images."
    test: Annotated[Positive, Field(le=1_000_000)] = 20
    "Number of images in each of the five test sets."
    side: Annotated[SidePx, Field(ge=32)] = 256
    "Side of the square images in px."
    easy: bool = False
    "Make polyps stand out, with training images in the styles of all test sets."


class CopyConfig(Config):
    """A cache, or a part of it, once more."""

    source: Annotated[Path, Opt(argument=True)]
    "A complete cache."
    target: Annotated[Path, Opt(argument=True)]
    "Folder to fill."
    taps: tuple[str, ...] | None = None
    "Full names of the taps to copy; all by default."
    codec: CodecName | None = None
    "How features are stored; by default as in the original."
    compress: bool = False
    "zstd: smaller on disk, slower to read."
    pictures: bool = True
    "Whether to copy the stored images and masks."
    access: Access = "auto"
    "How the source is read; auto: map on local disks, read elsewhere."


class ScaleConfig(Config):
    """A pass on many workers."""

    frames: Positive
    "Number of frames to cache."
    rate: Above0
    "Views per second of one worker, as printed by `extract`."
    views: Positive = 8
    "Views of each frame."
    view_bytes: Above0 = 6e5
    "Bytes of a view in the cache, as printed by `extract`."
    frame_bytes: Above0 = 1e5
    "Bytes of an image file."
    workers: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 2, 4, 8, 16, 32, 64)
    "Numbers of workers to compare."
    start_s: Size = 30.0
    "Seconds until a worker is ready."
    read_mb_s: Above0 = 2000.0
    "Total read rate of the file system in MB/s."
    write_mb_s: Above0 = 1000.0
    "Total write rate of the file system in MB/s."
    price: Size = 0.0
    "Price of one worker hour."
