"""What lies directly in a folder: its pictures, videos and folders; and whether its pictures are masks."""

import os
import re
import sys
from pathlib import Path

import numpy as np

from difom_cache.base.errors import DataError
from difom_cache.data.addresses import VIDEO_SUFFIXES
from difom_cache.data.decoded import read_file
from difom_cache.data.images import MAX_PIXELS, PICTURE_SUFFIXES, head_of_bytes, picture_of_bytes

_HIDDEN = (".", "__")  # __MACOSX and the like
_PARTS = re.compile(r"\d+|\D+")


def list_folders(folder: Path) -> list[Path]:
    """Return the folders in `folder` that are not hidden, by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(_HIDDEN))


def list_pictures(folder: Path) -> list[Path]:
    """Return the picture files in `folder`, by name.

    Raises:
        DataError: a name is not UTF-8, so that no manifest can hold it.
    """
    return _list_files(folder, PICTURE_SUFFIXES)


def has_pictures(folder: Path) -> bool:
    """Return whether a picture file lies in `folder`: at once, where there are many."""
    with os.scandir(folder) as entries:
        return any(_is_file(each, PICTURE_SUFFIXES) for each in entries)


def list_videos(folder: Path) -> list[Path]:
    """Return the video files in `folder` and below it, by path.

    Raises:
        DataError: as `list_pictures`.
    """
    below = [video for child in list_folders(folder) for video in list_videos(child)]
    return [*_list_files(folder, VIDEO_SUFFIXES), *below]


def pictures_by_stem(folder: Path) -> dict[str, Path]:
    """Return the picture files in `folder` by their names without suffix.

    Raises:
        DataError: two have one name.
    """
    found: dict[str, Path] = {}
    for path in list_pictures(folder):
        if path.stem in found:
            raise DataError(f"{path}: the name {path.stem!r} also belongs to {found[path.stem].name}; keep one of them")
        found[path.stem] = path
    return found


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts 2 before 10."""
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in _PARTS.findall(name))


def _list_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(each.name for each in entries if _is_file(each, suffixes))
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            held = os.fsencode(name)
            shown = held.decode(errors="backslashreplace")
            if held == shown.encode():
                raise DataError(
                    f"{folder}: Python reads names as {sys.getfilesystemencoding()} here, and {shown} is UTF-8; set "
                    "PYTHONUTF8=1, or LC_ALL=C.UTF-8"
                ) from None
            raise DataError(f"{folder}: the name {shown} is not UTF-8; rename the file") from None
    return [folder / name for name in names]


def _is_file(entry: os.DirEntry[str], suffixes: tuple[str, ...]) -> bool:
    """Return whether an entry is a file, or a link to one, whose name ends so and is not hidden."""
    if entry.name.startswith(".") or not entry.name.lower().endswith(suffixes):
        return False
    return Path(entry).is_file() if entry.is_symlink() else entry.is_file()


_LOOKED_AT = 8  # files of a folder
_FEW_COLOURS = 8  # in a map of classes
_EDGE_LEVELS = 16  # a lossy mask stays so near to black and white...
_EDGE_SHARE = 0.98  # ... in this share of its pixels; not tuned


def holds_masks(folder: Path) -> bool:
    """Return whether every picture that is looked at is a map of a few classes, and some show more than one.

    Raises:
        ImageError: a picture cannot be read.
    """
    pictures = list_pictures(folder)
    places = np.linspace(0, len(pictures) - 1, min(_LOOKED_AT, len(pictures))).round().astype(int)
    kinds = [_count_classes(pictures[place]) for place in np.unique(places).tolist()]
    return bool(kinds) and all(kinds) and max(kinds) > 1


def _count_classes(path: Path) -> int:
    """Return how many classes a picture is a map of; 0 where it is none."""
    data = read_file(path)
    head = head_of_bytes(data, path)
    if head.width * head.height > MAX_PIXELS:
        return 0  # whether it is read at all is decided later
    picture = picture_of_bytes(data, path)
    if picture.top and not picture.bits:  # of 10 bits it would be nearly black, and have few colours
        picture = picture_of_bytes(data, path, bits=max(8, picture.top.bit_length()))
    pixels = picture.rgb.reshape(-1, 3)
    colours = np.unique(pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32))
    if len(colours) <= _FEW_COLOURS:
        return len(colours)
    spread = pixels.max(1).astype(int) - pixels.min(1)
    grey = pixels[:, 0]
    edges = (grey <= _EDGE_LEVELS) | (grey >= 255 - _EDGE_LEVELS)
    lossy = spread.max() <= _EDGE_LEVELS and edges.mean() >= _EDGE_SHARE
    return 2 if lossy and (grey >= 255 - _EDGE_LEVELS).any() else 0
