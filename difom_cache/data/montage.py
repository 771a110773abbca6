"""The pairs that a check found, side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from difom_cache.data.check import Report
from difom_cache.data.images import read_image, read_mask, write_picture
from difom_cache.data.record import Record


def draw_montage(report: Report, records: Sequence[Record], path: Path, *, most: int = 24, tile_px: int = 200) -> Path:
    """Write a PNG of the most telling pairs side by side, masks outlined, and return its path.

    Pairs across splits come first, then equal pictures with different masks, then one of each family.
    """
    home = {record.id: record for record in records}
    chosen = {(pair.first, pair.second): pair for pair in (*report.leaks, *report.different_masks)}
    told: set[str] = set()
    for pair in report.pairs:
        if not told & {pair.first, pair.second}:
            chosen.setdefault((pair.first, pair.second), pair)
        told |= {pair.first, pair.second}
    pairs = list(chosen.values())[:most]
    columns = max(1, min(3, len(pairs)))
    width, height = 2 * tile_px + 12, tile_px + 32
    sheet = Image.new("RGB", (columns * width, max(1, -(-len(pairs) // columns)) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, pair in enumerate(pairs):
        left, top = number % columns * width, number // columns * height
        draw.text((left + 4, top + 2), f"{pair.first} ({pair.splits[0]})", fill="black")
        draw.text((left + 4, top + 14), f"{pair.second} ({pair.splits[1]})  {pair.verdict}", fill="black")
        for side, name in enumerate((pair.first, pair.second)):
            sheet.paste(_draw_tile(home[name], tile_px), (left + 4 + side * (tile_px + 2), top + 28))
    if not pairs:
        draw.text((4, 4), "no pair of records shows the same picture", fill="black")
    write_picture(path, sheet)
    return path


def _draw_tile(record: Record, side_px: int) -> Image.Image:
    tile = Image.fromarray(read_image(record.image, max_pixels=None)).resize(
        (side_px, side_px), Image.Resampling.BILINEAR
    )
    if record.mask is None:
        return tile
    mask = Image.fromarray(read_mask(record.mask, max_pixels=None) * np.uint8(255)).resize(
        tile.size, Image.Resampling.NEAREST
    )
    inside = np.asarray(mask) > 0
    core = inside.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            core &= np.roll(inside, step, axis=axis)
    pixels = np.array(tile)
    pixels[inside & ~core] = (0, 255, 0)
    return Image.fromarray(pixels)
