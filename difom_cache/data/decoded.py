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
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import DataError
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
from difom_cache.data.video import frame_reading

_DECODED = re.compile(r"([0-9]+) ([0-9]+) ([0-9.]{1,8}) ([1-8]) ([12]) ([0-9]{1,5}) ([ -~]{0,60})")
_SHA256 = re.compile(r"[0-9a-f]{64}")
MEMORY = "decoded-7.txt"
"Its number grows with what is remembered of a file, and whenever a file would be read as other pixels."
_REST_NS = 2_000_000_000  # a file that was changed less than this ago may change again and keep its times


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
            one = decoded
            numbers = f"{one.width} {one.height} {one.covered:.4f} {one.orientation} {one.reading} {one.top} {one.kind}"
            self._new.append(f"{key}\t{numbers}\n")

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
    if (address := parse_address(path)) is not None:
        image = read_image(path)
        reading = frame_reading(address) if isinstance(address, FrameAddress) else 1
        return digest_pixels(image), Decoded(image.shape[1], image.shape[0], reading=reading)
    data, digest = digest_file(path, memory)
    known = memory.find(f"i {digest}")
    if known is None:
        data = data or read_file(path)
        picture, head = picture_of_bytes(data, path, max_pixels), head_of_bytes(data, path)
        (height, width), said = picture.rgb.shape[:2], picture.bits
        reading, top = 2 if 0 < said < 16 else 1, 0 if said else picture.top
        known = Decoded(width, height, 0.0, head.orientation, reading, top, str(said or head.bits))
        memory.add(f"i {digest}", known)
    refuse_large(path, known.width, known.height, max_pixels)
    return digest, known


def examine_mask(
    path: Path, memory: Memory, levels: MaskLevels | None, max_pixels: int = MAX_PIXELS
) -> tuple[str, Decoded]:
    """Return the digest of a mask and what decoding it gave, as `examine_image`.

    Raises:
        DataError, ImageError: it cannot be read, or does not say which of its levels are polyp.
    """
    address = parse_address(path)
    if isinstance(address, EmptyAddress):
        _, image = examine_image(address.image, memory, max_pixels)
        return digest_empty(image.height, image.width), replace(image, kind="")
    if address is not None:
        mask = read_mask(path, levels)
        return digest_pixels(mask), Decoded(mask.shape[1], mask.shape[0], _cover(mask))
    data, digest = digest_file(path, memory)
    known = memory.find(mask_key(digest, levels))
    if known is None:
        data = data or read_file(path)
        pixels = mask_pixels_of_bytes(data, path, max_pixels)
        mask, orientation = mask_of_pixels(pixels, path, levels), head_of_bytes(data, path).orientation
        known = Decoded(mask.shape[1], mask.shape[0], _cover(mask), orientation, kind=pixels.describe())
        memory.add(mask_key(digest, levels), known)
    return digest, known


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


def _cover(mask: NDArray[np.uint8]) -> float:
    """Return the share of the frame that is polyp, to four digits; of a polyp that is smaller still not 0."""
    return max(round(float(mask.mean()), 4), 0.0001) if mask.any() else 0.0


def mask_key(digest: str, levels: MaskLevels | None) -> str:
    """Return what a mask is remembered by: its digest, and how its levels were read."""
    return f"m {digest}" + (f" {sha256(levels.text.encode()).hexdigest()[:16]}" if levels else "")
