"""One portable file: bit for bit both ways, and readable without this package."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from small_cache import Shape, SmallCache, write_small_cache

from difom_cache import copy, export_hdf5, finish, import_hdf5, open_cache
from difom_cache.errors import CacheDamagedError, CacheFormatError, CacheIncompleteError, CacheSpaceError
from difom_cache.store import canonical


@pytest.fixture
def small(tmp_path: Path) -> SmallCache:
    small = write_small_cache(tmp_path / "feats")
    finish(small.path)
    return small


def test_there_and_back_is_the_same_cache(small: SmallCache, tmp_path: Path):
    export_hdf5(small.path, tmp_path / "feats.h5")
    import_hdf5(tmp_path / "feats.h5", tmp_path / "back")
    before, after = open_cache(small.path), open_cache(tmp_path / "back")
    assert after.content_digests() == before.content_digests()
    np.testing.assert_array_equal(after.stats("one/block1@2").covariance, before.stats("one/block1@2").covariance)
    assert after.table.ids == before.table.ids


def test_a_codec_travels_with_its_basis(tmp_path: Path):
    wide = write_small_cache(tmp_path / "wide", Shape(records=40, channels=128, grid=8, picture_px=16))
    finish(wide.path)
    copy(wide.path, tmp_path / "copy", codec="packed")
    export_hdf5(tmp_path / "copy", tmp_path / "copy.h5")
    import_hdf5(tmp_path / "copy.h5", tmp_path / "back")
    before, after = open_cache(tmp_path / "copy"), open_cache(tmp_path / "back")
    rows, tap = np.arange(6), "one/block1@2"
    one, other = before.gather(rows), after.gather(rows)
    np.testing.assert_array_equal(
        after.decode(tap, other[f"{tap}/code"], other[f"{tap}/scale"]),
        before.decode(tap, one[f"{tap}/code"], one[f"{tap}/scale"]),
    )


def test_plain_h5py_reads_every_array(small: SmallCache, tmp_path: Path):
    export_hdf5(small.path, tmp_path / "feats.h5")
    with h5py.File(tmp_path / "feats.h5") as book:
        np.testing.assert_array_equal(book["pictures/image"][...], small.arrays["image"])
        np.testing.assert_array_equal(book["teachers/one/block1@2/code"][...], small.arrays["one/block1@2/code"])


def test_an_incomplete_cache_is_not_exported_and_leaves_no_file(tmp_path: Path):
    small = write_small_cache(tmp_path / "feats", leave_out=(1,))
    with pytest.raises(CacheIncompleteError, match="1 blocks are missing"):
        export_hdf5(small.path, tmp_path / "feats.h5")
    assert not list(tmp_path.glob("feats.h5*"))


@pytest.mark.parametrize("read", [export_hdf5, copy])
def test_records_that_are_not_the_identitys_are_carried_nowhere(
    small: SmallCache, tmp_path: Path, read: Callable[[Path, Path], Any]
):
    """A link to a device has no end: whoever reads it whole takes all memory there is."""
    records = small.path / "records.csv"
    for damage in (lambda: records.write_text("id\n0\n"), lambda: records.symlink_to("/dev/zero")):
        records.unlink()
        damage()
        with pytest.raises(CacheDamagedError, match=r"records\.csv.*copy it again"):
            read(small.path, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("read", [export_hdf5, copy])
def test_a_file_of_a_teacher_that_cannot_be_read_is_named_and_no_disk_is_called_full(
    small: SmallCache, tmp_path: Path, read: Callable[[Path, Path], Any]
):
    identity = min((small.path / "teachers").glob("*/identity.json"))
    identity.with_name("heads.safetensors").symlink_to("/dev/zero")
    with pytest.raises(
        CacheDamagedError, match=r"heads\.safetensors cannot be read \(it is a device, .*\); copy it again"
    ):
        read(small.path, tmp_path / "out")
    assert not list(tmp_path.glob("out*/*/*/heads*")) and not list(tmp_path.glob("out*h5"))


def test_a_file_that_is_there_is_not_overwritten(small: SmallCache, tmp_path: Path):
    (tmp_path / "feats.h5").write_text("something else")
    with pytest.raises(CacheSpaceError, match="exists"):
        export_hdf5(small.path, tmp_path / "feats.h5")
    assert (tmp_path / "feats.h5").read_text() == "something else"


def rewrite(file: Path, name: str, change: Callable[[h5py.File], None]) -> Path:
    """Return a copy of an exported file with one thing changed."""
    changed = file.with_name(f"{name}.h5")
    shutil.copy(file, changed)
    with h5py.File(changed, "r+") as book:
        change(book)
    return changed


def edit_identity(group: str, **values: Any) -> Callable[[h5py.File], None]:
    def change(book: h5py.File) -> None:
        held = json.loads(book[group].attrs["identity"]) | values
        book[group].attrs["identity"] = canonical(held).decode()

    return change


def rename_tap(name: str) -> Callable[[h5py.File], None]:
    def change(book: h5py.File) -> None:
        held = json.loads(book["teachers/one"].attrs["identity"])
        held["taps"][0]["name"] = name
        book["teachers/one"].attrs["identity"] = canonical(held).decode()

    return change


def put(name: str, make: Callable[[h5py.File, Any], object]) -> Callable[[h5py.File], None]:
    """Return what takes a dataset away and puts something else, made of its values, in its place."""

    def change(book: h5py.File) -> None:
        values = book[name][...]
        del book[name]
        make(book, values)

    return change


IMAGE, CODE, SCALE = "pictures/image", "teachers/one/block1@2/code", "teachers/one/block1@2/scale"
HOSTILE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "a tap outside": (rename_tap("../../../x@2"), "plain name"),
    "rows below zero": (edit_identity("/", rows=-1), "rows: Input should be greater"),
    "rows as text": (edit_identity("/", rows="14"), "rows: Input should be a valid integer"),
    "another format": (edit_identity("/", format=2), "format version 2"),
    "an identity that is a number": (lambda b: b.attrs.__setitem__("identity", 3), "no text"),
    "an identity that is a list": (lambda b: b.attrs.__setitem__("identity", "[]"), "dict"),
    "a soft link": (put(CODE, lambda b, v: b.__setitem__(CODE, h5py.SoftLink("/pictures/mask"))), "link"),
    "an external link": (put(CODE, lambda b, v: b.__setitem__(CODE, h5py.ExternalLink("x.h5", "/a"))), "link"),
    "external storage": (
        put(IMAGE, lambda b, v: b.create_dataset(IMAGE, v.shape, "u1", external=[("/etc/passwd", 0, v.size)])),
        "points to other files",
    ),
    "a virtual dataset": (
        put(IMAGE, lambda b, v: b.create_virtual_dataset(IMAGE, h5py.VirtualLayout(v.shape, "u1"))),
        "points to other files",
    ),
    "a compressed dataset": (put(IMAGE, lambda b, v: b.create_dataset(IMAGE, data=v, compression="gzip")), "filtered"),
    "another shape": (put(IMAGE, lambda b, v: b.create_dataset(IMAGE, data=v[:-1])), r"\(13, 8, 8, 3\) uint8"),
    "another type": (put(CODE, lambda b, v: b.create_dataset(CODE, data=v.astype("f4"))), "float32"),
    "objects": (put(CODE, lambda b, v: b.create_dataset(CODE, v.shape, h5py.string_dtype())), "object"),
    "holes": (put(IMAGE, lambda b, v: b.create_dataset(IMAGE, v.shape, "u1", chunks=(1, 8, 8, 3))), "0 of its"),
    "NaN": (put(SCALE, lambda b, v: b.create_dataset(SCALE, data=v * np.float32("nan"))), "not finite"),
    "other records": (lambda b: b["records.csv"].__setitem__(0, 64), "digest"),
    "another split": (lambda b: b["rows/split"].__setitem__(slice(None), 0), "split"),
    "other views": (lambda b: b["rows/params"].__setitem__((1, 0), 7), "plan's digest"),
    "a dataset more": (lambda b: b.create_dataset("pictures/more", data=1), "'more'"),
    "a group in place of a dataset": (put(IMAGE, lambda b, v: b.create_group(IMAGE)), "no dataset"),
    "a group that holds itself": (lambda b: b["pictures"].__setitem__("me", b["pictures"]), "'me'"),
    "a teacher outside": (lambda b: b.move("teachers/one", "teachers/..one"), "plain name"),
    "no fidelity": (lambda b: b.__delitem__("pictures/fidelity.json"), "fidelity"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_from_elsewhere_is_refused_by_name_and_leaves_nothing(small: SmallCache, tmp_path: Path, name: str):
    export_hdf5(small.path, tmp_path / "feats.h5")
    change, line = HOSTILE[name]
    file = rewrite(tmp_path / "feats.h5", "hostile", change)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CacheFormatError, match=rf"(?s)hostile\.h5.*{line}"):
        import_hdf5(file, tmp_path / "back")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_lies_at_the_place_of_an_imported_cache_stays(small: SmallCache, tmp_path: Path):
    export_hdf5(small.path, tmp_path / "feats.h5")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "notes.txt").write_text("mine")
    with pytest.raises(CacheSpaceError, match="exists; choose another"):
        import_hdf5(tmp_path / "feats.h5", tmp_path / "back")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CacheSpaceError, match="exists; choose another"):
        import_hdf5(tmp_path / "feats.h5", tmp_path / "link")
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["notes.txt"]


def test_another_file_is_refused(tmp_path: Path):
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(CacheFormatError, match=r"text\.h5 cannot be opened as HDF5"):
        import_hdf5(tmp_path / "text.h5", tmp_path / "back")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(CacheFormatError, match="no identity"):
        import_hdf5(tmp_path / "other.h5", tmp_path / "back")
