"""Lists that lie beside pictures and name the split of each: train.txt, val.txt and test.txt, a name a line, as of Kvasir-SEG."""

import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from difom_cache.base.errors import DataError, DifomWarning
from difom_cache.base.files import explain, read_plain
from difom_cache.base.text import name_some
from difom_cache.data.images import PICTURE_SUFFIXES

_NAMES = {"train.txt": "train", "val.txt": "val", "valid.txt": "val", "validation.txt": "val", "test.txt": "test"}
_PLACES = (".", "splits", "ImageSets/Segmentation")  # below the folder that pictures and masks lie in
_LARGEST_BYTES = 1 << 26


@dataclass(frozen=True)
class SplitLists:
    """Lists of one data set.

    Attributes:
        files: of the lists.
        split_of: from each name that they hold, without folder and suffix, to its split.
    """

    files: tuple[Path, ...]
    split_of: Mapping[str, str]

    def choose(self, stems: Sequence[str]) -> dict[str, str] | None:
        """Return the split of each picture; None, with a warning, where the lists name none of them.

        Raises:
            DataError: some pictures stand in no list.
        """
        found = {stem: self.split_of.get(_plain(stem)) for stem in stems}
        lists = ", ".join(file.name for file in self.files)
        known = {stem: split for stem, split in found.items() if split is not None}
        if not known:
            self.ignore(f"no name in them is one of the {len(stems)} images")
            return None
        if len(known) < len(stems):
            lost = [stem for stem, split in found.items() if split is None]
            raise DataError(
                f"{self.files[0].parent}: {len(lost)} of {len(stems)} images stand in none of {lists}: {name_some(lost)}; add "
                "them to a list, or move the lists away"
            )
        absent = self.split_of.keys() - {_plain(stem) for stem in stems}
        if absent:
            _warn(f"{self.files[0].parent}: {len(absent)} names of {lists} have no image: {name_some(sorted(absent))}")
        return known

    def ignore(self, why: str) -> None:
        """Warn that the lists are not read."""
        _warn(f"{self.files[0].parent}: {', '.join(file.name for file in self.files)} not read: {why}")


def find_lists(home: Path) -> SplitLists | None:
    """Return the lists in a folder, or in one of its folders for such; None where there are none.

    Raises:
        DataError: a list cannot be read, or a name stands in two of them.
    """
    files = next(filter(None, (_list_files(home / place) for place in _PLACES)), ())
    split_of: dict[str, str] = {}
    for file in files:
        for stem in _read_names(file):
            split = _NAMES[file.name.lower()]
            if split_of.setdefault(stem, split) != split:
                raise DataError(f"{file}: {stem} stands in the list of {split_of[stem]} too; keep one")
    return SplitLists(files, split_of) if split_of else None


def _list_files(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    found = [path for path in folder.iterdir() if path.name.lower() in _NAMES and path.is_file()]
    return tuple(sorted(found, key=lambda path: list(_NAMES).index(path.name.lower())))


def _read_names(file: Path) -> list[str]:
    """Return the names in a list; of lines that name picture and mask the picture's."""
    try:
        lines = read_plain(file, most_bytes=_LARGEST_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = explain(error) if isinstance(error, OSError) else "it is no text"
        raise DataError(f"{file}: expected a list of names, but {why}; move it away if it is none") from error
    return [_plain(line) for line in lines if line.strip()]


def _plain(line: str) -> str:
    """Return a picture's name without folder and suffix."""
    line = re.split(r"[,;\t]", line.strip())[0].strip()
    first = line.split(" ")[0]
    name = first if first.lower().endswith(PICTURE_SUFFIXES) else line
    name = PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/")).name
    while name.lower().endswith(PICTURE_SUFFIXES):
        name = name.rpartition(".")[0]
    return name


def _warn(text: str) -> None:
    warnings.warn(text, DifomWarning, stacklevel=3)
