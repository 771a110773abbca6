"""What a user decides of pictures and masks that do not say it themselves is kept in files that do."""

import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from difom_cache import load_records, make_manifest, read_image, read_mask
from difom_cache.data import DataSource, decoded, read_manifest
from difom_cache.errors import DataError, DifomWarning, ImageError, SettingsError


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "difom"


def paint(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a stored picture (height, width, 3) with a red polyp near one corner, and where that is."""
    y, x = np.mgrid[:height, :width]
    polyp = (y - height // 4) ** 2 + (x - width // 3) ** 2 < (height // 6) ** 2
    return np.where(polyp[..., None], (220, 60, 40), (60, 50, 90)).astype(np.uint8), polyp


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def write_pair(
    root: Path, orientation: int, shape: tuple[int, int], drawn_on: str, mask_orientation: int | None = None
) -> Path:
    """Write a picture that EXIF turns, and a mask of its stored pixels ("raw") or of what a viewer shows ("upright")."""
    picture, polyp = paint(*shape)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    Image.fromarray(picture).save(root / "images" / "1.png", exif=exif_of(orientation))
    mask = Image.fromarray(polyp.astype(np.uint8) * 255)
    if drawn_on == "upright":
        mask.getexif()[0x0112] = orientation
        mask = ImageOps.exif_transpose(mask)
    how = {} if mask_orientation is None else {"exif": exif_of(mask_orientation)}
    mask.save(root / "masks" / "1.png", **how)
    return root


def is_red(path: Path) -> NDArray[np.bool_]:
    return read_image(path)[..., 0] > 128


@pytest.mark.parametrize("shape", [(48, 48), (48, 64)])
@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("drawn_on", ["raw", "upright"])
def test_a_mask_that_is_not_turned_as_its_picture_lies_where_the_user_says(
    tmp_path: Path, shape: tuple[int, int], orientation: int, drawn_on: str
) -> None:
    data = write_pair(tmp_path / "data", orientation, shape, drawn_on)
    with pytest.raises(
        DataError, match=rf"1\.png: EXIF turns this image \(orientation {orientation}\).*--exif upright"
    ):
        load_records(data)
    make_manifest(data, tmp_path / "m.csv", exif=drawn_on)
    (record,) = load_records(tmp_path / "m.csv")
    assert record.mask is not None and record.mask.parent == tmp_path / "m-masks"
    assert np.array_equal(read_mask(record.mask) == 1, is_red(record.image))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_mask_with_the_tag_of_its_picture_needs_no_word(tmp_path: Path, orientation: int) -> None:
    data = write_pair(tmp_path / "data", orientation, (48, 64), "raw", mask_orientation=orientation)
    (record,) = load_records(data)
    assert record.mask is not None and np.array_equal(read_mask(record.mask) == 1, is_red(record.image))
    make_manifest(data, tmp_path / "m.csv", exif="raw")
    assert read_manifest(tmp_path / "m.csv") == [record], "it says itself what it was drawn on"


def test_levels_and_a_turned_picture_go_together(tmp_path: Path) -> None:
    data = write_pair(tmp_path / "data", 6, (48, 64), "raw", mask_orientation=6)
    mask = data / "masks" / "1.png"
    grey = Image.fromarray(paint(48, 64)[1].astype(np.uint8) * 100)
    grey.save(mask, exif=exif_of(6))
    make_manifest(data, tmp_path / "m.csv", mask_levels="100")
    (record,) = load_records(tmp_path / "m.csv")
    assert record.mask is not None and np.array_equal(read_mask(record.mask) == 1, is_red(record.image))


def test_a_decision_that_cannot_be_is_refused_with_exif_named(tmp_path: Path) -> None:
    data = write_pair(tmp_path / "data", 6, (48, 64), "raw")
    with pytest.raises(DataError, match=r"found 64 x 48 px.*is --exif upright the wrong one\?"):
        make_manifest(data, tmp_path / "m.csv", exif="upright")
    with pytest.raises(SettingsError, match="--exif writes files beside the manifest: name it with --out"):
        make_manifest(data, exif="raw")


def test_another_size_beside_a_turned_picture_names_exif(tmp_path: Path) -> None:
    data = write_pair(tmp_path / "data", 6, (48, 64), "raw", mask_orientation=6)
    Image.new("1", (30, 20)).save(data / "masks" / "1.png", exif=exif_of(6))
    with pytest.raises(DataError, match=r"48 x 64 px as 1\.png \(EXIF turns it, orientation 6\), found 20 x 30"):
        load_records(data)


def test_what_an_older_version_remembers_of_a_turned_picture_is_not_believed(tmp_path: Path, own_memory: Path) -> None:
    data = write_pair(tmp_path / "data", 3, (48, 48), "raw")
    own_memory.mkdir(parents=True)
    digests = [decoded.digest_of(data / part / "1.png", mask=part == "masks") for part in ("images", "masks")]
    old = f"i {digests[0]}\t48 48 0.0000\nm {digests[1]}\t48 48 0.0800\n"
    (own_memory / "decoded-1.txt").write_text(old)
    (own_memory / decoded.MEMORY).write_text(old)
    with pytest.raises(DataError, match="EXIF turns this image"):
        load_records(data)


def test_a_picture_over_the_limit_names_it_and_the_option(tmp_path: Path) -> None:
    data = write_pair(tmp_path / "data", 1, (48, 64), "raw")
    with pytest.raises(
        ImageError, match=r"1\.png: has 64 x 48 px, 3072 pixels, and the limit is 3000.*--max-pixels 3072"
    ):
        make_manifest(data, max_pixels=3000)
    assert len(make_manifest(data, tmp_path / "m.csv", max_pixels=3072)[0]) == 1
    with pytest.raises(ImageError, match="the limit is 3000"):  # what is remembered is held to it, too
        make_manifest(tmp_path / "m.csv", max_pixels=3000)


def test_a_picture_over_pillows_limit_is_no_attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_pair(tmp_path / "data", 1, (48, 64), "raw")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns from here on, and raises from twice as much
    assert len(load_records(data)) == 1
    assert Image.MAX_IMAGE_PIXELS == 1000


def paint_levels(folder: Path, kind: str, bits: int, *, said: bool = False, low: int = 0) -> NDArray[np.uint16]:
    """Write one picture of `bits` in samples of 16 without a mask, of colours by FFmpeg's encoders, and return its levels."""
    folder.mkdir(parents=True)
    levels = np.random.default_rng(bits).integers(low, 2**bits, (20, 24, 3), np.uint16)
    if kind == "grey.tif":
        Image.fromarray(levels[..., 0]).save(folder / "1.tif", tiffinfo={281: 2**bits - 1} if said else {})
        return levels[..., :1].repeat(3, 2)
    av = pytest.importorskip("av", reason="PyAV is not installed (pip install '.[video]'), which writes wide colours")
    codec, pixels = ("png", "rgb48be") if kind == "colour.png" else ("tiff", "rgb48le")
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = 20, 24, pixels, Fraction(1)
    frame = av.VideoFrame.from_ndarray(levels, format=pixels)
    content = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    if said:
        chunk = b"sBIT" + bytes([bits] * 3)
        content = content[:33] + struct.pack(">I", 3) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]
    (folder / f"1.{codec[:3]}").write_bytes(content)
    return levels


def as_eight(levels: NDArray[np.uint16], bits: int) -> NDArray[np.float64]:
    return np.round(levels.astype(float) * 255 / (2**bits - 1))


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("kind", ["grey.tif", "colour.png"])
def test_levels_of_fewer_bits_are_scaled_as_their_file_says(tmp_path: Path, kind: str, bits: int) -> None:
    levels = paint_levels(tmp_path / "data", kind, bits, said=True)
    (record,) = load_records(DataSource(tmp_path / "data", unlabelled=True))
    assert np.abs(read_image(record.image) - as_eight(levels, bits)).max() == 0 and record.reading == 2


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("kind", ["grey.tif", "colour.png", "colour.tif"])
def test_levels_of_fewer_bits_that_nobody_says_are_warned_of_and_settled_by_an_option(
    tmp_path: Path, kind: str, bits: int
) -> None:
    levels = paint_levels(tmp_path / "data", kind, bits)
    with pytest.warns(DifomWarning, match=rf"data: its 1 images of 16 bits have no level above .*--bits {bits} "):
        load_records(DataSource(tmp_path / "data", unlabelled=True))
    with pytest.warns(DifomWarning, match=f"--bits {bits}"):
        make_manifest(tmp_path / "data", tmp_path / "m.csv", unlabelled=True, bits=bits)
    (record,) = load_records(tmp_path / "m.csv")
    assert record.image.parent == tmp_path / "m-images" and record.reading == 1
    assert np.abs(read_image(record.image) - as_eight(levels, bits)).max() == 0


@pytest.mark.parametrize("kind", ["grey.tif", "colour.png"])
def test_levels_of_all_sixteen_bits_are_read_as_ever(tmp_path: Path, kind: str) -> None:
    levels = paint_levels(tmp_path / "data", kind, 16)
    (record,) = load_records(DataSource(tmp_path / "data", unlabelled=True))
    assert np.abs(read_image(record.image) - as_eight(levels, 16)).max() <= 1 and record.reading == 1


def test_a_png_whose_levels_were_spread_over_sixteen_bits_is_read_as_such(tmp_path: Path) -> None:
    dark = np.arange(0, 4096, 16, dtype=np.uint16).reshape(
        16, 16
    )  # 12 bits, shifted up: the darkest 256 levels of 4,096
    Image.fromarray(dark).save(tmp_path / "1.png")
    content, chunk = (tmp_path / "1.png").read_bytes(), b"sBIT" + bytes([12])
    said = content[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]
    (tmp_path / "1.png").write_bytes(said)
    (record,) = load_records(DataSource(tmp_path, unlabelled=True))
    assert read_image(record.image).max() == 16 and record.reading == 1


def test_more_bits_than_the_user_says_are_refused(tmp_path: Path) -> None:
    paint_levels(tmp_path / "data", "grey.tif", 12)
    with (
        pytest.warns(DifomWarning),
        pytest.raises(ImageError, match=r"1\.tif: has levels up to \d+, and --bits 10 ends at 1023"),
    ):
        make_manifest(tmp_path / "data", tmp_path / "m.csv", unlabelled=True, bits=10)


def test_a_turned_picture_of_twelve_bits_keeps_its_mask(tmp_path: Path) -> None:
    data = write_pair(tmp_path / "data", 6, (48, 64), "raw")
    red = np.where(paint(48, 64)[1], 4095, 300).astype(np.uint16)
    (data / "images" / "1.png").unlink()
    Image.fromarray(red).save(data / "images" / "1.tif", tiffinfo={281: 4095, 0x0112: 6})
    make_manifest(data, tmp_path / "m.csv", bits=12, exif="raw")
    (record,) = load_records(tmp_path / "m.csv")
    assert record.mask is not None and np.array_equal(read_mask(record.mask) == 1, is_red(record.image))
