"""Pictures as cameras and tools write them: turned, of 10 and 12 bits, with names that other tools gave. Truth: painted."""

import json
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from truth_case import Case, Refused

from difom_cache import load_records, make_manifest, read_image, read_mask
from difom_cache.data import DataSource

HEIGHT, WIDTH = 48, 64


def paint(height: int = HEIGHT, width: int = WIDTH) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a stored picture with a red polyp towards one corner, and where that is."""
    y, x = np.mgrid[:height, :width]
    polyp = (y - height // 4) ** 2 + (x - width // 3) ** 2 < (height // 6) ** 2
    return np.where(polyp[..., None], (220, 60, 40), (60, 50, 90)).astype(np.uint8), polyp


def tag(orientation: int) -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def agree(records: list[Any]) -> bool:
    """Whether every mask lies where its picture is red: painted so, and so to be read."""
    return bool(records) and all(
        np.array_equal(read_mask(each.mask) == 1, read_image(each.image)[..., 0] > 128) for each in records
    )


def turned(
    orientation: int, *, drawn_on: str, said: str | None = None, square: bool = False, mask_tag: bool = False
) -> Callable[[Path], Any]:
    """Return a reading of a picture that EXIF turns, with a mask of what is stored, or of what a viewer shows."""

    def read(folder: Path) -> Any:
        picture, polyp = paint(HEIGHT, HEIGHT if square else WIDTH)
        (folder / "images").mkdir()
        (folder / "masks").mkdir()
        Image.fromarray(picture).save(folder / "images" / "1.png", **tag(orientation))
        mask = Image.fromarray(polyp.astype(np.uint8) * 255)
        if drawn_on == "upright":
            mask.getexif()[0x0112] = orientation
            mask = ImageOps.exif_transpose(mask)
        mask.save(folder / "masks" / "1.png", **(tag(orientation) if mask_tag else {}))
        if said is None:
            return agree(load_records(folder))
        make_manifest(folder, folder / "m.csv", exif=said)
        return agree(load_records(folder / "m.csv"))

    return read


def turned_coco(said: str | None) -> Callable[[Path], Any]:
    """Return a reading of a picture that EXIF turns by 90 degrees, with a polygon in its stored pixels."""

    def read(folder: Path) -> Any:
        picture = np.full((HEIGHT, WIDTH, 3), (60, 50, 90), np.uint8)
        picture[8:20, 12:30] = 220, 60, 40
        Image.fromarray(picture).save(folder / "1.png", **tag(6))
        corners = [12, 8, 30, 8, 30, 20, 12, 20]
        held = {
            "images": [{"id": 1, "file_name": "1.png", "width": WIDTH, "height": HEIGHT}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [corners]}],
            "categories": [{"id": 1, "name": "polyp"}],
        }
        (folder / "set.json").write_text(json.dumps(held))
        if said is None:
            return agree(load_records(folder / "set.json"))
        make_manifest(folder / "set.json", folder / "m.csv", exif=said)
        return agree(load_records(folder / "m.csv"))

    return read


def large(limit: int) -> Callable[[Path], Any]:
    """Return a reading of a picture of 3,072 pixels under a limit."""

    def read(folder: Path) -> Any:
        turned(1, drawn_on="raw")(folder)
        return [(each.width, each.height) for each in make_manifest(folder, max_pixels=limit)[0]]

    return read


def wide(bits: int, *, kind: str, said: bool = False, option: int | None = None) -> Callable[[Path], Any]:
    """Return a reading of a grey ramp of `bits` in samples of 16: the largest error against the ramp of 8 bits.

    Where nothing says how many bits there are, the warning is the reading.
    """

    def read(folder: Path) -> Any:
        ramp = np.linspace(0, 2**bits - 1, 48 * 64).astype(np.uint16).reshape(48, 64)
        (folder / "images").mkdir()
        how = {"tiffinfo": {281: 2**bits - 1}} if said and kind == "tif" else {}
        path = folder / "images" / f"1.{kind}"
        Image.fromarray(ramp).save(path, **how)
        if said and kind == "png":
            chunk, content = b"sBIT" + bytes([bits]), path.read_bytes()
            crc = struct.pack(">I", zlib.crc32(chunk))
            path.write_bytes(content[:33] + struct.pack(">I", 1) + chunk + crc + content[33:])
        source = DataSource(folder / "images", unlabelled=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if option is not None:
                make_manifest(folder / "images", folder / "m.csv", unlabelled=True, bits=option)
                caught.clear()
                source = DataSource(folder / "m.csv", unlabelled=True)
            (record,) = load_records(source)
        if caught:
            return f"--bits {bits}" in str(caught[0].message)
        right = np.round(ramp.astype(float) * 255 / (2**bits - 1))
        return float(np.abs(read_image(record.image)[..., 0] - right).max())

    return read


def named(image: str, mask: str, *, beside: str = "masks") -> Callable[[Path], Any]:
    """Return a reading of one picture and one mask with these names: whether the mask is its."""

    def read(folder: Path) -> Any:
        picture, polyp = paint()
        for part, name, pixels in (("images", image, picture), (beside, mask, polyp.astype(np.uint8) * 255)):
            (folder / part).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / part / name)
        return agree(load_records(folder))

    return read


def coco(name: str, segmentation: Any, *, width: float = WIDTH, skip: bool = False) -> Callable[[Path], Any]:
    """Return a reading of two pictures, the second of which a COCO file calls `name` and draws so: names that agree."""

    def read(folder: Path) -> Any:
        picture = np.full((HEIGHT, WIDTH, 3), (60, 50, 90), np.uint8)
        picture[8:20, 12:30] = 220, 60, 40
        (folder / "images").mkdir()
        for each in ("1.png", "2.png"):
            Image.fromarray(picture).save(folder / "images" / each)
        size = {"width": WIDTH, "height": HEIGHT}
        images = [{"id": 1, "file_name": "1.png", **size}, {"id": 2, "file_name": name, **size, "width": width}]
        drawn = [
            {"id": n, "image_id": n, "category_id": 1, "segmentation": each}
            for n, each in ((1, [BOX]), (2, segmentation))
        ]
        held = {"images": images, "annotations": drawn, "categories": [{"id": 1, "name": "polyp"}]}
        (folder / "set.json").write_text(json.dumps(held))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            records = make_manifest(folder / "set.json", folder / "m.csv", skip_broken=skip)[0]
        return sorted(record.image.name for record in records if agree([record]))

    return read


BOX = [12, 8, 30, 8, 30, 20, 12, 20]
ASKED = Refused("EXIF", "--exif upright", "raw")
CASES = [
    Case("EXIF 180 degrees, mask drawn on raw pixels", turned(3, drawn_on="raw"), ASKED),
    Case(
        "EXIF 90 degrees of a square picture, mask drawn on raw pixels", turned(6, drawn_on="raw", square=True), ASKED
    ),
    Case("EXIF 90 degrees, mask of the other shape", turned(6, drawn_on="raw"), ASKED),
    Case("EXIF mirrored, mask drawn on the upright picture", turned(2, drawn_on="upright"), ASKED),
    *(
        Case(f"EXIF {orientation}, --exif {drawn_on}", turned(orientation, drawn_on=drawn_on, said=drawn_on), True)
        for orientation, drawn_on in ((3, "raw"), (6, "raw"), (8, "upright"), (7, "raw"))
    ),
    Case("EXIF 6, --exif upright of a raw mask", turned(6, drawn_on="raw", said="upright"), Refused("EXIF", "--exif")),
    Case("EXIF 6 on picture and mask", turned(6, drawn_on="raw", mask_tag=True), True),
    Case("EXIF 1", turned(1, drawn_on="raw"), True),
    Case("EXIF 6 and a COCO polygon", turned_coco(None), ASKED),
    Case("EXIF 6 and a COCO polygon, --exif raw", turned_coco("raw"), True),
    Case("12 bits in a TIFF that says so", wide(12, kind="tif", said=True), 0.0),
    Case("10 bits in a TIFF that says so", wide(10, kind="tif", said=True), 0.0),
    Case("12 bits in a PNG that says so", wide(12, kind="png", said=True), 0.0),
    Case("16 bits in a PNG", wide(16, kind="png"), 0.0),
    Case("12 bits in a PNG that says nothing, warned of", wide(12, kind="png"), True),
    Case("10 bits in a TIFF that says nothing, warned of", wide(10, kind="tif"), True),
    Case("12 bits in a PNG, --bits 12", wide(12, kind="png", option=12), 0.0),
    Case("12 bits in a PNG, --bits 10", wide(12, kind="png", option=10), Refused("4095", "--bits 10", "1023")),
    Case("x.jpg and x.jpg.png", named("x.png", "x.png.png"), True),
    Case("x.png and mask_x.tif", named("x.png", "mask_x.tif"), True),
    Case("x.png and x_segmentation.png in one folder", named("x.png", "x_segmentation.png", beside="images"), True),
    Case("a name in NFC, its mask in NFD", named("M\u00fcller.png", "Mu\u0308ller.png"), True),
    Case("a mask of no picture", named("x.png", "y_mask.png"), Refused("y_mask.png", "looked for", "y)")),
    Case("COCO name with backslashes", coco("images\\2.png", [BOX]), ["1.png", "2.png"]),
    Case("COCO name of an upload", coco("/data/upload/7/0a1b2c3d-2.png", [BOX]), ["1.png", "2.png"]),
    Case("COCO name of no file", coco("/data/upload/7/3.png", [BOX]), Refused("looked for", "3.png", "--images")),
    Case("COCO width of 64.0", coco("2.png", [BOX], width=64.0), ["1.png", "2.png"]),
    Case("COCO width of 64.5", coco("2.png", [BOX], width=64.5), Refused("image 2", "64.5", "--skip-broken")),
    Case(
        "COCO flat list", coco("2.png", BOX), Refused("image 2", "annotation 2", "one list of numbers", "--skip-broken")
    ),
    Case(
        "COCO box among polygons", coco("2.png", [BOX, [1, 2, 3, 4]]), Refused("annotation 2", "a box", "--skip-broken")
    ),
    Case("COCO box among polygons, --skip-broken", coco("2.png", [BOX, [1, 2, 3, 4]], skip=True), ["1.png"]),
    Case("a picture over the limit of pixels", large(3000), Refused("3072 pixels", "3000", "--max-pixels 3072")),
    Case("a picture at the limit of pixels", large(3072), [(WIDTH, HEIGHT)]),
]
