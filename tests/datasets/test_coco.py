"""COCO files become masks: pixel for pixel those that COCO's own tools draw, and no others."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difom_cache import load_records, make_manifest, read_mask
from difom_cache.data import DataSource, check_unchanged, read_manifest
from difom_cache.errors import DataError, DifomWarning, ManifestError, SettingsError

tools = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed (pip install '.[coco]')")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode
HEIGHT, WIDTH = 30, 40
TRIANGLE, SQUARE = [5.0, 5.0, 25.0, 6.0, 12.0, 22.0], [28, 10, 36, 10, 36, 18, 28, 18]
CATEGORIES = [{"id": 1, "name": "polyp"}]


def annotate(image: int, segmentation: object, category: int = 1, number: int = 1) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0}


def write_coco(
    file: Path, names: list[str], annotations: list[dict], *, pictures: Path, categories: object = CATEGORIES
) -> Path:
    """Write pictures of noise, and a COCO file that numbers them from 1."""
    for number, name in enumerate(names):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(noise).save(pictures / name)
    images = [{"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(names, start=1)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def test_polygons_runs_and_nothing_are_masks_as_cocos_tools_draw_them(tmp_path: Path) -> None:
    blob = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    blob[3:9, 30:38] = 1
    packed = tools.encode(blob)
    runs = np.flatnonzero(np.diff(blob.ravel(order="F"), prepend=0, append=0))
    plain = np.diff(np.concatenate([[0], runs, [blob.size]])).tolist()
    names = ["two.png", "packed.png", "plain.png", "empty.png"]
    annotations = [
        annotate(1, [TRIANGLE, SQUARE]),
        annotate(2, {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}),
        annotate(3, {"size": [HEIGHT, WIDTH], "counts": plain}),
    ]
    write_coco(tmp_path / "ward" / "annotations.json", names, annotations, pictures=tmp_path / "ward")
    masks = {record.image.name: read_mask(record.mask) for record in load_records(tmp_path / "ward") if record.mask}
    drawn = tools.decode(tools.merge(tools.frPyObjects([TRIANGLE, SQUARE], HEIGHT, WIDTH)))
    assert drawn.sum() > 200 and (masks["two.png"] == drawn).all()
    assert (masks["packed.png"] == blob).all() and (masks["plain.png"] == blob).all()
    assert masks["empty.png"].shape == (HEIGHT, WIDTH) and not masks["empty.png"].any()


def test_cocos_own_folders_give_splits_and_names(tmp_path: Path) -> None:
    home = tmp_path / "ward"
    for split, number in (("train", 20), ("val", 3), ("test", 4)):
        write_coco(
            home / "annotations" / f"instances_{split}2017.json",
            [f"{n:04d}.jpg" for n in range(number)],
            [annotate(n, [TRIANGLE], number=n) for n in range(1, number + 1)],
            pictures=home / f"{split}2017",
        )
    records = load_records(home)
    assert Counter(record.split for record in records) == {"train": 20, "val": 3, "test": 4}
    assert records[0].id == "ward/train2017/0000" and {record.dataset for record in records} == {"ward"}
    alone = load_records(home / "annotations" / "instances_val2017.json")
    assert {record.id for record in alone} == {record.id for record in records if record.split == "val"}


def test_a_file_beside_its_pictures_in_split_folders_is_found(tmp_path: Path) -> None:
    for split, number in (("train", 12), ("valid", 3), ("test", 2)):
        place = tmp_path / "export" / split
        write_coco(
            place / "_annotations.coco.json",
            [f"{n}.jpg" for n in range(number)],
            [annotate(n, [SQUARE], number=n) for n in range(1, number + 1)],
            pictures=place,
        )
    records = load_records(tmp_path / "export")
    assert Counter(record.split for record in records) == {"train": 12, "val": 3, "test": 2}
    assert all(record.labelled and record.dataset == "export" for record in records)


def test_pictures_may_lie_where_the_user_says(tmp_path: Path) -> None:
    file = write_coco(
        tmp_path / "far" / "a.json", ["1.png", "2.png"], [annotate(1, [SQUARE])], pictures=tmp_path / "w" / "pics"
    )
    with pytest.raises(
        DataError, match=r"a\.json: its 2 pictures are not found, the first is 1\.png .*--images DIR --masks"
    ):
        load_records(file)
    assert len(load_records(DataSource(images=tmp_path / "w" / "pics", masks=file))) == 2


@pytest.mark.parametrize(
    ("named", "there"),
    [
        ("images\\1.png", "images/1.png"),
        ("C:\\data\\polyps\\1.png", "1.png"),
        ("/data/upload/3/0a1b2c3d-1.png", "1.png"),
        ("/data/upload/3/0a1b2c3d-1.png", "images/0a1b2c3d-1.png"),
        ("../../media/upload/1.png", "images/1.png"),
        ("Mu\u0308ller.png", "M\u00fcller.png"),
    ],
)
def test_a_name_from_another_machine_finds_its_picture(tmp_path: Path, named: str, there: str) -> None:
    home = tmp_path / "ward"
    file = write_coco(home / "a.json", [there], [annotate(1, [SQUARE])], pictures=home)
    held = json.loads(file.read_text())
    held["images"][0]["file_name"] = named
    file.write_text(json.dumps(held))
    (record,) = load_records(home)
    assert record.image == home / there and record.mask and read_mask(record.mask).any()


def test_a_name_that_two_folders_hold_is_not_guessed(tmp_path: Path) -> None:
    file = write_coco(tmp_path / "a.json", ["train/1.png", "val/1.png"], [], pictures=tmp_path)
    held = json.loads(file.read_text())
    held["images"] = [held["images"][0] | {"file_name": "/upload/1.png"}]
    file.write_text(json.dumps(held))
    with pytest.raises(DataError, match=r"looked for 1\.png beside the file and above it.*--images DIR"):
        load_records(file)


def test_a_size_that_is_whole_but_written_as_a_float_is_a_size(tmp_path: Path) -> None:
    file = write_coco(tmp_path / "w" / "a.json", ["1.png"], [annotate(1, [SQUARE])], pictures=tmp_path / "w")
    file.write_text(file.read_text().replace('"width": 40', '"width": 40.0'))
    (record,) = load_records(file)
    assert record.mask and read_mask(record.mask).shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("segmentation", "width", "what"),
    [
        (SQUARE, 40, "annotation 7: expected a list of polygons, found one list of numbers"),
        ([SQUARE, [1, 2, 3, 4]], 40, "annotation 7: found four numbers, a box, among the polygons"),
        ([SQUARE], 40.5, r"expected a size in px, found 40\.5 x 30"),
    ],
)
def test_one_broken_annotation_is_named_and_its_image_left_out_where_the_user_says_so(
    tmp_path: Path, segmentation: object, width: float, what: str
) -> None:
    home = tmp_path / "w"
    drawn = [annotate(1, [TRIANGLE]), annotate(2, segmentation, number=7)]
    file = write_coco(home / "a.json", ["1.png", "2.png"], drawn, pictures=home)
    held = json.loads(file.read_text())
    held["images"][1]["width"] = width
    file.write_text(json.dumps(held))
    with pytest.raises(DataError, match=rf"a\.json, image 2.*{what}.*--skip-broken"):
        load_records(home)
    with pytest.warns(DifomWarning, match=rf"1 of 2 images are left out.*image 2.*{what}"):
        make_manifest(home, tmp_path / "m.csv", skip_broken=True)
    (record,) = load_records(tmp_path / "m.csv")
    assert record.image.name == "1.png"


def test_several_categories_must_be_told_apart_by_the_user(tmp_path: Path) -> None:
    categories = [{"id": 2, "name": "polyp"}, {"id": 7, "name": "forceps"}]
    both = [annotate(1, [TRIANGLE], 2), annotate(1, [SQUARE], 7, 2)]
    home = tmp_path / "ward"
    write_coco(home / "all.json", ["1.png"], both, pictures=home, categories=categories)
    with pytest.raises(DataError, match=r"2 categories \(2 = polyp, 7 = forceps\); .*--mask-levels"):
        load_records(home)
    (record,), _ = make_manifest(home, tmp_path / "m.csv", mask_levels="2")
    assert record.mask and record.mask.suffix == ".png"
    assert (read_mask(record.mask) == tools.decode(tools.merge(tools.frPyObjects([TRIANGLE], HEIGHT, WIDTH)))).all()
    with pytest.raises(SettingsError, match="numbers of categories"):
        make_manifest(home, tmp_path / "n.csv", mask_levels="#ff0000")


def test_a_manifest_names_polygons_and_knows_when_they_change(tmp_path: Path) -> None:
    home = tmp_path / "ward"
    write_coco(home / "a.json", ["1.png"], [annotate(1, [TRIANGLE])], pictures=home)
    make_manifest(home, home / "m.csv")
    assert "a.json#image=1" in (home / "m.csv").read_text()
    (record,) = read_manifest(home / "m.csv")
    check_unchanged(record)
    assert load_records(home / "m.csv") == [record]
    write_coco(home / "a.json", ["1.png"], [annotate(1, [SQUARE])], pictures=home)
    with pytest.raises(ManifestError, match=r"a\.json#image=1: changed since"):
        check_unchanged(record)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "expected polygons, found none"),
        ([[1, 2, 3, 4]], "three corners at least"),
        ([[1, 2, 3, 4, 5, 1e9]], "three corners at least"),
        ([[1, 2, 3, 4, 5, "6"]], "three corners at least"),
        ({"size": [HEIGHT, WIDTH], "counts": [5, 5]}, "runs of 1200 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": "~~~~~~~"}, "runs of 1200 pixels"),
        ({"size": [2, 2], "counts": [4]}, "run-length mask of 40 x 30 px"),
    ],
)
def test_a_damaged_drawing_is_one_line_with_its_number(tmp_path: Path, segmentation: object, message: str) -> None:
    write_coco(tmp_path / "w" / "a.json", ["1.png"], [annotate(1, segmentation, number=77)], pictures=tmp_path / "w")
    with pytest.raises(DataError, match=rf"a\.json, image 1, annotation 77: .*{message}"):
        load_records(tmp_path / "w")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [], "annotations": [{}]}', "image_id' is missing"),
        (
            '{"images": [{"id": 1, "file_name": "../x.png", "width": 4, "height": 4}], "annotations": []}',
            r"pictures are not found, the first is \.\./x\.png \(looked for x\.png",
        ),
        ('{"images": [{"id": 1}], "annotations": []}', "file_name' is missing"),
        ('{"images": [], "annotations": [{"image_id": 3, "category_id": 1}]}', "image 3, which is not listed"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        load_records(tmp_path / "a.json")


def test_a_picture_of_another_size_than_the_file_says_is_refused(tmp_path: Path) -> None:
    file = write_coco(tmp_path / "w" / "a.json", ["1.png"], [annotate(1, [SQUARE])], pictures=tmp_path / "w")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(tmp_path / "w" / "1.png")
    with pytest.raises(DataError, match=r"40 x 31 px as 1\.png, found 40 x 30 px"):
        load_records(file)
