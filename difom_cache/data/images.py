"""A picture or mask file becomes a checked array here, and nowhere else."""

import stat
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from difom_cache.data.addresses import FrameAddress, PolygonsAddress, parse_address
from difom_cache.data.coco import read_polygons
from difom_cache.data.mask_levels import MaskLevels, choose_polyp, describe_odd_levels
from difom_cache.data.video_frames import read_frame
from difom_cache.errors import CacheSpaceError, ImageError
from difom_cache.files import explain, read_plain
from difom_cache.store.atomic import write_atomic

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
"""What is opened, whatever a file's name says. Pillow's other decoders are never reached: some start programs (EPS starts
Ghostscript), and each is one more way in. WebP is on the list on purpose: annotation tools write it."""
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")

_BEGINNINGS = (b"\x89PNG", b"\xff\xd8", b"II*\0", b"MM\0*", b"BM", b"RIFF")
_LARGEST_BYTES = 1 << 30
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
_WIDE_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # Pillow's modes for grey of more than eight bits
_COLOURS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the picture in `path`, or the video's frame that it names (addresses.py), as RGB, upright.

    JPEG, PNG, TIFF, BMP and WebP; grey, palette, CMYK, alpha (dropped) and 16-bit (scaled by 1 / 257) all become RGB.

    Returns:
        (H, W, 3), RGB, after the EXIF orientation was applied.

    Raises:
        ImageError: the file is missing, truncated, no picture of these formats, or of other colours (Lab, floats).
    """
    address = parse_address(path)
    if isinstance(address, FrameAddress):
        return read_frame(address)
    return image_of_bytes(_read_bytes(path), path)


def image_of_bytes(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Return the picture in a file's bytes like `read_image`; `path` names it in messages."""
    image = _decode_upright(data, path)
    if image.mode in _WIDE_GREY:
        grey = _grey_from_wide(image, path)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.ascontiguousarray(np.asarray(_without_palette(image).convert("RGB")))


def read_mask(path: Path, levels: MaskLevels | None = None) -> NDArray[np.uint8]:
    """Return the mask in `path`, or the polygons that it names (addresses.py): 1 where a polyp is, else 0.

    A mask says itself where its levels are black and white, with soft edges at most, or where they are 0 and one of 1, 255
    and 65535. JPEG masks are polyp above grey level 128, as in PraNet's evaluation. An empty mask is a real case.

    Args:
        path: its file.
        levels: which levels are polyp; None where the mask says itself.

    Returns:
        (H, W), values 0 and 1, after the EXIF orientation was applied.

    Raises:
        ImageError: the file is missing, truncated or no picture; or its levels do not say which of them are polyp, so that
            a threshold would make another mask of it, in silence.
    """
    address = parse_address(path)
    if isinstance(address, PolygonsAddress):
        return read_polygons(address, levels)
    return mask_of_bytes(_read_bytes(path), path, levels)


def mask_of_bytes(data: bytes, path: Path, levels: MaskLevels | None = None) -> NDArray[np.uint8]:
    """Return the mask in a file's bytes like `read_mask`; `path` names it in messages."""
    image = _decode_upright(data, path)
    lossy = image.info["difom_format"] == "JPEG"
    if image.mode == "1":
        values = np.asarray(image.convert("L"))
    else:
        grey = image.mode == "L" or image.mode in _WIDE_GREY
        values = np.asarray(image if grey else _without_palette(image).convert("RGBA"))
    if levels is None:
        odd = describe_odd_levels(values, lossy=lossy)
        if odd:
            raise ImageError(
                f"{path}: this mask does not say which of its levels are polyp: {odd}; say it with `difom-cache manifest "
                "FOLDER --out FILE.csv --mask-levels LEVELS`, and give FILE.csv as the data"
            )
    return choose_polyp(values, levels).astype(np.uint8)


def write_picture(path: Path, picture: Image.Image, kind: str = "PNG", **options: Any) -> None:
    """Make `path` hold a picture, whatever lay there before.

    It is encoded in memory: on a full disk Pillow cuts files short and says nothing.

    Args:
        path: its file; its folder is made if needed.
        picture: what to write.
        kind: a name in `FORMATS`.
        options: of Pillow's encoder, such as `quality`.

    Raises:
        CacheSpaceError: the disk is full, or nothing can be written there.
    """
    refuse_other_file(path)
    content = BytesIO()
    picture.save(content, kind, **options)
    write_atomic(path, content.getvalue())


def refuse_other_file(path: Path) -> None:
    """Raise where something other than a picture lies at the place of a picture that is to be written.

    Raises:
        CacheSpaceError: names it.
    """
    try:
        there = path.lstat()
    except OSError:
        return
    if stat.S_ISDIR(there.st_mode):
        return  # the writer names it
    begins = path.read_bytes()[:4] if stat.S_ISREG(there.st_mode) and there.st_size < _LARGEST_BYTES else None
    if begins is None or (begins and not begins.startswith(_BEGINNINGS)):
        raise CacheSpaceError(f"{path} exists and is no picture; choose another file, or remove it")


def read_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of the picture in `path` after its EXIF orientation, without decoding its pixels.

    Raises:
        ImageError: the file is missing or its head is no picture's.
    """
    return size_of_bytes(_read_bytes(path), path)


def size_of_bytes(data: bytes, path: Path) -> tuple[int, int]:
    """Return (width, height) like `read_size`, for a caller who has read the file's bytes already."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            # Pillow turns TIFF sizes by itself, and decodes a whole PNG to look for EXIF that hardly any PNG has.
            may_lie = image.format != "TIFF" and (image.format != "PNG" or b"eXIf" in data)
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if may_lie else 1
    except Exception as error:  # decoders raise whatever a garbled file leads them to
        raise ImageError(_unreadable(path, data, error)) from error
    return (height, width) if orientation in _SIDEWAYS else (width, height)


def _decode_upright(data: bytes, path: Path) -> Image.Image:
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
        kind = "JPEG" if image.format in ("JPEG", "MPO") else image.format
        image.load()
        upright = ImageOps.exif_transpose(image)
        upright.info["difom_format"] = kind
    except Exception as error:  # decoders raise whatever a garbled file leads them to
        raise ImageError(_unreadable(path, data, error)) from error
    if upright.mode not in (*_COLOURS, *_WIDE_GREY):
        raise ImageError(f"{path}: expected RGB or grey, found colours of kind {upright.mode}; save it as RGB")
    return upright


def _read_bytes(path: Path) -> bytes:
    try:
        return read_plain(path)
    except OSError as error:
        raise ImageError(f"{path}: expected a picture, but {explain(error)}") from error


def _unreadable(path: Path, data: bytes, error: Exception) -> str:
    if not data:
        return f"{path}: expected a picture, found an empty file; copy it again from its source"
    if isinstance(error, UnidentifiedImageError):
        return f"{path}: expected a JPEG, PNG, TIFF, BMP or WebP picture, found something else in its {len(data)} bytes"
    what = " ".join(str(error).split()) or type(error).__name__
    return f"{path}: the picture cannot be decoded ({what}); copy it again from its source"


def _without_palette(image: Image.Image) -> Image.Image:
    # Pillow warns when a palette with several transparent entries turns into RGB without passing RGBA.
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


def _grey_from_wide(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    """Return 16-bit grey (H, W) as 8-bit, so that 65535 becomes 255."""
    wide = np.asarray(image).astype(np.int64)
    low, high = int(wide.min()), int(wide.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{path}: expected grey levels of 8 or 16 bits, found {low} to {high}; save it as 16-bit")
    return ((wide + 128) // 257).astype(np.uint8)
