"""Two lines say what was understood of a source; a sheet shows the pairs that a person should look at."""

import re
from pathlib import Path

import numpy as np
import pytest
from in_process import invoke
from painted_folder import paint_folder
from PIL import Image

from difom_cache import extract, load_records, make_manifest
from difom_cache.data import DataSource, choose_pairs, draw_sheet, read_source
from difom_cache.errors import DifomWarning, SettingsError


def paint_pair(home: Path, name: str, share: float, *, size: tuple[int, int] = (100, 80), orientation: int = 1) -> None:
    """Write an image of grey and a mask that marks the left `share` of it."""
    for kind in ("images", "masks"):
        (home / kind).mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (90, 90, 90)).save(home / "images" / f"{name}.png", exif=exif)
    mask = np.zeros(size[::-1], np.uint8)
    mask[:, : round(share * size[0])] = 255
    Image.fromarray(mask).save(home / "masks" / f"{name}.png", exif=exif)


def test_two_lines_say_what_was_understood(tmp_path: Path) -> None:
    home = tmp_path / "ward"
    for number, share in enumerate([0.1, 0.2, 0.6, 0.0]):
        paint_pair(home, f"a{number}", share)
    paint_pair(home, "b", 0.3, size=(200, 160), orientation=3)
    (home / "train.txt").write_text("a0\na1\na2\na3\n")
    (home / "test.txt").write_text("b\n")
    images, masks = read_source(DataSource(home)).describe()
    assert images.startswith(
        "images: 5 (ward); 100 x 80 to 200 x 160 px, 8 bits, 1 turned by EXIF; groups unknown; splits: "
    )
    assert "(train.txt, test.txt" in images and "1 test" in images
    # Of 0.1, 0.2, 0.3 and 0.6 the median is 0.25.
    assert masks == (
        "masks: 5; levels 0, 255 (4), 0 (1); 4 with polyp; 1 empty; a polyp covers 25% of the frame in the median (10% to 60%)"
    )


def test_manifest_extract_and_a_manifest_read_again_say_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = paint_folder(tmp_path / "ward", 5, empty=1)
    lines = read_source(DataSource(home)).describe()
    make_manifest(home, tmp_path / "m.csv")
    assert all(line in capsys.readouterr().err for line in lines[1:])
    again = read_source(DataSource(tmp_path / "m.csv")).describe()
    assert again[1] == lines[1] and "(m.csv)" in again[0]
    extract(teacher=(), data=home, cache=tmp_path / "feats", views=1, input_size=32)
    told = capsys.readouterr().out
    assert all(line in told for line in lines) and "1 empty" in told


def test_unlabelled_images_and_negatives_are_counted_apart(tmp_path: Path) -> None:
    paint_folder(tmp_path / "ward", 4, unlabelled=1)
    paint_folder(tmp_path / "normal", 2, unlabelled=2)
    source = DataSource(tmp_path / "ward", unlabelled=True, negatives=tmp_path / "normal" / "images")
    masks = read_source(source).describe()[1]
    assert (
        "masks: 5; " in masks
        and "3 with polyp; 2 empty (2 by --negatives)" in masks
        and masks.endswith("; 1 image without one")
    )


def test_most_masks_empty_is_a_warning_before_anything_is_begun(tmp_path: Path) -> None:
    home = paint_folder(tmp_path / "ward", 5, empty=3)
    with pytest.warns(DifomWarning, match="3 of 5 masks show no polyp: are they the right masks"):
        extract(teacher=(), data=home, cache=tmp_path / "feats", views=1, input_size=32, dry_run=True, quiet=True)
    paint_folder(tmp_path / "half", 4, empty=2)
    load_records(tmp_path / "half")  # and nothing is said of half
    paint_folder(tmp_path / "normal", 4, unlabelled=4)
    load_records(DataSource(tmp_path / "normal", negatives=tmp_path / "normal" / "images"))  # nor of what was said


def test_a_polyp_of_one_pixel_is_no_empty_mask(tmp_path: Path) -> None:
    paint_pair(tmp_path / "ward", "a", 0.0, size=(700, 600))
    mask = np.zeros((600, 700), np.uint8)
    mask[300, 300] = 255
    Image.fromarray(mask).save(tmp_path / "ward" / "masks" / "a.png")
    assert "1 with polyp; 0 empty" in read_source(DataSource(tmp_path / "ward")).describe()[1]


def test_the_sheet_chooses_each_pair_once_and_the_extremes_first(tmp_path: Path) -> None:
    home = tmp_path / "ward"
    for number in range(30):
        paint_pair(home, f"{number:02d}", 0.02 * (number + 1))
    for number in (30, 31):
        paint_pair(home, f"{number:02d}", 0.0)
    speckled = np.zeros((80, 100), np.uint8)
    speckled[10:70:6, 10:90:6] = 255  # 10 rows of 14 specks
    paint_pair(home, "speckled", 0.1)
    Image.fromarray(speckled).save(home / "masks" / "speckled.png")
    seen = read_source(DataSource(home)).seen
    rows = {
        re.split("[ :]", title)[0]: [each.record.image.stem for each in row]
        for title, row in choose_pairs(seen).items()
    }
    assert rows["smallest"] == [
        "speckled",
        "00",
        "01",
        "02",
        "03",
        "04",
    ]  # 140 specks of 8000 px are 1.75%, less than 2%
    assert rows["largest"] == ["29", "28", "27", "26", "25", "24"]
    assert sorted(rows["empty"]) == ["30", "31"]
    everything = [name for row in rows.values() for name in row]
    assert len(everything) == len(set(everything))


def test_the_sheet_draws_outlines_where_the_mask_ends(tmp_path: Path) -> None:
    paint_pair(tmp_path / "ward", "a", 0.5, size=(230, 230))
    sheet = np.asarray(
        Image.open(draw_sheet(read_source(DataSource(tmp_path / "ward")).seen, tmp_path / "s.png")).convert("RGB")
    )
    green = (sheet == (60, 255, 60)).all(-1)
    columns = np.flatnonzero(green.any(0)) - 10  # the tile begins 10 px from the left
    assert set(columns) >= {113, 114} and columns.max() == 114  # the mask ends with column 114 of 230


def test_manifest_writes_a_sheet_and_never_over_another_file(tmp_path: Path) -> None:
    home = paint_folder(tmp_path / "ward", 5)
    assert re.search(r"images: 5 \(ward\)", invoke("manifest", home, "--sheet", tmp_path / "s.png"))
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width == 1450
    with pytest.raises(SettingsError, match=r"--sheet \S+s\.png exists"):
        make_manifest(home, sheet=tmp_path / "s.png")
    make_manifest(home, sheet=tmp_path / "s.png", force=True)
