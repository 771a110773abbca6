"""A cache's row becomes one PNG: view, mask and a panel for each tap."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_cache import DEFAULT, EMPTY_MASK_ROW, NO_MASK_ROW, write_small_cache

from difom_cache import open_cache, show
from difom_cache.errors import CacheIncompleteError, SettingsError
from difom_cache.maintenance import DARK, TILE_PX, find_row, map_to_rgb, shown_cells

FRAME_PX, LINE_PX = 8, TILE_PX + 34 + 8


def panel(path: Path, line: int, column: int) -> np.ndarray:
    """The pixels of one tile of a sheet."""
    with Image.open(path) as sheet:
        left, top = FRAME_PX + column * (TILE_PX + 8), FRAME_PX + line * LINE_PX
        return np.asarray(sheet.crop((left, top, left + TILE_PX, top + TILE_PX)))


def test_sheet_holds_view_mask_and_every_tap(tmp_path: Path) -> None:
    cache = write_small_cache(tmp_path / "feats")
    out = show(cache.path, record="set/1", view=1, out=tmp_path / "new" / "x.png")
    with Image.open(out) as sheet:
        assert sheet.size == (2 * (TILE_PX + 8) + 8, 2 * LINE_PX + 8)
    image = cache.arrays["image"][3]
    wanted = np.asarray(Image.fromarray(image).resize((TILE_PX, TILE_PX), Image.Resampling.BILINEAR))
    assert np.array_equal(panel(out, 0, 0), wanted)
    logits = cache.arrays["one/logits@2/code"][3, 0].astype(float)
    prob = panel(out, 1, 1)[::64, ::64, 0]
    assert np.abs(prob - 255 / (1 + np.exp(-logits))).max() <= 1


def test_a_picture_that_is_there_is_replaced_with_force_alone(tmp_path: Path) -> None:
    cache = write_small_cache(tmp_path / "feats")
    Image.new("RGB", (3, 3)).save(tmp_path / "x.png")
    before = (tmp_path / "x.png").read_bytes()
    with pytest.raises(SettingsError, match=r"x\.png exists; .* --force"):
        show(cache.path, out=tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes() == before
    show(cache.path, out=tmp_path / "x.png", force=True)
    assert (tmp_path / "x.png").read_bytes() != before


def test_absent_and_empty_masks_look_different(tmp_path: Path) -> None:
    cache = open_cache(write_small_cache(tmp_path / "feats").path)
    sheets = []
    for row in (EMPTY_MASK_ROW, NO_MASK_ROW):
        name, view = cache.table.ids[int(cache.table.record[row])], int(cache.table.view[row])
        sheets.append(panel(show(cache.path, record=name, view=view, out=tmp_path / f"{row}.png"), 0, 1))
    assert (sheets[1] == 64).all() and not (sheets[0] == 64).all()


def test_a_view_that_leaves_the_frame_shows_its_valid_area(tmp_path: Path) -> None:
    cache = write_small_cache(tmp_path / "feats", replace(DEFAULT, pads=True))
    out = show(cache.path, out=tmp_path / "x.png")
    valid = cache.arrays["valid"][0] * np.uint8(255)
    wanted = np.asarray(Image.fromarray(valid).resize((TILE_PX, TILE_PX), Image.Resampling.BILINEAR))
    assert np.array_equal(panel(out, 0, 2)[:, :, 0], wanted)


def test_unknown_record_is_refused_with_near_ones(tmp_path: Path) -> None:
    cache = open_cache(write_small_cache(tmp_path / "feats").path)
    with pytest.raises(CacheIncompleteError, match=r"no record 'set/11' among its 8; near ones: .*set/1"):
        find_row(cache, "set/11", 0)


def test_absent_view_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    cache = open_cache(write_small_cache(tmp_path / "feats").path)
    with pytest.raises(CacheIncompleteError, match=r"expected view 5 of set/0, found views 0, 1"):
        find_row(cache, "set/0", 5)
    with pytest.raises(CacheIncompleteError, match=r"expected view 9 of any record, found views 0, 1"):
        find_row(cache, None, 9)


def test_missing_block_is_refused(tmp_path: Path) -> None:
    cache = write_small_cache(tmp_path / "feats", leave_out=(0,))
    with pytest.raises(CacheIncompleteError, match="block 0"):
        show(cache.path, out=tmp_path / "x.png")


def test_main_direction_is_red_and_its_range_is_stretched() -> None:
    # Two channels that rise together along the columns, the second three times as steep; one noise-free direction.
    ramp = np.linspace(0, 1, 51, dtype=np.float32)
    feature = np.stack([np.tile(ramp, (4, 1)), np.tile(3 * ramp, (4, 1))])
    colours = map_to_rgb(feature)
    assert colours.shape == (4, 51, 3)
    assert colours[0, :2, 0].tolist() == [0, 0] and colours[0, -2:, 0].tolist() == [255, 255]
    assert colours[0, 25, 0] in (127, 128) and (np.diff(colours[0, :, 0].astype(int)) >= 0).all()
    assert (colours[:, :, 1:] == 128).all()


def test_cells_outside_the_frame_are_black_and_do_not_count() -> None:
    feature = np.zeros((2, 3, 3), np.float32)
    feature[0, 1] = [0, 1, 2]
    feature[1, 2] = 1e6
    valid = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]], bool)
    colours = map_to_rgb(feature, valid)
    assert (colours[0] == 0).all() and (colours[2] == 0).all()
    assert colours[1, :, 0].tolist() in ([0, 127, 255], [0, 128, 255])


def test_cells_at_the_edge_are_coloured_but_decide_nothing() -> None:
    feature = np.zeros((2, 3, 5), np.float32)
    feature[0] = [0, 1, 2, 3, 50]  # the last valid column is half border
    valid = np.array([[1, 1, 1, 1, 1, 0]] * 3, bool)
    feature = np.concatenate([feature, np.full((2, 3, 1), 1e6, np.float32)], axis=2)
    red = map_to_rgb(feature, valid)[:, :, 0]
    assert red[1].tolist() == red[0].tolist() and red[1, 0] == 0
    assert red[1, 1] in range(80, 90) and red[1, 2] in range(165, 175)  # 1 and 2 of 3, stretched by the percentiles
    assert red[1, 3:].tolist() == [255, 255, 0]


def test_the_black_border_of_a_frame_leaves_the_directions_to_the_tissue(tmp_path: Path) -> None:
    cache = write_small_cache(tmp_path / "feats")
    image, side = cache.arrays["image"][0].copy(), cache.arrays["image"].shape[1]
    image[:, : side // 2] = DARK - 1
    batch = {"image": image[None], "valid": np.ones((1, side, side), np.uint8)}
    cells = shown_cells(batch, 4)
    assert cells is not None and not cells[:, :2].any()
    assert np.array_equal(cells[:, 2:], shown_cells({**batch, "image": cache.arrays["image"][:1]}, 4)[:, 2:])
    assert shown_cells({}, 4) is None


def test_a_map_without_any_direction_is_grey() -> None:
    assert (map_to_rgb(np.full((5, 2, 2), 7.0, np.float32)) == 128).all()
