"""A file becomes an upright RGB array or a 0/1 mask, or an error that names it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difom_cache import read_image, read_mask
from difom_cache.data import parse_levels, read_size
from difom_cache.errors import ImageError, SettingsError

RED, GREEN = (200, 30, 20), (10, 180, 60)


def two_colours() -> Image.Image:
    """A picture 6 px wide and 4 px high: left half red, right half green."""
    pixels = np.empty((4, 6, 3), np.uint8)
    pixels[:, :3], pixels[:, 3:] = RED, GREEN
    return Image.fromarray(pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp"])
def test_lossless_picture_is_read_as_it_was_saved(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    two_colours().save(path)
    image = read_image(path)
    assert image.shape == (4, 6, 3) and image.dtype == np.uint8
    assert tuple(image[0, 0]) == RED and tuple(image[3, 5]) == GREEN
    assert read_size(path) == (6, 4)


def test_jpeg_is_read_as_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.JPG"
    two_colours().resize((60, 40), Image.Resampling.NEAREST).save(path, format="JPEG", quality=95)
    assert np.abs(read_image(path)[5, 5].astype(int) - RED).max() < 8


# What each EXIF orientation does to a 6 x 4 picture: (size afterwards, is the top left pixel red?)
@pytest.mark.parametrize(
    ("orientation", "size", "red_first"),
    [(1, (6, 4), True), (2, (6, 4), False), (3, (6, 4), False), (6, (4, 6), True), (8, (4, 6), False)],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_exif_orientation_is_honoured(
    tmp_path: Path, suffix: str, orientation: int, size: tuple[int, int], red_first: bool
) -> None:
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    two_colours().save(path, exif=exif, **({"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}))
    image = read_image(path)
    assert read_size(path) == size == (image.shape[1], image.shape[0])
    assert (image[0, 0, 0] > image[0, 0, 1]) == red_first


def test_grey_palette_alpha_and_cmyk_become_rgb(tmp_path: Path) -> None:
    picture = two_colours()
    grey = picture.convert("L")
    for mode, saved, wanted in [
        ("L", grey, grey.convert("RGB")),
        ("LA", picture.convert("LA"), grey.convert("RGB")),
        ("P", picture.quantize(2), picture),
        ("RGBA", picture.convert("RGBA"), picture),
        ("CMYK", picture.convert("CMYK"), picture),
    ]:
        path = tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}"
        saved.save(path)
        with Image.open(path) as opened:
            assert opened.mode == mode
        image = read_image(path)
        assert image.shape == (4, 6, 3)
        assert np.abs(image.astype(int) - np.asarray(wanted)).max() <= 2, mode


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    two_colours().resize((60, 40), Image.Resampling.NEAREST).convert("CMYK").save(path, quality=95)
    assert np.abs(read_image(path)[5, 5].astype(int) - RED).max() < 12


def test_palette_with_transparent_entries_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture = Image.new("P", (4, 4))
    picture.putpalette([*RED, *GREEN])
    picture.save(path, transparency=bytes([0, 255]))
    assert tuple(read_image(path)[0, 0]) == RED


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_scaled_to_eight(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert read_image(path).shape == (1, 4, 3)


def test_a_soft_edge_is_polyp_above_128(tmp_path: Path) -> None:
    grey = np.zeros((40, 40), np.uint8)
    grey[:, 20:] = 255
    grey[0, :37] = np.r_[np.arange(7, 255, 7), 128]
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), grey > 128)


ODD_MASKS = {
    "grey 0 and 100": (
        lambda a: Image.fromarray(a * np.uint8(100)),
        "100",
        r"levels 0 \(75.0% of the frame\), 100 \(25.0%\);",
    ),
    "classes 0, 1 and 2": (
        lambda a: Image.fromarray(np.where(np.arange(8) > 4, 2 * a, a)),
        "1-3",
        r", 1 \(18.8%\), 2 \(6.2%\);",
    ),
    "classes 0, 127 and 255": (
        lambda a: Image.fromarray(np.where(np.arange(8) > 5, 127, a * 255).astype(np.uint8)),
        "127,255",
        r"0 \(.*, 127 \(25.0%\), 255 \(",
    ),
    "16 bits of 0 and 300": (
        lambda a: Image.fromarray(a.astype(np.uint16) * 300),
        "300",
        r"grey levels 0 \(.*, 300 \(",
    ),
    "red": (lambda a: Image.fromarray(np.stack([a * 255, a * 0, a * 0], -1)), "#ff0000", r"#000000 \(.*, #ff0000 \("),
    "a palette": (lambda a: _palette(a), "#800000", r"indices and colours 0 = #000000 \(.*, 1 = #800000 \("),
    "alpha": (lambda a: Image.fromarray(np.stack([a * 0, a * 0, a * 0, a * 255], -1)), "alpha", "alpha channel"),
}


def _palette(indices: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


@pytest.mark.parametrize("name", ODD_MASKS)
def test_a_mask_whose_levels_do_not_say_themselves_is_refused_until_they_are_said(tmp_path: Path, name: str) -> None:
    make, levels, line = ODD_MASKS[name]
    where = np.zeros((8, 8), np.uint8)
    where[2:6, 2:6] = 1
    make(where).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=rf"a\.png.*{line}.*--mask-levels"):
        read_mask(tmp_path / "a.png")
    said = read_mask(tmp_path / "a.png", parse_levels(levels))
    assert said[where == 1].all() and not said[0, 0]


def test_a_level_that_is_no_level_is_refused() -> None:
    for text in ("", "x", "1;2", "#ff", "-3", "\u00b2"):
        with pytest.raises(SettingsError, match="--mask-levels"):
            parse_levels(text)


def test_a_faint_jpeg_mask_is_refused(tmp_path: Path) -> None:
    grey = np.zeros((48, 48), np.uint8)
    grey[16:32, 16:32] = 100
    Image.fromarray(grey).save(tmp_path / "a.jpg", quality=80)
    with pytest.raises(ImageError, match=r"lossy file with grey levels about 0 \(.*, 100 \(.*--mask-levels 100`"):
        read_mask(tmp_path / "a.jpg")


def test_one_bit_rgb_palette_and_16_bit_masks_are_read_alike(tmp_path: Path) -> None:
    grey = np.zeros((4, 6), np.uint8)
    grey[1:3, 2:5] = 255
    mask = Image.fromarray(grey)
    for mode in ("1", "L", "RGB", "RGBA", "P"):
        mask.convert(mode).save(tmp_path / "a.png")
        assert np.array_equal(read_mask(tmp_path / "a.png"), grey // 255), mode
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), grey // 255)


def test_jpeg_mask_loses_its_ringing(tmp_path: Path) -> None:
    grey = np.zeros((48, 48), np.uint8)
    grey[16:32, 16:32] = 255
    Image.fromarray(grey).save(tmp_path / "a.jpg", quality=80)
    assert np.array_equal(read_mask(tmp_path / "a.jpg"), grey // 255)


def test_empty_mask_is_a_mask(tmp_path: Path) -> None:
    Image.new("L", (5, 5)).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").sum() == 0


@pytest.mark.parametrize(("top", "dtype"), [(1, np.uint8), (1, np.uint16), (255, np.uint16), (65535, np.uint16)])
def test_two_levels_that_cannot_be_mistaken_are_a_mask(tmp_path: Path, top: int, dtype: type) -> None:
    Image.fromarray(np.array([[0, top]], dtype)).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1]]


@pytest.mark.parametrize("kind", ["EPS", "PPM", "GIF", "DDS", "PCX", "TGA", "ICO", "SGI"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_no_other_decoder_is_reached_under_any_name(tmp_path: Path, kind: str, suffix: str) -> None:
    two_colours().resize((32, 32)).save(tmp_path / f"a{suffix}", format=kind)
    for read in (read_image, read_mask, read_size):
        with pytest.raises(ImageError, match="expected a JPEG, PNG, TIFF, BMP or WebP picture, found something else"):
            read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("mode", ["LAB", "F"])
def test_colours_that_are_not_rgb_are_refused_by_name(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=rf"a\.tif.*kind {mode}; save it as RGB"):
        read_image(tmp_path / "a.tif")


def test_webp_is_read(tmp_path: Path) -> None:
    two_colours().save(tmp_path / "a.webp", lossless=True)
    assert tuple(read_image(tmp_path / "a.webp")[0, 0]) == RED


def test_truncated_jpeg_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError, match=r"cut\.jpg.*truncated"):
        read_image(path)
    assert read_size(path) == (64, 64)  # the head is whole


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty file"), (b"not a picture", r"expected a JPEG, PNG, TIFF, BMP or WebP.*13 bytes")],
)
def test_a_file_that_is_no_picture_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (read_image, read_mask, read_size):
        with pytest.raises(ImageError, match=rf"a\.png.*{message}"):
            read(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png.*no such file"):
        read_image(tmp_path / "gone.png")


PAGES = {"TIFF": {}, "PNG": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("kind", PAGES)
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_file_of_several_pages_or_frames_is_refused_with_their_number(tmp_path: Path, kind: str, read) -> None:
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (0, 255, 0)]
    for name, others in (("one", []), ("three", frames[1:])):
        frames[0].save(tmp_path / name, kind, save_all=True, append_images=others, **PAGES[kind])
    assert read(tmp_path / "one").max() == 0
    with pytest.raises(ImageError, match=r"three: expected one picture, found 3 pages or frames"):
        read(tmp_path / "three")


def test_previews_are_no_pages(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 10:30] = 255
    whole, half = Image.fromarray(mask), Image.fromarray(mask[::2, ::2])
    whole.encoderinfo, half.encoderinfo = {}, {"tiffinfo": {254: 1}}  # as a pyramid has them
    whole.save(tmp_path / "a.tif", save_all=True, append_images=[half])
    with Image.open(tmp_path / "a.tif") as opened:
        assert opened.n_frames == 2
    assert np.array_equal(read_mask(tmp_path / "a.tif"), mask // 255)
    half.save(tmp_path / "b.tif", save_all=True, append_images=[whole], tiffinfo={254: 1})
    with pytest.raises(ImageError, match="2 pages"):
        read_mask(tmp_path / "b.tif")
    two_colours().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[two_colours()])
    assert read_image(tmp_path / "a.jpg").shape == (4, 6, 3)
