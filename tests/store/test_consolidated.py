"""Metadata in one place, for readers that walk a hierarchy: whole, never stale, and of no interest to our own reader."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from small_cache import Shape, SmallCache, write_small_cache

from difom_cache import copy, drop, export_hdf5, finish, import_hdf5, open_cache, verify

ARRAYS = {
    *("pictures/image", "pictures/mask"),
    *(f"rows/{name}" for name in ("group", "labelled", "params", "record", "split", "view")),
    *(f"teachers/one/{name}" for name in ("block1@2/code", "block1@2/scale", "logits@2/code")),
}


@pytest.fixture
def small(tmp_path: Path) -> SmallCache:
    small = write_small_cache(tmp_path / "feats")
    finish(small.path)
    return small


def listed(cache: Path, group: str = ".") -> set[str]:
    """Return the arrays that a group's own zarr.json names."""
    nodes = json.loads((cache / group / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    return {name for name, node in nodes.items() if node["node_type"] == "array"}


def test_a_finished_cache_names_all_of_its_arrays_in_every_group(small: SmallCache) -> None:
    assert listed(small.path) == ARRAYS
    assert listed(small.path, "teachers/one") == {"block1@2/code", "block1@2/scale", "logits@2/code"}


def test_zarr_walks_a_finished_cache_without_a_warning(small: SmallCache) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # zarr warns of each file that is no array: ticks, identities, records
        group = zarr.open_group(small.path, mode="r", use_consolidated=True)
        found = {name for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
    assert found == ARRAYS
    code = group["teachers/one/block1@2/code"]
    assert isinstance(code, zarr.Array)
    np.testing.assert_array_equal(np.asarray(code[...]), small.arrays["one/block1@2/code"])
    assert code.attrs["decoded"] == "code * scale" and code.attrs["units"] == "steps of scale"


@pytest.mark.filterwarnings("error")
def test_xarray_walks_a_finished_cache_without_a_warning(small: SmallCache) -> None:
    xarray = pytest.importorskip("xarray")
    tree = xarray.open_datatree(small.path, engine="zarr", consolidated=True)
    assert {f"{group}/{name}".strip("/") for group in tree.groups for name in tree[group].data_vars} == ARRAYS
    pictures = xarray.open_dataset(small.path, engine="zarr", group="pictures", consolidated=True)
    np.testing.assert_array_equal(pictures["image"].values, small.arrays["image"])
    assert pictures["image"].dims == ("row", "y", "x", "rgb")
    assert pictures["mask"].attrs["flag_meanings"] == "none polyp record_without_mask"


def test_zarrita_reads_every_array(small: SmallCache) -> None:
    zarrita = pytest.importorskip("zarrita")
    store = zarrita.LocalStore(str(small.path))
    for key in ("one/block1@2/code", "one/block1@2/scale", "one/logits@2/code"):
        np.testing.assert_array_equal(zarrita.Array.open(store / f"teachers/{key}")[:], small.arrays[key])


def test_every_array_says_its_unit_and_its_meaning(small: SmallCache) -> None:
    for name in ARRAYS:
        attributes = json.loads((small.path / name / "zarr.json").read_text())["attributes"]
        assert attributes["long_name"] and attributes["units"], name


def test_a_cache_that_is_finished_again_is_not_touched(small: SmallCache) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.path.rglob("zarr.json")}
    finish(small.path)
    assert {path: path.stat().st_mtime_ns for path in small.path.rglob("zarr.json")} == before


def test_a_column_is_listed_once_it_is_finished(tmp_path: Path) -> None:
    part = write_small_cache(tmp_path / "part", leave_out=(0,))
    finish(part.path)
    assert listed(part.path) == {name for name in ARRAYS if not name.startswith("teachers")}


def test_a_cache_without_any_finished_column_has_none(tmp_path: Path) -> None:
    part = write_small_cache(tmp_path / "part", Shape(), leave_out=(0,))
    shutil.rmtree(part.path / "pictures" / "ticks")
    finish(part.path)
    assert "consolidated_metadata" not in json.loads((part.path / "zarr.json").read_text())


def test_who_drops_a_teacher_takes_it_out_of_all_lists(small: SmallCache) -> None:
    drop(small.path, "one")
    left = {name for name in ARRAYS if not name.startswith("teachers")}
    assert listed(small.path) == left
    assert verify(small.path).sound


def test_copies_and_imports_have_their_own(small: SmallCache, tmp_path: Path) -> None:
    copy(small.path, tmp_path / "copy", taps=["one/logits@2"], pictures=False)
    rows = {name for name in ARRAYS if name.startswith("rows")}
    assert listed(tmp_path / "copy") == {*rows, "teachers/one/logits@2/code"}
    export_hdf5(small.path, tmp_path / "feats.h5")
    import_hdf5(tmp_path / "feats.h5", tmp_path / "back")
    assert listed(tmp_path / "back") == ARRAYS


def test_a_basis_is_listed(tmp_path: Path) -> None:
    wide = write_small_cache(tmp_path / "wide", Shape(records=40, channels=128, grid=8, picture_px=16))
    finish(wide.path)
    copy(wide.path, tmp_path / "copy", codec="packed")
    arrays = {f"teachers/one/block1@2/basis{end}" for end in ("", "_step", "_bits", "_kept_variance")}
    assert arrays <= listed(tmp_path / "copy")
    assert verify(tmp_path / "copy").sound


@pytest.mark.parametrize("lie", ["shape", "gone", "nonsense"])
def test_verify_names_a_list_that_lies_and_repair_writes_it_whole(small: SmallCache, lie: str) -> None:
    path = small.path / "zarr.json"
    held = json.loads(path.read_text())
    if lie == "shape":
        held["consolidated_metadata"]["metadata"]["pictures/image"]["shape"][0] = 99
    elif lie == "gone":
        held["consolidated_metadata"]["metadata"]["teachers/two"] = {"zarr_format": 3, "node_type": "group"}
    else:
        held["consolidated_metadata"] = 7
    path.write_text(json.dumps(held))
    before = open_cache(small.path).gather([1])["image"]  # our reader does not look
    np.testing.assert_array_equal(before, small.arrays["image"][[1]])
    assert any("consolidated_metadata" in problem for problem in verify(small.path).problems)
    assert verify(small.path, repair=True).sound
    assert listed(small.path) == ARRAYS
