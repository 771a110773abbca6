"""One row of a cache as a picture: the view, its mask, and every tap of every teacher as colours."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from difom_cache.base.errors import CacheIncompleteError
from difom_cache.base.options import read_call
from difom_cache.base.outputs import check_out_file
from difom_cache.commands import ShowConfig
from difom_cache.data.images import fit_text, write_picture
from difom_cache.store.layout import NO_MASK, TapSpec
from difom_cache.store.reader import Cache, open_cache

if TYPE_CHECKING:
    from difom_cache.keywords import ShowKeywords

TILE_PX = 256
DARK = 12  # grey levels; the border of a real frame stays below (JPEG noise), a lumen in the shade lies above
_CAPTION_PX = 34
_GAP_PX = 8


@dataclass(frozen=True)
class _Tile:
    """A picture (H, W, 3) and the two lines below it; `crisp` keeps the cells of a map visible."""

    pixels: NDArray[np.uint8]
    caption: str
    crisp: bool


def show(cache: str | Path | ShowConfig, **options: "Unpack[ShowKeywords]") -> Path:
    """Write a PNG of one row of a cache and return its path.

    The first line shows the view, its mask and, where the view leaves the frame, its valid area; below, each teacher
    has a line of its taps. A feature's colours are its three main directions in this very map (PCA), so they say which
    cells are alike, and cannot be compared between maps; logits are shown as probability. The black border that an
    endoscope leaves stays black and counts for no direction: it differs more from tissue than a polyp does.

    Args:
        cache: the cache's folder, or the config of the call.
        **options: as the signature lists them.

    Raises:
        SettingsError: `out` cannot be written, or is there.
        CacheIncompleteError: the cache holds no such record or view, or its block is missing.
    """
    config = read_call(ShowConfig, options, cache=cache)
    check_out_file(config.out, force=config.force)
    opened = open_cache(config.cache)
    row = find_row(opened, config.record, config.view)
    batch = opened.gather([row], pictures=opened.has_pictures)
    name = opened.table.ids[int(opened.table.record[row])]
    lines = [_picture_tiles(batch, name, config.view)] if opened.has_pictures else []
    for teacher in opened.teachers:
        taps = [tap for tap in opened.taps.values() if tap.name.startswith(f"{teacher}/")]
        lines.append([_tap_tile(opened, tap, batch) for tap in taps])
    write_picture(config.out, _compose([line for line in lines if line]))
    return config.out


def find_row(cache: Cache, record: str | None, view: int) -> int:
    """Return the row of a record's view; without a record, that of the first one that has the view."""
    ids = cache.table.ids
    rows = cache.rows_of(view=view)
    if record is not None:
        if record not in ids:
            near = get_close_matches(record, ids, n=3, cutoff=0.4) or ids[:3]
            raise CacheIncompleteError(
                f"{cache.path} holds no record {record!r} among its {len(ids)}; near ones: {', '.join(near)}"
            )
        rows = rows[cache.table.record[rows] == ids.index(record)]
    if not len(rows):
        number = None if record is None else ids.index(record)
        views = cache.table.view if number is None else cache.table.view[cache.table.record == number]
        held = ", ".join(map(str, sorted(set(views.tolist()))))
        raise CacheIncompleteError(
            f"{cache.path}: expected view {view} of {record or 'any record'}, found views {held}"
        )
    return int(rows[0])


def map_to_rgb(feature: NDArray[np.float32], valid: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Return a feature's three main directions as red, green and blue.

    Args:
        feature: (C, h, w).
        valid: (h, w), cells to colour; None means all. The others become black. Directions and range come from valid
            cells with valid neighbours alone, where there are some: those at the edge are half of something else.

    Returns:
        (h, w, 3). The 2nd and 98th percentile of each direction are black and full; a direction's sign is such that its
        largest weight is positive. A map without three directions leaves the rest at half.
    """
    channels, height, width = feature.shape
    cells = feature.reshape(channels, -1).T.astype(np.float64)  # (C, h, w) -> (h*w, C)
    coloured = np.ones((height, width), bool) if valid is None or not valid.any() else valid
    wide = np.pad(coloured, 1, constant_values=True)  # beyond the map counts as one
    inner = coloured & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    counted = (inner if inner.any() else coloured).ravel()
    centred = cells - cells[counted].mean(axis=0)
    _, strengths, directions = np.linalg.svd(centred[counted], full_matrices=False)
    colours = np.full((len(cells), 3), 0.5)
    for number in range(min(3, len(strengths))):
        if strengths[number] <= 1e-6 * max(strengths[0], 1e-30):
            break
        direction = directions[number] * np.sign(directions[number][np.abs(directions[number]).argmax()])
        values = centred @ direction
        low, high = np.percentile(values[counted], [2, 98])
        colours[:, number] = np.clip((values - low) / max(high - low, 1e-30), 0, 1)
    colours[~coloured.ravel()] = 0
    return (colours.reshape(height, width, 3) * 255 + 0.5).astype(np.uint8)


def _picture_tiles(batch: dict[str, NDArray[np.uint8]], name: str, view: int) -> list[_Tile]:
    image, mask, valid = batch["image"][0], batch["mask"][0], batch["valid"][0]
    tiles = [_Tile(image, f"{name}\nview {view}", False)]
    if (mask == NO_MASK).all():
        tiles.append(_Tile(np.full_like(image, 64), "mask\nabsent: the record is unlabelled", False))
    else:
        share = f"{100 * (mask == 1).mean():.1f} % polyp" if (mask == 1).any() else "empty"
        lit = np.where((mask == 1)[:, :, None], image * 0.72 + np.array([0, 70, 0]), image * 0.5)
        tiles.append(_Tile(lit.astype(np.uint8), f"mask\n{share}", False))
    if not (valid == 1).all():
        area = np.repeat(valid[:, :, None] * np.uint8(255), 3, axis=2)
        tiles.append(_Tile(area, f"valid area\n{100 * valid.mean():.0f} %", False))
    return tiles


def _tap_tile(cache: Cache, tap: TapSpec, batch: dict[str, NDArray[np.uint8]]) -> _Tile:
    feature = cache.target(batch, tap.name)[0]
    weights = ", random weights" if tap.name.partition("/")[0] in cache.random_teachers else ""
    caption = f"{tap.name}\n{tap.channels} x {tap.grid} x {tap.grid}, {tap.codec}{weights}"
    if tap.kind == "logits" and tap.channels == 1:
        prob = 1 / (1 + np.exp(-np.clip(feature[0].astype(np.float64), -60, 60)))
        return _Tile(np.repeat((prob * 255 + 0.5).astype(np.uint8)[:, :, None], 3, axis=2), caption, True)
    return _Tile(map_to_rgb(feature, shown_cells(batch, tap.grid)), caption, True)


def shown_cells(batch: dict[str, NDArray[np.uint8]], grid: int) -> NDArray[np.bool_] | None:
    """Return which cells mostly show tissue: valid, and not the black border; None without a stored picture."""
    if "image" not in batch:
        return None
    shown = (batch["valid"][0] == 1) & (batch["image"][0].max(axis=2) >= DARK)
    area = Image.fromarray(shown * np.uint8(255)).resize((grid, grid), Image.Resampling.BOX)
    return np.asarray(area) >= 128


def _compose(lines: list[list[_Tile]]) -> Image.Image:
    font = ImageFont.load_default(12)
    columns = max((len(line) for line in lines), default=1)
    width = columns * (TILE_PX + _GAP_PX) + _GAP_PX
    height = len(lines) * (TILE_PX + _CAPTION_PX + _GAP_PX) + _GAP_PX
    sheet = Image.new("RGB", (width, height), (24, 24, 28))
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        for column, tile in enumerate(line):
            left = _GAP_PX + column * (TILE_PX + _GAP_PX)
            top = _GAP_PX + row * (TILE_PX + _CAPTION_PX + _GAP_PX)
            how = Image.Resampling.NEAREST if tile.crisp else Image.Resampling.BILINEAR
            sheet.paste(Image.fromarray(tile.pixels).resize((TILE_PX, TILE_PX), how), (left, top))
            for number, text in enumerate(tile.caption.splitlines()):
                fitting = fit_text(text, font, TILE_PX)
                draw.text((left, top + TILE_PX + 2 + 15 * number), fitting, fill=(225, 225, 225), font=font)
    return sheet
