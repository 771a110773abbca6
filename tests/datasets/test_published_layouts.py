"""Public sets as they unpack: their publishers' splits, sequences and lists are honoured, or named as not read."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from test_new_layouts import many, paint

from difom_cache import Record, extract, load_records, make_manifest, open_cache, read_mask
from difom_cache.data import DataSource, choose_validating
from difom_cache.errors import CacheIdentityError, DataError, DifomWarning, SettingsError


def splits_of(records: list[Record]) -> dict[str, list[str]]:
    """From each split to the names that are in it."""
    return {split: sorted(r.image.stem for r in records if r.split == split) for split in {r.split for r in records}}


def write_lists(home: Path, **names: list[str]) -> None:
    for split, each in names.items():
        (home / f"{split}.txt").write_text("\n".join(each) + "\n")


def test_lists_beside_the_images_decide_and_no_other_record_validates(tmp_path: Path) -> None:
    paint(tmp_path / "ward", *many(40))
    write_lists(tmp_path / "ward", train=many(30), val=many(10, 30))
    expected = {"train": many(30), "val": many(10, 30)}
    assert splits_of(load_records(tmp_path / "ward")) == expected
    assert splits_of(load_records(tmp_path / "ward" / "images")) == expected


def test_kvasirs_lists_are_read_in_place_of_pranets_split_and_that_is_said(tmp_path: Path) -> None:
    from difom_cache.data import read_frames

    names = sorted(read_frames("Kvasir"))
    test = [name for name in names if read_frames("Kvasir")[name].split == "test"]
    chosen = names[:40] + [name for name in test if name not in names[:40]][:2]
    paint(tmp_path / "Kvasir-SEG", *chosen)
    write_lists(tmp_path / "Kvasir-SEG", train=chosen[:36], val=chosen[36:])
    moved = len(set(test) & set(chosen))
    with pytest.warns(DifomWarning, match=rf"put {moved} of Kvasir's published test images into train or val"):
        records = load_records(tmp_path / "Kvasir-SEG")
    assert splits_of(records) == {"train": sorted(chosen[:36]), "val": sorted(chosen[36:])}


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "{}.png",
        "images/{}.png",
        ".\\images\\{}.png",
        "images/{0}.png masks/{0}.png",
        "{0}.png,{0}_mask.png",
        " {} \r",
    ],
)
def test_lines_of_lists_are_known_as_people_write_them(tmp_path: Path, line: str) -> None:
    paint(tmp_path / "ward", *many(4))
    write_lists(tmp_path / "ward", train=[line.format(name) for name in many(3)], test=[line.format("003"), ""])
    with (tmp_path / "ward" / "train.txt").open("r+b") as file:
        text = file.read()
        file.seek(0)
        file.write(b"\xef\xbb\xbf" + text)
    assert splits_of(load_records(tmp_path / "ward")) == {"train": ["000", "001", "002"], "test": ["003"]}


def test_lists_without_a_validation_list_leave_that_to_the_hash(tmp_path: Path) -> None:
    paint(tmp_path / "ward", *many(60))
    write_lists(tmp_path / "ward", train=many(50), test=many(10, 50))
    records = load_records(tmp_path / "ward")
    val = choose_validating(f"ward/{name}" for name in many(50))
    assert {r.id for r in records if r.split == "val"} == val and len(val) > 0
    assert splits_of(records)["test"] == many(10, 50)


def test_a_name_in_two_lists_and_an_image_in_none_are_refused(tmp_path: Path) -> None:
    paint(tmp_path / "ward", *many(4))
    write_lists(tmp_path / "ward", train=["000", "001"], val=["001", "002", "003"])
    with pytest.raises(DataError, match=r"val\.txt: 001 stands in the list of train too"):
        load_records(tmp_path / "ward")
    write_lists(tmp_path / "ward", train=["000"], val=["001"])
    with pytest.raises(DataError, match=r"2 of 4 images stand in none of train\.txt, val\.txt: 002, 003"):
        load_records(tmp_path / "ward")
    (tmp_path / "ward" / "val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"val\.txt: expected a list of names, but it is no text"):
        load_records(tmp_path / "ward")


def test_lists_that_are_not_read_are_named(tmp_path: Path) -> None:
    paint(tmp_path / "a", *many(4))
    write_lists(tmp_path / "a", train=["of", "another", "set"])
    with pytest.warns(DifomWarning, match=r"a: train\.txt not read: no name in them is one of the 4 images"):
        assert len(load_records(tmp_path / "a")) == 4
    paint(tmp_path / "b" / "train", *many(4))
    write_lists(tmp_path / "b", train=many(4))
    with pytest.warns(DifomWarning, match=r"b: train\.txt not read: the names of folders say the splits"):
        assert len(load_records(tmp_path / "b")) == 4
    paint(tmp_path / "c", *many(4))
    write_lists(tmp_path / "c", train=[*many(4), "9"])
    with pytest.warns(DifomWarning, match=r"1 names of train\.txt have no image: 9"):
        assert len(load_records(tmp_path / "c")) == 4


def paint_sun_seg(root: Path) -> None:
    for place, cases in {
        "TrainDataset": ["case1_1", "case1_3", "case2_1"],
        "TestEasyDataset/Seen": ["case1_2"],
        "TestEasyDataset/Unseen": ["case7_1"],
        "TestHardDataset/Seen": ["case2_2"],
        "TestHardDataset/Unseen": ["case8_1", "case8_2"],
    }.items():
        for number, case in enumerate(cases):
            for kind in ("GT", "Edge", "Polygon"):
                paint(root / place, f"{case}/1", f"{case}/2", images="Frame", masks=kind, seed=len(place) + number)


def test_sun_seg_as_it_unpacks(tmp_path: Path) -> None:
    root = tmp_path / "SUN-SEG"
    paint_sun_seg(root)
    records = load_records(root)
    assert Counter((r.dataset, r.split) for r in records if r.split == "test") == {
        ("TestEasyDataset-Seen", "test"): 2,
        ("TestEasyDataset-Unseen", "test"): 2,
        ("TestHardDataset-Seen", "test"): 2,
        ("TestHardDataset-Unseen", "test"): 4,
    }
    trained = [r for r in records if r.split != "test"]
    assert {r.dataset for r in trained} == {"TrainDataset"} and len(trained) == 6
    assert Counter(r.group for r in records) == {
        "SUN-SEG/case1": 6,
        "SUN-SEG/case2": 4,
        "SUN-SEG/case7": 2,
        "SUN-SEG/case8": 4,
    }
    assert all(r.mask and r.mask.parent.parent.name == "GT" and r.mask.stem == r.image.stem for r in records)
    assert len({r.id for r in records}) == 16
    for inside in (
        "TestHardDataset",
        "TestHardDataset/Unseen",
        "TestHardDataset/Unseen/Frame",
        "TestHardDataset/Unseen/Frame/case8_1",
    ):
        found = load_records(root / inside)
        assert set(found) <= set(records) and {r.split for r in found} == {"test"}, inside
    frames = load_records(root / "TrainDataset/Frame")
    assert set(frames) == set(trained)


def test_sun_segs_earlier_layout_has_no_halves(tmp_path: Path) -> None:
    paint(tmp_path / "TestEasyDataset", "case2_3/1", images="Frame", masks="GT")
    (record,) = load_records(tmp_path)
    assert (record.dataset, record.split, record.id) == ("TestEasyDataset", "test", "TestEasyDataset/case2_3/1")


def paint_polypgen(root: Path) -> None:
    for centre in (1, 2, 3):
        paint(root / f"data_C{centre}", f"x{centre}", images=f"images_C{centre}", masks=None, seed=centre)
        paint(root / f"data_C{centre}", f"x{centre}_mask", images="gone", masks=f"masks_C{centre}", seed=centre)
        shutil.rmtree(root / f"data_C{centre}" / "gone")
    for number in (1, 2):
        home = root / "sequenceData" / "positive" / f"seq{number}"
        paint(home, "1", "2", images=f"images_seq{number}", masks=f"masks_seq{number}", seed=number)
        paint(root / "sequenceData" / "negativeOnly", f"seq{number}_neg/1", images=".", masks=None, seed=9 + number)
    (root / "imagesAll_positive").mkdir()
    for centre in (1, 2, 3):
        shutil.copy(root / f"data_C{centre}" / f"images_C{centre}" / f"x{centre}.png", root / "imagesAll_positive")


def test_polypgens_sequences_are_groups_and_its_pool_is_left_out(tmp_path: Path) -> None:
    paint_polypgen(tmp_path / "PolypGen")
    with pytest.warns(DifomWarning, match=r"imagesAll_positive left out: each of its images lies in another folder"):
        records = load_records(tmp_path / "PolypGen", unlabelled=True)
    assert Counter((r.dataset, r.group, r.labelled) for r in records) == {
        ("data_C1", "", True): 1,
        ("data_C2", "", True): 1,
        ("data_C3", "", True): 1,
        ("sequenceData", "sequenceData/seq1", True): 2,
        ("sequenceData", "sequenceData/seq2", True): 2,
        ("sequenceData", "sequenceData/seq1_neg", False): 1,
        ("sequenceData", "sequenceData/seq2_neg", False): 1,
    }


def test_ldpolypvideos_videos_are_groups_and_its_boxes_are_named(tmp_path: Path) -> None:
    for part, videos in (("TrainValid", ("1", "2")), ("Test", ("101",))):
        for video in videos:
            paint(tmp_path / "LDPolypVideo" / part, f"{video}/0001", f"{video}/0002", images="Images", masks=None)
            boxes = tmp_path / "LDPolypVideo" / part / "Annotations" / video
            boxes.mkdir(parents=True)
            (boxes / "0001.txt").write_text("1\n10 10 20 20\n")
    with pytest.warns(DifomWarning, match=r"Annotations not read: it holds no images; boxes and text are not masks"):
        records = load_records(tmp_path / "LDPolypVideo", unlabelled=True)
    assert Counter((r.dataset, r.split, r.group) for r in records) == {
        ("LDPolypVideo", "train", "LDPolypVideo/1"): 2,
        ("LDPolypVideo", "train", "LDPolypVideo/2"): 2,
        ("LDPolypVideo", "test", "LDPolypVideo/101"): 2,
    }


def test_polypdb_is_read_once_of_its_two_orders(tmp_path: Path) -> None:
    root = tmp_path / "PolypDB"
    for place, names in {
        "PolypDB_modality_wise/WLI": ["a", "b", "c"],
        "PolypDB_modality_wise/NBI": ["d"],
        "PolypDB_center_wise/Simula/WLI": ["a", "b"],
        "PolypDB_center_wise/BKAI/WLI": ["c"],
        "PolypDB_center_wise/BKAI/NBI": ["d"],
    }.items():
        for name in names:
            paint(root / place, name, seed=ord(name))
    with pytest.warns(DifomWarning, match="left out"):
        records = load_records(root)
    assert sorted(r.id for r in records) == ["NBI/d", "WLI/a", "WLI/b", "WLI/c"]
    assert sorted(r.id for r in load_records(root / "PolypDB_center_wise")) == ["NBI/d", "WLI/a", "WLI/b", "WLI/c"]


@pytest.mark.parametrize("nested", [True, False])
def test_bkai_igh_pairs_train_with_train_gt_and_its_test_has_no_masks(tmp_path: Path, nested: bool) -> None:
    root = tmp_path / "bkai-igh-neopolyp"
    inner = {name: f"{name}/{name}" if nested else name for name in ("train", "train_gt", "test")}
    paint(root, *many(40), images=inner["train"], masks=inner["train_gt"])
    paint(root, "900", "901", images=inner["test"], masks=None, seed=5)
    records = load_records(root)
    assert Counter((r.split, r.labelled) for r in records if r.split == "test") == {("test", False): 2}
    assert len([r for r in records if r.labelled]) == 40 and {r.dataset for r in records} == {"bkai-igh-neopolyp"}
    assert all(r.mask and "train_gt" in str(r.mask) for r in records if r.labelled)
    for inside in ("train", inner["train"]):
        assert set(load_records(root / inside)) == {r for r in records if r.split != "test"}, inside


def test_one_name_in_train_and_test_stays_a_refusal(tmp_path: Path) -> None:
    for split in ("train", "test"):
        paint(tmp_path / "Kvasir" / split, "a")
    with pytest.raises(DataError, match="stands for both"):
        load_records(tmp_path / "Kvasir")


# SHA-256 mod 10 = 0 holds for x/0, x/19 and x/37 of the first forty; the digests begin with 04, 3e and 16 (sha256sum).
def test_most_of_few_groups_never_validate() -> None:
    hashed = ["x/19", "x/0", "x/37"]
    assert choose_validating(hashed) == choose_validating([*hashed, "x/1", "x/2"]) == {"x/0"}
    assert choose_validating([*hashed, "x/1", "x/2", "x/3"]) == set(hashed)  # half of them is not more than half
    assert choose_validating(hashed[:1]) == frozenset() == choose_validating(hashed[:2])  # none of one; no third of two
    assert choose_validating([f"x/{number}" for number in range(40)]) == set(hashed)


def test_a_begun_cache_keeps_its_splits_and_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "ward"
    paint(home, *many(6))
    arguments = {"teacher": (), "data": home, "cache": tmp_path / "feats", "views": 2, "input_size": 32, "quiet": True}
    extract(**arguments, part="1/2")
    before = (tmp_path / "feats" / "records.csv").read_bytes()
    write_lists(home, train=many(4), val=many(2, 4))
    with pytest.warns(
        DifomWarning,
        match=r"keeps the splits .* a fresh reading would differ for 1 train -> val of 6",
    ):
        report = extract(**arguments)
    assert report.complete and (tmp_path / "feats" / "records.csv").read_bytes() == before
    with pytest.raises(CacheIdentityError):
        extract(**arguments | {"group_by": "."})


def test_a_manifest_keeps_its_splits_and_says_what_a_fresh_reading_would_give(tmp_path: Path) -> None:
    home = tmp_path / "ward"
    paint(home, *many(6))
    make_manifest(home, tmp_path / "old.csv")
    old, _ = make_manifest(tmp_path / "old.csv")
    write_lists(home, train=many(4), test=many(2, 4))
    with pytest.warns(
        DifomWarning,
        match=r"old\.csv keeps its splits: a fresh reading would differ for 1 train -> test, 1 val -> test of 6",
    ):
        again, _ = make_manifest(tmp_path / "old.csv")
    assert again == old
    fresh, _ = make_manifest(home, tmp_path / "new.csv")
    assert splits_of(fresh)["test"] == many(2, 4)
    make_manifest(tmp_path / "new.csv")  # and of this one there is nothing to say


def test_groups_of_case_folders_do_not_change_the_ids_of_such_folders(tmp_path: Path) -> None:
    paint(tmp_path / "all" / "case1", "a", "b")
    paint(tmp_path / "all" / "case2", "a", seed=2)
    records = load_records(tmp_path / "all")
    assert {(r.id, r.group) for r in records} == {
        ("case1/a", "case1/case1"),
        ("case1/b", "case1/case1"),
        ("case2/a", "case2/case2"),
    }


def test_negatives_have_empty_masks_and_are_labelled(tmp_path: Path) -> None:
    paint_polypgen(tmp_path / "PolypGen")
    shutil.rmtree(tmp_path / "PolypGen" / "imagesAll_positive")
    negatives = tmp_path / "PolypGen" / "sequenceData" / "negativeOnly"
    records = load_records(DataSource(tmp_path / "PolypGen", negatives=negatives))
    empty = [r for r in records if r.group.endswith("_neg")]
    assert len(empty) == 2 and all(r.labelled for r in records)
    for record in empty:
        assert record.mask is not None
        mask = read_mask(record.mask)
        assert mask.shape == (24, 32) and not mask.any()
    assert all(read_mask(r.mask).any() for r in records if r.mask and r not in empty)
    make_manifest(tmp_path / "PolypGen", tmp_path / "m.csv", negatives=negatives)
    assert load_records(tmp_path / "m.csv") == records


def test_negatives_beside_the_data_are_added_and_unlabelled_images_stay_unlabelled(tmp_path: Path) -> None:
    paint(tmp_path / "ward", "a", "b")
    paint(tmp_path / "normal", "n1", "n2", images=".", masks=None, seed=3)
    (tmp_path / "ward" / "masks" / "b.png").unlink()
    records = load_records(DataSource(tmp_path / "ward", negatives=tmp_path / "normal", unlabelled=True))
    labelled = {r.id: r.mask is not None and not read_mask(r.mask).any() if r.mask else None for r in records}
    assert labelled == {"ward/a": False, "ward/b": None, "normal/n1": True, "normal/n2": True}
    joint, _ = make_manifest([tmp_path / "ward", tmp_path / "normal"], unlabelled=True, negatives=tmp_path / "normal")
    assert sorted(joint, key=lambda r: r.id) == sorted(records, key=lambda r: r.id)


def test_negatives_with_masks_or_without_images_are_refused(tmp_path: Path) -> None:
    paint(tmp_path / "ward", "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"--negatives \S+ward: \S+images has masks"):
        load_records(DataSource(tmp_path / "ward", negatives=tmp_path / "ward"))
    with pytest.raises(DataError, match="empty: no pictures found"):
        load_records(DataSource(tmp_path / "ward", negatives=tmp_path / "empty"))
    make_manifest(tmp_path / "ward", tmp_path / "m.csv")
    with pytest.raises(SettingsError, match=r"--negatives \S+empty is for folders"):
        load_records(DataSource(tmp_path / "m.csv", negatives=tmp_path / "empty"))


def test_negatives_reach_the_cache_as_masks_without_a_polyp(tmp_path: Path) -> None:
    paint(tmp_path / "ward", *many(4))
    paint(tmp_path / "normal", "n1", "n2", images=".", masks=None, seed=3)
    options = {
        "data": tmp_path / "ward",
        "negatives": tmp_path / "normal",
        "cache": tmp_path / "feats",
        "input_size": 32,
    }
    extract(teacher=(), views=1, quiet=True, **options)
    cache = open_cache(tmp_path / "feats")
    masks = cache.gather(range(len(cache)), [])["mask"]
    lines = zip(cache.table.records, masks, strict=True)
    held = {line["id"]: (line["labelled"], int(mask.max())) for line, mask in lines}
    assert {name: found for name, found in held.items() if "normal" in name} == {
        "normal/n1": ("1", 0),
        "normal/n2": ("1", 0),
    }
    assert all(found == ("1", 1) for name, found in held.items() if "ward" in name)


@pytest.mark.parametrize("exif", [None, "raw", "upright"])
def test_a_negative_that_exif_turns_has_an_empty_mask_of_its_upright_size(tmp_path: Path, exif: str | None) -> None:
    paint(tmp_path / "ward", "a")
    (tmp_path / "normal").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (40, 24), "brown").save(tmp_path / "normal" / "n.jpg", exif=turned)
    records, _ = make_manifest(tmp_path / "ward", tmp_path / "m.csv", negatives=tmp_path / "normal", exif=exif)
    (negative,) = (r for r in records if r.dataset == "normal")
    assert negative.mask and read_mask(negative.mask).shape == (40, 24) == (negative.height, negative.width)
    assert load_records(tmp_path / "m.csv") == records
