"""A video that is written frame by frame: PyAV, an extra (`pip install 'difom[video]'`)."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difom_cache import VideoFrame

OUTLINE_QUALITY = "18"  # x264's constant rate factor: no loss that an eye finds


class VideoWriter:
    """A video of the reader's frame rate and of its first frame's size."""

    def __init__(self, path: Path, *, rate: Fraction, lossless: bool) -> None:
        import av  # the reader has said so where it is missing

        self._av: Any = av
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
