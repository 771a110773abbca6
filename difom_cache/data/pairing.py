"""Pictures find their masks, by their names or in a COCO file, and their splits where lists beside them name these."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from difom_cache.base.errors import DataError, warn
from difom_cache.base.files import explain, read_plain
from difom_cache.base.text import name_some
from difom_cache.data.addresses import polygons_path
from difom_cache.data.coco import locate, read_coco, spellings
from difom_cache.data.images import PICTURE_SUFFIXES
from difom_cache.data.listing import natural_key, pictures_by_stem

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
            warn(f"{self.files[0].parent}: {len(absent)} names of {lists} have no image: {name_some(sorted(absent))}")
        return known

    def ignore(self, why: str) -> None:
        """Warn that the lists are not read."""
        warn(f"{self.files[0].parent}: {', '.join(file.name for file in self.files)} not read: {why}")


def find_lists(home: Path) -> SplitLists | None:
    """Return the lists in a folder, or in one of its folders for such; None where there are none.

    Raises:
        DataError: a list cannot be read, or a name stands in two of them.
    """
    homes = [home / place for place in _PLACES if (home / place).is_dir()]
    held = ([path for path in each.iterdir() if path.name.lower() in _NAMES and path.is_file()] for each in homes)
    files = sorted(next(filter(None, held), []), key=lambda path: list(_NAMES).index(path.name.lower()))
    split_of: dict[str, str] = {}
    for file in files:
        try:
            lines = read_plain(file, most_bytes=_LARGEST_BYTES).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = explain(error) if isinstance(error, OSError) else "it is no text"
            raise DataError(f"{file}: expected a list of names, but {why}; move it away if it is none") from error
        split = _NAMES[file.name.lower()]
        for stem in [_plain(line) for line in lines if line.strip()]:
            if split_of.setdefault(stem, split) != split:
                raise DataError(f"{file}: {stem} stands in the list of {split_of[stem]} too; keep one")
    return SplitLists(tuple(files), split_of) if split_of else None


def _plain(line: str) -> str:
    """Return a picture's name without folder and suffix; of a line that names picture and mask the picture's."""
    line = re.split(r"[,;\t]", line.strip())[0].strip()
    first = line.split(" ")[0]
    name = first if first.lower().endswith(PICTURE_SUFFIXES) else line
    name = PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/")).name
    while name.lower().endswith(PICTURE_SUFFIXES):
        name = name.rpartition(".")[0]
    return name


LAYOUTS = (
    "TrainDataset/ and TestDataset/; images/ (or img/, Frame/) beside masks/, annotations/, labels/ or GT/; train/, val/ and "
    'test/ with these inside; train/ beside train_gt/; imagesTr/ and labelsTr/; Original/ beside "Ground Truth"/; a COCO file '
    "beside its pictures; a manifest; videos; or --images DIR --masks DIR"
)
_MASK_ENDINGS = ("_mask", "-mask", "_gt", "_segmentation", "_label", "_annotation")
_MASK_BEGINNINGS = ("mask_", "mask-", "gt_", "segmentation_", "label_")
_CHANNEL = re.compile(r"(.+)_([0-9]{4})")  # of nnU-Net
_LISTED = 100  # names in one message; more would bury it


@dataclass(frozen=True)
class PictureFolder:
    """A folder of pictures and what holds their masks.

    Attributes:
        images: the folder.
        masks: the folder of their masks, which may be `images` itself, or a COCO file; None where there are none.
        dataset: a benchmark set's own name, or the folder's.
        split: None where no folder name tells it.
        mixed: whether a training folder may hold pictures of several benchmark sets.
        part: where the pictures lie in their data set, such as "train", where names may be there twice; else "".
        own_val: whether the data set has a validation folder, so that no training record validates.
        channels: whether names end in nnU-Net's channel.
        bare: whether pictures have no masks by design.
        negative: whether somebody has said that none of the pictures shows a polyp.
        group: the video or sequence that the folder's name says its pictures are of; "" where it says nothing.
        lists: the publisher's lists beside the pictures, which name the split of each; None where there are none.
    """

    images: Path
    masks: Path | None
    dataset: str = ""
    split: str | None = None
    mixed: bool = False
    part: str = ""
    own_val: bool = False
    channels: bool = False
    bare: bool = False
    negative: bool = False
    group: str = ""
    lists: SplitLists | None = None


@dataclass(frozen=True)
class Pair:
    """A picture and its mask, None where it has none."""

    stem: str
    image: Path
    mask: Path | None


def pair_files(folders: Iterable[PictureFolder], *, unlabelled: bool) -> list[list[Pair]]:
    """Return the pictures of each folder with their masks, paired by stem, in natural order.

    A mask may carry a word for masks ("x_mask", "mask_x"), the picture's whole name ("x.jpg.png") or, as in ETIS, stand as p12
    for picture 12.

    Args:
        folders: of pictures.
        unlabelled: pictures without a mask are meant.

    Raises:
        DataError: masks without a picture; pictures without a mask although `unlabelled` is False; one stem twice.
            The message lists every such file (up to 100).
    """
    pairs: list[list[Pair]] = []
    alone: list[Path] = []
    bare: list[Path] = []
    for folder in folders:
        if folder.masks is not None and folder.masks.is_file():
            pairs.append(_pair_coco(folder.images, folder.masks))
            continue
        found, lost = _pair_stems(folder)
        pairs.append(found)
        alone += lost
        if folder.masks is None and found and not folder.bare and not unlabelled:
            raise DataError(
                f"{folder.images}: no masks found for its {_count([pair.image for pair in found], 'picture')}; expected "
                f"{LAYOUTS}; or pass --unlabelled if they have none, or --negatives DIR if they show no polyp"
            )
        bare += [pair.image for pair in found if pair.mask is None and not folder.bare]
    if alone:
        looked = ", ".join(_picture_stems(alone[0].stem))
        raise DataError(
            f"{_count(alone, 'mask')} without a picture: {_names(alone)}; add the pictures or remove these (looked for a picture "
            f"called {looked})"
        )
    if bare and not unlabelled:
        raise DataError(
            f"{_count(bare, 'picture')} without a mask: {_names(bare)}; add the masks, or pass --unlabelled if meant"
        )
    return pairs


def find_mask_endings(folder: Path) -> bool:
    """Return whether a folder holds pictures and their masks side by side, told by endings such as a_mask.png."""
    stems = pictures_by_stem(folder).keys()
    there = {_nfc(stem): stem for stem in stems}
    return any(_find_stem(_plainer_stems(stem)[1:], there, but=stem) for stem in stems)


def _pictures_by_case(folder: Path) -> dict[str, Path]:
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


def _pair_stems(folder: PictureFolder) -> tuple[list[Pair], list[Path]]:
    """Return the pairs of one folder, and the masks that have no picture."""
    pictures = _pictures_by_case(folder.images) if folder.channels else pictures_by_stem(folder.images)
    masks = {} if folder.masks is None else pictures_by_stem(folder.masks)
    if folder.masks == folder.images:
        there = {_nfc(stem): stem for stem in pictures}
        masks = {s: path for s, path in pictures.items() if _find_stem(_plainer_stems(s)[1:], there, but=s)}
        pictures = {stem: path for stem, path in pictures.items() if stem not in masks}
    there = {_nfc(stem): stem for stem in pictures} | {stem: stem for stem in pictures}
    mask_of: dict[str, Path] = {}
    alone = []
    for stem, mask in masks.items():
        partner = stem if stem in pictures else _find_stem(_picture_stems(stem), there)
        if partner is None:
            alone.append(mask)
        elif partner in mask_of:
            raise DataError(f"{mask}: picture {partner!r} has another mask, {mask_of[partner].name}; keep one")
        else:
            mask_of[partner] = mask
    return [Pair(stem, pictures[stem], mask_of.get(stem)) for stem in sorted(pictures, key=natural_key)], alone


def _pair_coco(images: Path, file: Path) -> list[Pair]:
    """Return every picture that a COCO file lists; one on which nothing is drawn has an empty mask."""
    pictures = read_coco(file).pictures.values()
    found = {picture.image_id: locate(images, picture.file_name) for picture in pictures}
    missing = [images / picture.file_name for picture in pictures if found[picture.image_id] is None]
    if missing:
        looked = " and ".join(spellings(next(each.file_name for each in pictures if found[each.image_id] is None)))
        raise DataError(
            f"{file}: {_count(missing, 'picture')} of {len(pictures)} not there: {_names(missing)} (looked for {looked})"
        )
    named: dict[Path, str] = {}
    for picture in pictures:
        path = found[picture.image_id] or images
        if path in named:
            raise DataError(
                f"{file}: {named[path]} and {picture.file_name} both lead to {path}; rename one of the two files"
            )
        named[path] = picture.file_name
    pairs = [
        Pair(path.relative_to(images).with_suffix("").as_posix(), path, polygons_path(file, picture.image_id))
        for path, picture in zip(named, pictures, strict=True)
    ]
    return sorted(pairs, key=lambda pair: natural_key(pair.stem))


def _picture_stems(mask_stem: str) -> list[str]:
    """Return what the picture of a mask may be called, the likeliest first."""
    stems = _plainer_stems(mask_stem)
    return [*stems, mask_stem[1:]] if mask_stem[:1] == "p" and mask_stem[1:].isdecimal() else stems


def _plainer_stems(stem: str) -> list[str]:
    """Return a name, then what is left of it without a picture's suffix (x.jpg.png) and a word for masks (x_mask, mask_x)."""
    found = [stem]
    for each in found:
        plain = each.lower()
        left = [each[: -len(end)] for end in (*PICTURE_SUFFIXES, *_MASK_ENDINGS) if plain.endswith(end)]
        left += [each[len(start) :] for start in _MASK_BEGINNINGS if plain.startswith(start)]
        found += [new for new in left if new and new not in found]
    return found


def _find_stem(names: Sequence[str], there: Mapping[str, str], *, but: str = "") -> str | None:
    """Return the first of some names that is there (by its NFC form: disks and archives differ in how they spell accents)."""
    return next((there[key] for name in names if (key := _nfc(name)) in there and there[key] != but), None)


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _count(paths: list[Path], noun: str) -> str:
    return f"{len(paths)} {noun}{'' if len(paths) == 1 else 's'}"


def _names(paths: list[Path]) -> str:
    return name_some([str(path) for path in paths], _LISTED)
