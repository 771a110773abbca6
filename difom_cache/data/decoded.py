"""Every file of a manifest is decoded before anything is begun, and remembered by its digest in the user's cache folder.

A truncated picture that is found while views are rendered cannot be replaced any more: another file has another digest,
and the begun cache refuses it. What is remembered are digests, sizes and areas, never names, and never beside the data.

A file's digest is remembered too, by its place on the disk, its size and when it was changed, hashed into one key; only of a
file that has been left alone for a while. Extraction compares what it reads with the digest all the same.
"""

import os
import re
import stat
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import DataError, DifomWarning
from difom_cache.base.files import explain, read_plain
from difom_cache.data.addresses import EmptyAddress, FrameAddress, parse_address
from difom_cache.data.images import (
    MAX_PIXELS,
    head_of_bytes,
    mask_of_pixels,
    mask_pixels_of_bytes,
    picture_of_bytes,
    read_image,
    read_mask,
    refuse_large,
)
from difom_cache.data.mask_levels import MaskLevels
from difom_cache.data.video_frames import frame_reading

_DECODED = re.compile(r"([0-9]+) ([0-9]+) ([0-9.]{1,8}) ([1-8]) ([12]) ([0-9]{1,5}) ([ -~]{0,60})")
_SHA256 = re.compile(r"[0-9a-f]{64}")
MEMORY = "decoded-7.txt"
"Its number grows with what is remembered of a file, and whenever a file would be read as other pixels."
_REST_NS = 2_000_000_000  # a file that was changed less than this ago may change again and keep its times
_INVERTED_FRAC, _INVERTED_SHARE = 0.65, 0.5  # of a frame, in more than this share of the masks; not tuned


@dataclass(frozen=True)
class Decoded:
    """What decoding a file gave: its size in px, upright, the share of the frame that is polyp (masks), how EXIF turns it.

    `reading` is the oldest rule in `READINGS` (record.py) that makes the same pixels of it as the newest does; `top` is the
    highest level of a picture of 16 bits that says nothing of its levels, else 0.
    """

    width: int
    height: int
    covered: float = 0.0
    orientation: int = 1
    reading: int = 1
    top: int = 0
    kind: str = ""
    "Bits of a picture's samples; levels of a mask."


class Memory:
    """What was decoded before, by this user on this machine; a folder that cannot be written remembers nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = (folder or user_cache_folder()) / MEMORY
        self._lines: dict[str, str] = {}  # as they were read; most are never asked for
        self._known: dict[str, Decoded] = {}
        self._new: list[str] = []
        try:
            text = self._file.read_text(encoding="ascii", errors="replace")
        except OSError:
            return
        for line in text.splitlines():
            key, _, value = line.partition("\t")
            self._lines[key] = value

    def find(self, key: str) -> Decoded | None:
        """Return what is known of a file, or None."""
        return self._known.get(key) or _parse_decoded(self._lines.get(key, ""))

    def add(self, key: str, decoded: Decoded) -> None:
        """Remember a file; kept by `save`."""
        if self._known.setdefault(key, decoded) is decoded:  # else another thread has added the same file meanwhile
            numbers = (
                decoded.width,
                decoded.height,
                f"{decoded.covered:.4f}",
                decoded.orientation,
                decoded.reading,
                decoded.top,
            )
            self._new.append(f"{key}\t{' '.join(map(str, numbers))} {decoded.kind}\n")

    def find_digest(self, state: str) -> str | None:
        """Return the SHA-256 of the file in this state (`state_of`), or None."""
        match = _SHA256.fullmatch(self._lines.get(f"f {state}", ""))
        return match[0] if match else None

    def add_digest(self, state: str, digest: str) -> None:
        """Remember the SHA-256 of the file in this state; kept by `save`."""
        self._lines[f"f {state}"] = digest
        self._new.append(f"f {state}\t{digest}\n")

    def save(self) -> None:
        """Keep what was added, behind what other processes have added meanwhile."""
        if not self._new:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(self._file, flags, 0o600)
            try:
                os.write(descriptor, "".join(self._new).encode("ascii"))
            finally:
                os.close(descriptor)
        except OSError:
            return
        self._new.clear()


@lru_cache(100_000)
def _parse_decoded(text: str) -> Decoded | None:
    """Return what a line says of a file; many pictures are of one size."""
    match = _DECODED.fullmatch(text)
    if match is None:
        return None
    width, height, covered, orientation, reading, top, kind = match.groups()
    return Decoded(int(width), int(height), float(covered), int(orientation), int(reading), int(top), kind)


def state_of(path: Path) -> str | None:
    """Return what changes whenever the plain file at `path` does, as 64 letters; None where that cannot be told.

    That is the case where there is no plain file, or where it was changed just now: another change could then leave the
    same times behind.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    newest_ns = max(found.st_mtime_ns, found.st_ctime_ns)
    if not stat.S_ISREG(found.st_mode) or time.time_ns() - newest_ns < _REST_NS:
        return None
    facts = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return sha256(repr(facts).encode()).hexdigest()


def user_cache_folder() -> Path:
    """Return the folder for what this user's programs can make again: XDG_CACHE_HOME, or the platform's own."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given and Path(given).is_absolute():
        return Path(given) / "difom"
    home = Path.home()
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "difom"


def digest_pixels(values: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of size and values: of a picture (H, W, 3) or mask (H, W) that is no file of its own."""
    return sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()


def digest_empty(height: int, width: int) -> str:
    """Return the digest of an empty mask."""
    return digest_pixels(np.zeros((height, width), np.uint8))


def examine_image(path: Path, memory: Memory, max_pixels: int = MAX_PIXELS) -> tuple[str, Decoded]:
    """Return the digest of a picture and what decoding it gave; of one inside a larger file the digest is its pixels'.

    Raises:
        DataError, ImageError: it cannot be read, or is larger than `max_pixels`.
    """
    if parse_address(path) is None:
        data, digest = digest_file(path, memory)
        known = memory.find(f"i {digest}")
        if known is None:
            known = decode_image(data or read_file(path), digest, path, memory, max_pixels)
        refuse_large(path, known.width, known.height, max_pixels)
        return digest, known
    image = read_image(path)
    address = parse_address(path)
    reading = frame_reading(address) if isinstance(address, FrameAddress) else 1
    return digest_pixels(image), Decoded(image.shape[1], image.shape[0], reading=reading)


def examine_mask(
    path: Path, memory: Memory, levels: MaskLevels | None, max_pixels: int = MAX_PIXELS
) -> tuple[str, Decoded]:
    """Return the digest of a mask and what decoding it gave, as `examine_image`.

    Raises:
        DataError, ImageError: it cannot be read, or does not say which of its levels are polyp.
    """
    address = parse_address(path)
    if address is None:
        data, digest = digest_file(path, memory)
        known = memory.find(mask_key(digest, levels))
        return digest, known or decode_mask(data or read_file(path), digest, path, memory, levels, max_pixels)
    if isinstance(address, EmptyAddress):
        _, image = examine_image(address.image, memory, max_pixels)
        return digest_empty(image.height, image.width), replace(image, kind="")
    mask = read_mask(path, levels)
    return digest_pixels(mask), Decoded(mask.shape[1], mask.shape[0], _cover(mask))


def digest_file(path: Path, memory: Memory) -> tuple[bytes | None, str]:
    """Return a file's bytes, or None where they need not be read, and its SHA-256.

    Raises:
        DataError: it cannot be read.
    """
    state = state_of(path)
    known = memory.find_digest(state) if state else None
    if known:
        return None, known
    data = read_file(path)
    digest = sha256(data).hexdigest()
    if state and state == state_of(path):  # it did not change while it was read
        memory.add_digest(state, digest)
    return data, digest


def digest_of(path: Path, *, mask: bool) -> str:
    """Return the digest of a picture or mask as it is now, as `examine_image` gives it.

    Raises:
        OSError: a file cannot be read.
        DataError, ImageError: a picture or mask inside a larger file cannot be read.
    """
    if parse_address(path) is None:
        return sha256(read_plain(path)).hexdigest()
    return digest_pixels(read_mask(path) if mask else read_image(path))


def read_file(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return read_plain(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({explain(error)}); check its permissions") from error


def decode_image(data: bytes, digest: str, path: Path, memory: Memory, max_pixels: int) -> Decoded:
    """Return the size of a picture that can be decoded.

    Raises:
        ImageError: it cannot.
    """
    key = f"i {digest}"
    known = memory.find(key)
    if known is None:
        picture, head = picture_of_bytes(data, path, max_pixels), head_of_bytes(data, path)
        (height, width), said = picture.rgb.shape[:2], picture.bits
        reading = 2 if 0 < said < 16 else 1
        about = {"orientation": head.orientation, "reading": reading, "top": 0 if said else picture.top}
        known = Decoded(width, height, **about, kind=str(said or head.bits))
        memory.add(key, known)
    return known


def decode_mask(
    data: bytes, digest: str, path: Path, memory: Memory, levels: MaskLevels | None, max_pixels: int
) -> Decoded:
    """Return size and area of a mask that can be decoded, and whose levels say which of them are polyp.

    Raises:
        ImageError: they do not.
    """
    key = mask_key(digest, levels)
    known = memory.find(key)
    if known is None:
        pixels = mask_pixels_of_bytes(data, path, max_pixels)
        mask = mask_of_pixels(pixels, path, levels)
        covered, orientation = _cover(mask), head_of_bytes(data, path).orientation
        known = Decoded(mask.shape[1], mask.shape[0], covered, orientation, kind=pixels.describe())
        memory.add(key, known)
    return known


def _cover(mask: NDArray[np.uint8]) -> float:
    """Return the share of the frame that is polyp, to four digits; of a polyp that is smaller still not 0."""
    return max(round(float(mask.mean()), 4), 0.0001) if mask.any() else 0.0


def mask_key(digest: str, levels: MaskLevels | None) -> str:
    """Return what a mask is remembered by: its digest, and how its levels were read."""
    return f"m {digest}" + (f" {sha256(levels.text.encode()).hexdigest()[:16]}" if levels else "")


def warn_inverted(covered: Sequence[float]) -> None:
    """Warn where most masks cover most of their frames: background is then marked in place of polyps."""
    wide = sum(share > _INVERTED_FRAC for share in covered)
    if wide > _INVERTED_SHARE * len(covered):
        warnings.warn(
            f"{wide} of {len(covered)} masks cover more than {_INVERTED_FRAC:.0%} of their frame: are they inverted? "
            "Polyps are white, the rest is black; `difom-cache manifest FOLDER --out FILE.csv --mask-levels 0` turns them",
            DifomWarning,
            stacklevel=2,
        )


def warn_dark(tops: Mapping[str, Sequence[int]]) -> None:
    """Warn where no 16-bit image of a data set has a level that needs more than 12 bits: they are then read nearly black.

    Args:
        tops: by data set, the highest level of each such image whose file does not say of how many bits its levels are.
    """
    for dataset, found in tops.items():
        bits = next((bits for bits in (8, 10, 12) if max(found) < 2**bits), None)
        if bits:
            warnings.warn(
                f"{dataset}: its {len(found)} images of 16 bits have no level above {max(found)}, and no file says why. "
                f"If they are of {bits} bits, they are read nearly black: run `difom-cache manifest DATA --bits {bits} --out "
                "FILE.csv` (--bits 16 if they are as dark as that), and give FILE.csv as the data",
                DifomWarning,
                stacklevel=2,
            )
