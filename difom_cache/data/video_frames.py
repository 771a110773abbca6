"""A video's frame by its time, in any order; what is decoded for one frame serves the next."""

import os
from collections import OrderedDict
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import DataError
from difom_cache.data.addresses import FrameAddress
from difom_cache.data.video import VideoFrame, VideoReader

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
