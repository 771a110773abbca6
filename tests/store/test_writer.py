"""Writing: skeletons that say what will be there, blocks that are whole, and whose marker comes last."""

import csv
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from small_cache import (
    Shape,
    draw_arrays,
    identity_of,
    pictures_identity,
    start_small_cache,
    teacher_identity,
    write_small_block,
    write_small_cache,
)

from difom_cache import open_cache
from difom_cache.base.atomic import digest_file
from difom_cache.errors import CacheIdentityError, CacheSpaceError
from difom_cache.store import (
    CacheIdentity,
    Column,
    PicturesIdentity,
    RowTable,
    TeacherIdentity,
    create_cache,
    create_column,
    format_records,
    read_identity,
    read_markers,
    shard_path,
    write_block,
    write_constant,
    writer,
)
from difom_cache.views import COLUMNS


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_records_are_a_csv_in_the_order_of_the_rows() -> None:
    line = {
        "id": 'set/a "b", c',
        "dataset": "set",
        "split": "train",
        "group": "",
        "labelled": 1,
        "width": 3,
        "height": 2,
    }
    formatted = format_records([line | {"image_sha256": "a", "mask_sha256": ""}])
    (read,) = csv.DictReader(formatted.decode().splitlines())
    assert read["id"] == 'set/a "b", c'
    assert list(read) == [
        "id",
        "dataset",
        "split",
        "group",
        "labelled",
        "width",
        "height",
        "image_sha256",
        "mask_sha256",
    ]


def test_an_identity_comes_before_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    link = os.link

    def watch(source: Path, target: Path) -> None:
        order.append(str(Path(target).relative_to(tmp_path)))
        link(source, target)

    monkeypatch.setattr(os, "link", watch)
    write_small_cache(tmp_path)
    assert order[0] == "identity.json"
    for folder in ("pictures/", "teachers/one/"):
        below = [name for name in order if name.startswith(folder) and not name.endswith("zarr.json")]
        assert below[0] == f"{folder}identity.json"


def test_the_marker_of_a_block_is_published_after_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = start_small_cache(tmp_path)["teachers/one"]
    order: list[str] = []
    link = os.link

    def watch(source: Path, target: Path) -> None:
        order.append(str(Path(target).relative_to(tmp_path / "teachers/one")))
        link(source, target)

    monkeypatch.setattr(os, "link", watch)
    write_small_block(tmp_path, column, 2, draw_arrays(), 12)
    assert order == [
        "block1@2/code/c.2.0.0.0",
        "block1@2/scale/c.2.0",
        "logits@2/code/c.2.0.0.0",
        "moments/000002.safetensors",
        "ticks/000002.json",
    ]


def test_writing_everything_twice_changes_nothing(tmp_path: Path) -> None:
    write_small_cache(tmp_path)
    before = contents(tmp_path)
    write_small_cache(tmp_path)
    assert contents(tmp_path) == before


def test_two_caches_of_one_content_are_equal_byte_by_byte(tmp_path: Path) -> None:
    write_small_cache(tmp_path / "one")
    write_small_cache(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_what_another_writer_left_without_a_marker_is_withdrawn(tmp_path: Path) -> None:
    column, arrays = start_small_cache(tmp_path)["pictures"], draw_arrays()
    write_small_block(tmp_path, column, 0, arrays, 12)
    (tmp_path / "pictures/ticks/000000.json").unlink()
    other = draw_arrays(seed=1)
    marker = write_block(tmp_path, column, 0, {"image": other["image"][:4], "mask": other["mask"][:4]})
    assert read_markers(tmp_path, column)[0] == marker
    np.testing.assert_array_equal(open_cache(tmp_path).gather([0], [])["image"], other["image"][:1])


def test_a_block_that_another_writer_has_finished_stays_as_it_is(tmp_path: Path) -> None:
    column, arrays = start_small_cache(tmp_path)["pictures"], draw_arrays()
    write_small_block(tmp_path, column, 0, arrays, 12)
    before, other = contents(tmp_path), draw_arrays(seed=1)
    write_block(tmp_path, column, 0, {"image": other["image"][:4], "mask": other["mask"][:4]})
    assert contents(tmp_path) == before


def write_as(path: Path, column: Column, seed: int, *, stop_after: int | None = None) -> int:
    """Write block 0 of the teacher in another process, from numbers of its own; return its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        if stop_after is not None:
            publish, left = writer.publish_once, [stop_after]

            def publish_some(*arguments: Any) -> Any:
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return publish(*arguments)

            writer.publish_once = publish_some
        write_small_block(path, column, 0, draw_arrays(seed=seed), 12)
        code = 0
    finally:
        os._exit(code)


def written_by(path: Path, column: Column, block: int, seeds: list[int]) -> list[int]:
    """Return the seeds whose numbers lie in a block: one, where it is whole."""
    start, stop = column.range_of(block)
    batch = open_cache(path).gather(np.arange(start, stop), pictures=False)
    drawn = {seed: draw_arrays(seed=seed) for seed in seeds}
    return [s for s in seeds if all(np.array_equal(batch[name], drawn[s][name][start:stop]) for name in batch)]


@pytest.mark.parametrize("first", range(5))
@pytest.mark.parametrize("second", [0, 2, 4])
def test_writers_of_other_bytes_that_are_killed_between_arrays_leave_no_mixture(
    tmp_path: Path, first: int, second: int
) -> None:
    column = start_small_cache(tmp_path)["teachers/one"]
    assert write_as(tmp_path, column, 1, stop_after=first) in (-signal.SIGKILL, 0)
    assert write_as(tmp_path, column, 2, stop_after=second) in (-signal.SIGKILL, 0)
    assert write_as(tmp_path, column, 3) == 0
    assert read_markers(tmp_path, column)[0].files == {
        array.path: digest_file(shard_path(tmp_path, column, array, 0)) for array in column.arrays
    }
    assert len(written_by(tmp_path, column, 0, [1, 2, 3])) == 1


def test_two_writers_of_other_bytes_at_once_leave_no_mixture(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / str(number)
        column = start_small_cache(path)["teachers/one"]
        children = []
        for seed in (1, 2):
            children.append(os.fork())
            if not children[-1]:
                code = 1
                try:
                    for block in range(column.blocks):
                        write_small_block(path, column, block, draw_arrays(seed=seed), 12)
                    code = 0
                finally:
                    os._exit(code)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        for block in range(column.blocks):
            assert len(written_by(path, column, block, [1, 2])) == 1


def write_held_block(path: Path, column: Column, arrays: dict[str, Any], identity: dict[str, Any]) -> None:
    """Write block 0 of the teacher of a small cache, which was computed under `identity`."""
    rows = slice(*column.range_of(0))
    write_block(path, column, 0, {a.path: arrays[f"one/{a.path}"][rows] for a in column.arrays}, identity=identity)


@pytest.mark.parametrize("moment", ["write_marker", "encode_shard"])
def test_a_block_whose_column_is_dropped_while_it_is_written_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    column = start_small_cache(tmp_path)["teachers/one"]
    identity = read_identity(tmp_path / "teachers/one", TeacherIdentity)
    whole = getattr(writer, moment)

    def drop_first(*arguments: Any) -> Any:
        if (tmp_path / "teachers/one/identity.json").exists():
            (tmp_path / "teachers/one").rename(tmp_path / "away")
        return whole(*arguments)

    monkeypatch.setattr(writer, moment, drop_first)
    with pytest.raises(
        CacheIdentityError, match=r"teachers/one was dropped while this run .* run the same command again"
    ):
        write_held_block(tmp_path, column, draw_arrays(), identity)
    assert not (tmp_path / "teachers/one").exists()


def test_a_block_of_a_column_that_was_begun_anew_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    column = start_small_cache(tmp_path)["teachers/one"]
    identity = read_identity(tmp_path / "teachers/one", TeacherIdentity)
    before = contents(tmp_path)
    with pytest.raises(CacheIdentityError, match=r"teachers/one was dropped and begun anew while this run"):
        write_held_block(tmp_path, column, draw_arrays(), identity.changed(batch=77))
    assert contents(tmp_path) == before
    write_held_block(tmp_path, column, draw_arrays(), identity)
    assert list(read_markers(tmp_path, column)) == [0]


@pytest.mark.parametrize(
    "rows", [np.zeros((3, 8, 8, 3), np.uint8), np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8, 3), np.float32)]
)
def test_arrays_that_are_not_those_of_the_column_are_refused(tmp_path: Path, rows: np.ndarray) -> None:
    column = start_small_cache(tmp_path)["pictures"]
    with pytest.raises(ValueError, match="image: got"):
        write_block(tmp_path, column, 0, {"image": rows, "mask": np.zeros((4, 8, 8), np.uint8)})
    assert not (tmp_path / "pictures/ticks").exists()


def test_a_block_that_does_not_fit_on_the_disk_is_not_markered_and_is_written_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column, write, written_bytes = start_small_cache(tmp_path)["teachers/one"], os.write, 0

    def fill_up(descriptor: int, part: memoryview) -> int:
        nonlocal written_bytes
        if written_bytes + len(part) > 300:
            raise OSError(28, "injected")
        written_bytes += len(part)
        return write(descriptor, part)

    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "write", fill_up)
        with pytest.raises(CacheSpaceError, match=r"scale/c\.0\.0: No space left on device\. What is finished is safe"):
            write_small_block(tmp_path, column, 0, draw_arrays(), 12)
    assert read_markers(tmp_path, column) == {}
    assert not list(tmp_path.rglob(".tmp-*"))
    write_small_block(tmp_path, column, 0, draw_arrays(), 12)
    assert sorted(read_markers(tmp_path, column)) == [0]


def test_another_cache_is_refused_before_a_byte_of_it_is_written(tmp_path: Path) -> None:
    start_small_cache(tmp_path)
    before = contents(tmp_path)
    rows = RowTable(*[np.zeros(14, np.int32)] * 5, np.zeros((14, len(COLUMNS)), np.int32))
    with pytest.raises(CacheIdentityError, match=r"plan\.seed: held 0, this run 3"):
        create_cache(tmp_path, CacheIdentity.build(**identity_of(plan=identity_of()["plan"] | {"seed": 3})), b"", rows)
    assert contents(tmp_path) == before


def test_a_column_carries_zarr_groups_all_the_way_up(tmp_path: Path) -> None:
    start_small_cache(tmp_path)
    for folder in (".", "rows", "pictures", "teachers", "teachers/one", "teachers/one/block1@2"):
        assert json.loads((tmp_path / folder / "zarr.json").read_text())["node_type"] == "group"


def test_a_skeleton_that_was_killed_half_way_is_completed(tmp_path: Path) -> None:
    column = start_small_cache(tmp_path)["teachers/one"]
    whole = contents(tmp_path)
    for name in ("teachers/one/zarr.json", "teachers/one/block1@2/code/zarr.json", "rows/params/c.0.0", "records.csv"):
        (tmp_path / name).unlink()
    start_small_cache(tmp_path)
    create_column(tmp_path, column, TeacherIdentity.build(**teacher_identity()))
    assert contents(tmp_path) == whole


def test_a_constant_is_a_plain_array_for_any_reader(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_constant(tmp_path / "basis", values, ("channel", "direction"))
    np.testing.assert_array_equal(np.asarray(zarr.open_array(tmp_path / "basis", mode="r")[...]), values)


def test_a_last_block_of_one_row_reads_back(tmp_path: Path) -> None:
    shape = Shape(records=5, block_rows=11)
    small = write_small_cache(tmp_path, shape)
    assert small.columns["pictures"].range_of(1) == (11, 12)
    np.testing.assert_array_equal(open_cache(tmp_path).gather([11])["image"], small.arrays["image"][[11]])


@pytest.mark.parametrize(("umask", "file_mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_follow_the_umask_and_pictures_are_for_the_group_at_most(
    tmp_path: Path, umask: int, file_mode: int
) -> None:
    before = os.umask(umask)
    try:
        small = write_small_cache(tmp_path / "feats")
        create_column(
            tmp_path / "public", small.columns["pictures"], PicturesIdentity.build(**pictures_identity()), public=True
        )
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in small.path.rglob("*") if path.is_file()} == {file_mode}
    assert (small.path / "pictures").stat().st_mode & 0o777 == 0o750 & ~umask
    assert (small.path / "teachers").stat().st_mode & 0o777 == 0o777 & ~umask
    assert (tmp_path / "public" / "pictures").stat().st_mode & 0o777 == 0o777 & ~umask
