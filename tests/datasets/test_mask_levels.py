"""A mask says itself what is polyp, or its levels are listed; lossy levels gather."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from difom_cache import extract, load_records, make_manifest, read_mask
from difom_cache.data import MaskPixels, choose_polyp, decoded, describe_odd_levels, find_levels, parse_levels
from difom_cache.errors import ImageError, SettingsError

R = Image.Resampling
BENCHMARK = os.environ.get("DIFOM_BENCHMARK", "")


def disc(radius: int, height: int = 120, width: int = 160) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (y - 55) ** 2 + (x - 70) ** 2 < radius**2


def through(image: Image.Image, kind: str, **how: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return Image.open(file)


def is_clear(values: np.ndarray, *, lossy: bool = False) -> bool:
    return not describe_odd_levels(MaskPixels(values, lossy=lossy))


@pytest.mark.parametrize("radius", [5, 12, 40])
@pytest.mark.parametrize("level", [1, 3, 16, 50, 128, 200, 230])
def test_an_area_between_black_and_white_is_a_class_whatever_its_level(radius: int, level: int) -> None:
    values = np.zeros((120, 160), np.uint8)
    values[5:25, 5:60] = 255
    assert is_clear(values)
    values[disc(radius)] = level
    assert not is_clear(values)


@pytest.mark.parametrize(("px", "clear"), [(1, True), (2, True), (3, False), (5, False)])
def test_a_band_of_one_level_is_a_rim_up_to_two_pixels(px: int, clear: bool) -> None:
    polyp = disc(30)
    values = polyp.astype(np.uint8) * np.uint8(255)
    values[(ndimage.distance_transform_edt(~polyp) <= px) & ~polyp] = 128
    assert is_clear(values) == clear


def test_a_thin_line_far_from_the_polyp_is_no_rim() -> None:
    values = disc(20).astype(np.uint8) * np.uint8(255)
    for level in (2, 128):
        values[110:112] = level
        assert not is_clear(values)


def test_a_photograph_and_a_map_of_probability_are_no_masks() -> None:
    y, x = np.mgrid[:120, :160]
    distance = np.hypot(y - 50, x - 60)
    faint = np.exp(-((distance / 25) ** 2)) * 120
    faint[100:110, 100:140] = 255
    wide = np.exp(-((distance / 60) ** 2)) * 255
    for values in (faint, wide, np.random.default_rng(0).integers(0, 256, (120, 160))):
        assert not is_clear(np.rint(values).astype(np.uint8))


@pytest.mark.parametrize("quality", [20, 35, 50, 70, 80, 90, 100])
@pytest.mark.parametrize("radius", [3, 8, 30])
def test_jpeg_masks_are_clear_at_any_quality_and_stay_so_when_they_are_enlarged(quality: int, radius: int) -> None:
    truth = disc(radius)
    lossy = through(Image.fromarray(truth.astype(np.uint8) * np.uint8(255)), "JPEG", quality=quality)
    assert is_clear(np.asarray(lossy), lossy=True)
    assert np.mean((choose_polyp(MaskPixels(np.asarray(lossy), lossy=True), None)) != truth) < 0.001
    for filter_ in (R.NEAREST, R.BILINEAR, R.LANCZOS) if radius > 3 else ():
        enlarged = lossy.resize((480, 360), filter_)
        assert is_clear(np.asarray(enlarged))
        assert is_clear(np.asarray(through(enlarged, "JPEG", quality=max(quality, 50))), lossy=True)


@pytest.mark.parametrize("quality", [75, 90, 98])
@pytest.mark.parametrize("radius", [25, 40])
def test_a_class_of_nearly_black_is_found_behind_jpeg(quality: int, radius: int) -> None:
    polyp = disc(radius)
    values = polyp.astype(np.uint8) * np.uint8(2)
    values[:, :20] = 255  # what lies outside of the picture, to be ignored
    assert not is_clear(np.asarray(through(Image.fromarray(values), "JPEG", quality=quality)), lossy=True)
    assert not is_clear(np.asarray(through(Image.fromarray(values), "JPEG", quality=quality)))  # saved as PNG since


def test_lossy_levels_are_listed_once_each_with_their_share() -> None:
    values = np.zeros((160, 240), np.uint8)
    values[16:80, 16:112], values[96:144, 128:224] = 120, 240
    levels = find_levels(MaskPixels(np.asarray(through(Image.fromarray(values), "JPEG", quality=75)), lossy=True))
    assert [level.value[0] for level in levels] == pytest.approx([0, 120, 240], abs=2)
    assert [level.share for level in levels] == pytest.approx([1 - 0.16 - 0.12, 0.16, 0.12], abs=0.002)


@pytest.mark.parametrize(
    ("wanted", "place"), [("#ff0000", 0), ("#00ff00", 1), ("#ffff00", 2), ("#ff0000,#ffff00", (0, 2))]
)
@pytest.mark.parametrize("quality", [60, 75, 95])
def test_a_colour_of_a_jpeg_is_all_that_is_nearest_to_it_and_no_rim_of_others(wanted: str, place, quality: int) -> None:
    values = np.zeros((160, 240, 3), np.uint8)
    boxes = [(slice(10, 60), slice(10, 90)), (slice(80, 150), slice(20, 100)), (slice(30, 120), slice(130, 220))]
    for box, colour in zip(boxes, ((255, 0, 0), (0, 255, 0), (255, 255, 0)), strict=True):
        values[box] = colour
    rgba = np.asarray(through(Image.fromarray(values), "JPEG", quality=quality).convert("RGBA"))
    found = choose_polyp(MaskPixels.of_rgba(rgba, opaque=True, lossy=True), parse_levels(wanted))
    truth = np.zeros(found.shape, bool)
    for each in np.atleast_1d(place):
        truth[boxes[each]] = True
    assert (found & truth).sum() / (found | truth).sum() > 0.97
    assert not found[~ndimage.binary_dilation(truth, iterations=4)].any()


def test_a_palettes_level_is_its_index_and_grey_only_where_it_has_no_such_index() -> None:
    index = disc(20).astype(np.uint8)
    for size, wanted, polyp in (
        (2, "1", index == 1),
        (2, "255", index == 1),
        (256, "255", index > 1),
        (2, "0", index == 0),
    ):
        pixels = MaskPixels(index * np.uint8(255), index=index, palette_size=size)
        assert np.array_equal(choose_polyp(pixels, parse_levels(wanted)), polyp), (size, wanted)


@pytest.mark.parametrize("lossy", [False, True])
def test_a_mask_of_one_level_that_is_not_white_is_refused_by_it(lossy: bool) -> None:
    grey = MaskPixels(np.full((40, 40), 100, np.uint8), lossy=lossy)
    red = MaskPixels.of_rgba(np.full((40, 40, 4), (254, 0, 0, 255), np.uint8), opaque=True, lossy=lossy)
    index = MaskPixels.of_rgba(
        np.full((40, 40, 4), (254, 0, 0, 255), np.uint8),
        opaque=True,
        index=np.full((40, 40), 7, np.uint8),
        palette_size=256,
    )
    for pixels, listed, name in (
        (grey, "100 (100.0%", "100"),
        (red, "#fe0000 (100.0%", "'#fe0000'"),
        (index, "7 = #fe0000 (", "7"),
    ):
        told = describe_odd_levels(pixels)
        assert listed in told and f"--mask-levels {name}`" in told
        assert choose_polyp(pixels, parse_levels(name.strip("'"))).all()


def test_booleans_by_tifffile_without_a_polyp_are_asked_for_as_well() -> None:
    empty = np.zeros((8, 8), np.uint8)
    pixels = MaskPixels(empty + np.uint8(255), index=empty, palette_size=2, doubtful=True)
    assert "0 = #ffffff (100.0%" in describe_odd_levels(pixels) and "--mask-levels 1`" in describe_odd_levels(pixels)
    assert not choose_polyp(pixels, parse_levels("1")).any()


def paint(root: Path, levels: list[int]) -> Path:
    """Write a set with one mask of each level."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for number, level in enumerate(levels):
        Image.new("RGB", (160, 120), (number, 60, 60)).save(root / "images" / f"{number}.png")
        Image.fromarray(disc(20).astype(np.uint8) * np.uint8(level)).save(root / "masks" / f"{number}.png")
    return root


def test_a_level_that_no_mask_has_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    data = paint(tmp_path / "data", [100, 50, 200])
    with pytest.raises(SettingsError, match=r"--mask-levels 90: none of 3 masks .* first, 100, 50, 0, 200$"):
        make_manifest(data, tmp_path / "m.csv", mask_levels="50, 90,100")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    records, _ = make_manifest(data, tmp_path / "m.csv", mask_levels="50,100")
    assert sorted(read_mask(record.mask).any() for record in records if record.mask) == [False, True, True]


def test_what_an_older_version_remembers_of_a_class_map_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    data = paint(tmp_path / "data", [255])
    mask = data / "masks" / "0.png"
    values = disc(20).astype(np.uint8)
    values[(ndimage.distance_transform_edt(values == 0) <= 3) & (values == 0)] = 255
    Image.fromarray(values).save(mask)
    digests = [decoded.digest_of(data / part / "0.png", mask=False) for part in ("images", "masks")]
    home = tmp_path / "home" / "difom"
    home.mkdir(parents=True)
    number = int(decoded.MEMORY.removeprefix("decoded-").removesuffix(".txt"))
    for older in range(1, number):  # with and without the orientation
        more = "" if older == 1 else " 1"
        (home / f"decoded-{older}.txt").write_text(
            f"i {digests[0]}\t160 120 0.0000{more}\nm {digests[1]}\t160 120 0.0220{more}\n"
        )
    for command in (
        lambda: load_records(data),
        lambda: extract(data=data, cache=tmp_path / "feats", teacher="dinov2:tiny@56"),
    ):
        with pytest.raises(ImageError, match=r"0\.png: this mask does not say .* 1 \(.*, 255 \("):
            command()
    assert not (tmp_path / "feats").exists()


@pytest.mark.skipif(not BENCHMARK, reason="DIFOM_BENCHMARK is not set")
def test_masks_of_the_benchmark_are_clear_resized_and_saved_again_and_read_above_128(tmp_path: Path) -> None:
    masks = sorted(path for path in Path(BENCHMARK).rglob("*.png") if path.parent.name in ("mask", "masks"))[::75]
    assert len(masks) > 20
    for number, path in enumerate(masks):
        mask = Image.open(path).convert("L")
        lossy = through(mask, "JPEG", quality=(75, 80, 85, 90, 95)[number % 5])
        filter_ = (R.BILINEAR, R.BICUBIC, R.LANCZOS)[number % 3]
        for image, suffix, how in (
            (mask, ".png", {}),
            (mask.resize((352, 352), filter_), ".png", {}),
            (mask.resize((352, 352), filter_), ".jpg", {"quality": 85}),
            (lossy, ".png", {}),
            (lossy.resize((352, 352), filter_), ".png", {}),
        ):
            image.save(tmp_path / f"a{suffix}", **how)
            assert np.array_equal(
                read_mask(tmp_path / f"a{suffix}") == 1, np.asarray(Image.open(tmp_path / f"a{suffix}")) > 128
            )
