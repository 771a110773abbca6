"""A mask's pixels as they were stored, and the levels that they have: grey, indices of a palette, or colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of a class's pixels have nine equal neighbours; of ringing that was enlarged threefold at most 0.31.
LEAST_FLAT_SHARE = 0.4
_LEAST_FLAT = 4  # pixels: a short line along the frame's border is no area
_TINT = 32  # a lossy file is grey where red, green and blue differ by no more
_GATHER = 8  # lossy levels gather within an eighth of their range, or of what lies between two of them; not tuned
_LEAST_GATHERED = 9  # pixels
_MOST_CENTRES, _MOST_LOOKED_AT = 16, 4096  # a photograph has millions of colours
_MOST_PIXELS = 4_000_000  # of a larger file every second row and column is looked at, and so on
_BASE = 1 << 20  # above any level; three fit into 64 bits
_FEW = 3  # levels that are told one by one


@dataclass(frozen=True)
class MaskPixels:
    """A mask as it was stored.

    Attributes:
        grey: (H, W), of any depth; of colours by ITU-R 601, as Pillow converts.
        rgb: (H, W, 3), where the file has colours.
        alpha: (H, W), where it has an alpha channel or transparent colours.
        index: (H, W), where it has a palette; 0 and 1 of a file of one bit.
        palette_size: entries of the palette.
        lossy: whether levels are never pure (JPEG and its like).
        doubtful: whether its writer and TIFF's standard call different indices white.
    """

    grey: NDArray[Any]
    rgb: NDArray[np.uint8] | None = None
    alpha: NDArray[np.uint8] | None = None
    index: NDArray[np.uint8] | None = None
    palette_size: int = 0
    lossy: bool = False
    doubtful: bool = False

    @classmethod
    def of_rgba(cls, rgba: NDArray[np.uint8], *, opaque: bool = False, **more: Any) -> "MaskPixels":
        """Return the pixels of (H, W, 4) RGBA; `opaque` where the file has no alpha."""
        red, green, blue = (rgba[..., channel].astype(np.int64) for channel in range(3))
        grey = ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)
        return cls(grey, rgba[..., :3], None if opaque else rgba[..., 3], **more)

    @property
    def coloured(self) -> bool:
        """Whether some pixels are not grey."""
        if self.rgb is None:
            return False
        spread = self.rgb.max(-1).astype(int) - self.rgb.min(-1)
        return int(spread.max()) > (_TINT if self.lossy else 0)

    def describe(self) -> str:
        """Return the levels in a few words, such as "0, 255" or "0 to 255"."""
        if self.coloured:
            return "colours"
        found = np.flatnonzero(np.bincount(self.grey.reshape(-1))).tolist()
        about = " lossy" if self.lossy else ""
        return (", ".join(map(str, found)) if len(found) <= _FEW else f"{found[0]} to {found[-1]}") + about

    @property
    def transparent(self) -> bool:
        """Whether some pixels are more opaque than others."""
        return self.alpha is not None and int(self.alpha.min()) != int(self.alpha.max())


@dataclass(frozen=True)
class Level:
    """One level of a mask: what `--mask-levels` calls it, how a person knows it, its numbers, its share of the frame."""

    name: str
    about: str
    value: tuple[int, ...]
    share: float

    def __str__(self) -> str:
        share = f"{self.share:.1%}" if self.share >= 0.001 else "<0.1%"
        return f"{self.name}{self.about} ({share})"


def find_levels(pixels: MaskPixels) -> list[Level]:
    """Return the levels of a mask, in order; of a lossy file those that its pixels gather about."""
    if pixels.index is not None:
        found, first, counts = np.unique(pixels.index, return_index=True, return_counts=True)
        rgb = pixels.grey[..., None] if pixels.rgb is None else pixels.rgb
        colours = np.broadcast_to(rgb, (*pixels.index.shape, 3)).reshape(-1, 3)[first]
        about = [f" = {name_level(colour)}" for colour in colours.tolist()]
        names = list(zip(map(str, found.tolist()), about, strict=True))
        values, shares = found[:, None], counts / pixels.index.size
    else:
        coloured = pixels.rgb is not None and pixels.coloured
        points = pixels.rgb if coloured and pixels.rgb is not None else pixels.grey[..., None]
        values, shares = _gather(points) if pixels.lossy else _count(points)
        names = [(name_level(value), "") for value in values.tolist()]
    order = np.lexsort(values.T[::-1]).tolist()
    return [Level(names[at][0], names[at][1], tuple(values[at].tolist()), float(shares[at])) for at in order]


def choose_nearest(points: NDArray[Any], wanted: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return where a lossy mask's pixels belong to one level: nearer to it than to any other, and joined to a spot of it.

    The level is that of the file which lies next to `wanted`, if it lies near enough. Rims of other classes pass through it,
    but have no spot of three by three pixels.

    Args:
        points: (H, W, C) levels or colours.
        wanted: a level or colour.
    """
    from scipy import ndimage  # here, as training from stored masks starts without it

    centres, _ = _gather(points)
    level, others = np.array(wanted, float), centres.astype(float)
    next_to = int(np.linalg.norm(others - level, axis=1).argmin())
    rest = np.delete(others, next_to, axis=0)
    off = float(np.linalg.norm(others[next_to] - level))
    if off == 0 or (len(rest) and off <= np.linalg.norm(rest - others[next_to], axis=1).min() / _GATHER):
        level, others = others[next_to], rest
    away = np.linalg.norm(points - level, axis=-1)
    near = np.ones(away.shape, bool)
    for other in others:
        near &= away < np.linalg.norm(points - other, axis=-1)
    gap = np.linalg.norm(others - level, axis=1).min() if len(others) else np.inf
    spots = ndimage.binary_erosion(away <= gap / 4, np.ones((3, 3)), border_value=1)
    return np.asarray(ndimage.binary_propagation(spots, np.ones((3, 3)), mask=near))


def find_ends(values: NDArray[Any], side_px: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the least and the largest value (H, W) in the square about each pixel."""
    from scipy import ndimage  # here, as training from stored masks starts without it

    return ndimage.minimum_filter(values, side_px), ndimage.maximum_filter(values, side_px)


def share_flat(values: NDArray[Any], found: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return per level of `found` the share of its pixels whose eight neighbours have it, too."""
    low, high = find_ends(values, 3)
    levels, flats = np.unique(values[low == high], return_counts=True)
    flats[flats < _LEAST_FLAT] = 0
    share = np.zeros(len(found))
    share[np.searchsorted(found, levels)] = flats
    return share / counts


def _gather(points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the levels (K, C) that a lossy file's pixels (H, W, C) gather about, and the share of the pixels that each has.

    Those that fill areas, to the last bit, however near they lie to others; then, of what lies in even surroundings, whatever
    is far from these.
    """
    step = math.ceil(math.sqrt(points[..., 0].size / _MOST_PIXELS))
    points = points[::step, ::step]
    codes = _pack(points)
    found, counts = np.unique(codes, return_counts=True)
    values = _unpack(found, points.shape[-1])
    reach = max(float(np.ptp(points)) / _GATHER, 1)
    area = share_flat(codes, found, counts) > LEAST_FLAT_SHARE
    area[counts.argmax()] = True
    seeds = [(int(counts[at]), values[at]) for at in np.flatnonzero(area).tolist()]
    even = np.ones(codes.shape, bool)
    for low, high in (find_ends(channel, 3) for channel in np.moveaxis(points, -1, 0)):
        even &= high.astype(int) - low <= reach
    found, counts = np.unique(codes[even], return_counts=True)
    often = np.argsort(-counts)[:_MOST_LOOKED_AT]
    values, counts = _unpack(found[often], points.shape[-1]), counts[often]
    left = np.linalg.norm(values[:, None] - [seed for _, seed in seeds], axis=-1).min(1) > reach
    while left.any() and len(seeds) < _MOST_CENTRES:
        centre = values[np.where(left, counts, 0).argmax()]
        near = left & (np.linalg.norm(values - centre, axis=1) <= reach)
        if counts[near].sum() >= _LEAST_GATHERED:
            seeds.append((int(counts[near].sum()), centre))
        left &= ~near
    seeds.sort(key=lambda seed: -seed[0])
    centres = seeds[0][1][None]
    for size, seed in seeds[1:_MOST_CENTRES]:
        # What lies near to a larger one is what a codec made of it.
        if np.linalg.norm(centres - seed, axis=1).min() > 2 * reach or 2 * size >= seeds[1][0]:
            centres = np.vstack([centres, seed])
    nearest, owner = np.full(codes.shape, np.inf), np.zeros(codes.shape, int)
    for number, centre in enumerate(centres):
        away = np.linalg.norm(points - centre, axis=-1)
        owner[away < nearest] = number
        nearest = np.minimum(nearest, away)
    return centres, np.bincount(owner.ravel(), minlength=len(centres)) / owner.size


def _count(points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    found, counts = np.unique(_pack(points), return_counts=True)
    return _unpack(found, points.shape[-1]), counts / points[..., 0].size


def _pack(points: NDArray[Any]) -> NDArray[np.int64]:
    """Return levels (..., C) as one number each."""
    return np.asarray(points.astype(np.int64) @ _BASE ** np.arange(points.shape[-1])[::-1])


def _unpack(codes: NDArray[np.int64], channels: int) -> NDArray[np.int64]:
    return np.asarray(codes[:, None] // _BASE ** np.arange(channels)[::-1] % _BASE)


def name_level(value: Sequence[int]) -> str:
    """Return what `--mask-levels` calls a grey level, or a colour."""
    return str(value[0]) if len(value) == 1 else "#" + bytes(value).hex()
