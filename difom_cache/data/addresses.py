"""Pictures and masks that lie inside larger files, by name: a video's frame, or the polygons of one picture of a COCO file.

`clip.mp4#t=00012.500` is the first frame at or after 12.5 seconds (as a media fragment has it), and `set.json#image=17` is
what the file draws on picture 17. They stand in manifests where a file's name would stand, and nothing is written out.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from difom_cache.data.video import VIDEO_SUFFIXES

_FRAME = re.compile(r"(?s:(.+))#t=([0-9]{5,7})\.([0-9]{3})")
_POLYGONS = re.compile(r"(?s:(.+))#image=([0-9]{1,18})")


@dataclass(frozen=True)
class FrameAddress:
    """The first frame of `file` at or after `time_ms`, counted from its first frame."""

    file: Path
    time_ms: int


@dataclass(frozen=True)
class PolygonsAddress:
    """What the COCO file `file` draws on the picture with `image_id`."""

    file: Path
    image_id: int


def parse_address(path: Path) -> FrameAddress | PolygonsAddress | None:
    """Return what a path means inside of a larger file, or None for a plain file."""
    if "#" not in path.name:
        return None
    if match := _FRAME.fullmatch(path.name):
        file = path.with_name(match[1])
        if file.suffix.lower() in VIDEO_SUFFIXES:
            return FrameAddress(file, int(match[2]) * 1000 + int(match[3]))
    elif match := _POLYGONS.fullmatch(path.name):
        file = path.with_name(match[1])
        if file.suffix.lower() == ".json":
            return PolygonsAddress(file, int(match[2]))
    return None


def spell_time(time_ms: int) -> str:
    """Return seconds that sort as text, such as 00012.500."""
    return f"{time_ms // 1000:05d}.{time_ms % 1000:03d}"


def frame_path(video: Path, time_ms: int) -> Path:
    """Return the name of a video's frame."""
    return video.with_name(f"{video.name}#t={spell_time(time_ms)}")


def polygons_path(file: Path, image_id: int) -> Path:
    """Return the name of what a COCO file draws on one picture."""
    return file.with_name(f"{file.name}#image={image_id}")


def file_of(path: Path) -> Path:
    """Return the file on the disk that holds a picture or mask."""
    address = parse_address(path)
    return path if address is None else address.file
