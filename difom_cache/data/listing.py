"""What lies directly in a folder: its pictures, its videos, its folders."""

import os
import re
import sys
from pathlib import Path

from difom_cache.base.errors import DataError
from difom_cache.data.images import PICTURE_SUFFIXES
from difom_cache.data.video import VIDEO_SUFFIXES

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
