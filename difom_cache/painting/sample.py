"""A painted benchmark in PraNet's layout, for trying everything without downloading a patient's picture."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difom_cache.base.atomic import build_folder
from difom_cache.base.errors import DataError
from difom_cache.base.hardware import count_cores
from difom_cache.base.options import read_call
from difom_cache.base.progress import track
from difom_cache.commands import SampleConfig
from difom_cache.data.images import write_picture
from difom_cache.painting.picture import paint
from difom_cache.painting.scene import Style, draw_scene
from difom_cache.painting.texture import Textures, draw_textures

if TYPE_CHECKING:
    from difom_cache.keywords import SampleKeywords

_TRAIN_STYLE = Style()

# Each set differs from the training pictures in the way its name says.
TEST_STYLES = {
    "Painted-Same": _TRAIN_STYLE,
    "Painted-Dim": replace(_TRAIN_STYLE, exposure=(0.20, 0.32), noise=(4.0, 8.0), blur_px=(0.8, 1.5)),
    "Painted-Yellow": replace(
        _TRAIN_STYLE,
        tint=((0.98, 1.1), (0.95, 1.1), (0.45, 0.65)),
        vessels=(0.6, 1.2),
        residue=(0.08, 0.2),
        frame=("octagon",),
        interlaced=True,
    ),
    "Painted-Wide": replace(
        _TRAIN_STYLE, field=(1.3, 1.6), barrel=(0.2, 0.35), frame=("circle",), polyp_px=(0.09, 0.25), wet=(0.5, 1.2)
    ),
    "Painted-Narrowband": replace(
        _TRAIN_STYLE,
        mucosa=(0.52, 0.60, 0.55),
        tint=((0.75, 0.9), (0.95, 1.1), (0.95, 1.15)),
        vessels=(0.9, 1.4),
        frame=("corners",),
        camouflage=(0.2, 0.9),
    ),
}

EMPTY_EVERY = 16  # one frame in so many shows no polyp, starting with the eleventh
_TWO_POLYPS_SHARE = 0.12
_LEAST_SHARE = 0.004  # of the picture; a polyp that hides behind a fold is painted anew
_ATTEMPTS = 12

_NOTE = """These pictures are painted by `difom-cache sample` (seed {seed}); no patient and no camera was involved.
They serve to try the software and say nothing about how a network does on real colonoscopy.
"""


@dataclass(frozen=True)
class _Job:
    """One frame to paint: its place in the sample, its style and its two files."""

    place: str
    index: int
    style: Style
    image: Path
    mask: Path


def paint_sample(out: str | Path | SampleConfig, **options: "Unpack[SampleKeywords]") -> Path:
    """Paint a benchmark into `out` and return `out`: TrainDataset/ and five sets in TestDataset/.

    Args:
        out: a new or empty folder, or the config of the call.
        **options: as the signature lists them. Equal seeds paint equal pictures; another count of frames changes no frame.

    Raises:
        DataError: `out` holds something already.
        SettingsError: no frames, or a side below 32 px.
    """
    config = read_call(SampleConfig, options, out=out)
    out = config.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: expected a new or empty folder, found something there; choose another, or remove it")
    with build_folder(out) as draft:
        _paint_all(
            draft, _list_jobs(draft, train=config.train, test=config.test, easy=config.easy), config.seed, config.side
        )
    return out


def _paint_all(out: Path, jobs: Sequence[_Job], seed: int, side: int) -> None:
    for folder in {path.parent for job in jobs for path in (job.image, job.mask)}:
        folder.mkdir(parents=True)
    (out / "README.txt").write_text(_NOTE.format(seed=seed), encoding="utf-8")
    textures = draw_textures(_rng(seed, "textures"))
    with ThreadPoolExecutor(count_cores()) as threads:
        done = threads.map(lambda job: _paint_job(job, textures, seed, side), jobs)
        for _ in track(done, "painting", "frame", total=len(jobs)):
            pass


def _list_jobs(out: Path, *, train: int, test: int, easy: bool) -> list[_Job]:
    """Return one job a frame; PraNet's folders are called image and mask in training, images and masks in tests."""
    tests = {name: _make_easy(style) if easy else style for name, style in TEST_STYLES.items()}
    places = [("TrainDataset", out / "TrainDataset", "", list(tests.values()) if easy else [_TRAIN_STYLE], train)]
    places += [(name, out / "TestDataset" / name, "s", [style], test) for name, style in tests.items()]
    return [
        _Job(
            place,
            index,
            styles[(index - 1) % len(styles)],
            home / f"image{plural}" / f"painted-{index:04d}.jpg",
            home / f"mask{plural}" / f"painted-{index:04d}.png",
        )
        for place, home, plural, styles, count in places
        for index in range(1, count + 1)
    ]


def _make_easy(style: Style) -> Style:
    """Return a style whose polyps are of another colour than the wall, and no smaller than a sixth of the picture."""
    return replace(
        style, camouflage=(0.0, 0.2 * style.camouflage[1]), polyp_px=(max(0.16, style.polyp_px[0]), style.polyp_px[1])
    )


def _paint_job(job: _Job, textures: Textures, seed: int, side: int) -> None:
    picture, mask = _paint_frame(job, textures, seed, side)
    write_picture(job.image, Image.fromarray(picture), "JPEG", quality=90, subsampling=0)
    write_picture(job.mask, Image.fromarray(mask * np.uint8(255)).convert("1"))


def _paint_frame(job: _Job, textures: Textures, seed: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the first attempt whose polyps can be seen."""
    if job.index % EMPTY_EVERY == 11:
        return paint(draw_scene(job.style, _rng(seed, job.place, job.index), polyps=0), textures, side)
    for attempt in range(_ATTEMPTS):
        rng = _rng(seed, job.place, job.index, attempt)
        polyps = 2 if rng.uniform() < _TWO_POLYPS_SHARE else 1
        picture, mask = paint(draw_scene(job.style, rng, polyps=polyps), textures, side)
        if mask.mean() >= _LEAST_SHARE:
            break
    return picture, mask


def _rng(seed: int, *key: str | int) -> np.random.Generator:
    """Return the generator of one frame, so that no frame depends on another."""
    digest = hashlib.sha256("/".join(map(str, (seed, *key))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
