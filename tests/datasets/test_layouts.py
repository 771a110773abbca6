"""Folders are recognised by their names, and pictures find their masks by stem."""

from pathlib import Path

import pytest
from PIL import Image

from difom_cache.data import PictureFolder, find_folders, natural_key, pair_files
from difom_cache.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)


def described(root: Path) -> list[tuple[str, str | None, str | None, str]]:
    """(pictures, masks, split, data set) of every folder, with paths relative to the root."""

    def format_path(path: Path | None) -> str | None:
        return None if path is None else path.relative_to(root.resolve()).as_posix()

    return [(format_path(f.images) or "", format_path(f.masks), f.split, f.dataset) for f in find_folders(root)]


def test_pranets_layout_is_recognised(tmp_path: Path) -> None:
    touch(tmp_path, "TrainDataset/image/1.jpg", "TrainDataset/mask/1.png")
    touch(tmp_path, "TestDataset/CVC-300/images/149.png", "TestDataset/CVC-300/masks/149.png")
    touch(tmp_path, "TestDataset/Other/images/1.png", "TestDataset/Other/masks/1.png")
    assert described(tmp_path) == [
        ("TestDataset/CVC-300/images", "TestDataset/CVC-300/masks", "test", "CVC-300"),
        ("TestDataset/Other/images", "TestDataset/Other/masks", "test", "Other"),
        ("TrainDataset/image", "TrainDataset/mask", "train", "TrainDataset"),
    ]
    assert [folder.mixed for folder in find_folders(tmp_path)] == [False, False, True]


def test_the_papers_layout_is_recognised(tmp_path: Path) -> None:
    touch(
        tmp_path, "TrainDB/images/1.png", "TrainDB/masks/1.png", "TestDB/ETIS/images/1.png", "TestDB/ETIS/masks/1.png"
    )
    assert described(tmp_path) == [
        ("TestDB/ETIS/images", "TestDB/ETIS/masks", "test", "ETIS-LaribPolypDB"),
        ("TrainDB/images", "TrainDB/masks", "train", "TrainDB"),
    ]


def test_any_folder_inside_a_root_says_the_same(tmp_path: Path) -> None:
    touch(tmp_path, "TestDataset/CVC-300/images/149.png", "TestDataset/CVC-300/masks/149.png")
    whole = find_folders(tmp_path)
    for inside in ("TestDataset", "TestDataset/CVC-300", "TestDataset/CVC-300/images"):
        assert find_folders(tmp_path / inside) == whole, inside


def test_plain_folder_has_no_split_and_its_own_name(tmp_path: Path) -> None:
    root = tmp_path / "Ward 7"
    touch(root, "images/a.jpg", "masks/a.jpg")
    assert described(root) == [("images", "masks", None, "Ward 7")]


@pytest.mark.parametrize("name", ["frames", "images", "img_2024"])
def test_a_folder_with_both_inside_may_be_called_as_pictures_are(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"{name}/images/1.jpg", f"{name}/masks/1.png")
    (found,) = find_folders(tmp_path / name)
    assert (found.images, found.masks) == (tmp_path / name / "images", tmp_path / name / "masks")


def test_kvasir_seg_beside_its_drawn_boxes_is_one_folder(tmp_path: Path) -> None:
    root = tmp_path / "Kvasir-SEG"
    touch(root, "images/a.jpg", "masks/a.jpg", "annotated_images/a.jpg", "edges/a.png")
    assert described(root) == [("images", "masks", None, "Kvasir")]


def test_clinicdbs_own_layout_is_recognised_at_any_depth(tmp_path: Path) -> None:
    root = tmp_path / "CVC-ClinicDB"
    touch(root, "PNG/Original/1.png", "PNG/Ground Truth/1.png")
    assert described(root) == [("PNG/Original", "PNG/Ground Truth", None, "CVC-ClinicDB")]
    assert find_folders(root / "PNG") == find_folders(root)


@pytest.mark.parametrize("pictures", ["ETIS-LaribPolypDB/{}.tif", "{}.tif"])
def test_etis_own_layout_is_recognised(tmp_path: Path, pictures: str) -> None:
    root = tmp_path / "ETIS-LaribPolypDB"
    touch(root, pictures.format(1), pictures.format(12), "Ground Truth/p1.tif", "Ground Truth/p12.tif")
    (folder,) = find_folders(root)
    assert folder.dataset == "ETIS-LaribPolypDB" and folder.masks == root / "Ground Truth"
    ((one, twelve),) = pair_files([folder], unlabelled=False)
    assert one.mask == root / "Ground Truth" / "p1.tif"
    assert (twelve.stem, twelve.mask) == ("12", root / "Ground Truth" / "p12.tif")


def test_polypgens_numbered_folders_pair_by_their_ending(tmp_path: Path) -> None:
    touch(tmp_path, "data_C1/images_C1/a.jpg", "data_C1/masks_C1/a_mask.jpg", "data_C1/images_C2/b.jpg")
    touch(tmp_path, "data_C1/masks_C2/b_mask.jpg")
    folders = find_folders(tmp_path)
    assert [(f.images.name, f.masks and f.masks.name) for f in folders] == [
        ("images_C1", "masks_C1"),
        ("images_C2", "masks_C2"),
    ]
    pairs = pair_files(folders, unlabelled=False)
    assert [pair.mask.name for (pair,) in pairs if pair.mask] == ["a_mask.jpg", "b_mask.jpg"]


def test_loose_pictures_are_a_folder_without_masks(tmp_path: Path) -> None:
    touch(tmp_path, "video/1.jpg", "video/2.jpg", ".hidden/1.jpg", "__MACOSX/1.jpg")
    assert described(tmp_path) == [("video", None, None, "video")]


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder.*difom-cache sample"):
        find_folders(tmp_path / "nowhere")
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match=r"no pictures found; expected TrainDataset/"):
        find_folders(tmp_path)


def test_masks_without_a_folder_of_pictures_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "set/masks/1.png")
    with pytest.raises(DataError, match=r"set/masks: masks without a picture; expected a folder images/"):
        find_folders(tmp_path)
    with pytest.raises(DataError, match=r"holds masks; pass the folder above"):
        find_folders(tmp_path / "set" / "masks")


def test_two_folders_of_pictures_for_one_of_masks_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "image/1.png", "images/2.png", "masks/1.png")
    with pytest.raises(DataError, match=r"one folder of images, found image/ and images/"):
        find_folders(tmp_path)


def folder_of(root: Path) -> PictureFolder:
    return PictureFolder(root / "images", root / "masks", "x", None, False)


def test_every_mask_without_a_picture_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "masks/1.png", "masks/2.png", "masks/33.png")
    with pytest.raises(DataError, match=r"2 masks without a picture: \S+/masks/2\.png, \S+/masks/33\.png; add"):
        pair_files([folder_of(tmp_path)], unlabelled=True)


def test_every_picture_without_a_mask_is_listed_unless_meant(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "images/2.png", "masks/1.png")
    with pytest.raises(DataError, match=r"1 picture without a mask: \S+/images/2\.png; .* --unlabelled"):
        pair_files([folder_of(tmp_path)], unlabelled=False)
    ((one, two),) = pair_files([folder_of(tmp_path)], unlabelled=True)
    assert one.mask is not None and two.mask is None


def test_one_stem_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "images/1.jpg", "masks/1.png")
    with pytest.raises(DataError, match=r"1\.png: the name '1' also belongs to 1\.jpg"):
        pair_files([folder_of(tmp_path)], unlabelled=False)


def test_two_masks_of_one_picture_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "masks/1.png", "masks/1_mask.png")
    with pytest.raises(DataError, match=r"picture '1' has another mask"):
        pair_files([folder_of(tmp_path)], unlabelled=False)


def test_links_count_as_what_they_lead_to_and_hidden_files_not_at_all(tmp_path: Path) -> None:
    touch(tmp_path, "there/1.PNG", "data/.2.png")
    data = tmp_path / "data"
    (data / "3.png.txt").write_text("no picture")
    (data / "4.png").mkdir()
    for name, target in {"5.png": "nowhere", "6.png": "6.png", "7.png": "4.png"}.items():
        (data / name).symlink_to(target)
    with pytest.raises(DataError, match="no pictures found"):
        find_folders(data)
    (data / "8.Png").symlink_to(tmp_path / "there" / "1.PNG")
    (pairs,) = pair_files(find_folders(data), unlabelled=True)
    assert [pair.image for pair in pairs] == [data.resolve() / "8.Png"]


def test_natural_order_puts_two_before_ten() -> None:
    assert sorted(["a10", "a2", "b", "10", "2", "1a"], key=natural_key) == ["1a", "2", "10", "a2", "a10", "b"]
