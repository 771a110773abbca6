"""The check says which records twin, leak between splits, or are odd, as text, JSON and a montage."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difom_cache import load_records, make_manifest, paint_sample
from difom_cache.data import check_records, draw_montage, read_manifest
from difom_cache.errors import ImageError, SettingsError


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_sample(tmp_path_factory.mktemp("painted") / "data", train=11, test=1, side=64)


@pytest.fixture
def sample(painted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(painted, tmp_path / "data")


def copy_frame(home: Path, stem: str, to: Path, new: str, *, plural: str = "") -> None:
    """Copy a picture and its mask from TrainDataset to another folder under another name."""
    for kind, suffix in (("image", ".jpg"), ("mask", ".png")):
        content = (home / kind / f"{stem}{suffix}").read_bytes()
        (to / f"{kind}{plural}" / f"{new}{suffix}").write_bytes(content)


def test_a_clean_data_set_has_only_its_empty_mask(sample: Path) -> None:
    report = check_records(load_records(sample))
    assert report.pairs == [] and report.families == [] and report.odd_sizes == {}
    assert report.empty_masks == ["TrainDataset/painted-0011"]
    assert report.distinct["TrainDataset"] == 11
    text = report.render()
    assert "pairs that show the same image: none" in text and "empty masks: 1" in text


def test_a_test_frame_in_training_is_a_leak_between_two_sets(sample: Path) -> None:
    copy_frame(sample / "TrainDataset", "painted-0001", sample / "TestDataset" / "Painted-Dim", "x", plural="s")
    report = check_records(load_records(sample))
    (pair,) = report.leaks
    assert (pair.first, pair.second, pair.kind) == ("TrainDataset/painted-0001", "Painted-Dim/x", "exact")
    assert report.overlaps == {"Painted-Dim + TrainDataset": {"Painted-Dim": 1, "TrainDataset": 1}}
    assert "between Painted-Dim and TrainDataset: 1 exact (1 of 2 of Painted-Dim, 1 of 11 of TrainDataset)" in (
        report.render()
    )


def test_frames_of_one_scene_in_two_splits_are_told_and_are_no_leak(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, split in ((1, "train"), (2, "test"), (8, "train")):  # as far from each other as the next; 8 is too late
        wave = np.cos(2 * np.pi * (np.arange(128) - 6 * number) / 128)  # .957 = cos(2 pi 6 / 128) of its neighbour
        wave = wave if number < 8 else np.cos(2 * np.pi * (np.arange(128) - 6 * 3) / 128)
        picture = 128 + 80 * np.repeat(wave[None, :, None], 128, 0) + rng.normal(0, 2, (128, 128, 3))
        home = tmp_path / "set" / split
        for kind, array in (("images", picture.clip(0, 255)), ("masks", np.where(picture[..., 0] > 160, 255, 0))):
            (home / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(home / kind / f"{number}.png")
    report = check_records(load_records(tmp_path / "set", quiet=True))
    (pair,) = report.scenes
    assert {pair.first, pair.second} == {"set/train/1", "set/test/2"} and pair.kind == "scene"
    assert pair.correlation == pytest.approx(np.cos(2 * np.pi * 6 / 128), abs=0.01)
    assert report.pairs == report.leaks == report.families == [] and not report.leaky
    text = report.render()
    assert "pairs across splits: none\npairs of neighbours in one scene across splits: 1\n" in text
    assert "one scene, correlation 0.95" in text
    assert report.as_json()["scenes"][0]["kind"] == "scene"


def test_one_picture_with_two_masks_is_named_with_their_iou(sample: Path) -> None:
    home = sample / "TrainDataset"
    copy_frame(home, "painted-0001", home, "again")
    left, right = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    left[:, :30], right[:, :15] = 255, 255
    Image.fromarray(left).save(home / "mask" / "painted-0001.png")
    Image.fromarray(right).save(home / "mask" / "again.png")
    (pair,) = check_records(load_records(sample)).different_masks
    assert {pair.first, pair.second} == {"TrainDataset/painted-0001", "TrainDataset/again"}
    assert pair.mask_iou == 0.5


def test_groups_across_splits_are_counted(tmp_path: Path) -> None:
    for place, stem in (("TrainDataset", "1"), ("TestDataset/CVC-ClinicDB", "2")):
        for kind in ("images", "masks"):
            folder = tmp_path / place / kind
            folder.mkdir(parents=True)
            pixels = np.random.default_rng(int(stem)).integers(0, 256, (288, 384), np.uint8)
            Image.fromarray(pixels if kind == "images" else pixels // 128 * np.uint8(255)).save(folder / f"{stem}.png")
    report = check_records(load_records(tmp_path))
    assert report.groups_across_splits == {"CVC-ClinicDB/sequence-01": {"train": 1, "test": 1}}
    assert "groups across splits: 1, with 1 test frames" in report.render()


def test_odd_sizes_are_named_with_the_usual_one(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number, size in enumerate([(80, 80)] * 28 + [(81, 80), (300, 80), (40, 50)]):
        Image.fromarray(np.full(size[::-1], 2 * number, np.uint8)).save(tmp_path / "images" / f"{number}.png")
    odd = check_records(load_records(tmp_path, unlabelled=True)).odd_sizes
    name = tmp_path.name
    assert odd == {
        f"{name}/28": "81 x 80 px, where 28 of 31 have 80 x 80",
        f"{name}/29": "300 x 80 px, longer than 2.5 times its other side",
        f"{name}/30": "40 x 50 px, a side below 64",
    }


def test_a_truncated_picture_stops_the_check_by_name(sample: Path) -> None:
    path = sample / "TrainDataset" / "image" / "painted-0002.jpg"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ImageError, match=r"painted-0002\.jpg"):
        check_records(load_records(sample))


def test_manifest_report_and_montage_lie_beside_each_other(sample: Path, tmp_path: Path) -> None:
    home = sample / "TrainDataset"
    copy_frame(home, "painted-0001", home, "again")
    records, report = make_manifest(sample, tmp_path / "all.csv", check=True, names=tmp_path / "names")
    assert report is not None and read_manifest(tmp_path / "all.csv") == records
    found = json.loads((tmp_path / "all.check.json").read_text())
    assert found["pair_counts"] == {"TrainDataset": {"exact": 1}}
    assert found["families"] == [["TrainDataset/again", "TrainDataset/painted-0001"]]
    with Image.open(tmp_path / "all.check.png") as montage:
        assert montage.size == (412, 232)
        assert (np.asarray(montage.convert("RGB")) == (60, 255, 60)).all(axis=2).any()
    assert (tmp_path / "names" / "TrainDataset.csv").exists()
    assert make_manifest(sample)[1] is None
    before = (tmp_path / "all.check.png").read_bytes()
    with pytest.raises(SettingsError, match=r"--montage .*all\.check\.png exists; .* --force"):
        make_manifest(sample, check=True, montage=tmp_path / "all.check.png")
    assert (tmp_path / "all.check.png").read_bytes() == before


def test_montage_of_nothing_says_so(sample: Path, tmp_path: Path) -> None:
    records = load_records(sample)
    path = draw_montage(check_records(records), records, tmp_path / "new" / "m.png")
    assert path.exists()


@pytest.mark.slow
def test_the_benchmarks_known_leaks_are_found() -> None:
    if "DIFOM_BENCHMARK" not in os.environ:
        pytest.skip("DIFOM_BENCHMARK is not set: it names the folder that holds TrainDataset/ and TestDataset/")
    report = check_records(load_records(Path(os.environ["DIFOM_BENCHMARK"])))
    assert report.distinct["CVC-ColonDB"] == 345 and sum(report.records["CVC-ColonDB"].values()) == 379
    assert report.overlaps["CVC-300 + CVC-ColonDB"]["CVC-300"] == 60
    exact = {(pair.first, pair.second) for pair in report.pairs if pair.kind == "exact"}
    assert exact >= {(f"CVC-300/{number}", f"CVC-ColonDB/{number}") for number in range(149, 209)}
    etis = {pair for pair in exact if pair[0].startswith("ETIS")}
    assert etis == {(f"ETIS-LaribPolypDB/{a}", f"ETIS-LaribPolypDB/{b}") for a, b in ((20, 22), (127, 131), (172, 175))}
    worst = report.different_masks[0]
    assert (worst.first, worst.second) == ("ETIS-LaribPolypDB/20", "ETIS-LaribPolypDB/22") and (
        worst.mask_iou or 0
    ) < 0.8
    torn = report.groups_across_splits
    assert len(torn) == 26 and sum(splits["test"] for splits in torn.values()) == 62
    # Nothing between sets that share no source, and nothing mirrored.
    assert set(report.overlaps) == {"CVC-300 + CVC-ColonDB"}
    assert all(pair.kind != "mirrored" for pair in report.pairs)
    # Neighbours of one scene: the truth is the sequences that CVC-ClinicDB's README gives, and the runs of scene-runs.csv.
    assert all(pair.same_group for pair in report.scenes)
    counts = Counter(pair.datasets for pair in report.scenes)
    sets = {"CVC-ClinicDB": 732, "CVC-ColonDB": 363, "ETIS-LaribPolypDB": 91, "CVC-300": 132}
    assert counts == {(name, name): count for name, count in sets.items()}
