"""The table of rows, Zarr metadata and identities: verification names what is wrong, repair writes what follows anew."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from painted_folder import paint_folder
from small_cache import write_small_cache

from difom_cache import extract, finish, open_cache, verify
from difom_cache.errors import CacheDamagedError

SMALL = {"teacher": "dinov2:tiny@56", "weights": "random", "input_size": 64, "views": 3, "quiet": True}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = write_small_cache(tmp_path / "feats").path
    finish(path)
    assert verify(path).sound
    return path


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def rotate(path: Path) -> None:
    numbers = np.fromfile(path, np.int32)
    np.roll(numbers, 1).tofile(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0\0\0\0")


def fill_value(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fill_value": 7}))


def drop_byte_order(path: Path) -> None:
    held = json.loads(path.read_text())
    assert held["codecs"][0].pop("configuration") == {"endian": "little"}
    path.write_text(json.dumps(held))


def into_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def garble(path: Path) -> None:
    path.write_bytes(b"{" + bytes(20))


HARMS: list[tuple[str, Callable[[Path], None]]] = [
    ("rows/split/c.0", zero),
    ("rows/labelled/c.0", zero),
    ("rows/group/c.0", zero),
    ("rows/record/c.0", rotate),
    ("rows/view/c.0", rotate),
    ("rows/params/c.0.0", zero),
    ("rows/split/c.0", cut),
    ("rows/split/c.0", lengthen),
    ("rows/record/c.0", Path.unlink),
    ("rows/view/c.0", into_fifo),
    ("rows/split/zarr.json", Path.unlink),
    ("rows/params/zarr.json", fill_value),
    ("rows/view/zarr.json", drop_byte_order),
    ("rows/zarr.json", garble),
    ("zarr.json", garble),
    ("pictures/zarr.json", Path.unlink),
    ("teachers/zarr.json", garble),
    ("teachers/one/block1@2/zarr.json", Path.unlink),
    ("teachers/one/block1@2/code/zarr.json", fill_value),
    ("teachers/one/block1@2/scale/zarr.json", into_fifo),
    ("pictures/image/zarr.json", Path.unlink),
]


@pytest.mark.parametrize(("name", "harm"), HARMS)
def test_what_follows_from_identity_and_records_is_named_and_repaired(cache: Path, name: str, harm):
    digests, table = open_cache(cache).content_digests(), open_cache(cache).table
    before = {key: values.copy() for key, values in vars(table.as_rows()).items()}
    harm(cache / name)
    report = verify(cache)
    assert not report.sound
    assert str((cache / name).parent) in report.problems[0]
    assert "verify --repair" in report.problems[0]
    assert verify(cache, repair=True).sound
    assert open_cache(cache).content_digests() == digests
    for key, values in vars(open_cache(cache).table.as_rows()).items():
        np.testing.assert_array_equal(values, before[key])


def test_attributes_and_spelling_of_metadata_may_differ(cache: Path):
    for path in cache.rglob("zarr.json"):
        held = json.loads(path.read_text())
        held["attributes"] |= {"note": "looked at"}
        path.write_text(json.dumps(held))
    assert verify(cache).sound


def test_a_column_that_lost_its_identity_is_named(cache: Path):
    (cache / "teachers/one/identity.json").unlink()
    report = verify(cache)
    assert any(f"{cache}/teachers/one/identity.json: missing" in problem for problem in report.problems)


def test_other_records_are_named_and_cannot_be_repaired(cache: Path):
    records = cache / "records.csv"
    records.write_text(records.read_text().replace("set/3", "set/9"))
    assert "records.csv: its digest" in verify(cache).problems[0]
    with pytest.raises(CacheDamagedError, match=r"records\.csv: its digest"):
        verify(cache, repair=True)


def test_markers_of_blocks_that_do_not_exist_are_named(cache: Path):
    shutil.copy(cache / "pictures/ticks/000000.json", cache / "pictures/ticks/000000 (1).json")
    shutil.copy(cache / "pictures/ticks/000000.json", cache / "pictures/ticks/000099.json")
    report = verify(cache)
    assert [problem.partition(": ")[0].rpartition("/")[2] for problem in report.problems] == [
        "000000 (1).json",
        "000099.json",
    ]
    assert len(open_cache(cache).gather([0])["image"]) == 1


def test_the_next_extraction_restores_the_table_of_rows(tmp_path: Path):
    data = paint_folder(tmp_path / "data", frames=14)
    extract(data=data, cache=tmp_path / "feats", **SMALL)
    digests = open_cache(tmp_path / "feats").content_digests()
    for name in ("rows/split/c.0", "rows/params/c.0.0", "records.csv"):
        zero(tmp_path / "feats" / name)
    assert not verify(tmp_path / "feats").sound
    again = extract(data=data, cache=tmp_path / "feats", **SMALL)
    assert not again.computed_blocks
    assert verify(tmp_path / "feats").sound
    assert open_cache(tmp_path / "feats").content_digests() == digests
