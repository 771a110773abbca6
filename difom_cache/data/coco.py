"""COCO annotations: which pictures a JSON file speaks of, and what it draws on one, as a mask.

Polygons are filled by pycocotools (extra `coco`), so that a mask has the very pixels that COCO's own
tools give it. Everything is checked before it reaches them: they are C, and trust what they are given.
"""

import json
import math
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import AnnotationError, DataError, SettingsError, install_extra
from difom_cache.base.files import explain, read_plain
from difom_cache.data.addresses import PolygonsAddress
from difom_cache.data.mask_levels import MaskLevels

_LARGEST_SIDE_PX = 1 << 15
_OPEN_FILES = 2  # parsed, in one process


@dataclass(frozen=True)
class CocoPicture:
    """A picture that a COCO file speaks of: its name there, its size in px (whole where it is sound), what is drawn on it."""

    image_id: int
    file_name: str
    width: float
    height: float
    annotations: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class CocoFile:
    """A COCO file: its pictures by id, and the categories that annotations use, by id."""

    pictures: dict[int, CocoPicture]
    categories: dict[int, str]


def is_coco(path: Path) -> bool:
    """Return whether a file is JSON as COCO has it: an object with lists of images and annotations."""
    try:
        held = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(held, dict) and all(isinstance(held.get(name), list) for name in ("images", "annotations"))


def read_coco(path: Path) -> CocoFile:
    """Return what a COCO file says; read once as long as it does not change.

    Raises:
        DataError: it is missing, or no COCO file.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise DataError(f"{path}: expected a COCO file, but {explain(error)}") from error
    return _read(path, about.st_mtime_ns, about.st_size)


@lru_cache(_OPEN_FILES)
def _read(path: Path, mtime_ns: int, size_bytes: int) -> CocoFile:
    try:
        held = json.loads(read_plain(path))
        drawn: dict[int, list[dict[str, Any]]] = {}
        for annotation in held["annotations"]:
            drawn.setdefault(_whole(annotation["image_id"]), []).append(annotation)
        used = {_whole(annotation["category_id"]) for each in drawn.values() for annotation in each}
        names = {_whole(category["id"]): str(category["name"]) for category in held.get("categories", [])}
        pictures = {}
        for image in held["images"]:
            number, name = _whole(image["id"]), str(image["file_name"])
            size = _number(image["width"]), _number(image["height"])
            pictures[number] = CocoPicture(number, name, *size, tuple(drawn.get(number, [])))
    except OSError as error:
        raise DataError(f"{path}: expected a COCO file, but {explain(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{path}: expected COCO's images, annotations and categories ({what}); export it again"
        ) from error
    if len(pictures) != len(held["images"]):
        raise DataError(f"{path}: two images have one id; export it again")
    lost = drawn.keys() - pictures.keys()
    if lost:
        raise DataError(f"{path}: annotations of image {min(lost)}, which is not listed; export it again")
    return CocoFile(pictures, {number: names.get(number, str(number)) for number in sorted(used)})


def refuse_several_categories(path: Path, coco: CocoFile, levels: MaskLevels | None) -> None:
    """Raise where a file draws things of several categories and nobody has said which are polyp.

    Raises:
        DataError: names them.
        SettingsError: the levels are no category numbers.
    """
    if levels is not None and (levels.colours or levels.alpha):
        raise SettingsError(f"--mask-levels {levels.text}: for COCO files give numbers of categories, such as 1,3")
    if levels is None and len(coco.categories) > 1:
        told = ", ".join(f"{number} = {name}" for number, name in list(coco.categories.items())[:20])
        raise DataError(
            f"{path}: annotations of {len(coco.categories)} categories ({told}); say which are polyp: run `difom-cache manifest "
            "DATA --out FILE.csv --mask-levels NUMBERS`, and give FILE.csv as the data"
        )


def read_polygons(address: PolygonsAddress, levels: MaskLevels | None = None) -> NDArray[np.uint8]:
    """Return what a COCO file draws on one picture: 1 where a polyp is, else 0.

    Args:
        address: of the picture.
        levels: which category numbers are polyp; None where the file knows only one.

    Returns:
        (H, W), of the size that the file gives.

    Raises:
        DataError: the file is damaged, or draws several categories.
        SettingsError: pycocotools is not installed.
    """
    coco = read_coco(address.file)
    refuse_several_categories(address.file, coco, levels)
    picture = coco.pictures.get(address.image_id)
    if picture is None:
        raise DataError(f"{address.file}: image {address.image_id} is not listed; make the manifest anew")
    where = f"{address.file}, image {picture.image_id}"
    height, width = picture.height, picture.width
    if not all(isinstance(side, int) and 0 < side <= _LARGEST_SIDE_PX for side in (height, width)):
        raise _broken(where, f"expected a size in px, found {width} x {height}")
    height, width = int(height), int(width)
    mask = np.zeros((height, width), np.uint8)
    for annotation in picture.annotations:
        number = _whole(annotation["category_id"])
        if levels is None or any(low <= number <= high for low, high in levels.ranges):
            what = f"{where}, annotation {annotation.get('id')}"
            mask |= _fill(annotation.get("segmentation"), height, width, what)
    return mask


def _broken(where: str, what: str) -> AnnotationError:
    return AnnotationError(
        f"{where}: {what}; export it again, or leave such images out: `difom-cache manifest DATA --skip-broken --out FILE.csv`"
    )


def _fill(segmentation: Any, height: int, width: int, where: str) -> NDArray[np.uint8]:
    """Return one annotation as a mask (H, W)."""
    if isinstance(segmentation, dict):
        return _fill_runs(segmentation, height, width, where)
    if not isinstance(segmentation, list) or not segmentation:
        raise _broken(where, "expected polygons, found none (a box alone is no mask)")
    if all(map(_is_number, segmentation)):
        raise _broken(where, "expected a list of polygons, found one list of numbers")
    reach = 2 * max(width, height)
    for polygon in segmentation:
        if isinstance(polygon, list) and len(polygon) == 4 and all(map(_is_number, polygon)):
            raise _broken(where, "found four numbers, a box, among the polygons, which have three corners at least")
        sound = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
        if not sound or not all(_is_number(value) and abs(value) <= reach for value in polygon):
            raise _broken(where, "expected polygons as x, y, x, y ... of three corners at least, in px")
    try:
        from pycocotools import mask as tools
    except ImportError as error:
        raise SettingsError(f"reading COCO's polygons needs pycocotools: {install_extra('coco')}") from error
    runs = tools.frPyObjects(segmentation, height, width)
    return _draw_runs(_read_counts(tools.merge(runs)["counts"].decode()), height, width)


def _fill_runs(segmentation: dict[str, Any], height: int, width: int, where: str) -> NDArray[np.uint8]:
    """Return a run-length mask (H, W): lengths of background and polyp by turns, down the columns."""
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _read_counts(counts)
    pixels = height * width
    if segmentation.get("size") != [height, width] or not isinstance(counts, list):
        raise _broken(where, f"expected a run-length mask of {width} x {height} px")
    if not all(isinstance(count, int) and 0 <= count <= pixels for count in counts) or sum(counts) != pixels:
        raise _broken(where, f"expected runs of {pixels} pixels together")
    return _draw_runs(counts, height, width)


def _draw_runs(counts: list[int], height: int, width: int) -> NDArray[np.uint8]:
    """Return runs of background and polyp by turns, down the columns, as a mask (H, W)."""
    values = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8)
    return values.reshape(width, height).T


def _read_counts(text: str) -> list[int]:
    """Return the runs that COCO packs into text: five bits a letter, from the third run on as differences."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def find_pictures(file: Path, coco: CocoFile) -> Path | None:
    """Return the folder that the names in a COCO file start at: beside it, above it, or in a folder of these; None if nowhere."""
    names = [picture.file_name for picture in coco.pictures.values()]
    places = list_homes(file)
    for home in places:
        if names and all((home / name).is_file() for name in names):
            return home
    # By other spellings several folders may hold files of these names: then only the user knows which are meant.
    other = {tuple(paths): home for home in places if names and all(paths := [locate(home, name) for name in names])}
    meant = {tuple(path and path.resolve() for path in paths) for paths in other}
    return next(iter(other.values())) if len(meant) == 1 else None


def list_homes(file: Path) -> list[Path]:
    """Return the folders that the names in a COCO file may start at, the likeliest first."""
    homes = [file.parent, file.parent.parent]
    split = find_split_word(file.stem)
    near = [child for home in homes for child in sorted(home.iterdir()) if child.is_dir()]
    near.sort(key=lambda child: split not in child.name.lower() if split else False)
    inner = [child / split for child in near if split]
    return [*homes[:1], *inner, *near, *homes[1:]]


def locate(home: Path, name: str) -> Path | None:
    """Return the file below a folder that a COCO file calls so: by one of its `spellings`; None where there is none."""
    return next((home / each for each in spellings(name) if (home / each).is_file()), None)


def spellings(name: str) -> list[str]:
    """Return what a picture of a COCO file may be called below its folder: as it stands, or as its tool had found or stored it.

    Backslashes part folders; of a path from elsewhere the last name counts, without the eight letters of Label Studio's uploads.
    """
    slashed = name.replace("\\", "/")
    last = slashed.rpartition("/")[2]
    own = [each for each in (name, slashed) if not Path(each).is_absolute() and ".." not in Path(each).parts]
    spelt = [*own, last, re.sub("^[0-9a-f]{8}-", "", last)]
    both = [unicodedata.normalize(form, each) for each in spelt for form in ("NFC", "NFD")]
    return [each for each in dict.fromkeys([*spelt, *both]) if each.strip("./")]


def find_split_word(text: str) -> str:
    """Return train, val, valid, validation or test where it stands in a name such as instances_val2017; "" if none does."""
    match = re.search(r"(?<![a-z])(train|valid|validation|val|test)(?![a-z])", text.lower())
    return match[1] if match else ""


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**18:
        raise ValueError(f"{value!r} is no whole number")
    return value


def _number(value: Any) -> float:
    """Return a number, as a whole one where it is."""
    if not _is_number(value):
        raise ValueError(f"{value!r} is no number")
    return int(value) if value == int(value) else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
