"""Pictures and masks that are no files of their own, by name: a video's frame, polygons of a COCO file, an empty mask.

`clip.mp4#t=00012.500` is the first frame at or after 12.5 seconds (as a media fragment has it), `set.json#image=17` is
what the file draws on picture 17, and `17.jpg#empty` is the mask of a picture that shows no polyp, as somebody has said. They
stand in manifests where a file's name would stand, and nothing is written out.
"""

import re
from dataclasses import dataclass
from pathlib import Path

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".ts", ".vob", ".webm", ".wmv"),
)
_FRAME = re.compile(r"(?s:(.+))#t=([0-9]{5,7})\.([0-9]{3})")
_EMPTY = re.compile(r"(?s:(.+))#empty")
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


@dataclass(frozen=True)
class EmptyAddress:
    """The empty mask of the picture at `image`, a file or a video's frame."""

    image: Path

    @property
    def file(self) -> Path:
        """The file on the disk that the picture lies in."""
        return file_of(self.image)


def parse_address(path: Path) -> FrameAddress | PolygonsAddress | EmptyAddress | None:
    """Return what a path means inside of a larger file, or None for a plain file."""
    if "#" not in path.name:
        return None
    if match := _EMPTY.fullmatch(path.name):
        return EmptyAddress(path.with_name(match[1]))
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


def empty_path(image: Path) -> Path:
    """Return the name of the empty mask of a picture."""
    return image.with_name(f"{image.name}#empty")


def file_of(path: Path) -> Path:
    """Return the file on the disk that holds a picture or mask."""
    address = parse_address(path)
    return path if address is None else address.file
