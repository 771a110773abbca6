"""Videos frame by frame, one in memory at a time: PyAV, an extra (`pip install 'difom[video]'`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.errors import DataError, SettingsError

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
DURATION_TRUST_FRAC = 0.95
OUTLINE_QUALITY = "18"  # x264's constant rate factor: no loss that an eye finds


def _load_av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise SettingsError("reading videos needs PyAV, which is not installed: pip install 'difom[video]'") from error
    return av


@dataclass(frozen=True)
class VideoFrame:
    """One decoded frame: picture (H, W, 3) uint8 RGB, and its time."""

    picture: NDArray[np.uint8]
    pts: int | None
    time_base: Fraction
    time_s: float | None


class VideoReader:
    """A video's frames in order; `problem` says afterwards why it ended early, if it did.

    Raises:
        DataError: the file is missing or no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._av = _load_av()
        try:
            self._container = self._av.open(str(path))
        except (OSError, self._av.FFmpegError) as error:
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
    def frames(self) -> int | None:
        """Return how many frames the file says it has, or has by its duration; None where it does not say."""
        if self._stream.frames:
            return int(self._stream.frames)
        if self._container.duration:
            return round(self._container.duration / self._av.time_base * self.rate)
        return None

    def __iter__(self) -> Iterator[VideoFrame]:
        # A duration is rounded and may count sound, so it promises fewer frames than a frame count does.
        promised = self._stream.frames or int((self.frames or 0) * DURATION_TRUST_FRAC)
        count, reason = 0, ""
        try:
            for frame in self._container.decode(self._stream):
                count += 1
                yield VideoFrame(frame.to_ndarray(format="rgb24"), frame.pts, frame.time_base, frame.time)
        except self._av.FFmpegError as error:
            reason = f" ({str(error.strerror).lower()})"
        if count == 0:
            raise DataError(f"{self.path}: expected a video, but no frame of it can be decoded{reason}")
        if reason or count < promised:
            self.problem = (
                f"{self.path}: the video ends early, after {count} of about {self.frames or 'unknown'} frames{reason}; "
                "those are done, copy the video again for the rest"
            )

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()


class VideoWriter:
    """A video of the reader's frame rate and of its first frame's size."""

    def __init__(self, path: Path, *, rate: Fraction, lossless: bool) -> None:
        self._av = _load_av()
        self._container = self._av.open(str(path), "w")
        self._rate = rate
        self._lossless = lossless
        self._stream: Any = None

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def write(self, picture: NDArray[np.uint8], like: VideoFrame) -> None:
        """Append a picture (H, W, 3) RGB, or (H, W) grey, at the time of `like`."""
        frame = self._av.VideoFrame.from_ndarray(picture, format="gray" if picture.ndim == 2 else "rgb24")
        if self._stream is None:
            self._stream = self._open_stream(frame.width, frame.height)
        frame.pts, frame.time_base = like.pts, like.time_base
        self._container.mux(self._stream.encode(frame))

    def _open_stream(self, width: int, height: int) -> Any:
        if self._lossless:
            stream = self._container.add_stream("ffv1", rate=self._rate)
            stream.pix_fmt = "gray"
        else:
            stream = self._container.add_stream("libx264", rate=self._rate, options={"crf": OUTLINE_QUALITY})
            stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        stream.width, stream.height = width, height
        return stream
