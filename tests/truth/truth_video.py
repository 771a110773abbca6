"""Videos as cameras and recorders write them. Truth: painted, and converted by the standards' equations (painted_videos.py)."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from painted_videos import MATRICES, name_corners, paint_corners, turn_video, write_colour, write_video
from truth_case import Case, Refused

from difom_cache import load_records, read_image
from difom_cache.data import VideoReader


def corners(turn: str = "", **how: Any) -> Callable[[Path], Any]:
    """Return a reading of the first frame of a video of `paint_corners`: its corners, width and height."""

    def read(folder: Path) -> Any:
        path = write_video(folder / "a.mp4", [paint_corners()] * 3, **how)
        record = load_records(turn_video(path, turn) if turn else path)[0]
        return name_corners(read_image(record.image)), record.width, record.height

    return read


def colour(matrix: int, *, full: bool) -> Callable[[Path], Any]:
    """Return a reading of a video of (200, 60, 40): whether all is within 2 of it."""

    def read(folder: Path) -> Any:
        path = write_colour(folder / "a.mp4", (200, 60, 40), matrix, full=full)
        picture = next(iter(VideoReader(path))).picture
        return bool(np.abs(picture.astype(int) - (200, 60, 40)).max() <= 2)

    return read


def joined(second: int) -> Callable[[Path], Any]:
    """Return a reading of two transport streams that were put behind each other, 64 px and `second` px wide: the widths."""

    def read(folder: Path) -> Any:
        parts = [
            write_video(folder / f"{n}.part.ts", [paint_corners(48, px)] * 6, codec="mpeg2video", pixels="yuv420p")
            for n, px in enumerate((64, second))
        ]
        (folder / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
        return {frame.picture.shape[1] for frame in VideoReader(folder / "a.ts")}

    return read


def times(suffix: str) -> Callable[[Path], Any]:
    """Return a reading of the times of frames that come unevenly, in ms from the first."""

    def read(folder: Path) -> Any:
        uneven = [0, 40, 47, 480, 2600]
        path = write_video(folder / f"a{suffix}", [paint_corners()] * 5, pixels="yuv420p", times_ms=uneven)
        found = [(frame.pts or 0) * frame.time_base * 1000 for frame in VideoReader(path)]
        return [round(each - found[0]) for each in found]

    return read


def known(suffix: str, codec: str) -> Callable[[Path], Any]:
    """Return a reading of a folder that holds a video of this suffix: the corners of its first frame."""

    def read(folder: Path) -> Any:
        write_video(folder / f"a{suffix}", [paint_corners()] * 6, codec=codec, pixels="yuv420p")
        return name_corners(read_image(load_records(folder)[0].image))

    return read


SEEN = {"90": "br.g", "180": ".bgr", "270": "g.rb", "mirrored": "gr.b", "upside down": "b.rg", "mirrored, 90": "rbg."}
MATRIX_NAMES = {1: "BT.709", 5: "BT.601", 9: "BT.2020"}
CASES = [
    Case("video stored upright", corners(), ("rgb.", 64, 48)),
    *(
        Case(f"video turned: {turn}", corners(turn), (seen, *((48, 64) if MATRICES[turn][0] == 0 else (64, 48))))
        for turn, seen in SEEN.items()
    ),
    Case("video turned by 45 degrees", corners("askew"), Refused("a.mp4", "askew")),
    Case("pixels of 4 to 3", corners(sides=Fraction(4, 3)), ("rgb.", 85, 48)),
    Case("pixels of 8 to 9, turned", corners("90", sides=Fraction(8, 9)), ("br.g", 48, 57)),
    Case("pixels of 10 to 1", corners(sides=Fraction(10)), Refused("a.mp4", "10 to 1")),
    *(
        Case(f"{name}, {'full' if full else 'limited'} range", colour(matrix, full=full), True)
        for matrix, name in MATRIX_NAMES.items()
        for full in (False, True)
    ),
    Case("size changes in mid-stream", joined(96), Refused("a.ts", "frame ", "96 x 48", "64 x 48")),
    Case("two streams of one size", joined(64), {64}),
    Case("uneven times in Matroska", times(".mkv"), [0, 40, 47, 480, 2600]),
    Case("uneven times in MP4", times(".mp4"), [0, 40, 47, 480, 2600]),
    *(
        Case(f"video called {suffix}", known(suffix, codec), "rgb.")
        for suffix, codec in ((".ts", "mpeg2video"), (".vob", "mpeg2video"), (".mts", "libx264"), (".3gp", "libx264"))
    ),
]
