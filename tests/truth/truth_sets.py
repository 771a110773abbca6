"""Splits, sequences and negatives as publishers lay them out; what is right was counted by hand on the painted folders."""

import hashlib
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from truth_case import Case, Refused

from difom_cache import load_records, read_mask
from difom_cache.data import DataSource, check_records, read_source
from difom_cache.errors import DifomWarning


def paint(home: Path, names: str, *, images: str = "images", masks: str | None = "masks") -> None:
    """Write a picture, another for each path below `home`, and perhaps a mask, for each of some names."""
    for name in names.split():
        seed = int(hashlib.sha256(f"{home.parent.name}/{home.name}/{name}".encode()).hexdigest()[:8], 16)
        picture = np.random.default_rng(seed).integers(60, 200, (20, 24, 3)).astype(np.uint8)
        mask = np.zeros((20, 24), np.uint8)
        mask[5:12, 6:15] = 255
        for folder, array in ((images, picture), (masks, mask)):
            if folder is not None:
                (home / folder / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(home / folder / f"{name}.png")


def lists(home: Path, **names: str) -> None:
    for split, each in names.items():
        (home / f"{split}.txt").write_text("\n".join(each.split()) + "\n")


def read(home: Path, by: str = "split", **said: Any) -> dict[Any, int]:
    """How many records have each value of `by`; "empty" is whether the mask shows no polyp."""
    if "negatives" in said:
        said["negatives"] = home / said["negatives"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DifomWarning)
        records = load_records(DataSource(home, **said), quiet=True)
    if by == "empty":
        return dict(Counter(not read_mask(record.mask).any() for record in records if record.mask))
    return dict(Counter(getattr(record, by) for record in records))


def told(home: Path, **said: Any) -> str:
    """The first warning of a reading."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_records(DataSource(home, **said), quiet=True)
    return str(caught[0].message).replace(str(home), "DATA") if caught else ""


def case(name: str, make: Callable[[Path], None], right: Any, by: str = "split", **said: Any) -> Case:
    def bring(folder: Path) -> Any:
        home = folder / "set"
        make(home)
        return told(home, **said) if by == "warning" else read(home, by, **said)

    return Case(f"sets: {name}", bring, right)


def kvasir(home: Path, **names: str) -> None:
    paint(home, "a b c d e f")
    lists(home, **names)


def sun_seg(home: Path) -> None:
    for place, names in {
        "TrainDataset": "case1_1/1 case1_1/2 case1_4/1 case3_1/1",
        "TestEasyDataset/Seen": "case1_2/1",
        "TestEasyDataset/Unseen": "case9_1/1 case9_1/2",
        "TestHardDataset/Seen": "case3_2/1",
        "TestHardDataset/Unseen": "case10_1/1",
    }.items():
        paint(home / place, names, images="Frame", masks="GT")
        paint(home / place, names, images="Edge", masks="Scribble")


def polypgen(home: Path) -> None:
    for number in (1, 2):
        paint(home / f"data_C{number}", f"C{number}x C{number}y", images=f"images_C{number}", masks=f"masks_C{number}")
        positive = home / "sequenceData" / "positive" / f"seq{number}"
        paint(positive, "1 2 3", images=f"images_seq{number}", masks=f"masks_seq{number}")
        paint(home / "sequenceData" / "negativeOnly", f"seq{number}_neg/1", images=".", masks=None)
    (home / "imagesAll_positive").mkdir()
    for path in home.glob("data_C*/images_C*/*.png"):
        shutil.copy(path, home / "imagesAll_positive")


def ldpolypvideo(home: Path) -> None:
    paint(home / "TrainValid", "1/0001 1/0002 2/0001", images="Images", masks=None)
    paint(home / "Test", "101/0001", images="Images", masks=None)
    for place in ("TrainValid/Annotations/1", "Test/Annotations/101"):
        (home / place).mkdir(parents=True)
        (home / place / "0001.txt").write_text("0\n")


def polypdb(home: Path) -> None:
    for modality, centre, name in (("WLI", "Simula", "a"), ("WLI", "BKAI", "b"), ("NBI", "BKAI", "c")):
        paint(home / "PolypDB_modality_wise" / modality, name)
        for kind in ("images", "masks"):
            there = home / "PolypDB_center_wise" / centre / modality / kind
            there.mkdir(parents=True)
            shutil.copy(home / "PolypDB_modality_wise" / modality / kind / f"{name}.png", there)


def bkai(home: Path) -> None:
    paint(home, "1 2 3 4", images="train/train", masks="train_gt/train_gt")
    paint(home, "8 9", images="test/test", masks=None)


def few(names: str) -> Callable[[Path], None]:
    """Of set/0 to set/59, SHA-256 mod 10 is 0 for 3, 4, 16 and 56 (sha256sum), of which 56 has the lowest digest, then 3."""
    return lambda home: paint(home, names)


def with_bare(home: Path) -> None:
    paint(home, "1 2 3")
    (home / "masks" / "3.png").unlink()


def with_negatives(home: Path) -> None:
    paint(home, "1 2")
    paint(home.parent / "normal", "7 8", images=".", masks=None)


def shares(*percent: float) -> Callable[[Path], None]:
    """Images of 100 x 100 px, of whose masks so many hundredths are white."""

    def make(home: Path) -> None:
        for kind in ("images", "masks"):
            (home / kind).mkdir(parents=True)
        for number, share in enumerate(percent):
            Image.fromarray(np.full((100, 100, 3), 80 + number, np.uint8)).save(home / "images" / f"{number}.png")
            mask = np.zeros(10_000, np.uint8)
            mask[: round(100 * share)] = 255
            Image.fromarray(mask.reshape(100, 100)).save(home / "masks" / f"{number}.png")

    return make


def understood(make: Callable[[Path], None], line: int, **said: Any) -> Callable[[Path], str]:
    """One of the two lines that say what was understood."""

    def bring(folder: Path) -> str:
        make(folder / "set")
        if "negatives" in said:
            said["negatives"] = folder / "set" / said["negatives"]
        return read_source(DataSource(folder / "set", **said), quiet=True).describe()[line]

    return bring


def warns(make: Callable[[Path], None]) -> Callable[[Path], bool]:
    """Whether somebody is told that masks show no polyp."""

    def bring(folder: Path) -> bool:
        make(folder / "set")
        return "masks show no polyp" in told(folder / "set")

    return bring


def video(*names: str) -> Callable[[Path], dict[str, str]]:
    """Six frames, the third and fifth in val, and which pairs across splits are said to be of one scene, and to be leaks.

    Each scene is a wave as long as the frame that moves by 6 px of 128 a frame: frames correlate by cos(2 pi 6 / 128) = .957,
    those two steps apart by .83. The fourth frame ends a scene; the wave of the next is upright.
    """

    def bring(folder: Path) -> dict[str, str]:
        rng = np.random.default_rng(0)
        for number, name in enumerate(names):
            home = folder / "set" / ("val" if number in (2, 4) else "train")
            wave = np.cos(2 * np.pi * (np.arange(128) - 6 * number) / 128)
            plane = np.repeat(wave[None], 128, 0) if number < 4 else np.repeat(wave[:, None], 128, 1)
            picture = (128 + 80 * plane[..., None] + rng.normal(0, 2, (128, 128, 3))).clip(0, 255).astype(np.uint8)
            for kind, array in (("images", picture), ("masks", np.where(plane > 0.5, 255, 0).astype(np.uint8))):
                (home / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(home / kind / f"{name}.png")
        report = check_records(load_records(folder / "set", quiet=True))
        scenes = [pair for pair in report.scenes if pair.splits[0] != pair.splits[1]]
        pairs = (sorted((Path(pair.first).name, Path(pair.second).name)) for pair in scenes)
        return {"scenes": " ".join(sorted("=".join(pair) for pair in pairs)), "leaks": str(len(report.leaks))}

    return bring


CASES = [
    Case(
        "scenes: numbered frames of a video in two splits",
        video("f_8", "f_9", "f_10", "f_11", "f_12", "f_13"),
        {"scenes": "f_10=f_11 f_10=f_9 f_12=f_13", "leaks": "0"},
    ),
    Case(
        "scenes: names without an order",
        video("cju0a", "cju7b2", "cjx1", "cky3f", "cju8c4", "ckz9d"),
        {"scenes": "", "leaks": "0"},
    ),
    Case("empty: all masks", warns(shares(0, 0, 0)), True),
    Case("empty: two of three masks", warns(shares(0, 0, 9)), True),
    Case("empty: half of the masks is nothing to ask about", warns(shares(0, 0, 9, 9)), False),
    Case("empty: polyps of one pixel are polyps", warns(shares(0.01, 0.01, 0.01)), False),
    Case(
        "understood: shares of the frame",  # of 1, 4, 10 and 20 the median is 7
        understood(shares(4, 1, 0, 20, 10), 1),
        "masks: 5; levels 0, 255 (4), 0 (1); 4 with polyp; 1 empty; a polyp covers 7% of the frame in the median (1% to 20%)",
    ),
    Case("understood: no mask with a polyp", understood(shares(), 1), Refused("no pictures found")),
    Case(
        "understood: splits of lists",
        understood(lambda h: kvasir(h, train="a b c d", val="e f"), 0),
        "images: 6 (set); 24 x 20 px, 8 bits, none turned by EXIF; groups unknown; splits: 4 train, 2 val (train.txt, val.txt)",
    ),
    Case(
        "understood: cases of SUN-SEG",
        understood(sun_seg, 0),
        "images: 9 (TrainDataset (4), TestEasyDataset-Unseen (2), TestEasyDataset-Seen (1), TestHardDataset-Seen (1) and 1 "
        "more); 24 x 20 px, 8 bits, none turned by EXIF; 4 groups; splits: 4 train, 5 test (folder names)",
    ),
    Case(
        "understood: negatives",
        understood(with_negatives, 1, negatives="../normal"),
        "masks: 4; levels 0, 255; 2 with polyp; 2 empty (2 by --negatives); "  # 63 of 480 px
        "a polyp covers 13.1% of the frame in the median (13.1% to 13.1%)",
    ),
    case("lists of train and val", lambda h: kvasir(h, train="a b c d", val="e f"), {"train": 4, "val": 2}),
    case(
        "lists of train, val, test",
        lambda h: kvasir(h, train="a b", val="c", test="d e f"),
        {"train": 2, "val": 1, "test": 3},
    ),
    case(
        "lists with suffixes and folders",
        lambda h: kvasir(h, train="images/a.jpg b.png c", val="d e f"),
        {"train": 3, "val": 3},
    ),
    case("lists called valid", lambda h: kvasir(h, train="a b c d e", valid="f"), {"train": 5, "val": 1}),
    case("a name in two lists", lambda h: kvasir(h, train="a b c d", val="d e f"), Refused("val.txt", "d stands")),
    case("images in no list", lambda h: kvasir(h, train="a b c", val="d"), Refused("2 of 6 images", "e, f")),
    case(
        "lists of another set are named",
        lambda h: kvasir(h, train="x y", val="z"),
        "DATA: train.txt, val.txt not read: no name in them is one of the 6 images",
        by="warning",
    ),
    case("SUN-SEG: splits", sun_seg, {"train": 4, "test": 5}),
    case("SUN-SEG: cases", sun_seg, {"set/case1": 4, "set/case3": 2, "set/case9": 2, "set/case10": 1}, by="group"),
    case(
        "SUN-SEG: sets",
        sun_seg,
        {
            "TrainDataset": 4,
            "TestEasyDataset-Seen": 1,
            "TestEasyDataset-Unseen": 2,
            "TestHardDataset-Seen": 1,
            "TestHardDataset-Unseen": 1,
        },
        by="dataset",
    ),
    case("PolypGen: negatives are not said", polypgen, Refused("negativeOnly/seq1_neg", "--unlabelled")),
    case(
        "PolypGen: sequences, and the pool once",
        polypgen,
        {"": 4, "sequenceData/seq1": 3, "sequenceData/seq2": 3, "sequenceData/seq1_neg": 1, "sequenceData/seq2_neg": 1},
        by="group",
        unlabelled=True,
    ),
    case(
        "PolypGen: negatives that are named have empty masks",
        polypgen,
        {False: 10, True: 2},
        by="empty",
        negatives="sequenceData/negativeOnly",
    ),
    case("negatives beside the data", with_negatives, {False: 2, True: 2}, by="empty", negatives="../normal"),
    case("unlabelled is not negative", with_bare, {True: 2, False: 1}, by="labelled", unlabelled=True),
    case("a mask is missing, and nothing is said", with_bare, Refused("1 picture without a mask", "3.png")),
    case("negatives that have masks", few("1 2"), Refused("--negatives", "has masks"), negatives="images"),
    case("LDPolypVideo: splits", ldpolypvideo, {"train": 3, "test": 1}, unlabelled=True),
    case("LDPolypVideo: boxes are no masks", ldpolypvideo, Refused("no masks found", "--unlabelled")),
    case("LDPolypVideo: videos", ldpolypvideo, {"set/1": 2, "set/2": 1, "set/101": 1}, by="group", unlabelled=True),
    case("PolypDB: each image once", polypdb, {"WLI": 2, "NBI": 1}, by="dataset"),
    case("BKAI-IGH: masks in train_gt", bkai, {True: 4, False: 2}, by="labelled"),
    case("BKAI-IGH: one set", bkai, {"set": 6}, by="dataset"),
    case("of three images one validates, not two", few("3 4 5"), {"train": 2, "val": 1}),
    case("of five images one validates, not three", few("3 4 16 1 2"), {"train": 4, "val": 1}),
    case("of four images two validate, which is half", few("3 4 1 2"), {"train": 2, "val": 2}),
    case("one image trains", few("3"), {"train": 1}),
    case("of forty images three validate", few(" ".join(map(str, range(40)))), {"train": 37, "val": 3}),
]
