"""Whether the pictures of a folder are masks, as their pixels say: nobody wants to distil those."""

from pathlib import Path

import numpy as np

from difom_cache.data.decoded import read_file
from difom_cache.data.images import MAX_PIXELS, head_of_bytes, picture_of_bytes
from difom_cache.data.listing import list_pictures

_LOOKED_AT = 8  # files of a folder
_FEW_COLOURS = 8  # in a map of classes
_EDGE_LEVELS = 16  # a lossy mask stays so near to black and white...
_EDGE_SHARE = 0.98  # ... in this share of its pixels; not tuned


def holds_masks(folder: Path) -> bool:
    """Return whether every picture that is looked at is a map of a few classes, and some show more than one.

    Raises:
        ImageError: a picture cannot be read.
    """
    pictures = list_pictures(folder)
    places = np.linspace(0, len(pictures) - 1, min(_LOOKED_AT, len(pictures))).round().astype(int)
    kinds = [_count_classes(pictures[place]) for place in np.unique(places).tolist()]
    return bool(kinds) and all(kinds) and max(kinds) > 1


def _count_classes(path: Path) -> int:
    """Return how many classes a picture is a map of; 0 where it is none."""
    data = read_file(path)
    head = head_of_bytes(data, path)
    if head.width * head.height > MAX_PIXELS:
        return 0  # whether it is read at all is decided later
    picture = picture_of_bytes(data, path)
    if picture.top and not picture.bits:  # of 10 bits it would be nearly black, and have few colours
        picture = picture_of_bytes(data, path, bits=max(8, picture.top.bit_length()))
    image = picture.rgb
    pixels = image.reshape(-1, 3)
    colours = np.unique(pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32))
    if len(colours) <= _FEW_COLOURS:
        return len(colours)
    spread = pixels.max(1).astype(int) - pixels.min(1)
    grey = pixels[:, 0]
    edges = (grey <= _EDGE_LEVELS) | (grey >= 255 - _EDGE_LEVELS)
    lossy = spread.max() <= _EDGE_LEVELS and edges.mean() >= _EDGE_SHARE
    return 2 if lossy and (grey >= 255 - _EDGE_LEVELS).any() else 0
