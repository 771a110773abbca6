"""Masks as labelling tools, exporters and libraries write them. Truth: painted."""

import json
import re
import shlex
import struct
import warnings
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from in_process import invoke
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from truth_case import Case, Refused

from difom_cache import Record, load_records, make_manifest, read_mask
from difom_cache.errors import DifomWarning, ImageError

HEIGHT, WIDTH = 120, 160
Save = Callable[[Path, NDArray[np.bool_]], None]


def disc(cx: float, cy: float = 48, r: float = 25) -> NDArray[np.bool_]:
    """Return a polyp (H, W)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((y - cy) ** 2 + (x - cx) ** 2 < r * r)


def write_pictures(folder: Path, save: Save) -> list[NDArray[np.bool_]]:
    """Write three pictures with the masks that `save` makes of their polyps, named without an ending; return the polyps."""
    polyps = [disc(48 + 8 * number) for number in range(3)]
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number, polyp in enumerate(polyps):
        picture = np.where(polyp[..., None], (220, 60, 40), (110 + number, 80, 60)).astype(np.uint8)
        Image.fromarray(picture).save(folder / "images" / f"{number}.png")
        save(folder / "masks" / str(number), polyp)
    return polyps


def said(save: Save, levels: str, *, least: float = 1.0) -> Callable[[Path], Any]:
    """Return a reading with `--mask-levels`: whether every mask overlaps with its polyp by an IoU of `least` or more."""

    def read(folder: Path) -> Any:
        polyps = write_pictures(folder, save)
        make_manifest(folder, folder / "m.csv", mask_levels=levels)
        return agree(load_records(folder / "m.csv"), polyps, least)

    return read


def proposed(save: Save, *, least: float) -> Callable[[Path], Any]:
    """Return a reading with the very command that the refusal proposes."""

    def read(folder: Path) -> Any:
        polyps = write_pictures(folder, save)
        try:
            load_records(folder)
        except ImageError as error:
            line = re.search(r"`difom-cache (manifest .*?)`", str(error))
            assert line is not None
            places = {"FOLDER": str(folder), "FILE.csv": str(folder / "m.csv")}
            words = [places.get(word, word) for word in shlex.split(line[1], comments=True)]  # as a shell reads it
            invoke(*words)
            return agree(load_records(folder / "m.csv"), polyps, least)
        return "read, in silence"

    return read


def alone(save: Save) -> Callable[[Path], Any]:
    """Return a reading of a set whose masks are to say themselves: whether every one is its polyp, to the pixel."""

    def read(folder: Path) -> Any:
        polyps = write_pictures(folder, save)
        return agree(load_records(folder), polyps)

    return read


def agree(records: list[Record], polyps: list[NDArray[np.bool_]], least: float = 1.0) -> bool:
    """Return whether the masks of all records overlap with the polyps of their pictures by an IoU of `least` or more."""
    masks = {record.image.stem: read_mask(record.mask) == 1 for record in records if record.mask}
    pairs = [(masks[str(number)], polyp) for number, polyp in enumerate(polyps)]
    return len(masks) == len(polyps) and all((a & b).sum() >= least * (a | b).sum() for a, b in pairs)


def keep(make: Callable[[NDArray[np.bool_]], Image.Image], suffix: str = ".png", **how: Any) -> Save:
    """Return a writer of what `make` draws."""
    return lambda path, polyp: make(polyp).save(path.with_suffix(suffix), **how)


def classes(inside: int, band: int, *, px: int = 3, far: int = 0) -> Callable[[NDArray[np.bool_]], Image.Image]:
    """Return a painter of class maps: a polyp, a band around it, and perhaps something else in a corner."""

    def make(polyp: NDArray[np.bool_]) -> Image.Image:
        values = polyp.astype(np.uint8) * np.uint8(inside)
        values[(ndimage.distance_transform_edt(~polyp) <= px) & ~polyp] = band
        values[100:115, 5:30] = far
        return Image.fromarray(values)

    return make


def colours(polyp: NDArray[np.bool_], *, inside: tuple[int, int, int] = (255, 0, 0), mark: bool = False) -> Image.Image:
    """Return a mask in colour, perhaps with a small white mark on its polyp."""
    values = polyp[..., None] * np.array(inside, np.uint8)
    if mark:
        row, column = np.argwhere(polyp).mean(0).astype(int)
        values[row - 3 : row + 3, column - 3 : column + 3] = 255
    return Image.fromarray(values)


def two_colours(polyp: NDArray[np.bool_]) -> Image.Image:
    """Return a mask with a polyp in one colour of VOC, and a tool in another."""
    values = polyp[..., None] * np.array((128, 0, 0), np.uint8)
    values[100:115, 5:60] = 0, 128, 0
    return Image.fromarray(values)


def palette(*entries: tuple[int, int, int], size: int = 256) -> Callable[[NDArray[np.bool_]], Image.Image]:
    """Return a painter of palette masks: index 0 and 1, and, with a third entry, a tool of index 2 in a corner."""

    def make(polyp: NDArray[np.bool_]) -> Image.Image:
        index = polyp.astype(np.uint8)
        if len(entries) > 2:
            index[100:115, 5:60] = 2
        image = Image.fromarray(index).convert("P")
        image.putpalette([*(level for entry in entries for level in entry), *(0,) * (3 * (size - len(entries)))])
        return image

    return make


def instances(polyp: NDArray[np.bool_], kind: type = np.uint8) -> Image.Image:
    """Return a map of instances: a polyp as 1, another as 2."""
    return Image.fromarray(polyp.astype(kind) + (disc(125, 80, 12) & ~polyp).astype(kind) * kind(2))


def alpha(polyp: NDArray[np.bool_]) -> Image.Image:
    """Return a mask that is drawn in the alpha channel of black."""
    values = np.zeros((*polyp.shape, 4), np.uint8)
    values[..., 3] = polyp * np.uint8(255)
    return Image.fromarray(values)


def resized(polyp: NDArray[np.bool_], filter_: Image.Resampling, scale: float = 3) -> Image.Image:
    """Return a mask that was drawn at another scale, and brought to the size of its picture."""
    side = np.array([WIDTH, HEIGHT]) / scale
    y, x = np.mgrid[: int(side[1]), : int(side[0])]
    row, column = np.argwhere(polyp).mean(0)
    small = ((y + 0.5) * scale - row - 0.5) ** 2 + ((x + 0.5) * scale - column - 0.5) ** 2 < 25**2
    return grey(small).resize((WIDTH, HEIGHT), filter_)


def again(
    make: Callable[[NDArray[np.bool_]], Image.Image], kind: str, **how: Any
) -> Callable[[NDArray[np.bool_]], Image.Image]:
    """Return a painter of what comes back from a lossy file."""

    def lossy(polyp: NDArray[np.bool_]) -> Image.Image:
        file = BytesIO()
        make(polyp).save(file, kind, **how)
        return Image.open(file)

    return lossy


def two_names(first: Save, rest: Save) -> Save:
    """Return a writer of sets in which one mask is not like the others."""
    return lambda path, polyp: (first if path.name == "0" else rest)(path, polyp)


def one_bit(path: Path, polyp: NDArray[np.bool_], *, white_is_zero: bool = False, tifffile: bool = False) -> None:
    """Write a TIFF of one bit a pixel, by hand: TIFF 6.0, sections 2 and 3; `tifffile` writes true as black."""
    rows = np.packbits(polyp ^ (white_is_zero and not tifffile), axis=1)
    fields = [
        (256, WIDTH),
        (257, HEIGHT),
        (258, 1),
        (259, 1),
        (262, 0 if white_is_zero else 1),
        (273, 8),
        (277, 1),
        (278, HEIGHT),
    ]
    fields.append((279, rows.size))
    start = 8 + rows.size
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    if tifffile:
        fields.append((305, 0))
        entries += struct.pack("<HHI", 305, 2, 12) + struct.pack("<I", start + 2 + 12 * len(fields) + 4)
    head = b"II*\0" + struct.pack("<I", start) + rows.tobytes()
    path.with_suffix(".tif").write_bytes(head + struct.pack("<H", len(fields)) + entries + bytes(4) + b"tifffile.py\0")


def warned(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Return a reading whose warning is what we look at."""

    def catch(folder: Path) -> Any:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DifomWarning)
            read(folder)
        return any("inverted" in str(each.message) for each in caught)

    return catch


def grey(polyp: NDArray[np.bool_], level: int = 255) -> Image.Image:
    """Return a mask of black and one level."""
    return Image.fromarray(polyp.astype(np.uint8) * np.uint8(level))


def pages(suffix: str, *, count: int = 2, **how: Any) -> Save:
    """Return a writer of a file with a page, or a frame, for each polyp."""

    def save(path: Path, polyp: NDArray[np.bool_]) -> None:
        frames = [grey(polyp), *(grey(disc(125)) for _ in range(count - 1))]
        frames[0].save(path.with_suffix(suffix), save_all=True, append_images=frames[1:], **how)

    return save


def pyramid(path: Path, polyp: NDArray[np.bool_]) -> None:
    """Write a TIFF with a smaller copy of its mask, as viewers of large images like it."""
    mask, half = grey(polyp), grey(polyp[::2, ::2])
    mask.encoderinfo, half.encoderinfo = {}, {"tiffinfo": {254: 1}}  # type: ignore[attr-defined]
    mask.save(path.with_suffix(".tif"), save_all=True, append_images=[half])


def picture_of_pages(suffix: str, **how: Any) -> Callable[[Path], Any]:
    """Return a reading of a set of which one picture is an animation."""

    def read(folder: Path) -> Any:
        write_pictures(folder, lambda path, polyp: grey(polyp).save(path.with_suffix(".png")))
        frames = [Image.new("RGB", (WIDTH, HEIGHT), (level, 60, 40)) for level in (90, 120, 150)]
        (folder / "images" / "1.png").unlink()
        frames[0].save(folder / "images" / f"1{suffix}", save_all=True, append_images=frames[1:], **how)
        return len(load_records(folder))

    return read


TWO = Refused("masks/", "2 pages or frames")
PAGES = [
    Case("a TIFF with a page for each polyp", alone(pages(".tif")), TWO),
    Case("an animated WebP mask", alone(pages(".webp", lossless=True)), TWO),
    Case("an animated PNG mask", alone(pages(".png")), TWO),
    Case("an animated WebP among the pictures", picture_of_pages(".webp"), Refused("images/1.webp", "3 pages")),
    Case("a TIFF of three pages among the pictures", picture_of_pages(".tif"), Refused("images/1.tif", "3 pages")),
    Case("a TIFF of one page", alone(pages(".tif", count=1)), True),
    Case("a WebP of one frame", alone(pages(".webp", count=1, lossless=True)), True),
    Case("a PNG that could be animated, of one frame", alone(pages(".png", count=1)), True),
    Case("a TIFF with a smaller copy of its mask", alone(pyramid), True),
]

LINE = "difom-cache manifest FOLDER --out FILE.csv --mask-levels"
R = Image.Resampling
CLASS_MAPS = [
    Case("classes 0, 1 and 255 = ignore", alone(keep(classes(1, 255))), Refused("1 (10.1%), 255 (2.4%)", f"{LINE} 1`")),
    Case("classes 0, 3, 6 and 255 = ignore", alone(keep(classes(3, 255, far=6))), Refused("3 (", "6 (", "255 (", LINE)),
    Case("classes 0, 1 and 255, the band 1 px", alone(keep(classes(1, 255, px=1))), Refused("1 (", "255 (", LINE)),
    Case("classes 0, 1, 255 in 8-bit TIFF", alone(keep(classes(1, 255), ".tif")), Refused("1 (", "255 (", LINE)),
    Case(
        "a polyp with an unsure band of 128", alone(keep(classes(255, 128))), Refused("128 (", "255 (", f"{LINE} 255`")
    ),
    Case("classes 0, 127 and 255", alone(keep(classes(255, 255, far=127))), Refused("127 (", LINE)),
    Case("classes 0, 2 and 255", alone(keep(classes(255, 255, far=2))), Refused("2 (", LINE)),
    Case(
        "classes 1, 2: no black at all", alone(keep(lambda p: Image.fromarray(p + np.uint8(1)))), Refused("1 (", "2 (")
    ),
    Case("classes 0, 1, 255 --mask-levels 1", said(keep(classes(1, 255)), "1"), True),
    Case("classes 0, 3, 6, 255 --mask-levels 3", said(keep(classes(3, 255, far=6)), "3"), True),
    Case("classes 0, 1, 255: the line that is proposed", proposed(keep(classes(1, 255)), least=1), True),
    Case("instances 1 and 2", alone(keep(instances)), Refused("1 (", "2 (", LINE)),
    Case("instances 1 and 2 in 16 bits", alone(keep(partial(instances, kind=np.uint16))), Refused("1 (", "2 (", LINE)),
    Case("0 and 1", alone(keep(partial(grey, level=1))), True),
    *(
        Case(
            f"a mask enlarged by {filter_.name.lower()}",
            said(keep(partial(resized, filter_=filter_)), "129-255", least=0.9),
            True,
        )
        for filter_ in (R.BILINEAR, R.BICUBIC, R.LANCZOS)
    ),
]


def soft(make: Callable[[NDArray[np.bool_]], Image.Image], suffix: str = ".png", **how: Any) -> Callable[[Path], Any]:
    """Return a reading of masks that are not pure: they are to say themselves, and to overlap by an IoU of 0.93."""

    def read(folder: Path) -> Any:
        polyps = write_pictures(folder, keep(make, suffix, **how))
        return agree(load_records(folder), polyps, 0.93)

    return read


RIMS = [
    *(
        Case(
            f"a soft rim: {filter_.name.lower()}, {scale} times",
            soft(partial(resized, filter_=filter_, scale=scale)),
            True,
        )
        for filter_, scale in ((R.BILINEAR, 2), (R.BICUBIC, 3), (R.LANCZOS, 4), (R.BOX, 0.5))
    ),
    *(Case(f"a JPEG of quality {quality}", soft(grey, ".jpg", quality=quality), True) for quality in (50, 75, 95)),
    *(Case(f"JPEG of quality {q}, saved as PNG", soft(again(grey, "JPEG", quality=q)), True) for q in (75, 98)),
    Case("a JPEG in colours that are all grey", soft(lambda p: grey(p).convert("RGB"), ".jpg"), True),
    Case("a lossy WebP", soft(grey, ".webp", quality=80), True),
    Case("a TIFF with JPEG inside", soft(grey, ".tif", compression="jpeg"), True),
    Case("an enlarged JPEG", soft(again(partial(resized, filter_=R.BILINEAR), "JPEG", quality=80)), True),
    Case(
        "a JPEG without a polyp, whose black is 1",
        lambda f: [int(read_mask(blank(f, quality)).sum()) for quality in (70, 75)],
        [0, 0],
    ),
]


def blank(folder: Path, quality: int) -> Path:
    """Write a JPEG of nothing."""
    path = folder / f"{quality}.jpg"
    Image.new("L", (WIDTH, HEIGHT)).save(path, quality=quality)
    return path


LOSSY = [
    *(
        Case(
            f"0 and {level} as JPEG of quality {q}",
            alone(keep(partial(grey, level=level), ".jpg", quality=q)),
            Refused("lossy", f"{LINE} {shown}`"),
        )
        for level, q, shown in ((1, 100, 1), (1, 75, 1), (2, 90, 2), (10, 75, 10), (20, 95, 20), (100, 75, 100))
    ),
    Case(
        "0 and 1 as lossy WebP",
        alone(keep(partial(grey, level=1), ".webp", quality=90)),
        Refused("lossy", f"{LINE} 1`"),
    ),
    Case(
        "0, 1 and 255 = ignore as JPEG", alone(keep(classes(1, 255), ".jpg", quality=90)), Refused("1 (", "255 (", LINE)
    ),
    Case("0, 128 and 255 as JPEG", alone(keep(classes(255, 255, far=128), ".jpg")), Refused("128 (", "255 (", LINE)),
    Case("red as JPEG", alone(keep(colours, ".jpg", quality=75)), Refused("colours", "#fe0000", LINE)),
    Case("red with a white mark as JPEG", alone(keep(partial(colours, mark=True), ".jpg")), Refused("colours", LINE)),
    Case("red with a white mark as PNG", alone(keep(partial(colours, mark=True))), Refused("#ff0000 (", "#ffffff (")),
    Case("two colours as JPEG", alone(keep(two_colours, ".jpg")), Refused("colours", "#800000", "#00", LINE)),
    Case(
        "0 and 1 as JPEG, the line proposed",
        proposed(keep(partial(grey, level=1), ".jpg", quality=95), least=0.9),
        True,
    ),
    Case(
        "0 and 20 as JPEG, the line proposed",
        proposed(keep(partial(grey, level=20), ".jpg", quality=75), least=0.95),
        True,
    ),
    Case("red as JPEG, the line proposed", proposed(keep(colours, ".jpg", quality=75), least=0.97), True),
    Case(
        "red with a mark as JPEG, the line proposed",
        proposed(keep(partial(colours, mark=True), ".jpg"), least=0.97),
        True,
    ),
    Case("red as JPEG --mask-levels '#ff0000'", said(keep(colours, ".jpg"), "#ff0000", least=0.97), True),
    Case("two colours as JPEG --mask-levels '#800000'", said(keep(two_colours, ".jpg"), "#800000", least=0.97), True),
    Case("0 and 100 as JPEG --mask-levels 100", said(keep(partial(grey, level=100), ".jpg"), "100", least=0.97), True),
]

RED = palette((0, 0, 0), (128, 0, 0), size=256)
PALETTES = [
    Case(
        "a palette of VOC",
        alone(keep(RED)),
        Refused("0 = #000000 (89.9% of the frame)", "1 = #800000 (10.1%)", f"{LINE} 1`"),
    ),
    Case("a palette of VOC --mask-levels 1", said(keep(RED), "1"), True),
    Case("a palette of VOC --mask-levels '#800000'", said(keep(RED), "#800000"), True),
    Case(
        "a palette of VOC with a tool",
        alone(keep(palette((0, 0, 0), (128, 0, 0), (0, 128, 0)))),
        Refused("2 = #008000", LINE),
    ),
    Case(
        "a palette of VOC with a tool --mask-levels 1",
        said(keep(palette((0, 0, 0), (128, 0, 0), (0, 128, 0))), "1"),
        True,
    ),
    Case("a palette that is all black", alone(keep(palette((0, 0, 0)))), Refused("1 = #000000", f"{LINE} 1`")),
    Case("a palette that is all black --mask-levels 1", said(keep(palette((0, 0, 0))), "1"), True),
    Case("a palette of grey 0 and 100", alone(keep(palette((0, 0, 0), (100, 100, 100)))), Refused("1 = #646464", LINE)),
    Case("a palette in BMP --mask-levels 1", said(keep(RED, ".bmp"), "1"), True),
    Case("a palette in TIFF --mask-levels 1", said(keep(RED, ".tif"), "1"), True),
    Case("a palette of black and white", alone(keep(palette((0, 0, 0), (255, 255, 255), size=2))), True),
    Case("the same --mask-levels 1", said(keep(palette((0, 0, 0), (255, 255, 255), size=2)), "1"), True),
    Case("the same --mask-levels 255", said(keep(palette((0, 0, 0), (255, 255, 255), size=2)), "255"), True),
]


def half_size(path: Path, polyp: NDArray[np.bool_]) -> None:
    """Write a mask of half the size of its picture."""
    grey(polyp[::2, ::2]).save(path.with_suffix(".png"))


def double_size(path: Path, polyp: NDArray[np.bool_]) -> None:
    """Write a mask of double the size of its picture."""
    grey(np.kron(polyp, np.ones((2, 2), bool))).save(path.with_suffix(".png"))


def categories(folder: Path, levels: str) -> Any:
    """Read a COCO file with a polyp, 2, and a tool, 7."""
    write_pictures(folder, lambda path, polyp: None)
    corners = [[10, 10, 40, 10, 40, 30, 10, 30], [60, 60, 90, 60, 90, 80, 60, 80]]
    held = {
        "images": [{"id": 1, "file_name": "0.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": number, "segmentation": [each]}
            for number, each in zip((2, 7), corners, strict=True)
        ],
        "categories": [{"id": 2, "name": "polyp"}, {"id": 7, "name": "tool"}],
    }
    (folder / "images" / "set.json").write_text(json.dumps(held))
    records, _ = make_manifest(folder / "images" / "set.json", folder / "m.csv", mask_levels=levels)
    return [int(read_mask(record.mask).sum()) for record in records if record.mask]


GREY_100 = keep(partial(grey, level=100))
NOT_THERE = "none of 3 masks has it"
ABSENT = [
    Case("--mask-levels 77 where there is 100", said(GREY_100, "77"), Refused("77", NOT_THERE, "first, 100, 0")),
    Case(
        "--mask-levels 1,77 of classes 0, 1, 255",
        said(keep(classes(1, 255)), "1,77"),
        Refused("77", NOT_THERE, "first, 1, 0, 255"),
    ),
    Case(
        "--mask-levels 77 where JPEG has 100",
        said(keep(partial(grey, level=100), ".jpg"), "77"),
        Refused("77", "first, 100, 0"),
    ),
    Case("--mask-levels '#00ff00' where red is", said(keep(colours), "#00ff00"), Refused("#00ff00", "#ff0000")),
    Case("--mask-levels 3 of a palette", said(keep(RED), "3"), Refused(NOT_THERE, "first, 1 = #800000, 0 = #000000")),
    Case("--mask-levels alpha without alpha", said(GREY_100, "alpha"), Refused("alpha", NOT_THERE)),
    Case("--mask-levels 9 of a COCO file", partial(categories, levels="9"), Refused("9", "first, 7 = tool, 2 = polyp")),
    Case("--mask-levels 2 of a COCO file", partial(categories, levels="2"), [600]),
    Case("--mask-levels 100", said(GREY_100, "100"), True),
    Case(
        "--mask-levels of which one mask has each",
        said(two_names(GREY_100, keep(partial(grey, level=50))), "50,100"),
        True,
    ),
]

OTHERS = [
    Case("alpha", alone(keep(alpha)), Refused("alpha channel", f"{LINE} alpha`")),
    Case("--mask-levels alpha", said(keep(alpha), "alpha"), True),
    Case("masks of half the size", alone(half_size), Refused("160 x 120 px", "80 x 60 px")),
    Case("masks of double the size", alone(double_size), Refused("160 x 120 px", "320 x 240 px")),
    Case("a TIFF of one bit", alone(one_bit), True),
    Case("a TIFF of one bit, white is zero", alone(partial(one_bit, white_is_zero=True)), True),
    Case(
        "booleans by tifffile",
        alone(partial(one_bit, white_is_zero=True, tifffile=True)),
        Refused("1 = #000000", f"{LINE} 1`"),
    ),
    Case("booleans by tifffile --mask-levels 1", said(partial(one_bit, white_is_zero=True, tifffile=True), "1"), True),
    Case("a TIFF of one bit --mask-levels 1", said(one_bit, "1"), True),
    Case("an inverted set", warned(alone(keep(lambda polyp: grey(~polyp)))), True),
    Case(
        "an inverted set of large polyps",
        warned(alone(keep(lambda p: grey(~ndimage.binary_dilation(p, iterations=14))))),
        True,
    ),
    Case(
        "a set of large polyps", warned(alone(keep(lambda p: grey(ndimage.binary_dilation(p, iterations=30))))), False
    ),
    Case("an inverted set --mask-levels 0", said(keep(lambda polyp: grey(~polyp)), "0"), True),
    Case(
        "instances --mask-levels 1-65535",
        said(keep(lambda p: Image.fromarray(p * np.uint16(300) + p)), "1-65535"),
        True,
    ),
]

CASES = [*PAGES, *CLASS_MAPS, *RIMS, *LOSSY, *PALETTES, *ABSENT, *OTHERS]
