"""Tiles that every painted frame takes its detail from: vessels, fine relief, patches."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Array = NDArray[np.float32]

TILE_PX = 1024  # one turn around the tube


@dataclass(frozen=True)
class Textures:
    """Tiles of TILE_PX x TILE_PX that repeat without a seam; the last axis is the layer.

    Attributes:
        skins: per pattern (T, T, 2): vessels (0 = none, 1 = the middle of a large one) and coarse patches (mean 0,
            standard deviation about 1).
        relief: (T, T, 3): fine bumps and their steepness along columns and rows, each mean 0, standard deviation 1.
    """

    skins: tuple[Array, ...]
    relief: Array


def draw_textures(rng: np.random.Generator) -> Textures:
    """Return the tiles of one sample; about a second's work, done once."""
    height = 0.5 * _noise(rng, 8.0) + 0.9 * _noise(rng, 20.0)
    slopes = [slope / slope.std() for slope in np.gradient(height)[::-1]]
    patches = _noise(rng, 60.0) + 0.5 * _noise(rng, 22.0)
    drawn = [_vessels(rng), _vessels(rng)]
    drawn += [pattern.T for pattern in drawn]  # a tile stays one when its axes change places
    skins = tuple(np.stack([pattern, np.roll(patches, 200 * n, axis=0)], axis=-1) for n, pattern in enumerate(drawn))
    return Textures(skins, np.stack([height / height.std(), *slopes], axis=-1).astype(np.float32))


def look_up(tiles: Array, u: Array, v: Array) -> Array:
    """Return the (K, N) values of tiles (T, T, K) at the places (u, v), in turns, bilinear."""
    x, y = np.mod(u, 1.0) * TILE_PX, np.mod(v, 1.0) * TILE_PX
    left, top = x.astype(np.int32), y.astype(np.int32)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    rows = (top % TILE_PX * TILE_PX, (top + 1) % TILE_PX * TILE_PX)
    columns = (left % TILE_PX, (left + 1) % TILE_PX)
    flat = tiles.reshape(TILE_PX * TILE_PX, -1)
    upper, lower = ((1 - fx) * flat[row + columns[0]] + fx * flat[row + columns[1]] for row in rows)
    return ((1 - fy) * upper + fy * lower).T


def look_up_nearest(tiles: Array, u: Array, v: Array) -> Array:
    """Return the (K, N) values of tiles (T, T, K) of the pixel at (u, v); enough for fine, irregular detail."""
    column, row = (np.mod(turns, 1.0) * TILE_PX for turns in (u, v))
    place = row.astype(np.int32) % TILE_PX * TILE_PX + column.astype(np.int32) % TILE_PX
    return tiles.reshape(TILE_PX * TILE_PX, -1)[place].T


def _noise(rng: np.random.Generator, size_px: float) -> Array:
    """Return noise with blobs of about this size, mean 0 and standard deviation 1: white noise under a Gaussian."""
    white = np.fft.rfft2(rng.standard_normal((TILE_PX, TILE_PX), dtype=np.float32))
    across, along = np.fft.rfftfreq(TILE_PX), np.fft.fftfreq(TILE_PX)[:, None]
    window = np.exp(-2 * (np.pi * size_px / 2.5) ** 2 * (across**2 + along**2))
    smooth = np.fft.irfft2(white * window.astype(np.float32), s=white.shape[:1] * 2).astype(np.float32)
    return (smooth - smooth.mean()) / smooth.std()


def _vessels(rng: np.random.Generator) -> Array:
    """Return a branching pattern: trees that wander, thin out and fork."""
    tile = Image.new("L", (TILE_PX, TILE_PX))
    draw = ImageDraw.Draw(tile)
    shoots = [(*rng.uniform(0, TILE_PX, 2), rng.uniform(0, 6.28), rng.uniform(2.5, 6.5)) for _ in range(110)]
    while shoots:
        x, y, heading, width = shoots.pop()
        for _ in range(int(rng.uniform(9, 20) * (0.7 + 0.15 * width))):
            heading += rng.normal(0, 0.18)
            dx, dy = 7 * np.cos(heading), 7 * np.sin(heading)
            _draw_round_the_seam(draw, x, y, dx, dy, width)
            x, y, width = (x + dx) % TILE_PX, (y + dy) % TILE_PX, width * 0.985
        if width > 1.1:
            for side in (-1, 1):
                shoots.append((x, y, heading + side * rng.uniform(0.25, 0.9), width * rng.uniform(0.62, 0.85)))
    crisp = np.asarray(tile, np.float32) / 255
    return ndimage.gaussian_filter(crisp, 1.1, mode="wrap")


def _draw_round_the_seam(draw: ImageDraw.ImageDraw, x: float, y: float, dx: float, dy: float, width: float) -> None:
    """Draw a line, and again one tile away where it may cross the tile's rim."""
    turns_x, turns_y = ((0,) if 16 < at < TILE_PX - 16 else (-TILE_PX, 0, TILE_PX) for at in (x, y))
    for ox in turns_x:
        for oy in turns_y:
            ends = (x + ox, y + oy, x + ox + dx, y + oy + dy)
            draw.line(ends, fill=int(min(255, 80 + 34 * width)), width=max(1, round(width)))
