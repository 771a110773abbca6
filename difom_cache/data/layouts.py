"""Which folders hold pictures, which hold their masks, and what their names say about data set and split."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from difom_cache.data.benchmark import find_set
from difom_cache.data.coco import find_pictures, find_split_word, is_coco, read_coco
from difom_cache.data.images import PICTURE_SUFFIXES
from difom_cache.data.listing import has_pictures, list_folders
from difom_cache.data.mask_folders import holds_masks
from difom_cache.data.nnunet import find_nnunet, is_nnunet
from difom_cache.data.pairing import LAYOUTS, PictureFolder, find_mask_endings
from difom_cache.errors import DataError

_WORDS = {
    "image": ("images", "image", "imgs", "img", "original", "frames"),
    "mask": ("masks", "mask", "ground_truth", "groundtruth", "gt"),
    "label": (
        "annotations",
        "annotation",
        "labels",
        "label",
        "ann",
    ),  # masks where they hold pictures, and no mask/ is there
}
_FORMAT_WORDS = ("png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp")  # ClinicDB comes as PNG/Original and TIF/Original
_PUBLISHED_SPLITS = {"traindataset": "train", "traindb": "train", "testdataset": "test", "testdb": "test"}
_PLAIN_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_YEAR = re.compile(r"20[0-9]{2}$")  # COCO's train2017


@dataclass(frozen=True)
class _Found:
    images: Path
    masks: Path | None
    split: str | None = None
    "What the layout itself says, such as imagesTs."
    nnunet: bool = False
    part: str = ""
    "Name of a folder inside of images/, such as train."


def find_folders(root: Path) -> list[PictureFolder]:
    """Return every folder of pictures in `root`, or `root` itself, with what holds its masks.

    Knows what `LAYOUTS` lists, each at any depth.

    Args:
        root: a folder, or a COCO file.

    Raises:
        DataError: there is no such folder, no picture in it, a folder of masks has no folder of pictures, or pictures are masks.
    """
    root = root.resolve()
    if root.is_file():
        found = [_find_coco_pictures(root)]
    elif not root.is_dir():
        raise DataError(f"{root}: no such folder; expected pictures and masks, such as `difom-cache sample` paints")
    else:
        found = _find_in(root)
    if not any(map(_holds_files, found)):
        raise DataError(f"{root}: no pictures found; expected {LAYOUTS}, with {', '.join(PICTURE_SUFFIXES)} files")
    found = [_find_beside(each) for each in found]
    for each in found:
        if each.masks is None and not each.nnunet and holds_masks(each.images):
            raise DataError(
                f"{each.images}: these pictures are masks, and their pictures are not found; expected {LAYOUTS}"
            )
    return _note_validation([_describe(each, root if root.is_dir() else root.parent) for each in found])


def pair_folders(images: Path, masks: Path | None) -> list[PictureFolder]:
    """Return the folders that are named by the user, or those inside of them that have the same names.

    Args:
        images: a folder of pictures.
        masks: the folder of their masks, or a COCO file; None where they have none.

    Raises:
        DataError: a folder is missing, holds no picture, or `images` holds masks.
    """
    images = images.resolve()
    if not images.is_dir():
        raise DataError(f"--images {images}: no such folder")
    if masks is not None:
        masks = masks.resolve()
        if not masks.is_dir() and not (masks.is_file() and is_coco(masks)):
            raise DataError(f"--masks {masks}: expected a folder of masks, or a COCO file")
    found = _unfold(images, masks)
    if not any(has_pictures(each.images) for each in found) and (masks is None or masks.is_dir()):
        raise DataError(f"--images {images}: no pictures found; expected {', '.join(PICTURE_SUFFIXES)} files")
    for each in found:
        if holds_masks(each.images):
            raise DataError(
                f"--images {each.images}: these pictures are masks; are --images and --masks the wrong way round?"
            )
    found = [_find_beside(each) for each in found]
    return _note_validation([_describe(each, images) for each in found])


def describe_video(video: Path, root: Path) -> tuple[str, str]:
    """Return the data set of a video, named by the folder that was given, and its split; videos of no split train."""
    top = _find_top(root)
    names = [path.name for path in video.parents if path.is_relative_to(top)]
    return find_set(top.name) or top.name or root.name, next(filter(None, map(_split_of, names)), "train")


def _find_in(root: Path) -> list[_Found]:
    kind = _kind(root.name)[0]
    if (kind == "mask" and has_pictures(root)) or ((kind == "label" or is_nnunet(root)) and _is_masks(root)):
        raise DataError(f"{root}: this folder holds masks; pass the folder above it, so that their pictures are found")
    if is_nnunet(root):
        return [each for each in _nnunet(root.parent) if each.images == root]
    if kind == "image" and _holds_pictures(root) and not _holds_pair(root):
        beside = [*_pair_folders(root.parent), *_find_coco(root.parent)]
        masked = [each for each in beside if each.masks and root in (each.images, each.images.parent)]
        return masked or _unfold(root, None)
    if _kind(root.parent.name)[0] == "image" and _split_of(root.name):
        return [each for each in _pair_folders(root.parent.parent) if each.images == root]
    return _walk(root, beside_pair=False)


def _is_masks(folder: Path) -> bool:
    return has_pictures(folder) and holds_masks(folder)


def _walk(folder: Path, *, beside_pair: bool) -> list[_Found]:
    """Return the picture folders below `folder`, each with its masks.

    Loose pictures count where nothing better is found: beside images/ and masks/ lie edge maps and drawn boxes.
    """
    pairs = _nnunet(folder) or _pair_folders(folder)
    if not any(pair.masks for pair in pairs):
        pairs = _find_coco(folder) or pairs
    taken = {path for pair in pairs for path in (pair.images, pair.masks, pair.images.parent)}
    taken |= {pair.masks.parent for pair in pairs if pair.masks and pair.masks != pair.images}
    found = list(pairs)
    for child in list_folders(folder):
        if child not in taken:
            found += _walk(child, beside_pair=bool(pairs) or beside_pair)
    if not found and has_pictures(folder) and not beside_pair:
        found.append(_Found(folder, None))
    return found


def _nnunet(folder: Path) -> list[_Found]:
    return [_Found(images, masks, split, nnunet=True) for images, masks, split in find_nnunet(folder)]


def _pair_folders(folder: Path) -> list[_Found]:
    """Return the pictures and masks whose folders lie directly in `folder`."""
    images = _by_kind(folder, "image")
    masks = _by_kind(folder, "mask") or _by_kind(folder, "label")
    if len(images) == len(masks) == 1:
        return _unfold(*images.values(), *masks.values())
    pairs = [each for ending, path in images.items() for each in _unfold(path, masks.pop(ending, None))]
    for path in masks.values():
        loose = [child for child in list_folders(folder) if _kind(child.name)[0] is None and has_pictures(child)]
        if len(loose) == 1 and not pairs:
            pairs.append(_Found(loose[0], path))
        elif has_pictures(folder) and not pairs:
            pairs.append(_Found(folder, path))
        elif has_pictures(path):
            raise DataError(f"{path}: masks without a picture; expected a folder images/ beside it, found none")
    return pairs


def _unfold(images: Path, masks: Path | None) -> list[_Found]:
    """Return the two folders, or those inside of them that have the same names: images/train beside masks/train."""
    inner = [] if has_pictures(images) else [child for child in list_folders(images) if has_pictures(child)]
    if not inner or (masks is not None and not masks.is_dir()):
        return [_Found(images, masks)]
    beside = {} if masks is None else {child.name: child for child in list_folders(masks) if has_pictures(child)}
    alone = beside.keys() - {child.name for child in inner}
    if alone:
        raise DataError(f"{beside[min(alone)]}: masks without a picture; expected a folder {images / min(alone)}")
    return [_Found(child, beside.get(child.name), part=child.name) for child in inner]


def _find_coco(folder: Path) -> list[_Found]:
    """Return the COCO files of a folder, or of one like annotations/ in it, with the folders of their pictures."""
    homes = [folder, *(child for child in list_folders(folder) if _kind(child.name)[0] == "label")]
    files = sorted(path for home in homes for path in home.glob("*.json") if path.is_file() and is_coco(path))
    return [_find_coco_pictures(file) for file in files]


def _find_coco_pictures(file: Path) -> _Found:
    coco = read_coco(file)
    images = find_pictures(file, coco)
    if images is None:
        first = next(iter(coco.pictures.values()), None)
        named = f", the first is {first.file_name}" if first else ""
        raise DataError(
            f"{file}: its {len(coco.pictures)} pictures are not found{named}; name their folder: "
            f"--images DIR --masks {file}"
        )
    return _Found(images, file, _PLAIN_SPLITS.get(find_split_word(file.stem)))


def _find_beside(found: _Found) -> _Found:
    """Return the folder with itself as that of its masks, where names like a.jpg and a_mask.png lie side by side."""
    if found.masks is None and not found.nnunet and find_mask_endings(found.images):
        return replace(found, masks=found.images)
    return found


def _describe(found: _Found, root: Path) -> PictureFolder:
    """Return the folder with what its name and those above it tell; names above `root` only where unmistakable."""
    images, masks = found.images, found.masks
    if found.nnunet:
        name, bare = find_set(images.parent.name) or images.parent.name, masks is None
        return PictureFolder(images, masks, name, found.split, False, images.name, channels=True, bare=bare)
    home = _find_home(found)
    chain = [home, *home.parents]
    inside = [path.name for path in chain if path == home or path.is_relative_to(root)]
    outside = [path.name for path in chain[len(inside) : len(inside) + 2]]
    splits: list[str | None] = [found.split, *map(_split_of, [found.part, *inside])]
    splits += [_PUBLISHED_SPLITS.get(name.lower()) for name in outside]
    split = next((each for each in [*splits, _split_of(_kind(images.name)[1].strip("_"))] if each), None)
    if home.name.lower() in _FORMAT_WORDS:
        inside = [*inside[1:], *outside[:1]]
    top = _find_top(home)
    known = [find_set(name) for name in [*inside, top.name]]
    dataset: str | None = next(filter(None, known), None)
    mixed = dataset is None and split == "train" and _split_of(home.name) is not None
    if dataset is None and (found.part or _split_of(home.name)) and home.name.lower() not in _PUBLISHED_SPLITS:
        part = "/".join([*home.relative_to(top).parts, *filter(None, [found.part])])
        return PictureFolder(images, masks, top.name or home.name, split, mixed, part)
    return PictureFolder(images, masks, dataset or inside[0], split, mixed)


def _find_home(found: _Found) -> Path:
    """Return the folder that pictures and masks lie in together."""
    images, masks = found.images, found.masks
    if found.part:
        return images.parent.parent
    if masks is not None and masks.parent == images and masks.is_dir():
        return images
    beside = masks is not None and masks.is_dir() and masks != images
    return images.parent if _kind(images.name)[0] == "image" or beside else images


def _find_top(home: Path) -> Path:
    """Return the nearest folder, from `home` upwards, whose name is not that of a split or of a file format."""
    for path in (home, *home.parents):
        if path.name.lower() not in _FORMAT_WORDS and (
            not _split_of(path.name) or path.name.lower() in _PUBLISHED_SPLITS
        ):
            return path
    return home


def _split_of(name: str) -> str | None:
    plain = name.lower()
    return _PUBLISHED_SPLITS.get(plain) or _PLAIN_SPLITS.get(_YEAR.sub("", plain))


def _note_validation(folders: Sequence[PictureFolder]) -> list[PictureFolder]:
    """Return the folders, those marked whose data set has a validation folder, be it beside the one that was given."""
    validated = {folder.dataset for folder in folders if folder.split == "val"}
    return [
        replace(folder, own_val=folder.dataset in validated or _has_validation_beside(folder.images))
        for folder in folders
    ]


def _has_validation_beside(images: Path) -> bool:
    for home in (images, images.parent):
        beside = (
            [child for child in list_folders(home.parent) if _split_of(child.name) == "val"]
            if _split_of(home.name)
            else []
        )
        if any(has_pictures(child) or _walk(child, beside_pair=False) for child in beside):
            return True
    return any(child.name.lower() == "imagesva" and has_pictures(child) for child in list_folders(images.parent))


def _kind(name: str) -> tuple[str | None, str]:
    """Return ("image", "mask", "label" or None, what follows that word), so that images_C1 finds masks_C1."""
    plain = name.lower().replace(" ", "_").replace("-", "_")
    for kind, words in _WORDS.items():
        for word in words:
            if plain == word or plain.startswith(f"{word}_"):
                return kind, plain[len(word) :]
    return None, ""


def _by_kind(folder: Path, kind: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for child in list_folders(folder):
        child_kind, ending = _kind(child.name)
        if child_kind != kind or (kind == "label" and not _holds_pictures(child)):
            continue
        if ending in found:
            raise DataError(f"{folder}: expected one folder of {kind}s, found {found[ending].name}/ and {child.name}/")
        found[ending] = child
    return found


def _holds_files(found: _Found) -> bool:
    """Return whether there are pictures or masks to speak of; a COCO file knows its own."""
    masks = found.masks
    return has_pictures(found.images) or (masks is not None and (masks.is_file() or has_pictures(masks)))


def _holds_pair(folder: Path) -> bool:
    """Return whether folders of pictures and of masks lie directly in a folder, whatever its own name is."""
    return bool(_by_kind(folder, "image")) and bool(_by_kind(folder, "mask") or _by_kind(folder, "label"))


def _holds_pictures(folder: Path) -> bool:
    """Return whether pictures lie in a folder, or in one that is directly inside."""
    return has_pictures(folder) or any(has_pictures(child) for child in list_folders(folder))
