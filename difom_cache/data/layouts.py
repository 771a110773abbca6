"""Which folders hold pictures, which hold their masks, and what their names say about data set and split."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from difom_cache.data.benchmark import find_set
from difom_cache.data.images import PICTURE_SUFFIXES
from difom_cache.errors import DataError

_IMAGE_WORDS = ("images", "image", "imgs", "img", "original", "frames")
_MASK_WORDS = ("masks", "mask", "ground_truth", "groundtruth", "gt")
_FORMAT_WORDS = ("png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp")  # ClinicDB comes as PNG/Original and TIF/Original
_PUBLISHED_SPLITS = {"traindataset": "train", "traindb": "train", "testdataset": "test", "testdb": "test"}
_SPLITS = {
    **_PUBLISHED_SPLITS,
    "train": "train",
    "training": "train",
    "val": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_MASK_ENDINGS = ("_mask", "-mask", "_gt", "_segmentation")
_LISTED = 100  # names in one message; more would bury it


@dataclass(frozen=True)
class PictureFolder:
    """A folder of pictures and the folder of their masks.

    `dataset` is a benchmark set's own name or the folder's; `split` is None where no folder name tells it; `mixed` says
    that a training folder may hold pictures of several benchmark sets.
    """

    images: Path
    masks: Path | None
    dataset: str
    split: str | None
    mixed: bool


@dataclass(frozen=True)
class Pair:
    """A picture and its mask, None where it has none."""

    stem: str
    image: Path
    mask: Path | None


def find_folders(root: Path) -> list[PictureFolder]:
    """Return every folder of pictures in `root`, or `root` itself, with the folder of its masks.

    Knows PraNet's layout, the paper's TrainDB/TestDB, images/ beside masks/, ClinicDB's Original/ beside
    "Ground Truth"/, and ETIS's pictures beside (or around) "Ground Truth"/; each at any depth.

    Raises:
        DataError: there is no such folder, no picture in it, or a folder of masks has no folder of pictures.
    """
    root = root.resolve()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected pictures and masks, such as `difom-cache sample` paints")
    if _kind(root.name)[0] == "mask" and _pictures(root):
        raise DataError(f"{root}: this folder holds masks; pass the folder above it, so that their pictures are found")
    if _kind(root.name)[0] == "image" and _pictures(root):
        pairs = [pair for pair in _pair_folders(root.parent) if pair[0] == root] or [(root, None)]
    else:
        pairs = _walk(root, beside_pair=False)
    if not any(_pictures(images) or (masks and _pictures(masks)) for images, masks in pairs):
        raise DataError(
            f"{root}: no pictures found; expected TrainDataset/ and TestDataset/, images/ beside masks/, or Original/ "
            f'beside "Ground Truth"/, with {", ".join(PICTURE_SUFFIXES)} files'
        )
    return [_describe(images, masks, root) for images, masks in pairs]


def pair_files(folders: Iterable[PictureFolder], *, unlabelled: bool) -> list[list[Pair]]:
    """Return the pictures of each folder with their masks, paired by stem, in natural order.

    A mask may carry an ending ("_mask") or, as in ETIS, stand as p12 for picture 12.

    Raises:
        DataError: masks without a picture; pictures without a mask although `unlabelled` is False; one stem twice.
            The message lists every such file (up to 100).
    """
    pairs: list[list[Pair]] = []
    alone: list[Path] = []
    bare: list[Path] = []
    for folder in folders:
        pictures = _by_stem(folder.images)
        masks = {} if folder.masks is None else _by_stem(folder.masks)
        mask_of: dict[str, Path] = {}
        for stem, mask in masks.items():
            partner = next((name for name in _picture_stems(stem) if name in pictures), None)
            if partner is None:
                alone.append(mask)
            elif partner in mask_of:
                raise DataError(f"{mask}: picture {partner!r} has another mask, {mask_of[partner].name}; keep one")
            else:
                mask_of[partner] = mask
        pairs.append([Pair(stem, pictures[stem], mask_of.get(stem)) for stem in sorted(pictures, key=natural_key)])
        bare.extend(pair.image for pair in pairs[-1] if pair.mask is None)
    if alone:
        raise DataError(f"{_count(alone, 'mask')} without a picture: {_names(alone)}; add the pictures or remove these")
    if bare and not unlabelled:
        raise DataError(
            f"{_count(bare, 'picture')} without a mask: {_names(bare)}; add the masks, or pass --unlabelled if meant"
        )
    return pairs


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts 2 before 10."""
    parts: list[str] = []
    for letter in name:
        if parts and parts[-1][-1].isdecimal() == letter.isdecimal():
            parts[-1] += letter
        else:
            parts.append(letter)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def _walk(folder: Path, *, beside_pair: bool) -> list[tuple[Path, Path | None]]:
    """Return the picture folders below `folder`, each with its masks.

    Loose pictures count where nothing better is found: beside images/ and masks/ lie edge maps and drawn boxes.
    """
    pairs = _pair_folders(folder)
    taken = {path for pair in pairs for path in pair}
    found = list(pairs)
    for child in _children(folder):
        if child not in taken:
            found += _walk(child, beside_pair=bool(pairs) or beside_pair)
    if not found and _pictures(folder) and not beside_pair:
        found.append((folder, None))
    return found


def _pair_folders(folder: Path) -> list[tuple[Path, Path | None]]:
    """Return the (pictures, masks) that lie directly in `folder`."""
    images = _by_kind(folder, "image")
    masks = _by_kind(folder, "mask")
    if len(images) == len(masks) == 1:
        return [(*images.values(), *masks.values())]  # type: ignore[list-item]
    pairs: list[tuple[Path, Path | None]] = [(path, masks.pop(ending, None)) for ending, path in images.items()]
    for path in masks.values():
        loose = [child for child in _children(folder) if _kind(child.name)[0] is None and _pictures(child)]
        if len(loose) == 1 and not pairs:
            pairs.append((loose[0], path))
        elif _pictures(folder) and not pairs:
            pairs.append((folder, path))
        elif _pictures(path):
            raise DataError(f"{path}: masks without a picture; expected a folder images/ beside it, found none")
    return pairs


def _describe(images: Path, masks: Path | None, root: Path) -> PictureFolder:
    """Return the folder with what its name and those above it tell; names above `root` only where unmistakable."""
    home = images if masks is None and _kind(images.name)[0] is None else images.parent
    if masks is not None and masks.parent == images:
        home = images
    chain = [home, *home.parents]
    inside = [path.name for path in chain if path == home or path.is_relative_to(root)]
    outside = [path.name for path in chain[len(inside) : len(inside) + 2]]
    splits = [_SPLITS.get(name.lower()) for name in inside] + [_PUBLISHED_SPLITS.get(name.lower()) for name in outside]
    split = next((found for found in splits if found), None)
    if home.name.lower() in _FORMAT_WORDS:
        inside = [*inside[1:], *outside[:1]]
    dataset = next((found for found in map(find_set, inside) if found), None)
    mixed = dataset is None and split == "train" and home.name.lower() in _SPLITS
    return PictureFolder(images, masks, dataset or inside[0], split, mixed)


def _kind(name: str) -> tuple[str | None, str]:
    """Return ("image" or "mask" or None, what follows that word), so that images_C1 finds masks_C1."""
    plain = name.lower().replace(" ", "_").replace("-", "_")
    for kind, words in (("image", _IMAGE_WORDS), ("mask", _MASK_WORDS)):
        for word in words:
            if plain == word or plain.startswith(f"{word}_"):
                return kind, plain[len(word) :]
    return None, ""


def _by_kind(folder: Path, kind: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for child in _children(folder):
        child_kind, ending = _kind(child.name)
        if child_kind != kind:
            continue
        if ending in found:
            raise DataError(f"{folder}: expected one folder of {kind}s, found {found[ending].name}/ and {child.name}/")
        found[ending] = child
    return found


def _children(folder: Path) -> list[Path]:
    hidden = (".", "__")  # __MACOSX and the like
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(hidden))


def _pictures(folder: Path) -> list[Path]:
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    for path in found:
        try:
            path.name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(path.name).decode(errors="backslashreplace")
            raise DataError(f"{folder}: the name {shown} is not UTF-8; rename the file") from None
    return found


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _pictures(folder):
        if path.stem in found:
            raise DataError(f"{path}: the name {path.stem!r} also belongs to {found[path.stem].name}; keep one of them")
        found[path.stem] = path
    return found


def _picture_stems(mask_stem: str) -> list[str]:
    stems = [mask_stem, *(mask_stem.removesuffix(end) for end in _MASK_ENDINGS if mask_stem.endswith(end))]
    return [*stems, mask_stem[1:]] if mask_stem[:1] == "p" and mask_stem[1:].isdecimal() else stems


def _count(paths: list[Path], noun: str) -> str:
    return f"{len(paths)} {noun}{'' if len(paths) == 1 else 's'}"


def _names(paths: list[Path]) -> str:
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return ", ".join(str(path) for path in paths[:_LISTED]) + more
