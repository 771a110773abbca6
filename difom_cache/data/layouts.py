"""Which folders hold pictures, which hold their masks, and what their names say about data set and split."""

import filecmp
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from difom_cache.base.errors import DataError, warn
from difom_cache.base.files import read_object
from difom_cache.data.coco import find_pictures, find_split_word, is_coco, list_homes, locate, read_coco, spellings
from difom_cache.data.groups import find_set
from difom_cache.data.images import PICTURE_SUFFIXES
from difom_cache.data.listing import has_pictures, holds_masks, list_folders, list_pictures
from difom_cache.data.pairing import LAYOUTS, PictureFolder, find_lists, find_mask_endings

_WORDS = {
    "image": ("images", "image", "imgs", "img", "original", "frames", "frame"),
    "mask": ("masks", "mask", "ground_truth", "groundtruth", "gt"),
    # masks where they hold pictures, and no mask/ is there
    "label": ("annotations", "annotation", "labels", "label", "ann"),
}
_FORMAT_WORDS = ("png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp")  # ClinicDB comes as PNG/Original and TIF/Original
_MASK_OF = ("_gt", "_mask", "_masks", "_groundtruth")  # of a folder's name, beside the one without it: BKAI's train_gt
_PUBLISHED_SPLITS = {  # the last two are of SUN-SEG
    **dict.fromkeys(("traindataset", "traindb"), "train"),
    **dict.fromkeys(("testdataset", "testdb", "testeasydataset", "testharddataset"), "test"),
}
_PLAIN_SPLITS = {  # trainvalid is of LDPolypVideo
    **dict.fromkeys(("train", "training", "trainvalid", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_YEAR = re.compile(r"20[0-9]{2}$")  # COCO's train2017
_HALVES = ("seen", "unseen")  # of SUN-SEG's test sets: TestEasyDataset/Seen
_SIDES = ("positive", "negativeonly")  # of PolypGen's sequences
_SEQUENCE = re.compile(r"(?:case|clip|patient|seq|sequence|video)[ _-]?[0-9]+.*", re.IGNORECASE)
_CLIP = re.compile(r"(case[0-9]+)_[0-9]+", re.IGNORECASE)  # SUN-SEG's case1_3 is the third part of one video
_NNUNET = re.compile(r"(images|labels)(tr|va|ts)", re.IGNORECASE)
_NNUNET_SPLITS = {"tr": "train", "va": "val", "ts": "test"}  # Va is AMOS', which follows the others


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
    homes = [path for each in found for path in (each.images, each.masks) if path]
    if not any(path.is_file() or has_pictures(path) for path in homes):
        raise DataError(f"{root}: no pictures found; expected {LAYOUTS}, with {', '.join(PICTURE_SUFFIXES)} files")
    found = [_find_beside(each) for each in found]
    for each in found:
        if each.masks is None and not each.channels and holds_masks(each.images):
            raise DataError(
                f"{each.images}: these pictures are masks, and their pictures are not found; expected {LAYOUTS}"
            )
    return _finish(found, root if root.is_dir() else root.parent)


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
    return _finish([_find_beside(each) for each in found], images)


def is_of_masks(video: Path, root: Path) -> bool:
    """Return whether a video is called as masks are: it lies in such a folder below `root`, or its name ends so."""
    folders = {part.lower() for part in video.relative_to(root).parent.parts}
    return bool(folders.intersection(_WORDS["mask"])) or video.stem.lower().endswith(_MASK_OF)


def describe_video(video: Path, root: Path) -> tuple[str, str]:
    """Return the data set of a video, named by the folder that was given, and its split; videos of no split train."""
    top = _find_top(root)
    names = [path.name for path in video.parents if path.is_relative_to(top)]
    return find_set(top.name) or top.name or root.name, next(filter(None, map(split_of, names)), "train")


def _find_in(root: Path) -> list[PictureFolder]:
    kind, nnunet = _kind(root.name)[0], _NNUNET.fullmatch(root.name)
    if has_pictures(root) and (kind == "mask" or ((kind == "label" or nnunet) and holds_masks(root))):
        raise DataError(f"{root}: this folder holds masks; pass the folder above it, so that their pictures are found")
    if nnunet:
        return [each for each in _find_nnunet(root.parent) if each.images == root]
    holds_pair = bool(_by_kind(root, "image")) and bool(_by_kind(root, "mask") or _by_kind(root, "label"))
    if kind == "image" and _holds_pictures(root) and not holds_pair:
        beside = [*_pair_folders(root.parent), *_find_coco(root.parent)]
        masked = [each for each in beside if each.masks and root in (each.images, each.images.parent)]
        return masked or _unfold(root, None)
    inner: list[PictureFolder] = []
    if _kind(root.parent.name)[0] == "image":
        inner = [each for each in _pair_folders(root.parent.parent) if each.images == root]
    for above in (root.parent, root.parent.parent) if split_of(root.name) else ():
        inner = inner or [each for each in _pair_by_suffix(above) if root in (each.images, each.images.parent)]
    return inner or _walk(root, beside_pair=False)


def _walk(folder: Path, *, beside_pair: bool) -> list[PictureFolder]:
    """Return the picture folders below `folder`, each with its masks.

    Loose pictures count where nothing better is found: beside images/ and masks/ lie edge maps and drawn boxes.
    """
    pairs = _find_nnunet(folder) or _pair_folders(folder) or _pair_by_suffix(folder)
    if not any(pair.masks for pair in pairs):
        pairs = _find_coco(folder) or pairs
    taken = {path for pair in pairs for path in (pair.images, pair.masks, pair.images.parent)}
    taken |= {pair.masks.parent for pair in pairs if pair.masks and pair.masks != pair.images}
    found = list(pairs)
    for child in list_folders(folder):
        if child not in taken:
            found += _walk(child, beside_pair=bool(pairs) or beside_pair)
    if not found and has_pictures(folder) and not beside_pair:
        found.append(PictureFolder(folder, None))
    return found


def _find_nnunet(folder: Path) -> list[PictureFolder]:
    """Return nnU-Net's imagesTr, imagesVa and imagesTs in `folder`, each with its labels; nothing where it holds none.

    Raises:
        DataError: dataset.json speaks of volumes, or labels have no pictures.
    """
    named = {match[0].lower(): child for child in list_folders(folder) if (match := _NNUNET.fullmatch(child.name))}
    found, alone = [], []
    for end, split in _NNUNET_SPLITS.items():
        images, labels = named.get(f"images{end}"), named.get(f"labels{end}")
        if images is not None:
            found.append(PictureFolder(images, labels, split=split, channels=True, bare=labels is None))
        elif labels is not None:
            alone.append(labels)
    if found and alone:
        raise DataError(f"{alone[0]}: masks without a picture; expected a folder images{alone[0].name[6:]}/ beside it")
    about = folder / "dataset.json"
    if found and about.exists():
        held = read_object(about, DataError, "remove it, or restore it from the data set's source")
        ending = held.get("file_ending", PICTURE_SUFFIXES[0])
        if str(ending).lower() not in PICTURE_SUFFIXES:
            raise DataError(
                f"{about}: file_ending is {ending!r}; expected pictures ({', '.join(PICTURE_SUFFIXES)}): export its slices as "
                "such"
            )
    return found


def _pair_folders(folder: Path) -> list[PictureFolder]:
    """Return the pictures and masks whose folders lie directly in `folder`."""
    images = _by_kind(folder, "image")
    masks = _by_kind(folder, "mask") or _by_kind(folder, "label")
    if len(images) == len(masks) == 1:
        return _unfold(*images.values(), *masks.values())
    pairs = [each for ending, path in images.items() for each in _unfold(path, masks.pop(ending, None))]
    for path in masks.values():
        loose = [child for child in list_folders(folder) if _kind(child.name)[0] is None and has_pictures(child)]
        if len(loose) == 1 and not pairs:
            pairs.append(PictureFolder(loose[0], path))
        elif has_pictures(folder) and not pairs:
            pairs.append(PictureFolder(folder, path))
        elif has_pictures(path):
            raise DataError(f"{path}: masks without a picture; expected a folder images/ beside it, found none")
    return pairs


def _pair_by_suffix(folder: Path) -> list[PictureFolder]:
    """Return train/ with the masks of train_gt/ beside it, each perhaps in a folder of its own name, and test/ without any."""
    named = {child.name.lower(): child for child in list_folders(folder)}
    masks = {name.removesuffix(end): path for name, path in named.items() for end in _MASK_OF if name.endswith(end)}
    inner = {name: (_inside(named[name]), _inside(masks[name])) for name in masks.keys() & named.keys()}
    pairs = {name: each for name, each in inner.items() if all(map(has_pictures, each))}
    held_back = [path for name, path in named.items() if pairs and name not in masks and split_of(name) == "test"]
    return [
        *(PictureFolder(images, gt, split=split_of(name)) for name, (images, gt) in sorted(pairs.items())),
        *(
            PictureFolder(_inside(path), None, split="test", bare=True)
            for path in held_back
            if has_pictures(_inside(path))
        ),
    ]


def _inside(folder: Path) -> Path:
    """Return the folder of the same name in a folder that holds no pictures itself, as archives unpack; else the folder."""
    inner = folder / folder.name
    return inner if inner.is_dir() and not has_pictures(folder) else folder


def _unfold(images: Path, masks: Path | None) -> list[PictureFolder]:
    """Return the two folders, or those inside of them that have the same names: images/train beside masks/train."""
    inner = [] if has_pictures(images) else [child for child in list_folders(images) if has_pictures(child)]
    if not inner or (masks is not None and not masks.is_dir()):
        return [PictureFolder(images, masks)]
    beside = {} if masks is None else {child.name: child for child in list_folders(masks) if has_pictures(child)}
    alone = beside.keys() - {child.name for child in inner}
    if alone:
        raise DataError(f"{beside[min(alone)]}: masks without a picture; expected a folder {images / min(alone)}")
    return [PictureFolder(child, beside.get(child.name), part=child.name) for child in inner]


def _find_coco(folder: Path) -> list[PictureFolder]:
    """Return the COCO files of a folder, or of one like annotations/ in it, with the folders of their pictures."""
    homes = [folder, *(child for child in list_folders(folder) if _kind(child.name)[0] == "label")]
    files = sorted(path for home in homes for path in home.glob("*.json") if path.is_file() and is_coco(path))
    return [_find_coco_pictures(file) for file in files]


def _find_coco_pictures(file: Path) -> PictureFolder:
    coco = read_coco(file)
    images = find_pictures(file, coco)
    if images is None:
        pictures, homes = coco.pictures.values(), list_homes(file)
        lost = (each for each in pictures if not any(locate(home, each.file_name) for home in homes))
        first = next(lost, next(iter(pictures), None))
        named = f", the first is {first.file_name}" if first else ""
        named += (
            f" (looked for {' and '.join(spellings(first.file_name))} beside the file and above it)" if first else ""
        )
        raise DataError(
            f"{file}: its {len(coco.pictures)} pictures are not found{named}; name their folder: "
            f"--images DIR --masks {file}"
        )
    return PictureFolder(images, file, split=_PLAIN_SPLITS.get(find_split_word(file.stem)))


def _find_beside(found: PictureFolder) -> PictureFolder:
    """Return the folder with itself as that of its masks, where names like a.jpg and a_mask.png lie side by side."""
    if found.masks is None and not found.channels and find_mask_endings(found.images):
        return replace(found, masks=found.images)
    return found


def _describe(found: PictureFolder, root: Path) -> PictureFolder:
    """Return the folder with what its name and those above it tell; names above `root` only where unmistakable."""
    images, masks = found.images, found.masks
    if found.channels:
        return replace(found, dataset=find_set(images.parent.name) or images.parent.name, part=images.name)
    home = _find_home(found)
    for child in list_folders(home) if masks is None else ():  # such as LDPolypVideo's of boxes
        if _kind(child.name)[0] in ("mask", "label") and any(child.iterdir()) and not _holds_pictures(child):
            warn(f"{child} not read: it holds no images; boxes and text are not masks")
    chain = [home, *home.parents]
    inside = [path.name for path in chain if path == home or path.is_relative_to(root)]
    outside = [path.name for path in chain[len(inside) : len(inside) + 2]]
    splits: list[str | None] = [found.split, *map(split_of, [found.part, *inside])]
    splits += [_PUBLISHED_SPLITS.get(name.lower()) for name in outside]
    split = next((each for each in [*splits, split_of(_kind(images.name)[1].strip("_"))] if each), None)
    if home.name.lower() in _FORMAT_WORDS:
        inside = [*inside[1:], *outside[:1]]
    top = _find_top(home)
    known: str | None = next(filter(None, map(find_set, [*inside, top.name])), None)
    lists = find_lists(home) or (find_lists(top) if top != home else None)
    if lists is not None and split is not None:
        lists.ignore("the names of folders say the splits")
        lists = None
    mixed = known is None and split == "train" and split_of(home.name) is not None and not found.part
    group = _name_group(found, home, top)
    folder = replace(found, dataset=known or "", split=split, mixed=mixed, part="", group=group, lists=lists)
    if known is not None:
        return folder
    name, named = inside[0], home
    if found.part or _is_side(home) or (split_of(home.name) and home.name.lower() not in _PUBLISHED_SPLITS):
        parts = [*home.relative_to(top).parts, *filter(None, [found.part])]
        part = "/".join(
            each for place, each in enumerate(parts) if place == 0 or each != parts[place - 1]
        )  # train/train
        folder, name, named = replace(folder, part=part), top.name or home.name, top
    if named.name.lower() in _HALVES and named.parent.name.lower() in _PUBLISHED_SPLITS:
        name = f"{named.parent.name}-{named.name}"
    return replace(folder, dataset=name)


def _is_side(home: Path) -> bool:
    return home.parent.name.lower() in _SIDES


def _name_group(found: PictureFolder, home: Path, top: Path) -> str:
    """Return the video or sequence that a folder's name says it is of, such as SUN-SEG/case1; "" where it says nothing."""
    numbered = [found.part] if found.part.isdecimal() else []  # LDPolypVideo's Images/12
    name = next(iter([*numbered, *filter(_SEQUENCE.fullmatch, (found.part, home.name))]), "")
    if not name:
        return ""
    clip = _CLIP.fullmatch(name)
    apart = (*_HALVES, *_PUBLISHED_SPLITS)
    whole = next((path for path in (top, *top.parents) if path.name.lower() not in apart), top)
    return f"{whole.name}/{clip[1] if clip else name}"


def _find_home(found: PictureFolder) -> Path:
    """Return the folder that pictures and masks lie in together."""
    images, masks = found.images, found.masks
    if found.part:
        return images.parent.parent
    if masks is not None and masks.parent == images and masks.is_dir():
        return images
    beside = masks is not None and masks.is_dir() and masks != images
    return images.parent if _kind(images.name)[0] == "image" or beside else images


def _find_top(home: Path) -> Path:
    """Return the nearest folder, from `home` upwards, whose name is not that of a split, a file format or PolypGen's kinds."""
    lowest = home.parent.parent if _is_side(home) else home
    for path in (lowest, *lowest.parents):
        if path.name.lower() not in _FORMAT_WORDS and (
            not split_of(path.name) or path.name.lower() in _PUBLISHED_SPLITS
        ):
            return path
    return home


def split_of(name: str) -> str | None:
    """Return the split that a folder of this name holds, or None."""
    plain = name.lower()
    return _PUBLISHED_SPLITS.get(plain) or _PLAIN_SPLITS.get(_YEAR.sub("", plain))


def _finish(found: Sequence[PictureFolder], root: Path) -> list[PictureFolder]:
    """Return the folders with what names tell, without copies, and those marked whose data set has a validation folder."""
    folders = _leave_out_copies([_describe(each, root) for each in found])
    validated = {folder.dataset for folder in folders if folder.split == "val"}
    own = [each.dataset in validated or _has_validation_beside(each.images) for each in folders]
    return [replace(folder, own_val=has) for folder, has in zip(folders, own, strict=True)]


def _leave_out_copies(folders: Sequence[PictureFolder]) -> list[PictureFolder]:
    """Return the folders without those whose every picture lies in others too, under its name and byte for byte.

    PolypGen pools pictures of many folders in imagesAll_positive/, and PolypDB holds all twice, by centre and by modality. Only a
    folder without masks, or one of the set, part and split of an earlier one, is looked at: benchmark sets share pictures on
    purpose. A warning names what is left out.
    """
    masked = [folder for folder in folders if folder.masks is not None and folder.masks.is_dir()]
    bare = [folder for folder in folders if folder.masks is None] if masked else []
    counts = Counter(map(_where, masked))
    looked_at = [*bare, *(folder for folder in masked if counts[_where(folder)] > 1)]
    homes: dict[str, list[tuple[Path, PictureFolder]]] = defaultdict(list)
    for folder in masked if looked_at else ():
        for path in list_pictures(folder.images):
            homes[path.name].append((path, folder))
    left_out: list[PictureFolder] = []

    def find_homes(path: Path, folder: PictureFolder) -> set[Path]:
        return {
            other.images
            for home, other in homes[path.name]
            if other.images != folder.images
            and other not in left_out
            and (_where(other) == _where(folder) if folder.masks else other.split == folder.split)
            and filecmp.cmp(home, path, shallow=False)
        }

    for folder in looked_at:
        there: set[Path] = set()
        for path in list_pictures(folder.images):
            found = find_homes(path, folder)
            there |= found
            if not found:
                break
        else:
            if len(there) > (0 if folder.masks else 1):
                left_out.append(folder)
                warn(f"{folder.images} left out: each of its images lies in another folder too, byte for byte")
    return [folder for folder in folders if folder not in left_out]


def _where(folder: PictureFolder) -> tuple[str, str, str | None]:
    return folder.dataset, folder.part, folder.split


def _has_validation_beside(images: Path) -> bool:
    for home in (images, images.parent):
        beside = list_folders(home.parent) if split_of(home.name) else []
        beside = [child for child in beside if split_of(child.name) == "val"]
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


def _holds_pictures(folder: Path) -> bool:
    """Return whether pictures lie in a folder, or in one that is directly inside."""
    return has_pictures(folder) or any(has_pictures(child) for child in list_folders(folder))
