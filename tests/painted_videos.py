"""Painted videos as recorders write them: turned, of wide pixels, interlaced, of any colour matrix, at uneven times."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ONE = 1 << 16
MATRICES = {
    "90": (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30),
    "180": (-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30),
    "270": (0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30),
    "mirrored": (-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30),
    "upside down": (ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30),
    "mirrored, 90": (0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30),
    "askew": (46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30),
}
"""Display matrices of ISO/IEC 14496-12, 8.3.2; degrees are clockwise."""
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Number of a matrix (ISO/IEC 23091-2: 1 is BT.709, 5 BT.601, 9 BT.2020) to the weights of red and blue in luma."""


def paint_corners(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Return a picture whose top left is red, top right green and bottom left blue."""
    picture = np.full((height, width, 3), 60, np.uint8)
    side = height // 3
    picture[:side, :side], picture[:side, -side:], picture[-side:, :side] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    return picture


def name_corners(picture: NDArray[np.uint8]) -> str:
    """Return what is seen at top left, top right, bottom left and bottom right: "rgb." is `paint_corners` as it is."""
    corners = [picture[y, x].astype(int) for y in (4, -5) for x in (4, -5)]
    return "".join("rgb"[int(each.argmax())] if each.max() > 150 else "." for each in corners)


def write_video(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    pixels: str = "yuv444p",
    times_ms: Sequence[int] = (),
    sides: Fraction | None = None,
    interlaced: bool = False,
) -> Path:
    """Write pictures (H, W, 3) as a video of 25 frames a second, or at `times_ms`; `sides` is a pixel's width to its height."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options={"flags": "+ildct+ilme"} if interlaced else {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        if sides is not None:
            stream.codec_context.sample_aspect_ratio = sides
        if times_ms:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times_ms:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn_video(path: Path, turn: str) -> Path:
    """Give an MP4 a display matrix, in the header of its one track."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4
    start += 4 + (32 if content[start] else 20) + 16
    assert struct.unpack(">9i", content[start : start + 36]) == (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    content[start : start + 36] = struct.pack(">9i", *MATRICES[turn])
    path.write_bytes(content)
    return path


def write_colour(path: Path, rgb: tuple[int, int, int], matrix: int, *, full: bool) -> Path:
    """Write two frames of one colour, converted here by the equations of ISO/IEC 23091-2, and say so in the stream."""
    import av

    red, blue = WEIGHTS[matrix]
    r, g, b = (value / 255 for value in rgb)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = (b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)
    y = 255 * luma if full else 16 + 219 * luma
    u, v = (128 + (255 if full else 224) * each for each in chroma)
    planes = np.empty((3, 32, 32), np.uint8)
    planes[:] = np.round([y, u, v])[:, None, None]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        for _ in range(2):
            frame: Any = av.VideoFrame.from_ndarray(planes, format="yuv444p")
            frame.colorspace, frame.color_range = matrix, 2 if full else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
