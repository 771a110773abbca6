"""Caches and runs that an earlier version wrote (tests/frozen/README.md), unpacked for the tests that open them."""

import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from difom_cache import Cache

FROZEN = Path(__file__).parent / "frozen"
TEACHERS = ("sam:tiny", "dinov2:tiny")
LABELS = ("dinov2-tiny-random", "sam-tiny-random")
EXTRACTED: dict[str, Any] = {
    "teacher": TEACHERS,
    "weights": "random",
    "views": 2,
    "seed": 0,
    "input_size": 64,
    "batch_size": 8,
    "backend": "torch",
    "device": "cpu",
    "precision": "float32",
    "quiet": True,
}
"""The options that the frozen caches were extracted with."""
DIGESTS = {
    "pictures": "da2fd630177488bfa6d3967a55f76beb3a3676f92a0f412f2e717cd3bf5348e2",
    "teachers/dinov2-tiny-random": "bd74dc00f68af9cb63a9c5ba9ced06b4b05430bb378ae132e31dbd586f186827",
    "teachers/sam-tiny-random": "fcf650d8e337c45adf9044ccc1c2751c08dec797cd109e80153efea75c29129c",
    "cache": "b971b8219fa1f742e33ac2e9f6cd657eafb1dc998a27d6e1552db13a5de28923",
}
"""The content digests of `whole`, as the earlier version printed them."""

COMPACT = EXTRACTED | {"teacher": "mask2former:tiny@128", "taps": ("stage4@16", "stage1@32"), "codec": "compact"}
COMPACT |= {"pictures": False}
"""The options that the frozen columns in codec `compact` were extracted with."""


def thaw(archive: str, folder: Path) -> Path:
    """Unpack tests/frozen/<archive>.tar.xz into a folder and return the folder."""
    with tarfile.open(FROZEN / f"{archive}.tar.xz") as held:
        held.extractall(folder, filter="data")
    return folder


def paint_of(folder: Path) -> dict[str, Path]:
    """Return the options that name the images of the unpacked caches."""
    return {"images": folder / "painted" / "images", "masks": folder / "painted" / "masks"}


def made_by_these_libraries(cache: Cache) -> bool:
    """Return whether the libraries that a cache's columns name are those that are installed: others cannot continue them."""
    named: dict[str, str] = {}
    for identity in cache.teachers.values():
        named |= identity.libraries | identity.teacher.libraries
    return all(version(name) == held for name, held in named.items())
