"""Videos frame by frame, one in memory at a time: PyAV, an extra (`pip install 'difom[video]'`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.errors import DataError, SettingsError

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
DURATION_TRUST_FRAC = 0.95


def load_av() -> ModuleType:
    """Return PyAV.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise SettingsError("reading videos needs PyAV, which is not installed: pip install 'difom[video]'") from error
    return av


@dataclass(frozen=True)
class VideoFrame:
    """One decoded frame: its time, and its picture where that is asked for."""

    native: Any
    pts: int | None
    time_base: Fraction
    time_s: float | None

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The picture, RGB (H, W, 3); converted anew each time."""
        rgb: NDArray[np.uint8] = self.native.to_ndarray(format="rgb24")
        return rgb


class VideoReader:
    """A video's frames in order; `problem` says afterwards why it ended early, if it did.

    Raises:
        DataError: the file is missing or no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._av = load_av()
        self._error = self._av.FFmpegError  # kept: a module is empty by the time an unfinished video is closed at exit
        try:
            self._container = self._av.open(str(path))
        except (OSError, self._error) as error:
            raise DataError(f"{path}: expected a video, but it cannot be opened ({error.strerror})") from error
        if not self._container.streams.video:
            raise DataError(f"{path}: expected a video, found a file without a picture track")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"

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
        count, reason, first_s, last_s = 0, "", 0.0, 0.0
        try:
            for frame in self._container.decode(self._stream):
                count += 1
                last_s = frame.time if frame.time is not None else float((count - 1) / self.rate)
                first_s = last_s if count == 1 else first_s
                yield VideoFrame(frame, frame.pts, frame.time_base, frame.time)
        except self._error as error:
            reason = f" ({str(error.strerror).lower()})"
        if count == 0:
            raise DataError(f"{self.path}: expected a video, but no frame of it can be decoded{reason}")
        if reason or self._ends_early(count, last_s - first_s):
            self.problem = (
                f"{self.path}: the video ends early, after {count} of about {self.frames or 'unknown'} frames{reason}; "
                "those are done, copy the video again for the rest"
            )

    def _ends_early(self, count: int, seconds: float) -> bool:
        """Return whether the file promises more than `count` frames, the last of them `seconds` after the first."""
        if self._stream.frames:
            return count < int(self._stream.frames)
        # A duration is rounded and may count sound; frames need not come evenly, so that it says little of their number.
        promised_s = float((self._container.duration or 0) / self._av.time_base)
        return seconds + float(1 / self.rate) < promised_s * DURATION_TRUST_FRAC

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
            for frame in self._container.decode(self._stream):
                yield VideoFrame(frame, frame.pts, frame.time_base, frame.time)
        except self._error:
            return

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()
