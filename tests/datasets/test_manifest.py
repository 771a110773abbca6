"""Records say which picture, which mask, which split, and what both files contained."""

import csv
import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difom_cache import load_records, write_manifest
from difom_cache.data import belongs_to_val, check_unchanged, find_set, read_frames, read_manifest, write_names
from difom_cache.errors import DataError, ManifestError, SettingsError

MANIFESTS = Path(__file__).parents[2] / "data_manifests"


@pytest.fixture(scope="module")
def benchmark() -> Path:
    if "DIFOM_BENCHMARK" not in os.environ:
        pytest.skip("DIFOM_BENCHMARK is not set: it names the folder that holds TrainDataset/ and TestDataset/")
    return Path(os.environ["DIFOM_BENCHMARK"])


def paint_pair(home: Path, stem: str, *, size: tuple[int, int] = (8, 6), masked: bool = True) -> None:
    for kind in ("images", "masks")[: 1 + masked]:
        (home / kind).mkdir(parents=True, exist_ok=True)
        picture = Image.new("L", size, 7 if kind == "images" else 0)
        if kind == "masks":
            picture.paste(255, (0, 0, size[0] // 2, size[1] // 2))
        picture.save(home / kind / f"{stem}.png")


def test_a_record_says_what_its_files_contain(tmp_path: Path) -> None:
    home = tmp_path / "ward"
    paint_pair(home, "a")
    (record,) = load_records(home)
    digest = hashlib.sha256((home / "images" / "a.png").read_bytes()).hexdigest()
    assert (record.id, record.dataset, record.width, record.height) == ("ward/a", "ward", 8, 6)
    assert record.image == home / "images" / "a.png" and record.mask == home / "masks" / "a.png"
    assert record.image_sha256 == digest and len(record.mask_sha256) == 64
    assert record.labelled and record.group == ""


def test_size_is_the_upright_pictures(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "a.jpg", exif=exif)
    (record,) = load_records(tmp_path, unlabelled=True)
    assert (record.width, record.height) == (6, 8)


def test_a_folder_without_splits_is_train_with_a_tenth_for_val(tmp_path: Path) -> None:
    for number in range(60):
        paint_pair(tmp_path / "ward", f"{number}")
    records = load_records(tmp_path / "ward")
    expected = {f"ward/{n}" for n in range(60) if int(hashlib.sha256(f"ward/{n}".encode()).hexdigest(), 16) % 10 == 0}
    assert {record.id for record in records if record.split == "val"} == expected
    assert {record.split for record in records} == {"train", "val"}


def test_a_video_sequence_lies_wholly_in_train_or_val() -> None:
    splits: dict[str, set[str]] = {}
    for frame in read_frames("CVC-ClinicDB").values():
        if frame.split != "test":
            splits.setdefault(frame.group, set()).add(frame.split)
    assert len(splits) == 29 and all(len(found) == 1 for found in splits.values())
    assert all(found == {"val" if belongs_to_val(group) else "train"} for group, found in splits.items())


def test_shipped_groups_are_clinicdbs_frame_ranges() -> None:
    with (MANIFESTS / "clinicdb-sequences.csv").open() as file:
        ranges = [(int(row["sequence"]), int(row["first"]), int(row["last"])) for row in csv.DictReader(file)]
    expected = {str(n): f"CVC-ClinicDB/sequence-{s:02d}" for s, low, high in ranges for n in range(low, high + 1)}
    assert {name: frame.group for name, frame in read_frames("CVC-ClinicDB").items()} == expected


def test_shipped_groups_of_sets_without_sequences_are_the_runs_of_scenes() -> None:
    with (MANIFESTS / "scene-runs.csv").open() as file:
        runs = [(row["set"], int(row["run"]), int(row["first"]), int(row["last"])) for row in csv.DictReader(file)]
    for dataset, frames in (("CVC-ColonDB", 379), ("ETIS-LaribPolypDB", 196)):
        expected = {
            str(n): f"{dataset}/run-{run:02d}"
            for name, run, low, high in runs
            for n in range(low, high + 1)
            if name == dataset
        }
        assert {name: frame.group for name, frame in read_frames(dataset).items()} == expected and len(
            expected
        ) == frames
    colondb = read_frames("CVC-ColonDB")
    assert all(frame.group == colondb[name].group for name, frame in read_frames("CVC-300").items())


def test_shipped_manifests_hold_pranets_counts() -> None:
    counts = {
        name: Counter("test" if frame.split == "test" else "train" for frame in read_frames(name).values())
        for name in ("Kvasir", "CVC-ClinicDB", "CVC-ColonDB", "ETIS-LaribPolypDB", "CVC-300")
    }
    assert counts["Kvasir"] == {"train": 900, "test": 100} and counts["CVC-ClinicDB"] == {"train": 550, "test": 62}
    assert [counts[name]["test"] for name in ("CVC-ColonDB", "ETIS-LaribPolypDB", "CVC-300")] == [379, 196, 60]


def test_published_scores_cover_every_set_and_student_once() -> None:
    with (MANIFESTS / "published.csv").open() as file:
        rows = list(csv.DictReader(file))
    notebook = [row for row in rows if "notebook" in row["student"]]
    rows = [row for row in rows if row not in notebook]
    students = ("unet", "unet++", "pranet")
    sets = {path.stem for path in MANIFESTS.glob("*.csv")} - {"published", "models", "clinicdb-sequences", "scene-runs"}
    assert {(row["dataset"], row["student"]) for row in rows} == {
        (name, student) for name in sets for student in students
    }
    assert len(rows) == 15
    assert {row["dataset"] for row in notebook} == sets and len(notebook) == 5
    assert all(float(row["mean_iou"]) < float(row["mean_dice"]) for row in notebook)
    for row in rows:
        assert float(row["mean_iou"]) < float(row["mean_dice"]) < float(row["max_e"]) < 1 and float(row["mae"]) < 0.1


def test_benchmark_sets_are_known_by_many_names() -> None:
    assert [find_set(name) for name in ("Kvasir-SEG", "cvc_clinicdb", "ETIS", "ward")] == [
        "Kvasir",
        "CVC-ClinicDB",
        "ETIS-LaribPolypDB",
        None,
    ]


def test_a_whole_benchmark_set_keeps_its_published_split(tmp_path: Path) -> None:
    home = tmp_path / "CVC-ClinicDB"
    for number in (1, 100):
        for kind in ("Original", "Ground Truth"):
            (home / kind).mkdir(parents=True, exist_ok=True)
            picture = Image.new("L", (8, 6))
            picture.paste(255, (0, 0, 4, 3))
            picture.save(home / kind / f"{number}.tif")
    first, other = sorted(load_records(home), key=lambda record: record.id)
    assert (first.id, first.split, first.group) == ("CVC-ClinicDB/1", "train", "CVC-ClinicDB/sequence-01")
    assert (other.id, other.split, other.group) == ("CVC-ClinicDB/100", "test", "CVC-ClinicDB/sequence-05")


def test_a_mixed_training_folder_is_told_apart_by_its_names(tmp_path: Path) -> None:
    home = tmp_path / "TrainDataset"
    kvasir = next(name for name, frame in read_frames("Kvasir").items() if frame.split == "train")
    for stem in (kvasir, "1", "mine"):
        paint_pair(home, stem)
    assert {record.id for record in load_records(home)} == {f"Kvasir/{kvasir}", "CVC-ClinicDB/1", "TrainDataset/mine"}


def test_bare_numbers_are_clinicdbs_only_at_its_size(tmp_path: Path) -> None:
    home = tmp_path / "TrainDataset"
    paint_pair(home, "1", size=(384, 288))
    paint_pair(home, "2", size=(64, 64))
    assert {record.id for record in load_records(home)} == {"CVC-ClinicDB/1", "TrainDataset/2"}


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    paint_pair(tmp_path, "a")
    Image.new("L", (8, 7)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match=r"masks/a\.png.*8 x 6 px as a\.png, found 8 x 7 px"):
        load_records(tmp_path)


def test_pictures_without_masks_must_be_meant(tmp_path: Path) -> None:
    paint_pair(tmp_path, "a")
    paint_pair(tmp_path, "b", masked=False)
    with pytest.raises(DataError, match=r"images/b\.png.*--unlabelled"):
        load_records(tmp_path)
    _, bare = sorted(load_records(tmp_path, unlabelled=True), key=lambda record: record.id)
    assert (bare.mask, bare.mask_sha256, bare.labelled) == (None, "", False)


def test_one_name_in_train_and_test_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        paint_pair(tmp_path / "Kvasir" / split, "a")
    with pytest.raises(DataError, match=r"record Kvasir/a stands for both \S+/test/images/a\.png and \S+/train/images"):
        load_records(tmp_path / "Kvasir")


def test_splits_and_limit_choose_among_records(tmp_path: Path) -> None:
    for number in range(40):
        paint_pair(tmp_path / "train", f"{number}")
        paint_pair(tmp_path / "test", f"{number}")
    few = load_records(tmp_path, limit=3)
    assert Counter(record.split for record in few) == {"train": 3, "val": 3, "test": 3}
    assert load_records(tmp_path, splits=["val"], limit=3) == [record for record in few if record.split == "val"]
    assert set(few) <= set(load_records(tmp_path, limit=4))
    with pytest.raises(
        DataError, match=r"expected records of split test, found (\d+ val, \d+ train|\d+ train, \d+ val)"
    ):
        load_records(tmp_path / "train", splits=["test"])
    with pytest.raises(SettingsError, match=r"no split 'tests'; did you mean 'test'"):
        load_records(tmp_path, splits=["tests"])
    with pytest.raises(SettingsError, match=r"at least 1 record, found 0"):
        load_records(tmp_path, limit=0)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    paint_pair(tmp_path / "data", "a")
    paint_pair(tmp_path / "data", "b, with comma", masked=False)
    records = load_records(tmp_path / "data", unlabelled=True)
    for path in (tmp_path / "data" / "m.csv", tmp_path / "elsewhere" / "m.csv"):
        write_manifest(records, path)
        assert read_manifest(path) == records == load_records(path)
    assert "images/a.png" in (tmp_path / "data" / "m.csv").read_text()
    assert str(tmp_path) not in (tmp_path / "data" / "m.csv").read_text()


def test_records_reach_the_threads_in_at_most_a_thousand_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint_pair(tmp_path / "data", "1", masked=False)
    (record,) = load_records(tmp_path / "data", unlabelled=True)
    records = [replace(record, id=f"{number}") for number in range(2500)]
    write_manifest(records, tmp_path / "m.csv")
    taken: list[int] = []
    submit = ThreadPoolExecutor.submit
    monkeypatch.setattr(ThreadPoolExecutor, "submit", lambda *args: taken.append(len(args[2])) or submit(*args))
    assert load_records(tmp_path / "m.csv") == records
    assert sum(taken) == 2500 and len(taken) <= 1000


def test_a_manifest_moves_with_its_folder(tmp_path: Path) -> None:
    paint_pair(tmp_path / "data", "a")
    write_manifest(load_records(tmp_path / "data"), tmp_path / "data" / "m.csv")
    (tmp_path / "data").rename(tmp_path / "moved")
    (record,) = load_records(tmp_path / "moved" / "m.csv")
    assert record.image == tmp_path / "moved" / "images" / "a.png"
    check_unchanged(record)


def test_a_manifest_of_missing_pictures_is_refused(tmp_path: Path) -> None:
    paint_pair(tmp_path, "a")
    write_manifest(load_records(tmp_path), tmp_path / "m.csv")
    (tmp_path / "masks" / "a.png").unlink()
    assert len(read_manifest(tmp_path / "m.csv")) == 1
    with pytest.raises(ManifestError, match=r"1 files are not there, the first is \S+/masks/a\.png"):
        load_records(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("id,dataset", "name,dataset", r"expected the columns id,.*found name,"),
        (",train,", ",training,", r"line 2: expected an id, an image and a split of train, val, test"),
        (",8,6,", ",8,six,", r"line 2: expected width and height in px, found '8' and 'six'"),
        (",masks/a.png,", ",,", r"line 2: expected a SHA-256 for each file of record ward/a"),
    ],
)
def test_a_damaged_manifest_is_refused_with_its_line(tmp_path: Path, before: str, after: str, message: str) -> None:
    paint_pair(tmp_path / "ward", "a")
    path = tmp_path / "ward" / "m.csv"
    write_manifest([replace(record, split="train") for record in load_records(tmp_path / "ward")], path)
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(ManifestError, match=message):
        read_manifest(path)


def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes(range(256)))
    with pytest.raises(ManifestError, match=r"a\.jpg: expected"):
        load_records(tmp_path / "a.jpg")


def test_a_picture_that_changed_since_is_refused_with_both_digests(tmp_path: Path) -> None:
    paint_pair(tmp_path, "a")
    (record,) = load_records(tmp_path)
    check_unchanged(record)
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(record.image)
    found = hashlib.sha256(record.image.read_bytes()).hexdigest()[:12]
    with pytest.raises(ManifestError, match=rf"images/a\.png: changed.*{record.image_sha256[:12]}….*{found}…"):
        check_unchanged(record)
    record.image.unlink()
    with pytest.raises(ManifestError, match=r"images/a\.png.*cannot be read"):
        check_unchanged(record)


def test_names_hold_no_path(tmp_path: Path) -> None:
    paint_pair(tmp_path / "ward", "a")
    (path,) = write_names(load_records(tmp_path / "ward"), tmp_path / "names")
    assert path.name == "ward.csv" and path.read_text().splitlines()[0] == "name,split,group"
    assert str(tmp_path) not in path.read_text()


def test_shipped_manifests_are_what_the_real_benchmark_gives(benchmark: Path, tmp_path: Path) -> None:
    records = load_records(benchmark)
    assert len(records) == 1450 + 797
    for path in write_names(records, tmp_path):
        assert path.read_text() == (MANIFESTS / path.name).read_text(), path.name


def test_any_folder_of_the_real_benchmark_gives_the_same_records(benchmark: Path) -> None:
    whole = set(load_records(benchmark))
    for inside in ("TrainDataset", "TestDataset", "TestDataset/CVC-ClinicDB", "TestDataset/Kvasir/images"):
        assert set(load_records(benchmark / inside)) <= whole, inside
