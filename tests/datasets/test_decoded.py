"""Every file is decoded before anything is begun, once, and remembered beside nobody's data."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difom_cache import extract, load_records, make_manifest, read_mask, write_manifest
from difom_cache.data import decoded
from difom_cache.errors import DifomWarning, ImageError, ManifestError


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "difom" / decoded.MEMORY


def paint(root: Path, frames: int = 4, *, covered: float = 0.25, top: int = 255, size: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(frames):
        Image.fromarray(rng.integers(0, 255, (size, size, 3), np.uint8)).save(root / "images" / f"{number}.jpg")
        mask = np.zeros((size, size), np.uint8)
        mask[: round(covered * size)] = top
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600])


def test_a_truncated_picture_is_named_before_a_cache_is_begun(tmp_path: Path, memory: Path):
    data = paint(tmp_path / "data")
    cut(data / "images" / "3.jpg")
    with pytest.raises(ImageError, match=r"3\.jpg.*truncated"):
        extract(
            data=data, cache=tmp_path / "feats", teacher="dinov2:tiny@56", weights="random", input_size=64, quiet=True
        )
    assert not (tmp_path / "feats").exists()


def test_a_truncated_picture_of_a_manifest_is_named_too(tmp_path: Path, memory: Path):
    whole = paint(tmp_path / "whole")
    write_manifest(load_records(whole), tmp_path / "m.csv")
    memory.unlink()
    cut(whole / "images" / "2.jpg")
    with pytest.raises(ManifestError, match=r"2\.jpg: changed since the manifest was made"):
        load_records(tmp_path / "m.csv")


def test_what_was_decoded_is_remembered_by_digest_in_the_users_cache_folder(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
):
    data = paint(tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    first = load_records(data)
    assert len(memory.read_text().splitlines()) == 5  # four pictures; the four masks are one file
    assert "data" not in memory.read_text()
    assert memory.stat().st_mode & 0o077 == 0
    for name in ("picture_of_bytes", "mask_pixels_of_bytes"):
        monkeypatch.setattr(decoded, name, lambda *_: pytest.fail("decoded again"))
    assert load_records(data) == first
    write_manifest(first, tmp_path / "m.csv")
    assert load_records(tmp_path / "m.csv") == first
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


def test_a_file_that_two_threads_decode_at_once_is_remembered_once(memory: Path):
    kept = decoded.Memory()
    for _ in range(2):  # each looked it up before the other had added it
        kept.add(f"m {0:064x}", decoded.Decoded(40, 40, 0.25, kind="0, 255"))
    kept.save()
    assert memory.read_text() == f"m {0:064x}\t40 40 0.2500 1 1 0 0, 255\n"
    assert decoded.Memory().find(f"m {0:064x}") == decoded.Decoded(40, 40, 0.25, kind="0, 255")


def rest(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all files of a folder have been left alone for long enough to be remembered."""
    monkeypatch.setattr(decoded, "_REST_NS", 0)


def test_a_folder_is_read_once(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch):
    data = paint(tmp_path / "data")
    rest(data, monkeypatch)
    first = load_records(data)
    assert "images" not in memory.read_text() and str(tmp_path) not in memory.read_text()
    with monkeypatch.context() as patched:
        patched.setattr(decoded, "read_plain", lambda path, **_: pytest.fail(f"{path} is read again"))
        assert load_records(data) == first


@pytest.mark.parametrize("change", ["other bytes", "same size and time", "another file in its place"])
def test_a_file_that_changed_is_read_again(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch, change: str):
    data = paint(tmp_path / "data")
    rest(data, monkeypatch)
    first = load_records(data)
    path = data / "masks" / "2.png"
    before, whole = path.stat(), path.read_bytes()
    other = data.parent / "other.png"
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(other)
    if change == "other bytes":
        path.write_bytes(other.read_bytes())
    elif change == "same size and time":
        path.write_bytes(other.read_bytes() + bytes(len(whole)))
        os.truncate(path, len(whole))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    else:
        other.rename(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = {record.id: record for record in load_records(data)}
    changed = [record.id for record in first if again[record.id] != record]
    assert [name.rpartition("/")[2] for name in changed] == ["2"]


def test_a_file_that_was_changed_just_now_is_not_believed(tmp_path: Path, memory: Path):
    data = paint(tmp_path / "data")
    load_records(data)
    assert not [line for line in memory.read_text().splitlines() if line.startswith("f ")]


def test_a_garbled_memory_is_no_harm(tmp_path: Path, memory: Path):
    data = paint(tmp_path / "data")
    first = load_records(data)
    memory.write_bytes(b"i zz\t1 2 3\n\xff\x00\n" + memory.read_bytes()[:50])
    assert load_records(data) == first


def test_a_home_that_cannot_be_written_remembers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert len(load_records(paint(tmp_path / "data"))) == 4


def test_a_manifest_whose_width_lies_is_refused(tmp_path: Path, memory: Path):
    data = paint(tmp_path / "data")
    write_manifest(load_records(data), tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text((tmp_path / "m.csv").read_text().replace(",40,40,", ",20,40,"))
    with pytest.raises(ManifestError, match=r"has 40 x 40 px, the manifest says 20 x 40"):
        load_records(tmp_path / "m.csv")


def test_masks_that_cover_most_of_most_frames_are_warned_of(tmp_path: Path, memory: Path):
    with pytest.warns(DifomWarning, match=r"4 of 4 masks cover more than 65%.*--mask-levels 0` turns them"):
        load_records(paint(tmp_path / "data", covered=0.9))


def test_levels_that_are_said_become_masks_that_say_themselves(tmp_path: Path, memory: Path):
    data = paint(tmp_path / "data", top=100)
    with pytest.raises(
        ImageError, match=r"grey levels 0 \(.*, 100 \(.*; say which are polyp with .*--mask-levels 100`"
    ):
        load_records(data)
    make_manifest(data, tmp_path / "m.csv", mask_levels="100")
    for record in load_records(tmp_path / "m.csv"):
        assert record.mask is not None and record.mask.parent == tmp_path / "m-masks"
        assert read_mask(record.mask).mean() == 0.25


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda text: b"\xef\xbb\xbf" + text, None),
        (lambda text: text.replace(b",", b";"), "separated by semicolons; save it with commas"),
        (lambda text: text.replace(b",", b"\t"), "separated by tabs"),
        (lambda text: text.replace(b",40,40,", ",4\u00b2,40,".encode()), "expected width and height in px"),
        (lambda text: text.replace(b",40,40,", b",0,40,"), "expected width and height in px"),
        (lambda text: text + b"\xff", "utf-8"),
        (lambda text: text.replace(b"data/0", b"x\0"), "a zero byte"),
    ],
)
def test_manifests_as_spreadsheets_leave_them(tmp_path: Path, memory: Path, change, line: str | None):
    data = paint(tmp_path / "data")
    first = load_records(data)
    write_manifest(first, tmp_path / "m.csv")
    (tmp_path / "m.csv").write_bytes(change((tmp_path / "m.csv").read_bytes()))
    if line is None:
        assert load_records(tmp_path / "m.csv") == first
    else:
        with pytest.raises(ManifestError, match=rf"m\.csv.*{line}"):
            load_records(tmp_path / "m.csv")


def test_a_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path, memory: Path):
    data = paint(tmp_path / "data")
    (data / "images" / "1.jpg").rename(os.fsdecode(os.fsencode(data / "images") + b"/\xff1.jpg"))
    with pytest.raises(Exception, match=r"the name \\xff1\.jpg is not UTF-8"):
        load_records(data)


def test_a_cell_that_could_start_a_formula_is_text_in_the_file_and_itself_when_read(tmp_path: Path, memory: Path):
    data = paint(tmp_path / "=HYPERLINK(1)")
    first = load_records(data)
    write_manifest(first, tmp_path / "m.csv")
    lines = (tmp_path / "m.csv").read_text().splitlines()[1:]
    assert all(line.startswith("'=HYPERLINK") for line in lines)
    assert load_records(tmp_path / "m.csv") == first


def test_a_fifo_in_a_manifest_is_refused_at_once(tmp_path: Path, memory: Path):
    data = paint(tmp_path / "data")
    write_manifest(load_records(data), tmp_path / "m.csv")
    memory.unlink()
    (data / "images" / "0.jpg").unlink()
    os.mkfifo(data / "images" / "0.jpg")
    with pytest.raises(ManifestError, match=r"0\.jpg"):
        load_records(tmp_path / "m.csv")
