"""Masks as labelling tools, exporters and libraries write them. Truth: painted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from truth_case import Case, Refused

from difom_cache import Record, load_records, read_mask

HEIGHT, WIDTH = 120, 160
Save = Callable[[Path, NDArray[np.bool_]], None]


def disc(cx: float, cy: float = 48, r: float = 25) -> NDArray[np.bool_]:
    """Return a polyp (H, W)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((y - cy) ** 2 + (x - cx) ** 2 < r * r)


def write_pictures(folder: Path, save: Save) -> list[NDArray[np.bool_]]:
    """Write three pictures with the masks that `save` makes of their polyps, named without an ending; return the polyps."""
    polyps = [disc(48 + 8 * number) for number in range(3)]
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number, polyp in enumerate(polyps):
        picture = np.where(polyp[..., None], (220, 60, 40), (110 + number, 80, 60)).astype(np.uint8)
        Image.fromarray(picture).save(folder / "images" / f"{number}.png")
        save(folder / "masks" / str(number), polyp)
    return polyps


def alone(save: Save) -> Callable[[Path], Any]:
    """Return a reading of a set whose masks are to say themselves: whether every one is its polyp, to the pixel."""

    def read(folder: Path) -> Any:
        polyps = write_pictures(folder, save)
        return agree(load_records(folder), polyps)

    return read


def agree(records: list[Record], polyps: list[NDArray[np.bool_]]) -> bool:
    """Return whether the mask of every record is the polyp of its picture, to the pixel."""
    masks = {record.image.stem: read_mask(record.mask) for record in records if record.mask}
    return len(masks) == 3 and all(np.array_equal(masks[str(number)], polyp) for number, polyp in enumerate(polyps))


def grey(polyp: NDArray[np.bool_], level: int = 255) -> Image.Image:
    """Return a mask of black and one level."""
    return Image.fromarray(polyp.astype(np.uint8) * np.uint8(level))


def pages(suffix: str, *, count: int = 2, **how: Any) -> Save:
    """Return a writer of a file with a page, or a frame, for each polyp."""

    def save(path: Path, polyp: NDArray[np.bool_]) -> None:
        frames = [grey(polyp), *(grey(disc(125)) for _ in range(count - 1))]
        frames[0].save(path.with_suffix(suffix), save_all=True, append_images=frames[1:], **how)

    return save


def pyramid(path: Path, polyp: NDArray[np.bool_]) -> None:
    """Write a TIFF with a smaller copy of its mask, as viewers of large images like it."""
    mask, half = grey(polyp), grey(polyp[::2, ::2])
    mask.encoderinfo, half.encoderinfo = {}, {"tiffinfo": {254: 1}}  # type: ignore[attr-defined]
    mask.save(path.with_suffix(".tif"), save_all=True, append_images=[half])


def picture_of_pages(suffix: str, **how: Any) -> Callable[[Path], Any]:
    """Return a reading of a set of which one picture is an animation."""

    def read(folder: Path) -> Any:
        write_pictures(folder, lambda path, polyp: grey(polyp).save(path.with_suffix(".png")))
        frames = [Image.new("RGB", (WIDTH, HEIGHT), (level, 60, 40)) for level in (90, 120, 150)]
        (folder / "images" / "1.png").unlink()
        frames[0].save(folder / "images" / f"1{suffix}", save_all=True, append_images=frames[1:], **how)
        return len(load_records(folder))

    return read


TWO = Refused("masks/0", "2 pages or frames")
PAGES = [
    Case("a TIFF with a page for each polyp", alone(pages(".tif")), TWO),
    Case("an animated WebP mask", alone(pages(".webp", lossless=True)), TWO),
    Case("an animated PNG mask", alone(pages(".png")), TWO),
    Case("an animated WebP among the pictures", picture_of_pages(".webp"), Refused("images/1.webp", "3 pages")),
    Case("a TIFF of three pages among the pictures", picture_of_pages(".tif"), Refused("images/1.tif", "3 pages")),
    Case("a TIFF of one page", alone(pages(".tif", count=1)), True),
    Case("a WebP of one frame", alone(pages(".webp", count=1, lossless=True)), True),
    Case("a PNG that could be animated, of one frame", alone(pages(".png", count=1)), True),
    Case("a TIFF with a smaller copy of its mask", alone(pyramid), True),
]

CASES = [*PAGES]
