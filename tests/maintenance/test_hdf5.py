"""One portable file: bit for bit both ways, and readable without this package."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from small_cache import Shape, SmallCache, write_small_cache

from difom_cache.errors import CacheFormatError, CacheIncompleteError, CacheSpaceError
from difom_cache.maintenance.copy import copy, finish
from difom_cache.maintenance.hdf5 import export_hdf5, import_hdf5
from difom_cache.store.reader import open_cache


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


def test_a_compact_codec_travels_with_its_basis(tmp_path: Path):
    wide = write_small_cache(tmp_path / "wide", Shape(records=40, channels=128, grid=8, picture_px=16))
    finish(wide.path)
    copy(wide.path, tmp_path / "compact", codec="compact")
    export_hdf5(tmp_path / "compact", tmp_path / "compact.h5")
    import_hdf5(tmp_path / "compact.h5", tmp_path / "back")
    before, after = open_cache(tmp_path / "compact"), open_cache(tmp_path / "back")
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


def test_a_file_that_is_there_is_not_overwritten(small: SmallCache, tmp_path: Path):
    (tmp_path / "feats.h5").write_text("something else")
    with pytest.raises(CacheSpaceError, match="exists"):
        export_hdf5(small.path, tmp_path / "feats.h5")
    assert (tmp_path / "feats.h5").read_text() == "something else"


def test_another_file_is_refused(tmp_path: Path):
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(CacheFormatError, match=r"text\.h5 cannot be opened as HDF5"):
        import_hdf5(tmp_path / "text.h5", tmp_path / "back")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(CacheFormatError, match="no identity"):
        import_hdf5(tmp_path / "other.h5", tmp_path / "back")
