"""Caches that are read together. What is right follows from counting the painted files."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from truth_case import Case, Refused

from difom_cache import extract, load_records, open_cache, write_manifest
from difom_cache.maintenance import join_caches
from difom_train import CacheLoader
from difom_train.config import DataConfig
from difom_train.data import JointCache, select_rows

Frame = tuple[str, int, str, str]
"""Stem, what is painted, split and group."""


def hospital(first: int, count: int = 8, *, stems: int = 0, per_video: int = 4, split: str = "train") -> list[Frame]:
    """Return frames 0000, 0001... of video01, video02...; `first` is the number of the first painting."""
    return [
        (f"{stems + each:04}", first + each, split, f"video{1 + each // per_video:02}" if per_video else "")
        for each in range(count)
    ]


def cache_of(root: Path, frames: Sequence[Frame], *, seed: int = 0, masks: bool = True) -> Path:
    """Paint frames of a set that is called "polyps", cache them, and return the cache's folder."""
    home = root / "polyps"
    y, x = np.mgrid[:24, :32]
    for stem, painting, _, _ in frames:
        rng = np.random.default_rng(painting)
        mask = np.hypot(y - rng.uniform(8, 16), x - rng.uniform(8, 24)) < 6
        picture = rng.normal(90, 20, (24, 32, 3)) + 60 * mask[..., None]
        for part, pixels in (("images", picture.clip(0, 255).astype(np.uint8)), ("masks", mask)):
            (home / part).mkdir(parents=True, exist_ok=True)
            if masks or part == "images":
                Image.fromarray(pixels).save(home / part / f"{stem}.png")
    told = {stem: (split, group) for stem, _, split, group in frames}
    records = [
        replace(record, split=told[record.image.stem][0], group=told[record.image.stem][1])
        for record in load_records(home, unlabelled=not masks, quiet=True)
    ]
    write_manifest(records, root / "records.csv")
    every = ("train", "val", "test")
    extract(
        teacher=(),
        data=root / "records.csv",
        cache=root / "feats",
        views=2,
        input_size=16,
        seed=seed,
        split=every,
        quiet=True,
    )
    return root / "feats"


def caches_of(folder: Path, several: Sequence[Sequence[Frame]], **options: Any) -> list[Path]:
    """Return a cache for each list of frames, each with a view plan of its own seed."""
    return [cache_of(folder / str(n), frames, seed=n, **options) for n, frames in enumerate(several)]


def count_epoch(caches: Sequence[Path]) -> int:
    """Return how many different images an epoch of training shows, by the bytes of view 0 of what is drawn."""
    loader = CacheLoader(caches, batch_size=1)
    joint, rows = loader.cache, [int(batch["row"]) for batch in loader]
    return len({line["image_sha256"] for line in joint.records_of(rows)})


def epoch(*several: Sequence[Frame]) -> Callable[[Path], Any]:
    """Return a reader of how many images an epoch shows, and in how many steps of one image."""

    def read(folder: Path) -> Any:
        caches = caches_of(folder, several)
        return {"images": count_epoch(caches), "steps": len(CacheLoader(caches, batch_size=1))}

    return read


def groups(*several: Sequence[Frame]) -> Callable[[Path], Any]:
    """Return a reader of how many groups the records of several caches make."""

    def read(folder: Path) -> Any:
        joint = JointCache([open_cache(cache) for cache in caches_of(folder, several)])
        return len(set(joint.groups(np.arange(len(joint)))))

    return read


def masks_of(share: float, *several: Sequence[Frame]) -> Callable[[Path], Any]:
    """Return a reader of how many masks a budget holds."""

    def read(folder: Path) -> Any:
        joint = JointCache([open_cache(cache) for cache in caches_of(folder, several)])
        chosen = select_rows(joint, DataConfig(labels=share), seed=0, usable=np.ones(len(joint), bool))
        used = np.flatnonzero(chosen.supervised)
        return len({line["image_sha256"] for line in joint.records_of(used)})

    return read


def validated(*several: Sequence[Frame]) -> Callable[[Path], Any]:
    """Return a reader of how many images validate, counted as often as each is looked at."""

    def read(folder: Path) -> Any:
        joint = JointCache([open_cache(cache) for cache in caches_of(folder, several)])
        return len(select_rows(joint, DataConfig(), seed=0, usable=np.ones(len(joint), bool)).val)

    return read


def together(*several: Sequence[Frame]) -> Callable[[Path], Any]:
    """Return a reader of what `difom-cache info` says of several caches."""

    def read(folder: Path) -> Any:
        said = join_caches(caches_of(folder, several)).as_json()
        return {key: said[key] for key in ("records", "groups", "shared", "apart_ids", "apart_groups")}

    return read


def drawn_alike(folder: Path) -> Any:
    """Return whether the epochs of two caches show the same images in the same order, whichever is named first."""
    one, other = caches_of(folder, [hospital(0), hospital(4)])
    orders = []
    for caches in ((one, other), (other, one)):
        loader = CacheLoader(caches, batch_size=1)
        rows = [int(batch["row"]) for _ in range(3) for batch in loader]
        lines, views = loader.cache.records_of(rows), loader.cache.params(rows)
        orders.append([(line["image_sha256"], tuple(view)) for line, view in zip(lines, views.tolist(), strict=True)])
    return orders[0] == orders[1]


def one_masked(folder: Path) -> Any:
    """Return how many images an epoch shows of a set that lies in one cache with its masks and in another without."""
    caches = [cache_of(folder / "a", hospital(0)), cache_of(folder / "b", hospital(0), masks=False)]
    return {"images": count_epoch(caches), "steps": len(CacheLoader(caches, batch_size=1))}


def alone(folder: Path) -> Any:
    """Return the names of the records of one cache."""
    joint = JointCache([open_cache(cache_of(folder, hospital(0, 3)))])
    return sorted(joint.record_ids(np.flatnonzero(joint.view == 0)))


def twice(folder: Path) -> Any:
    """Name one cache twice."""
    cache = cache_of(folder, hospital(0))
    return count_epoch([cache, cache])


def through_a_link(folder: Path) -> Any:
    """Name one cache, and a link to the folder that it lies in."""
    cache = cache_of(folder / "real", hospital(0))
    (folder / "link").symlink_to(cache.parent)
    return count_epoch([cache, folder / "link" / "feats"])


VAL = hospital(0, 2, split="val", per_video=0)
CASES = [
    Case("joins: two hospitals with the same names", epoch(hospital(0), hospital(8)), {"images": 16, "steps": 16}),
    Case(
        "joins: three hospitals with the same names",
        epoch(hospital(0), hospital(8), hospital(16)),
        {"images": 24, "steps": 24},
    ),
    Case(
        "joins: two hospitals with names that overlap in part",
        epoch(hospital(0), hospital(8, stems=6)),
        {"images": 16, "steps": 16},
    ),
    Case("joins: the same set with two view plans", epoch(hospital(0), hospital(0)), {"images": 8, "steps": 8}),
    Case("joins: the same set under other names", epoch(hospital(0), hospital(0, stems=50)), {"images": 8, "steps": 8}),
    Case("joins: half of the images in both", epoch(hospital(0), hospital(4, stems=4)), {"images": 12, "steps": 12}),
    Case("joins: the same set with masks and without", one_masked, {"images": 8, "steps": 8}),
    Case("joins: one cache alone", alone, ["polyps/0000", "polyps/0001", "polyps/0002"]),
    Case("joins: video01 and video02 of two hospitals", groups(hospital(0), hospital(8)), 4),
    Case("joins: the same videos twice", groups(hospital(0), hospital(0)), 2),
    Case("joins: a video that goes on in the second cache", groups(hospital(0, 4), hospital(3, 4, stems=3)), 1),
    Case("joins: frames of no known group", groups(hospital(0, 3, per_video=0), hospital(8, 3, per_video=0)), 6),
    Case("joins: a budget of a quarter is one video of four", masks_of(0.25, hospital(0), hospital(8)), 4),
    Case("joins: a budget of half of one set in both caches", masks_of(0.5, hospital(0), hospital(0)), 4),
    Case(
        "joins: two validation images in both caches",
        validated(VAL + hospital(9, stems=9), VAL + hospital(9, stems=9)),
        2,
    ),
    Case(
        "joins: two hospitals' validation images",
        validated(VAL + hospital(9, stems=9), hospital(50, 3, split="val") + hospital(59, stems=9)),
        5,
    ),
    Case(
        "joins: info of two hospitals",
        together(hospital(0), hospital(8)),
        {"records": 16, "groups": 4, "shared": 0, "apart_groups": ("video01", "video02")}
        | {"apart_ids": tuple(f"polyps/{each:04}" for each in range(8))},
    ),
    Case(
        "joins: info of half a set in both",
        together(hospital(0), hospital(4, stems=4)),
        {"records": 12, "groups": 3, "shared": 4, "apart_ids": ()}
        | {"apart_groups": ("video01", "video02")},  # the second one's video01 shows what the first one's video02 shows
    ),
    Case(
        "joins: an image that tests elsewhere",
        epoch(hospital(0), hospital(0, 4, split="test")),
        {"images": 8, "steps": 8},
    ),
    Case("joins: draws in whichever order", drawn_alike, True),
    Case(
        "joins: an image that trains here and validates there",
        epoch(hospital(0), VAL + hospital(9, stems=9)),
        Refused("2 images train in one cache and validate in another", "polyps/0000, polyps/0001"),
    ),
    Case("joins: a cache twice", twice, Refused("one cache", "name each cache once")),
    Case("joins: a cache and a link to it", through_a_link, Refused("one cache", "name each cache once")),
]
