"""A video that is written frame by frame: PyAV, extra `video`."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache.data import VideoFrame

OUTLINE_QUALITY = "18"  # x264's constant rate factor: no loss that an eye finds


class VideoWriter:
    """A video of its first frame's size, whose frames keep the times of those that they are like.

    Args:
        path: its file.
        rate: frames a second: of the whole, and between frames that have no time.
        lossless: whether it is FFV1, else H.264 in BT.601 of limited range, and says so.
    """

    def __init__(self, path: Path, *, rate: Fraction, lossless: bool) -> None:
        import av  # the reader has said so where it is missing

        self._av: Any = av
        self._container = self._av.open(str(path), "w")
        self._rate = rate
        self._lossless = lossless
        self._stream: Any = None
        self._next_pts = 0

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
            self._stream = self._open_stream(frame.width, frame.height, like.time_base or 1 / self._rate)
        time_base = self._stream.codec_context.time_base
        frame.time_base = time_base
        frame.pts = (
            self._next_pts if like.pts is None else max(self._next_pts, round(like.pts * like.time_base / time_base))
        )
        self._next_pts = frame.pts + (1 if like.pts is not None else max(1, round(1 / self._rate / time_base)))
        self._container.mux(self._stream.encode(frame))

    def _open_stream(self, width: int, height: int, time_base: Fraction) -> Any:
        if self._lossless:
            stream = self._container.add_stream("ffv1", rate=self._rate)
            stream.pix_fmt = "gray"
        else:
            stream = self._container.add_stream("libx264", rate=self._rate, options={"crf": OUTLINE_QUALITY})
            stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
            colours = self._av.video.reformatter
            stream.codec_context.colorspace = colours.Colorspace.SMPTE170M
            stream.codec_context.color_range = colours.ColorRange.MPEG
        stream.width, stream.height = width, height
        stream.time_base = stream.codec_context.time_base = time_base  # the frame rate's own would round uneven times
        return stream
