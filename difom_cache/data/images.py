"""A picture or mask file becomes a checked array here, and nowhere else."""

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from difom_cache.errors import ImageError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")

MASK_THRESHOLD = 128  # as PraNet's evaluation: ground truth is polyp where it is above 128

_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
_WIDE_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # Pillow's modes for grey of more than eight bits


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the picture in `path` as RGB, upright.

    JPEG, PNG, TIFF and BMP; grey, palette, CMYK, alpha (dropped) and 16-bit (scaled by 1 / 257) all become RGB.

    Returns:
        (H, W, 3), RGB, after the EXIF orientation was applied.

    Raises:
        ImageError: the file is missing, truncated, or no picture.
    """
    image = _open_upright(path)
    if image.mode in _WIDE_GREY:
        grey = _grey_from_wide(image, path)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.ascontiguousarray(np.asarray(_without_palette(image).convert("RGB")))


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Return the mask in `path`: 1 where its grey level is above 128, else 0.

    JPEG masks are not purely 0 and 255, which is why the threshold stands in the middle. An empty mask is a real case.

    Returns:
        (H, W), values 0 and 1, after the EXIF orientation was applied.

    Raises:
        ImageError: the file is missing, truncated, no picture, or a lossless file with the values 0 and 1, which
            would silently read as an empty mask.
    """
    image = _open_upright(path)
    lossy = path.suffix.lower() in (".jpg", ".jpeg")
    if image.mode in _WIDE_GREY:
        grey = np.asarray(image)
        peak = int(grey.max())
        grey = _grey_from_wide(image, path)
    else:
        grey = np.asarray(_without_palette(image).convert("L"))
        peak = int(grey.max())
    if peak == 1 and not lossy:
        raise ImageError(f"{path}: expected a mask with polyps near 255, found the values 0 and 1; save it times 255")
    return (grey > MASK_THRESHOLD).astype(np.uint8)


def read_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of the picture in `path` after its EXIF orientation, without decoding its pixels.

    Raises:
        ImageError: the file is missing or its head is no picture's.
    """
    return size_of_bytes(_read_bytes(path), path)


def size_of_bytes(data: bytes, path: Path) -> tuple[int, int]:
    """Return (width, height) like `read_size`, for a caller who has read the file's bytes already."""
    try:
        with Image.open(BytesIO(data)) as image:
            width, height = image.size
            # Pillow turns TIFF sizes by itself, and decodes a whole PNG to look for EXIF that hardly any PNG has.
            may_lie = image.format != "TIFF" and (image.format != "PNG" or b"eXIf" in data)
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if may_lie else 1
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(_unreadable(path, data, error)) from error
    return (height, width) if orientation in _SIDEWAYS else (width, height)


def _open_upright(path: Path) -> Image.Image:
    data = _read_bytes(path)
    try:
        image = Image.open(BytesIO(data))
        image.load()
        return ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(_unreadable(path, data, error)) from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: expected a picture, but {(error.strerror or str(error)).lower()}") from error


def _unreadable(path: Path, data: bytes, error: Exception) -> str:
    if not data:
        return f"{path}: expected a picture, found an empty file; copy it again from its source"
    if isinstance(error, UnidentifiedImageError):
        return f"{path}: expected a JPEG, PNG, TIFF or BMP picture, found something else in its {len(data)} bytes"
    return f"{path}: the picture cannot be decoded ({error}); copy it again from its source"


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
