"""Layouts of other tools, on small painted copies: what they count as train, val and test, and how they are named."""

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from painted_folder import paint_folder
from PIL import Image

from difom_cache import Record, load_records
from difom_cache.data import DataSource, belongs_to_val, find_folders
from difom_cache.errors import DataError

Counts = dict[str, int]


def paint(home: Path, *stems: str, images: str = "images", masks: str | None = "masks", seed: int = 0) -> None:
    """Write a painted picture and its mask for each stem; one colour of noise a picture."""
    y, x = np.mgrid[:24, :32]
    for number, stem in enumerate(stems):
        rng = np.random.default_rng([seed, number])
        mask = np.hypot(y - rng.uniform(8, 16), x - rng.uniform(10, 20)) < 6
        picture = np.array([150, 80, 70]) + 60 * mask[..., None] + rng.normal(0, 12, (24, 32, 3))
        for folder, array in ((images, picture.clip(0, 255).astype(np.uint8)), (masks, mask)):
            if folder is not None:
                path = home / folder / f"{stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)


def many(count: int, start: int = 0) -> list[str]:
    return [f"{number:03d}" for number in range(start, start + count)]


def count(records: list[Record]) -> Counts:
    return dict(Counter(record.split for record in records))


def hashed(ids: list[str]) -> Counts:
    """What the hash of each id makes of a set without a validation folder, worked out by itself."""
    val = sum(belongs_to_val(each) for each in ids)
    return {"train": len(ids) - val, "val": val}


def test_nnunets_layout_is_read_with_its_json_and_channel_names(tmp_path: Path) -> None:
    home = tmp_path / "Dataset007_Polyp"
    paint(home, *[f"case_{stem}_0000" for stem in many(30)], images="imagesTr", masks=None)
    paint(home, *[f"case_{stem}" for stem in many(30)], images="discard", masks="labelsTr")
    paint(home, *[f"case_{stem}_0000" for stem in many(4, 90)], images="imagesTs", masks=None)
    for path in (home / "discard").iterdir():
        path.unlink()
    (home / "discard").rmdir()
    about = {
        "channel_names": {"0": "rgb"},
        "labels": {"background": 0, "polyp": 1},
        "numTraining": 30,
        "file_ending": ".png",
    }
    (home / "dataset.json").write_text(json.dumps(about))
    records = load_records(home)
    assert count(records) == {**hashed([f"imagesTr/case_{stem}" for stem in many(30)]), "test": 4}
    first = next(record for record in records if record.id == "Dataset007_Polyp/imagesTr/case_000")
    assert (first.dataset, first.image.name) == ("Dataset007_Polyp", "case_000_0000.png")
    assert first.mask == home / "labelsTr" / "case_000.png"
    assert {record.mask for record in records if record.split == "test"} == {None}
    for inside in ("imagesTr", "imagesTs"):
        assert load_records(home / inside) == [record for record in records if inside in record.id], inside


def test_nnunets_layout_without_json_and_channels_has_test_masks_where_they_lie(tmp_path: Path) -> None:
    home = tmp_path / "Task01"
    paint(home, *many(10), images="imagesTr", masks="labelsTr")
    paint(home, *many(3), images="imagesTs", masks="labelsTs")
    records = load_records(home)
    assert count(records) == {**hashed([f"imagesTr/{stem}" for stem in many(10)]), "test": 3}
    assert all(record.labelled for record in records)


def test_nnunets_channels_and_volumes_are_refused(tmp_path: Path) -> None:
    paint(tmp_path / "a", "c_0000", "c_0001", images="imagesTr", masks=None)
    with pytest.raises(DataError, match=r"case 'c' also has c_000\d\.png; join the channels"):
        load_records(tmp_path / "a", unlabelled=True)
    paint(tmp_path / "b", "c", images="imagesTr", masks="labelsTr")
    (tmp_path / "b" / "dataset.json").write_text('{"file_ending": ".nii.gz"}')
    with pytest.raises(DataError, match=r"dataset\.json: file_ending is '\.nii\.gz'"):
        load_records(tmp_path / "b")
    with pytest.raises(DataError, match=r"labelsTr: this folder holds masks"):
        load_records(tmp_path / "b" / "labelsTr")


def test_a_publishers_validation_folder_is_kept_and_no_train_record_joins_it(tmp_path: Path) -> None:
    home = tmp_path / "Ward 7"
    paint(home / "train", *many(40))
    paint(home / "val", *many(5), seed=1)
    paint(home / "test", *many(6), seed=2)
    assert any(belongs_to_val(f"train/{stem}") for stem in many(40))  # or this test shows nothing
    records = load_records(home)
    assert count(records) == {"train": 40, "val": 5, "test": 6}
    assert {record.dataset for record in records} == {"Ward 7"}
    assert records[0].id == "Ward 7/train/000"
    for inside in ("train", "val", "test", "train/images"):
        assert set(load_records(home / inside)) == {r for r in records if r.split == inside.split("/")[0]}, inside


def test_without_a_validation_folder_a_tenth_of_train_validates_by_hash(tmp_path: Path) -> None:
    paint(tmp_path / "ward" / "train", *many(40))
    paint(tmp_path / "ward" / "test", *many(6))
    expected = {**hashed([f"train/{stem}" for stem in many(40)]), "test": 6}
    assert expected["val"] and count(load_records(tmp_path / "ward")) == expected


@pytest.mark.parametrize(("images", "masks"), [("img", "annotations"), ("images", "labels"), ("img_dir", "ann_dir")])
def test_masks_may_be_called_annotations_or_labels(tmp_path: Path, images: str, masks: str) -> None:
    for split, number in (("train", 12), ("valid", 3), ("test", 4)):
        paint(tmp_path / "set" / split, *many(number), images=images, masks=masks)
    records = load_records(tmp_path / "set")
    assert count(records) == {"train": 12, "val": 3, "test": 4} and all(record.labelled for record in records)
    paint(tmp_path / "plain", *many(30), images=images, masks=masks)
    plain = load_records(tmp_path / "plain")
    assert count(plain) == hashed([f"plain/{stem}" for stem in many(30)])
    assert load_records(tmp_path / "plain" / images) == plain


def test_splits_may_lie_inside_of_images_and_masks(tmp_path: Path) -> None:
    for split, number in (("train", 12), ("val", 3), ("test", 4)):
        paint(tmp_path / "set", *[f"{split}/{stem}" for stem in many(number)])
    records = load_records(tmp_path / "set")
    assert count(records) == {"train": 12, "val": 3, "test": 4} and all(record.labelled for record in records)
    assert records[0].id == "set/train/000"
    for inside in ("images", "images/val"):
        assert set(load_records(tmp_path / "set" / inside)) <= set(records), inside


def test_pictures_and_masks_may_lie_side_by_side(tmp_path: Path) -> None:
    paint(tmp_path / "set", *many(10), images="train", masks=None)
    paint(tmp_path / "set", *[f"{stem}_mask" for stem in many(10)], images="gone", masks="train")
    for path in (tmp_path / "set" / "gone").iterdir():
        path.unlink()
    (tmp_path / "set" / "gone").rmdir()
    records = load_records(tmp_path / "set")
    assert len(records) == 10 and all(record.labelled for record in records)


def test_any_pair_of_folders_is_read_where_it_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "ward9", *many(30), images="colour pictures", masks="by Dr. B")
    source = DataSource(images=tmp_path / "ward9" / "colour pictures", masks=tmp_path / "ward9" / "by Dr. B")
    records = load_records(source)
    assert count(records) == hashed([f"{records[0].dataset}/{stem}" for stem in many(30)])
    assert records[0].dataset == "ward9" and all(record.labelled for record in records)
    with pytest.raises(DataError, match=r"these pictures are masks; are --images and --masks the wrong way round"):
        load_records(DataSource(images=source.masks, masks=source.images))
    with pytest.raises(DataError, match="colour pictures: no masks found for its 30 pictures"):
        load_records(DataSource(images=source.images))


def test_two_sets_never_merge_by_an_inner_test(tmp_path: Path) -> None:
    for name in ("north", "south"):
        paint(tmp_path / "all" / name / "train", *many(20))
        paint(tmp_path / "all" / name / "test", *many(4))
    records = load_records(tmp_path / "all")
    assert Counter(record.dataset for record in records) == {"north": 24, "south": 24}
    tests = [record for place in ("north/test", "south/test") for record in load_records(tmp_path / "all" / place)]
    assert {record.dataset for record in tests} == {"north", "south"}
    assert len({record.id for record in tests}) == 8


def test_a_validation_folder_of_one_set_is_none_of_anothers(tmp_path: Path) -> None:
    paint(tmp_path / "all" / "north" / "train", *many(40))
    paint(tmp_path / "all" / "north" / "val", *many(4))
    paint(tmp_path / "all" / "south", *many(40))
    records = load_records(tmp_path / "all")
    assert count([record for record in records if record.dataset == "north"]) == {"train": 40, "val": 4}
    assert count([record for record in records if record.dataset == "south"]) == hashed(
        [f"south/{s}" for s in many(40)]
    )


@pytest.mark.parametrize("unlabelled", [True, False])
def test_a_folder_of_masks_is_never_taken_for_pictures(tmp_path: Path, unlabelled: bool) -> None:
    paint(tmp_path / "set", *many(9), images="photos", masks="truth")
    with pytest.raises(
        DataError, match=r"truth: these pictures are masks.*imagesTr/ and labelsTr/.*--images DIR --masks DIR"
    ):
        load_records(tmp_path / "set", unlabelled=unlabelled)
    with pytest.raises(DataError, match=r"truth: these pictures are masks"):
        load_records(tmp_path / "set" / "truth", unlabelled=unlabelled)
    assert len(load_records(tmp_path / "set" / "photos", unlabelled=True)) == 9


def test_jpeg_masks_and_maps_of_classes_are_known_for_masks_too(tmp_path: Path) -> None:
    y, x = np.mgrid[:60, :80]
    disc = np.hypot(y - 30, x - 40) < 18
    for name, values in (("lossy", disc * np.uint8(255)), ("classes", disc.astype(np.uint8) + (y > 50))):
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / ("1.jpg" if name == "lossy" else "1.png"))
        with pytest.raises(DataError, match="these pictures are masks"):
            find_folders(tmp_path / name)


def test_masks_that_are_not_found_name_the_layouts(tmp_path: Path) -> None:
    paint(tmp_path / "set", *many(3), masks=None)
    with pytest.raises(
        DataError, match=r"set/images: no masks found for its 3 pictures; expected .*imagesTr.*--unlabelled"
    ):
        load_records(tmp_path / "set")


def old_ids(root: Path) -> set[tuple[str, str]]:
    return {(record.id, record.dataset) for record in load_records(root, unlabelled=True)}


def test_layouts_of_before_keep_their_names_and_ids(tmp_path: Path) -> None:
    """Views are drawn by the id: another one would draw others. The pairs were written down at commit e94e162."""
    paint(tmp_path / "a" / "TrainDataset", "1", "2", images="image", masks="mask")
    paint(tmp_path / "a" / "TestDataset" / "CVC-300", "149")
    paint(tmp_path / "a" / "TestDataset" / "Other", "1")
    expected = {("TrainDataset/1", "TrainDataset"), ("TrainDataset/2", "TrainDataset")}
    expected |= {("CVC-300/149", "CVC-300"), ("Other/1", "Other")}
    assert old_ids(tmp_path / "a") == expected
    paint(tmp_path / "b" / "TrainDB", "1")
    paint(tmp_path / "b" / "TestDB" / "ETIS", "1")
    assert old_ids(tmp_path / "b") == {("TrainDB/1", "TrainDB"), ("ETIS-LaribPolypDB/1", "ETIS-LaribPolypDB")}
    paint(tmp_path / "Ward 7", "a")
    assert old_ids(tmp_path / "Ward 7") == {("Ward 7/a", "Ward 7")}
    paint(tmp_path / "hospital" / "ward1", "a")
    paint(tmp_path / "hospital" / "ward2", "a", images="video", masks=None)
    assert old_ids(tmp_path / "hospital") == {("ward1/a", "ward1"), ("video/a", "video")}
    paint(tmp_path / "CVC-ClinicDB" / "PNG", "1", images="Original", masks="Ground Truth")
    assert old_ids(tmp_path / "CVC-ClinicDB") == {("CVC-ClinicDB/1", "CVC-ClinicDB")}
    paint(tmp_path / "gen", "a", images="images_C1", masks="masks_C1")
    paint(tmp_path / "gen", "b", images="images_C2", masks="masks_C2")
    assert old_ids(tmp_path / "gen") == {("gen/a", "gen"), ("gen/b", "gen")}
    paint(tmp_path / "Kvasir" / "train", "a")
    paint(tmp_path / "Kvasir" / "test", "b")
    assert old_ids(tmp_path / "Kvasir") == {("Kvasir/a", "Kvasir"), ("Kvasir/b", "Kvasir")}
    paint(tmp_path / "c" / "test" / "CVC-300", "149")
    paint(tmp_path / "c" / "test" / "Other", "1")
    assert old_ids(tmp_path / "c") == {("CVC-300/149", "CVC-300"), ("Other/1", "Other")}


def test_videos_beside_pictures_are_left_out_with_a_warning(tmp_path: Path) -> None:
    paint_folder(tmp_path / "set", 3)
    (tmp_path / "set" / "clip.mp4").write_bytes(b"not looked at")
    with pytest.warns(match=r"1 videos \(clip\.mp4\)"):
        assert len(load_records(tmp_path / "set")) == 3
    with warnings.catch_warnings():
        assert len(load_records(tmp_path / "set" / "images")) == 3
