"""Pairs that a person should look at, drawn: what no rule finds, an eye does in a second; and the pairs that a check found."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion, label

from difom_cache.base.hardware import count_cores
from difom_cache.data.check import Report
from difom_cache.data.images import fit_text, read_image, read_mask, write_picture
from difom_cache.data.record import Record, by_hash
from difom_cache.data.understood import Seen

_EACH = 6  # pairs of a kind, a row of the sheet
_JUDGED = 3000  # masks that are looked at for odd shapes, spread over all
_TILE_PX, _GAP_PX, _TEXT_PX, _HEAD_PX, _OUTLINE_PX = 230, 10, 38, 30, 2
_TINT_FRAC = 0.12
_OUTLINE, _RING, _INK = (60, 255, 60), (255, 220, 0), (30, 30, 30)
_TINY_PX = 14  # a mask whose both sides are no longer than so many px of a tile gets a ring


def draw_sheet(seen: Sequence[Seen], path: Path) -> Path:
    """Write a PNG of the smallest, largest, emptiest and oddest masks and of some at random, and return its path.

    Outlines are drawn on the images; below stand the record's name, split, the share of the frame and the size.
    """
    rows = choose_pairs(seen)
    width = _EACH * (_TILE_PX + _GAP_PX) + _GAP_PX
    sheet = Image.new("RGB", (width, sum(map(_row_px, rows.values())) + _GAP_PX), "white")
    draw, top, font = ImageDraw.Draw(sheet), _GAP_PX, ImageFont.load_default(13)
    for title, pairs in rows.items():
        draw.text((_GAP_PX, top), title, fill=_INK, font=ImageFont.load_default(19))
        for number, each in enumerate(pairs):
            left = _GAP_PX + number * (_TILE_PX + _GAP_PX)
            sheet.paste(draw_tile(each.record, _TILE_PX), (left, top + _HEAD_PX))
            share = f"{100 * _share(each):.3g}%" if each.mask else "no mask"
            about = f"{each.record.split}, {share}, {each.record.width} x {each.record.height}"
            for line, text in enumerate((each.record.id, about)):
                place = (left, top + _HEAD_PX + _TILE_PX + 3 + 17 * line)
                draw.text(place, fit_text(text, font, _TILE_PX), fill=_INK, font=font)
        top += _row_px(pairs)
    write_picture(path, sheet)
    return path


def choose_pairs(seen: Sequence[Seen]) -> dict[str, list[Seen]]:
    """Return the pairs of each row of the sheet under its title; none stands there twice."""
    masked = [each for each in seen if each.mask]
    drawn = sorted((each for each in masked if each.mask and each.mask.covered), key=_share)
    at_random = sorted(seen, key=lambda each: by_hash(each.record.id))
    empty = [each for each in at_random if each.mask and not each.mask.covered]
    step = -(-len(drawn) // _JUDGED) or 1
    judged = drawn[::step]
    with ThreadPoolExecutor(min(8, count_cores())) as threads:
        oddness = dict(zip((each.record.id for each in judged), threads.map(_judge, judged), strict=True))
    odd = sorted(judged, key=lambda each: -oddness[each.record.id])
    kinds = {
        f"smallest of {len(drawn)} masks with a polyp": drawn,
        "largest": drawn[::-1],
        "oddest: ragged, in pieces, at the border, or a box": odd,
        f"empty: {len(empty)} of {len(masked)} masks": empty,
        "at random": at_random,
    }
    taken: set[str] = set()
    rows: dict[str, list[Seen]] = {}
    for title, pairs in kinds.items():
        row = [each for each in pairs if each.record.id not in taken][:_EACH]
        taken |= {each.record.id for each in row}
        rows |= {title: row} if row else {}
    return rows


def draw_tile(record: Record, side_px: int) -> Image.Image:
    """Return a square with the whole image in its middle, and its mask on it: outlined, and a little green inside."""
    image = Image.fromarray(read_image(record.image, max_pixels=None))
    scale = side_px / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    pixels = np.array(image.resize(size, Image.Resampling.BILINEAR))
    tile = Image.new("RGB", (side_px, side_px), (235, 235, 235))
    corner = ((side_px - size[0]) // 2, (side_px - size[1]) // 2)
    inside = np.zeros(pixels.shape[:2], bool)
    if record.mask is not None:
        inside = _shrink(read_mask(record.mask, max_pixels=None), (size[1], size[0]))
        tint = _TINT_FRAC * np.array(_OUTLINE)  # which side of the line it is
        pixels[inside] = (1 - _TINT_FRAC) * pixels[inside] + tint
        pixels[inside & ~binary_erosion(inside, iterations=_OUTLINE_PX)] = _OUTLINE
    tile.paste(Image.fromarray(pixels), corner)
    ys, xs = np.nonzero(inside)
    if len(ys) and max(np.ptp(ys), np.ptp(xs)) < _TINY_PX:
        ends = (xs.min() - 6, ys.min() - 6, xs.max() + 6, ys.max() + 6)
        ring = tuple(int(end) + corner[place % 2] for place, end in enumerate(ends))
        ImageDraw.Draw(tile).ellipse(ring, outline=_RING, width=2)
    return tile


def _shrink(mask: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask at another size, (h, w), of which no part is lost however thin."""
    ys = np.minimum(np.arange(mask.shape[0]) * shape[0] // mask.shape[0], shape[0] - 1)
    xs = np.minimum(np.arange(mask.shape[1]) * shape[1] // mask.shape[1], shape[1] - 1)
    small = np.zeros(shape, bool)
    where = np.nonzero(mask)
    small[ys[where[0]], xs[where[1]]] = True
    if shape[0] > mask.shape[0] or shape[1] > mask.shape[1]:  # an image smaller than its tile
        large = Image.fromarray(mask * np.uint8(255)).resize(shape[::-1], Image.Resampling.NEAREST)
        small = np.asarray(large) > 0
    return small


def _judge(each: Seen) -> float:
    """Return how odd a mask is: its edge against a disc's, its pieces, its share of the border, and whether it is a box."""
    mask = read_mask(each.record.mask or each.record.image, max_pixels=None) > 0
    step = max(1, max(mask.shape) // 256)
    mask = mask[::step, ::step]
    area = int(mask.sum())
    if not area:
        return 0.0
    edge = area - int(binary_erosion(mask, border_value=1).sum())
    pieces = int(label(mask)[1])
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
    ys, xs = np.nonzero(mask)
    box = area / ((np.ptp(ys) + 1) * (np.ptp(xs) + 1)) > 0.98 and area > 16
    return float(edge / (3.54 * area**0.5) + 0.5 * min(pieces - 1, 6) + 3 * border + box)


def _share(each: Seen) -> float:
    return each.mask.covered if each.mask else 0.0


def _row_px(pairs: Sequence[Seen]) -> int:
    return _HEAD_PX + _TILE_PX + _TEXT_PX + _GAP_PX


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
            sheet.paste(draw_tile(home[name], tile_px), (left + 4 + side * (tile_px + 2), top + 28))
    if not pairs:
        draw.text((4, 4), "no pair of records shows the same image", fill="black")
    write_picture(path, sheet)
    return path
