"""nnU-Net's raw data: imagesTr beside labelsTr, imagesTs, file names that end in a channel, and dataset.json."""

import re
from pathlib import Path

from difom_cache.base.errors import DataError
from difom_cache.base.files import read_object
from difom_cache.data.images import PICTURE_SUFFIXES
from difom_cache.data.listing import list_folders, pictures_by_stem

SPLITS = {"tr": "train", "va": "val", "ts": "test"}  # Va is AMOS', which follows the others
_FOLDER = re.compile(r"(images|labels)(tr|va|ts)", re.IGNORECASE)
_CHANNEL = re.compile(r"(.+)_([0-9]{4})")


def find_nnunet(folder: Path) -> list[tuple[Path, Path | None, str]]:
    """Return (pictures, masks, split) of each imagesTr, imagesVa and imagesTs in `folder`; nothing where it holds none.

    Raises:
        DataError: dataset.json speaks of volumes, or labels have no pictures.
    """
    named = {match[0].lower(): child for child in list_folders(folder) if (match := _FOLDER.fullmatch(child.name))}
    found = [
        (named[f"images{end}"], named.get(f"labels{end}"), split)
        for end, split in SPLITS.items()
        if f"images{end}" in named
    ]
    alone = [child for name, child in named.items() if name.startswith("labels") and f"images{name[6:]}" not in named]
    if found and alone:
        raise DataError(f"{alone[0]}: masks without a picture; expected a folder images{alone[0].name[6:]}/ beside it")
    if found:
        _refuse_volumes(folder / "dataset.json")
    return found


def is_nnunet(folder: Path) -> bool:
    """Return whether a folder is named as one of nnU-Net's six."""
    return _FOLDER.fullmatch(folder.name) is not None


def pictures_by_case(folder: Path) -> dict[str, Path]:
    """Return nnU-Net's pictures by the name of their case: without _0000, where all names end in a channel.

    Raises:
        DataError: a case has several channels in files of their own.
    """
    found = pictures_by_stem(folder)
    parts = {stem: _CHANNEL.fullmatch(stem) for stem in found}
    if not all(parts.values()):
        return found
    cases: dict[str, Path] = {}
    for stem, part in parts.items():
        case = part[1] if part else stem
        if case in cases:
            raise DataError(
                f"{found[stem]}: case {case!r} also has {cases[case].name}; join the channels into one file"
            )
        cases[case] = found[stem]
    return cases


def _refuse_volumes(path: Path) -> None:
    if not path.exists():
        return
    about = read_object(path, DataError, "remove it, or restore it from the data set's source")
    ending = about.get("file_ending", PICTURE_SUFFIXES[0])
    if str(ending).lower() not in PICTURE_SUFFIXES:
        raise DataError(
            f"{path}: file_ending is {ending!r}; expected pictures ({', '.join(PICTURE_SUFFIXES)}): export its slices as such"
        )
