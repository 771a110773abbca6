"""The painted benchmark has PraNet's layout, and every frame depends on the seed alone."""

from pathlib import Path

import numpy as np
import pytest

from difom_cache import load_records, paint_sample, read_image, read_mask
from difom_cache.errors import DataError, SettingsError
from difom_cache.painting import TEST_STYLES, Style, draw_scene, draw_textures, paint

SIDE_PX = 64


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_sample(tmp_path_factory.mktemp("data") / "sample", train=12, test=2, side=SIDE_PX)


def test_sample_is_read_like_the_benchmark(sample: Path) -> None:
    records = load_records(sample)
    assert {record.dataset for record in records if record.split == "test"} == set(TEST_STYLES)
    assert sum(record.split != "test" for record in records) == 12
    assert all(record.labelled and (record.width, record.height) == (SIDE_PX, SIDE_PX) for record in records)


def test_most_masks_hold_a_polyp_and_the_eleventh_none(sample: Path) -> None:
    shares = [read_mask(path).mean() for path in sorted((sample / "TrainDataset" / "mask").iterdir())]
    assert shares[10] == 0
    assert all(0.004 <= share < 0.6 for number, share in enumerate(shares, start=1) if number != 11)


def test_masks_hold_no_polyp_that_the_frame_hides(sample: Path) -> None:
    for path in (sample / "TrainDataset" / "image").iterdir():
        mask = read_mask(sample / "TrainDataset" / "mask" / f"{path.stem}.png")
        if mask.any():
            assert read_image(path)[mask == 1].mean() > 25


def test_the_frames_corners_are_black_and_its_middle_is_mucosa(sample: Path) -> None:
    pictures = np.stack([read_image(path) for path in sorted((sample / "TrainDataset" / "image").iterdir())])
    assert pictures[:, :3, :3].mean() < 20
    red, green, blue = pictures[:, 20:44, 20:44].reshape(-1, 3).mean(axis=0)
    assert red > 80 and red > green > 0.8 * blue


def test_equal_seeds_paint_equal_files_and_counts_change_no_frame(sample: Path, tmp_path: Path) -> None:
    again = paint_sample(tmp_path / "again", train=2, test=1, side=SIDE_PX)
    for path in sorted(again.rglob("painted-*")):
        assert path.read_bytes() == (sample / path.relative_to(again)).read_bytes(), path
    other = paint_sample(tmp_path / "other", seed=1, train=1, test=1, side=SIDE_PX)
    name = "TrainDataset/image/painted-0001.jpg"
    assert (other / name).read_bytes() != (again / name).read_bytes()


def test_sets_differ_in_light_and_colour(sample: Path) -> None:
    mean = {
        name: np.mean(
            [read_image(path).mean(axis=(0, 1)) for path in (sample / "TestDataset" / name / "images").iterdir()], 0
        )
        for name in TEST_STYLES
    }
    assert mean["Painted-Dim"].sum() < 0.8 * mean["Painted-Same"].sum()
    assert mean["Painted-Yellow"][2] / mean["Painted-Yellow"][0] < 0.5
    assert mean["Painted-Narrowband"][0] < mean["Painted-Narrowband"][1]


def test_easy_frames_are_painted_in_all_styles_and_their_polyps_stand_out(sample: Path, tmp_path: Path) -> None:
    def contrast(root: Path) -> float:
        found = []
        for path in (root / "TrainDataset" / "image").iterdir():
            picture, mask = read_image(path), read_mask(root / "TrainDataset" / "mask" / f"{path.stem}.png")
            if mask.any():
                around = (picture.sum(2) > 90) & (mask == 0)
                hue = picture / (picture.sum(2, keepdims=True) + 1.0)
                found.append(np.abs(hue[mask == 1].mean(0) - hue[around].mean(0)).sum())
        return float(np.mean(found))

    easy = paint_sample(tmp_path / "easy", train=10, test=1, side=SIDE_PX, easy=True)
    assert contrast(easy) > 1.3 * contrast(sample)
    red_of_green = [
        float(np.divide(*read_image(path).mean(axis=(0, 1))[:2]))
        for path in sorted((easy / "TrainDataset" / "image").iterdir())
    ]
    narrow_band, white = red_of_green[4::5], [ratio for number, ratio in enumerate(red_of_green) if number % 5 != 4]
    assert max(narrow_band) < 1.3 < min(white)


def test_a_scene_is_painted_alike_each_time_and_larger_on_request() -> None:
    textures = draw_textures(np.random.default_rng(0))
    scene = draw_scene(Style(), np.random.default_rng(3), polyps=2)
    (first, mask), (second, _) = paint(scene, textures, 48), paint(scene, textures, 48)
    assert np.array_equal(first, second) and first.shape == (48, 48, 3) and first.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}
    _, large = paint(scene, textures, 96)
    assert abs(large.mean() - mask.mean()) < 0.02


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="expected a new or empty folder"):
        paint_sample(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"train": 0}, r"train=0: must be at least 1"), ({"side": 16}, r"side=16: must be at least 32")],
)
def test_sizes_that_make_no_sample_are_refused(tmp_path: Path, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        paint_sample(tmp_path / "s", **wrong)
