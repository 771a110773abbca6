"""Videos frame by frame, in order or by time, one in memory at a time: PyAV, extra `video`."""

import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difom_cache.base.errors import DataError, SettingsError, install_extra, warn
from difom_cache.base.files import guard_decoder
from difom_cache.data.addresses import FrameAddress

DURATION_TRUST_FRAC = 0.95
_OLDEST_AV = 17  # earlier ones convert every colour as BT.601 of limited range, whatever the stream says
_MOST_STRETCH = 8  # of a pixel's sides; no camera's is near it
_ASKEW = 1e-3  # of a display matrix: what counts as nothing beside its large numbers


def load_av() -> ModuleType:
    """Return PyAV.

    Raises:
        SettingsError: it is not installed, or too old to read colours as a stream says.
    """
    try:
        import av
    except ImportError as error:
        raise SettingsError(f"reading videos needs PyAV: {install_extra('video')}") from error
    if int(av.__version__.partition(".")[0]) < _OLDEST_AV:
        raise SettingsError(
            f"PyAV {av.__version__} reads the colours of videos wrong; {_OLDEST_AV} or newer is needed: "
            f"{install_extra('video')} --upgrade"
        )
    return av


@dataclass(frozen=True)
class Shown:
    """How a player shows what is stored: the size in px as stored and, of square pixels, as shown; then how it is turned.

    The picture is transposed, then mirrored left-right, then top-bottom.
    """

    stored: tuple[int, int]
    width: int
    transpose: bool
    flip_h: bool
    flip_v: bool

    @property
    def as_stored(self) -> bool:
        """Whether there is nothing to do."""
        return self.width == self.stored[0] and not (self.transpose or self.flip_h or self.flip_v)

    def apply(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a stored picture (H, W, 3) as it is shown."""
        if self.width != self.stored[0]:
            wide = Image.fromarray(rgb).resize((self.width, self.stored[1]), Image.Resampling.BILINEAR)
            rgb = np.asarray(wide)
        rgb = rgb.transpose(1, 0, 2) if self.transpose else rgb
        return np.ascontiguousarray(rgb[:: -1 if self.flip_v else 1, :: -1 if self.flip_h else 1])


@dataclass(frozen=True)
class VideoFrame:
    """One decoded frame: its time, and its picture where that is asked for."""

    native: Any
    pts: int | None
    time_base: Fraction
    time_s: float | None
    shown: Shown

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The picture, RGB (H, W, 3), upright and of square pixels; converted anew each time."""
        return self.shown.apply(self.native.to_ndarray(format="rgb24"))


class VideoReader:
    """A video's frames in order; `problem` says afterwards why it ended early, if it did, `interlaced` whether some frame was.

    `shown` says how they are shown, from the first one on.

    Raises:
        DataError: the file is missing or no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self.interlaced = False
        self.shown: Shown | None = None
        self._av = load_av()
        self._error = self._av.FFmpegError  # kept: a module is empty by the time an unfinished video is closed at exit
        with guard_decoder(path, DataError, "a video"):
            self._container = self._av.open(str(path), metadata_errors="replace")  # a tag is no picture
        if not self._container.streams.video:
            raise DataError(f"{path}: expected a video, found a file without a picture track")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"

    @property
    def reading(self) -> int:
        """Return by which rule (`READINGS` of record.py) the frames so far are read: 1 where they are as they are stored."""
        return 1 if self.shown is None or self.shown.as_stored else 2

    @property
    def rate(self) -> Fraction:
        """Return frames per second."""
        return Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)

    @property
    def format(self) -> str:
        """Return the names of the file's kind, with commas between, such as "matroska,webm"."""
        return str(self._container.format.name)

    @property
    def frames(self) -> int | None:
        """Return how many frames the file says it has, or has by its duration; None where it does not say."""
        if self._stream.frames:
            return int(self._stream.frames)
        if self._container.duration:
            return round(self._container.duration / self._av.time_base * self.rate)
        return None

    def __iter__(self) -> Iterator[VideoFrame]:
        count, reason, last_s = 0, "", 0.0
        try:
            for native in self._container.decode(self._stream):
                frame = self._show(native, f"frame {count}")
                count += 1
                last_s = frame.time_s if frame.time_s is not None else float((count - 1) / self.rate)
                yield frame
        except self._error as error:
            reason = f" ({str(error.strerror).lower()})"
        if count == 0:
            raise DataError(f"{self.path}: expected a video, but no frame of it can be decoded{reason}")
        if reason or self._ends_early(count, last_s):
            self.problem = (
                f"{self.path}: the video ends early, after {count} of about {self.frames or 'unknown'} frames{reason}; "
                "those are done, copy the video again for the rest"
            )
        if self.interlaced:
            warn(
                f"{self.path} is interlaced: a frame holds two moments, and whatever moves has combed edges; undo it with "
                "`ffmpeg -i VIDEO -vf bwdif NEW`"
            )

    def _show(self, native: Any, place: str) -> VideoFrame:
        """Return a decoded frame as players show it.

        Raises:
            DataError: it is shown otherwise than those before it, or no player would show it upright.
        """
        shown = self._describe(native)
        self.shown, self.interlaced = self.shown or shown, self.interlaced or bool(native.interlaced_frame)
        if shown != self.shown:
            raise DataError(
                f"{self.path}: {place} has {native.width} x {native.height} px"
                f"{'' if shown.stored != self.shown.stored else ', turned otherwise'}, those before it have "
                f"{self.shown.stored[0]} x {self.shown.stored[1]}; cut the video there into two"
            )
        return VideoFrame(native, native.pts, native.time_base, native.time, shown)

    def _describe(self, native: Any) -> Shown:
        """Return how a frame is shown, by its pixels' sides and its display matrix: x' = a x + c y, y' = b x + d y."""
        sides = Fraction(self._stream.sample_aspect_ratio or 1) or Fraction(1)
        held = native.side_data.get("DISPLAYMATRIX")
        numbers = np.frombuffer(held, np.int32).tolist() if held is not None else []
        a, b, c, d = (numbers[place] for place in (0, 1, 3, 4)) if any(numbers) else (1, 0, 0, 1)
        transpose = abs(b) > abs(a)
        straight, askew = ((b, c), (a, d)) if transpose else ((a, d), (b, c))
        turned = max(map(abs, askew)) <= _ASKEW * min(map(abs, straight))
        if not turned or not 1 / _MOST_STRETCH <= sides <= _MOST_STRETCH:
            raise DataError(
                f"{self.path}: its frames are shown {'askew' if not turned else f'with pixels of {sides} to 1'}; export it again "
                "upright, with square pixels"
            )
        right, down = (c, b) if transpose else (a, d)
        width = max(1, round(native.width * sides))
        return Shown((native.width, native.height), width, transpose, right < 0, down < 0)

    def _ends_early(self, count: int, last_s: float) -> bool:
        """Return whether the file promises more than `count` frames, the last of them at `last_s`."""
        if self._stream.frames:
            return count < int(self._stream.frames)
        # A duration is rounded and may count sound; frames need not come evenly, so that it says little of their number.
        promised_s = float((self._container.duration or 0) / self._av.time_base)
        return last_s + float(1 / self.rate) < promised_s * DURATION_TRUST_FRAC

    def seek(self, pts: int) -> None:
        """Go to the last key frame at or before `pts`; the next iteration begins there.

        Raises:
            DataError: the file cannot be searched.
        """
        try:
            self._container.seek(pts, stream=self._stream, backward=True, any_frame=False)
        except (OSError, self._error) as error:
            raise DataError(f"{self.path}: cannot be searched ({error.strerror})") from error

    def decode(self) -> Iterator[VideoFrame]:
        """Yield the frames from here on; a damaged one is the end."""
        try:
            for native in self._container.decode(self._stream):
                yield self._show(native, f"the frame at {native.time} s")
        except self._error:
            return

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()


_OPEN_VIDEOS = 4  # in one process; each holds a decoder and its last pictures
_KEPT_PICTURES = 8  # a picture is asked for twice: for its digest, and for its views
_AHEAD_MS = 10_000  # so far ahead decoding on is quicker than looking for a key frame
_SEARCHABLE = ("mov", "mp4", "matroska", "webm")  # containers with an index of key frames


def read_frame(address: FrameAddress) -> NDArray[np.uint8]:
    """Return a video's frame, RGB (H, W, 3).

    Raises:
        DataError: the video is missing, damaged, or ends before.
        SettingsError: PyAV is not installed.
    """
    return _find_finder(address).read(address.time_ms)


def frame_reading(address: FrameAddress) -> int:
    """Return by which of `READINGS` (record.py) a frame is read; decodes it, where that was not done just before."""
    finder = _find_finder(address)
    finder.read(address.time_ms)
    return finder.reading


def _find_finder(address: FrameAddress) -> "FrameFinder":
    try:
        about = address.file.stat()
    except OSError as error:
        raise DataError(f"{address.file}: expected a video, found nothing there") from error
    # A forked process must not go on with the decoder of its parent: the decoder's threads stayed there.
    return _open_finder(address.file, about.st_mtime_ns, about.st_size, os.getpid())


@lru_cache(_OPEN_VIDEOS)
def _open_finder(path: Path, mtime_ns: int, size_bytes: int, process: int) -> "FrameFinder":
    return FrameFinder(path)


class FrameFinder:
    """An open video that can be asked for the first frame at or after a time."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._open: _Reading | None = None
        self.reading = 1

    def read(self, time_ms: int) -> NDArray[np.uint8]:
        """Return the picture (H, W, 3) of the first frame at or after `time_ms`."""
        with self._lock:
            if time_ms in self._kept:
                self._kept.move_to_end(time_ms)
            else:
                self._kept[time_ms] = self._find(time_ms).picture
                if len(self._kept) > _KEPT_PICTURES:
                    self._kept.popitem(last=False)
            return self._kept[time_ms]

    def _find(self, time_ms: int) -> VideoFrame:
        if self._open is None or not (self._open.reaches(time_ms) or self._open.jump(time_ms)):
            self.close()
            self._open = _Reading(self._path)
        frame = self._open.find(time_ms)
        self.reading = self._open.reader.reading
        return frame

    def close(self) -> None:
        """Let go of the file."""
        if self._open is not None:
            self._open.reader.close()
            self._open = None


class _Reading:
    """A place in a video, between two of its frames; it begins at the first."""

    def __init__(self, path: Path) -> None:
        self._path, self.reader = path, VideoReader(path)
        self._clock = FrameClock(self.reader.rate)
        self._coming = iter(self.reader)
        self._frame = self._next()
        self._first_pts = self._frame.pts
        self._before_ms, self._frame_ms = Fraction(-1), self._clock.time_ms(self._frame)

    def reaches(self, time_ms: int) -> bool:
        """Return whether the frame for `time_ms` is this one, or soon to come."""
        return self._before_ms < time_ms <= self._frame_ms + _AHEAD_MS

    def jump(self, time_ms: int) -> bool:
        """Go to a key frame before `time_ms`; False where that cannot be told."""
        if self._first_pts is None or not {*self.reader.format.split(",")} & {*_SEARCHABLE}:
            return False
        try:
            self.reader.seek(self._first_pts + int(Fraction(time_ms, 1000) / self._frame.time_base))
            self._coming = self.reader.decode()
            self._frame = self._next()
        except DataError:
            return False
        # What came before this frame was not seen: after the time, it may not be the first one there.
        self._before_ms = self._frame_ms = self._clock.time_ms(self._frame)
        return self._frame_ms <= time_ms

    def find(self, time_ms: int) -> VideoFrame:
        """Return the first frame at or after `time_ms`, from here on."""
        while self._frame_ms < time_ms:
            self._frame, self._before_ms = self._next(), self._frame_ms
            self._frame_ms = self._clock.time_ms(self._frame)
        return self._frame

    def _next(self) -> VideoFrame:
        frame = next(self._coming, None)
        if frame is None:
            raise DataError(
                f"{self._path}: the video ends before the frame that is wanted; copy it again from its source"
            )
        return frame


class FrameClock:
    """When each frame of a video is shown, in milliseconds from the first; one without a time comes a frame's length later."""

    def __init__(self, rate: Fraction) -> None:
        self._rate = rate
        self._first: Fraction | None = None
        self._last = Fraction(0)

    def time_ms(self, frame: VideoFrame) -> Fraction:
        """Return the time of the next frame; the first that is asked for is at 0."""
        after = self._last if self._first is None else self._last + 1 / self._rate
        self._last = after if frame.pts is None else frame.pts * Fraction(frame.time_base)
        if self._first is None:
            self._first = self._last
        return (self._last - self._first) * 1000
