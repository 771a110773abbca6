"""A picture or mask file becomes a checked array here, and nowhere else."""

import re
import stat
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont, ImageOps, UnidentifiedImageError

from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import CacheSpaceError, ImageError
from difom_cache.base.files import explain, read_plain
from difom_cache.data.addresses import EmptyAddress, FrameAddress, PolygonsAddress, parse_address
from difom_cache.data.coco import read_polygons
from difom_cache.data.mask_levels import MaskLevels, choose_polyp, describe_odd_levels
from difom_cache.data.mask_pixels import MaskPixels
from difom_cache.data.video import read_frame

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
"""What is opened, whatever a file's name says. Pillow's other decoders are never reached: some start programs (EPS starts
Ghostscript), and each is one more way in. WebP is on the list on purpose: annotation tools write it."""
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")

_TIFF_BITS, _TIFF_MOST = 258, (281, 341)  # BitsPerSample; MaxSampleValue, SMaxSampleValue
_PNG_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # chunks in which a PNG says its orientation
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8", b"II*\0", b"MM\0*", b"BM", b"RIFF")
Drawn = Literal["upright", "raw"]
"""What a mask was drawn on: the picture as viewers show it, or its pixels as they are stored."""
MAX_PIXELS = 178_956_970
"""Of one image, unless --max-pixels says otherwise: where Pillow stops by itself."""

_LARGEST_BYTES = 1 << 30
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK = {6: 8, 8: 6}  # orientations that undo each other; every other one undoes itself
_OPENING = Lock()  # Pillow's own limit belongs to the whole process
_PHOTOMETRIC, _SOFTWARE = 262, 305  # tags of TIFF 6.0
_SUBFILE_TYPE, _NO_PAGE = 254, 0b101  # TIFF 6.0, page 36: a smaller copy of another page, or its transparency
_WIDE_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # Pillow's modes for grey of more than eight bits
_WIDE_COLOUR = re.compile("RGB[AaX]?;16[BLN]")  # Pillow's decoders for colours of more: they keep the upper bytes
_COLOURS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


@dataclass(frozen=True)
class Head:
    """What the head of a picture file says: its size in px, upright, how EXIF turns it (1: not at all), and its bits a sample."""

    width: int
    height: int
    orientation: int = 1
    bits: int = 8


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright RGB (H, W, 3).

    Of one with samples of 16 bits `top` is the highest level, and `bits` how many of them count, 0 where nobody says it.
    """

    rgb: NDArray[np.uint8]
    top: int = 0
    bits: int = 0


def read_image(path: Path, *, max_pixels: int | None = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the picture in `path`, or the video's frame that it names (addresses.py), as RGB, upright.

    JPEG, PNG, TIFF, BMP and WebP; grey, palette, CMYK, alpha (dropped) and 16-bit (scaled by 1 / 257, or from as
    many bits as the file says that they are of) all become RGB.

    Args:
        path: its file.
        max_pixels: a larger picture is refused; None for one whose size is known already, such as a record's.

    Returns:
        (H, W, 3), RGB, after the EXIF orientation was applied.

    Raises:
        ImageError: the file is missing, truncated, no picture of these formats, too large, or of other colours (Lab, floats).
    """
    address = parse_address(path)
    if isinstance(address, FrameAddress):
        return read_frame(address)
    return picture_of_bytes(_read_bytes(path), path, max_pixels).rgb


def picture_of_bytes(
    data: bytes, path: Path, max_pixels: int | None = MAX_PIXELS, *, bits: int | None = None
) -> Picture:
    """Return the picture in a file's bytes and what its samples of 16 bits are.

    Args:
        data: the file's.
        path: names it in messages.
        max_pixels: as of `read_image`.
        bits: of a sample, where it has 16; None: as the file says, else all 16.

    Raises:
        ImageError: as `read_image`; or a level needs more than `bits`.
    """
    image = _decode_upright(data, path, max_pixels)
    grey = image.mode in _WIDE_GREY
    if not grey and not image.info["difom_wide"]:
        return Picture(_as_rgb(image))
    said = bits or image.info["difom_bits"]
    few = 0 < said < 16
    levels = np.asarray(image).astype(np.int64) if grey else _as_rgb(image).astype(np.int64) * 256
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{path}: expected grey levels of 8 or 16 bits, found {low} to {high}; save it as 16-bit")
    if not grey and few:
        levels += _as_rgb(_decode_upright(data, path, max_pixels, low=True))
    top = int(levels.max()) + (255 if not grey and not few else 0)
    if bits and top >= 2**bits:
        raise ImageError(f"{path}: has levels up to {top}, and --bits {bits} ends at {2**bits - 1}")
    if few and not bits:
        # A PNG's writer should have spread them over all 16 (PNG, 13.12): then no level of few bits has others set.
        spread = image.info["difom_png"] and not (levels & (2 ** (16 - said) - 1)).any()
        if levels.max() >= 2**said or spread:
            said, few = 16, False
    if few:
        most = 2**said - 1
        eight = ((2 * 255 * levels + most) // (2 * most)).astype(np.uint8)
    else:
        eight = ((levels + 128) // 257).astype(np.uint8) if grey else _as_rgb(image)
    return Picture(np.repeat(eight[:, :, None], 3, axis=2) if grey else eight, top, said)


def read_mask(
    path: Path, levels: MaskLevels | None = None, *, max_pixels: int | None = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Return the mask in `path`, or the polygons that it names (addresses.py): 1 where a polyp is, else 0.

    A mask says itself where its levels are black and white, with soft edges at most, or where they are 0 and one of 1, 255
    and 65535 (mask_levels.py). It is polyp above grey level 128, as in PraNet's evaluation. An empty mask is a real case.

    Args:
        path: its file.
        levels: which levels are polyp; None where the mask says itself.
        max_pixels: as of `read_image`.

    Returns:
        (H, W), values 0 and 1, after the EXIF orientation was applied.

    Raises:
        ImageError: the file is missing, truncated or no picture; or its levels do not say which of them are polyp, so that
            a threshold would make another mask of it, in silence.
    """
    address = parse_address(path)
    if isinstance(address, PolygonsAddress):
        return read_polygons(address, levels)
    if isinstance(address, EmptyAddress):
        inside = parse_address(address.image) is not None
        width, height = read_image(address.image).shape[1::-1] if inside else read_size(address.image)
        return np.zeros((height, width), np.uint8)
    return mask_of_pixels(read_mask_pixels(path, max_pixels=max_pixels), path, levels)


def mask_of_pixels(pixels: MaskPixels, path: Path, levels: MaskLevels | None = None) -> NDArray[np.uint8]:
    """Return the mask that pixels are, like `read_mask`; `path` names it in messages."""
    if levels is None and (odd := describe_odd_levels(pixels)):
        raise ImageError(f"{path}: this mask does not say which of its levels are polyp: {odd}")
    return choose_polyp(pixels, levels).astype(np.uint8)


def read_mask_pixels(path: Path, *, max_pixels: int | None = MAX_PIXELS) -> MaskPixels:
    """Return the pixels of the mask in `path` as they were stored, upright.

    Raises:
        ImageError: as `read_mask`, but for levels.
    """
    return mask_pixels_of_bytes(_read_bytes(path), path, max_pixels)


def mask_pixels_of_bytes(data: bytes, path: Path, max_pixels: int | None = MAX_PIXELS) -> MaskPixels:
    """Return a mask's pixels as they were stored; `path` names it in messages."""
    image = _decode_upright(data, path, max_pixels)
    lossy = bool(image.info["difom_lossy"])
    if image.mode == "1":
        bits = np.asarray(image).astype(np.uint8)
        negative = bool(image.info["difom_negative"])
        return MaskPixels(bits * np.uint8(255), index=bits ^ negative, palette_size=2, doubtful=negative)
    if image.mode == "L" or image.mode in _WIDE_GREY:
        return MaskPixels(np.asarray(image), lossy=lossy)
    opaque = image.mode[-1] not in "Aa" and "transparency" not in image.info
    rgba = np.asarray(_without_palette(image).convert("RGBA"))
    if image.mode != "P":
        return MaskPixels.of_rgba(rgba, opaque=opaque, lossy=lossy)
    size = len(image.getpalette() or ()) // 3
    return MaskPixels.of_rgba(rgba, opaque=opaque, index=np.asarray(image), palette_size=size)


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


def read_head(path: Path) -> Head:
    """Return what the head of the picture in `path` says, without decoding its pixels.

    Raises:
        ImageError: the file is missing or its head is no picture's.
    """
    return head_of_bytes(_read_bytes(path), path)


def read_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of the picture in `path` after its EXIF orientation; see `read_head`."""
    head = read_head(path)
    return head.width, head.height


def head_of_bytes(data: bytes, path: Path) -> Head:
    """Return what a file's head says like `read_head`, for a caller who has read the file's bytes already."""
    try:
        with _open_picture(data) as image:
            (width, height), orientation = image.size, 1
            # Pillow decodes a whole PNG to look for EXIF, which hardly any PNG has.
            if image.format != "PNG" or any(name in data for name in _PNG_EXIF):
                found = image.getexif().get(_EXIF_ORIENTATION, 1)
                orientation = found if found in _TURNS else 1
            wide = image.mode in _WIDE_GREY or any(";16" in str(part.args) for part in getattr(image, "tile", ()))
            bits = 1 if image.mode == "1" else 16 if wide else 8
            sideways = turns_sideways(orientation) and image.format != "TIFF"  # whose size Pillow turns by itself
    except Exception as error:  # decoders raise whatever a garbled file leads them to
        raise ImageError(_unreadable(path, data, error)) from error
    size = (height, width) if sideways else (width, height)
    return Head(*size, orientation, bits)


def turns_sideways(orientation: int) -> bool:
    """Return whether an EXIF orientation swaps width and height."""
    return orientation >= 5


def turn(values: NDArray[np.uint8], orientation: int, *, back: bool = False) -> NDArray[np.uint8]:
    """Return a picture or mask as its EXIF orientation says that it is shown; with `back`, as it is stored to be shown so."""
    way = _BACK.get(orientation, orientation) if back else orientation
    return np.asarray(Image.fromarray(values).transpose(_TURNS[way])) if way in _TURNS else values


def exif_of(orientation: int) -> Image.Exif | None:
    """Return EXIF that says nothing but an orientation; none where it turns nothing."""
    if orientation == 1:
        return None
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    return exif


def fit_text(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """Return a text, its middle left out where it is wider than that."""
    kept = text
    for left in range(len(text) - 1, 1, -1):
        if font.getlength(kept) <= width_px:
            break
        kept = f"{text[: left // 2]}\u2026{text[-(left // 2) :]}"
    return kept


def refuse_large(path: Path, width: int, height: int, max_pixels: int | None) -> None:
    """Raise where a picture has more pixels than its user expects of any.

    Raises:
        ImageError: names the limit, and the option that raises it.
    """
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{path}: has {width} x {height} px, {width * height} pixels, and the limit is {max_pixels}; if it is meant, pass "
            f"--max-pixels {width * height}"
        )


def _open_picture(data: bytes) -> Image.Image:
    """Return a picture whose pixels are not decoded yet, of whatever size; Pillow's limit would warn of an attack."""
    with _OPENING:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(BytesIO(data), formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _decode_upright(data: bytes, path: Path, max_pixels: int | None, *, low: bool = False) -> Image.Image:
    """Return a decoded picture, upright; of colours of 16 bits the upper bytes, or, if `low`, the lower ones."""
    try:
        image: Any = _open_picture(data)
        refuse_large(path, image.width, image.height, max_pixels)
        pages = _count_pages(image)
        modes = [_raw_mode(each.args) for each in image.tile]
        wide = image.mode in ("RGB", "RGBA") and any(map(_WIDE_COLOUR.fullmatch, modes))
        bits = _said_bits(image, data) if wide or image.mode in _WIDE_GREY else 0
        if low:
            image.tile = [each._replace(args=_swap(each.args)) for each in image.tile]
        image.load()
        upright = ImageOps.exif_transpose(image)
        # True stored as TIFF's black: so tifffile writes arrays of booleans, and reads them as true again.
        tags = getattr(image, "tag_v2", {})
        by_tifffile = str(tags.get(_SOFTWARE, "")).startswith("tifffile")
        negative = image.mode == "1" and tags.get(_PHOTOMETRIC) == 0 and by_tifffile
        upright.info |= {"difom_lossy": _is_lossy(image, data), "difom_negative": negative}
        upright.info |= {"difom_wide": wide, "difom_bits": bits, "difom_png": image.format == "PNG"}
    except ImageError:
        raise
    except Exception as error:  # decoders raise whatever a garbled file leads them to
        raise ImageError(_unreadable(path, data, error)) from error
    if pages != 1:
        raise ImageError(
            f"{path}: expected one picture, found {pages} pages or frames, of which one would be read; save each to a file of "
            "its own, or join them"
        )
    if upright.mode not in (*_COLOURS, *_WIDE_GREY):
        raise ImageError(f"{path}: expected RGB or grey, found colours of kind {upright.mode}; save it as RGB")
    return upright


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    """Return whether an open file's levels are never pure: JPEG, also inside of a TIFF, and WebP's lossy kind."""
    if image.format == "WEBP":
        chunk = re.search(rb"VP8[ L]", data)
        return chunk is not None and chunk[0] == b"VP8 "
    return image.format in ("JPEG", "MPO") or image.info.get("compression") in ("jpeg", "webp")


def _count_pages(image: Image.Image) -> int:
    """Return the number of whole pictures in an open file; the others of a JPEG are previews by definition (CIPA DC-007)."""
    count = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    if image.format != "TIFF" or count == 1:
        return count
    kinds = []
    for page in range(count):
        image.seek(page)
        kinds.append(int(image.tag_v2.get(_SUBFILE_TYPE, 0)) & _NO_PAGE)  # type: ignore[attr-defined]
    image.seek(0)
    return count if kinds[0] else kinds.count(0)


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


def _as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(_without_palette(image).convert("RGB")))


def _said_bits(image: Any, data: bytes) -> int:
    """Return of how many bits a file says its samples of 16 are; 0 where it does not say."""
    if image.format == "PNG":  # the original depth: PNG, 11.3.2.7 sBIT
        head = data[: data.find(b"IDAT")]
        at = head.find(b"sBIT")
        return max(head[at + 4 : at + 4 + head[at - 1]], default=0) if at > 0 else 0
    if image.format != "TIFF":
        return 0
    own, *most = (np.max(image.tag_v2.get(tag, 0)) for tag in (_TIFF_BITS, *_TIFF_MOST))
    # The largest value may be that of this picture alone; one that ends a number of bits is not.
    ends = [int(value).bit_length() for value in most if value >= 255 and int(value + 1).bit_count() == 1]
    return max(ends, default=0) if own == 16 else int(own)


def _raw_mode(args: Any) -> str:
    """Return how Pillow finds samples in a file: its decoder's argument, or the first of them."""
    return str(args[0] if isinstance(args, tuple) else args)


def _swap(args: Any) -> Any:
    """Return the arguments of a decoder that takes the lower bytes of samples of 16 bits for the upper ones."""
    native = "L" if sys.byteorder == "little" else "B"
    raw = _raw_mode(args).replace(";16N", f";16{native}")
    raw = raw.replace(";16L", ";16B") if ";16L" in raw else raw.replace(";16B", ";16L")
    return (raw, *args[1:]) if isinstance(args, tuple) else raw
