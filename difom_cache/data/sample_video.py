"""Which frames of a video become records: one every so many milliseconds, and none that nearly repeats an earlier one."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import CacheSpaceError, DataError, warn
from difom_cache.base.files import explain, open_plain, read_plain
from difom_cache.base.progress import track
from difom_cache.data.decoded import Decoded, Memory, digest_pixels, user_cache_folder
from difom_cache.data.duplicates import NEAR_BITS, Sieve
from difom_cache.data.video import FrameClock, VideoFrame, VideoReader

_VERSION = 2  # of what is remembered; grows when other frames would be taken, or read as other pixels


@dataclass(frozen=True)
class TakenFrame:
    """One frame that is taken: its time on the grid, its size in px, and the digest of its pixels."""

    time_ms: int
    width: int
    height: int
    pixels_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Sampling:
    """The frames that are taken of a video, in order, how many were left out as near-duplicates, and by which rule it is read."""

    frames: tuple[TakenFrame, ...]
    near: int
    reading: int


def sample_video(path: Path, every_ms: int, memory: Memory) -> Sampling:
    """Return the frames of a video that become records.

    For each multiple of `every_ms` that is the first frame at or after it; one that is within `NEAR_BITS` of a frame that was
    taken already, in both hashes of fingerprints.py, is left out. What was found is remembered by the file's digest.

    Args:
        path: the video.
        every_ms: between frames.
        memory: learns that these pictures can be decoded.

    Raises:
        DataError: it is no video, or damaged from the start.
        SettingsError: PyAV is not installed.
    """
    note = user_cache_folder() / "videos" / f"{_name_note(path, every_ms)}.json"
    known = _read_note(note)
    if known is None:
        known = _sample(path, every_ms)
        try:
            note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(note, json.dumps(asdict(known)).encode())
        except (OSError, CacheSpaceError):
            pass  # a folder that cannot be written remembers nothing
    for frame in known.frames:
        if memory.find(f"i {frame.pixels_sha256}") is None:
            memory.add(f"i {frame.pixels_sha256}", Decoded(frame.width, frame.height, reading=known.reading))
    return known


def _sample(path: Path, every_ms: int) -> Sampling:
    reader, sieve, near = VideoReader(path), Sieve(NEAR_BITS), 0
    taken = []
    bar = track(reader, f"reading {path.name}", "frame", total=reader.frames)
    for time_ms, frame in _on_grid(bar, FrameClock(reader.rate), every_ms):
        picture = frame.picture
        if not sieve.take(picture):
            near += 1
            continue
        height, width = picture.shape[:2]
        taken.append(TakenFrame(time_ms, width, height, digest_pixels(picture)))
    if reader.problem:
        warn(reader.problem)
    reader.close()
    return Sampling(tuple(taken), near, reader.reading)


def _on_grid(frames: Iterable[VideoFrame], clock: FrameClock, every_ms: int) -> Iterator[tuple[int, VideoFrame]]:
    """Yield (multiple of `every_ms`, first frame at or after it); a frame stands for one multiple, the earliest."""
    wanted_ms = 0
    for frame in frames:
        now_ms = clock.time_ms(frame)
        if now_ms >= wanted_ms:
            yield wanted_ms, frame
            wanted_ms = (int(now_ms / Fraction(every_ms)) + 1) * every_ms


def _name_note(path: Path, every_ms: int) -> str:
    """Return what a sampling is remembered by: the file's digest and everything that decides the frames."""
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: expected a video, but {explain(error)}") from error
    return hashlib.sha256(f"{_VERSION} {digest} {every_ms} {NEAR_BITS}".encode()).hexdigest()


def _read_note(note: Path) -> Sampling | None:
    """Return what is remembered, or None where nothing readable is."""
    try:
        held = TypeAdapter(Sampling).validate_json(read_plain(note), strict=True)
        return held if held.frames else None
    except (OSError, ValueError):
        return None
