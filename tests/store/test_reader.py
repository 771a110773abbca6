"""Reading a cache: batches that hold what was written, from any process, and clear words where something is not there."""

import multiprocessing
import pickle
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from small_cache import EMPTY_MASK_ROW, NO_MASK_ROW, ZERO_MAP_ROW, Shape, SmallCache, gathers_right, write_small_cache

from difom_cache import Cache, open_cache
from difom_cache.errors import CacheDamagedError, CacheFormatError, CacheIncompleteError
from difom_cache.store import require_teacher, write_damaged

TAP = "one/block1@2"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallCache:
    return write_small_cache(tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="module")
def cache(small: SmallCache) -> Cache:
    return open_cache(small.path)


def test_taps_and_sizes_are_those_of_the_identities(cache: Cache) -> None:
    assert list(cache.taps) == [TAP, "one/logits@2"]
    tap = cache.taps[TAP]
    assert (tap.kind, tap.channels, tap.grid, tap.stride, tap.codec) == ("feature", 3, 4, 2.0, "int8")
    assert (cache.picture_px, len(cache), list(cache.teachers)) == (8, 14, ["one"])


def test_gather_gives_rows_in_the_order_asked_for_with_repeats(small: SmallCache, cache: Cache) -> None:
    batch = cache.gather([5, 13, 5])
    np.testing.assert_array_equal(batch["image"], small.arrays["image"][[5, 13, 5]])
    np.testing.assert_array_equal(batch[f"{TAP}/scale"], small.arrays[f"{TAP}/scale"][[5, 13, 5]])


def test_an_empty_mask_is_all_zeros_and_an_absent_one_all_255(cache: Cache) -> None:
    empty, absent = cache.gather([EMPTY_MASK_ROW, NO_MASK_ROW], [])["mask"]
    assert (empty == 0).all() and (absent == 255).all()


def test_a_map_of_zeros_is_there_like_any_other(cache: Cache) -> None:
    batch = cache.gather([ZERO_MAP_ROW])
    assert not batch["image"].any() and not batch[f"{TAP}/code"].any()
    assert (cache.decode(TAP, batch[f"{TAP}/code"], batch[f"{TAP}/scale"]) == 0).all()


def test_everything_is_valid_where_the_plan_never_pads(cache: Cache, tmp_path: Path) -> None:
    assert (cache.gather([0, 9], [])["valid"] == np.ones((2, 8, 8))).all()
    padded = write_small_cache(tmp_path, Shape(pads=True))
    np.testing.assert_array_equal(open_cache(tmp_path).gather([9], [])["valid"], padded.arrays["valid"][[9]])


def test_only_the_taps_asked_for_are_given(cache: Cache) -> None:
    assert set(cache.gather([0], ["one/logits@2"])) == {"image", "mask", "valid", "one/logits@2/code"}
    assert set(cache.gather([0], [TAP], pictures=False)) == {f"{TAP}/code", f"{TAP}/scale"}
    assert set(cache.gather([0], [])) == {"image", "mask", "valid"}


def test_out_is_filled_and_returned(small: SmallCache, cache: Cache) -> None:
    out = {key: np.full((4, *value.shape[1:]), 99, value.dtype) for key, value in cache.gather([0]).items()}
    batch = cache.gather([2, 1, 7], out=out)
    for key, whole in small.arrays.items():
        np.testing.assert_array_equal(out[key][:3], whole[[2, 1, 7]])
        assert (out[key][3] == 99).all(), "rows beyond the batch are not touched"
        assert np.shares_memory(batch[key], out[key])
    assert (out["valid"][:3] == 1).all()


@pytest.mark.parametrize("how", ["map", "read", "zarr"])
@pytest.mark.parametrize("unfit", [((2, 3, 4, 5), np.int8), ((1, 3, 4, 4), np.int8), ((2, 3, 4, 4), np.uint8)])
def test_an_out_that_does_not_fit_is_refused_by_name(small: SmallCache, how: str, unfit: tuple[Any, Any]) -> None:
    cache = open_cache(small.path, access=how)
    out = cache.gather([0, 1], [TAP], pictures=False) | {f"{TAP}/code": np.full(unfit[0], 99, unfit[1])}
    with pytest.raises(ValueError, match=rf"out\['{TAP}/code'\] is .*expected .*\(2, 3, 4, 4\) int8"):
        cache.gather([0, 1], [TAP], out=out, pictures=False)
    assert (out[f"{TAP}/code"] == 99).all()


def test_decoding_gives_feature_units_for_arrays_and_tensors(small: SmallCache, cache: Cache) -> None:
    batch = cache.gather([3, 8], [TAP], pictures=False)
    code, scale = batch[f"{TAP}/code"], batch[f"{TAP}/scale"]
    target = cache.decode(TAP, code, scale)
    np.testing.assert_array_equal(target, code.astype(np.float32) * scale[:, :, None, None])
    np.testing.assert_array_equal(cache.decode(TAP, torch.from_numpy(code), torch.from_numpy(scale)).numpy(), target)


@pytest.mark.parametrize("rows", [[14], [-1], [0, 99]])
def test_a_row_beyond_the_cache_is_refused_with_its_bounds(cache: Cache, rows: list[int]) -> None:
    with pytest.raises(CacheIncompleteError, match="has rows 0 to 13; asked for"):
        cache.gather(rows)


def test_an_unknown_tap_is_refused_and_the_nearest_named(cache: Cache) -> None:
    for ask in (lambda: cache.gather([0], ["one/block2@2"]), lambda: cache.stats("one/block2@2")):
        with pytest.raises(CacheIncompleteError, match=r"no tap 'one/block2@2'; did you mean 'one/block1@2'\?"):
            ask()


def test_an_unknown_teacher_is_refused_and_the_nearest_named(cache: Cache) -> None:
    with pytest.raises(CacheFormatError, match="no teacher 'ones'"):
        require_teacher(cache, "ones")


def test_a_view_that_is_not_there_yet_is_an_error_that_counts_what_is_missing(tmp_path: Path) -> None:
    write_small_cache(tmp_path, leave_out=(1, 3))
    cache = open_cache(tmp_path)
    with pytest.raises(
        CacheIncompleteError, match=r"teachers/one: block 1 \(row 6\) is not there, one of 2 missing of 4"
    ):
        cache.gather([0, 6])
    assert cache.finished_rows([TAP]).tolist() == [True] * 4 + [False] * 4 + [True] * 4 + [False] * 2
    assert cache.finished_rows([]).all()


def test_blocks_that_verify_found_damaged_are_refused_and_others_read(tmp_path: Path) -> None:
    write_small_cache(tmp_path)
    write_damaged(tmp_path, {"teachers/one": [2]})
    cache = open_cache(tmp_path)
    cache.gather([0, 4])
    with pytest.raises(CacheDamagedError, match=r"block 2 \(row 8\) is damaged; `difom-cache extract`"):
        cache.gather([0, 8])
    assert not cache.finished_rows()[8]


def test_a_damaged_list_that_cannot_be_read_stops_reading(tmp_path: Path) -> None:
    write_small_cache(tmp_path)
    (tmp_path / "damaged.json").write_text("{")
    with pytest.raises(CacheDamagedError, match=r"damaged\.json cannot be read"):
        open_cache(tmp_path).gather([0])


def test_a_read_only_cache_is_read(tmp_path: Path) -> None:
    small = write_small_cache(tmp_path / "cache")
    for path in [small.path, *small.path.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    np.testing.assert_array_equal(open_cache(small.path).gather([7])["image"], small.arrays["image"][[7]])
    for path in [small.path, *small.path.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_zarr_python_reads_every_array_with_no_code_of_ours(small: SmallCache) -> None:
    group = zarr.open_group(small.path, mode="r")
    keys = {"image": "pictures/image", "mask": "pictures/mask"}
    for key, whole in small.arrays.items():
        array = group[keys.get(key, f"teachers/{key}")]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(np.asarray(array[...]), whole, err_msg=key)
        assert array.metadata.dimension_names[0] == "row"
    np.testing.assert_array_equal(np.asarray(group["rows/view"][...]), open_cache(small.path).table.view)
    assert group["rows/params"].attrs["param_names"][:4] == ["top", "left", "height", "width"]


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_tensorstore_reads_every_array_with_no_code_of_ours(tmp_path: Path, compression: str) -> None:
    tensorstore = pytest.importorskip("tensorstore")
    small = write_small_cache(tmp_path, Shape(compression=compression))
    keys = {"image": "pictures/image", "mask": "pictures/mask"}
    for key, whole in small.arrays.items():
        path = f"{tmp_path}/{keys.get(key, f'teachers/{key}')}"
        array = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}).result()
        np.testing.assert_array_equal(array.read().result(), whole, err_msg=key)
        assert array.domain.labels[0] == "row"


@pytest.mark.parametrize("how", ["map", "read", "zarr"])
def test_threads_share_one_cache_that_none_of_them_has_opened_before(small: SmallCache, how: str) -> None:
    shared, start = open_cache(small.path, access=how), threading.Barrier(4)

    def work(seed: int) -> bool:
        start.wait()
        return gathers_right(shared, small.arrays, seed)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking beside threads is what is tried here
@pytest.mark.parametrize("how", ["map", "read", "zarr"])
def test_a_forked_worker_goes_on_with_what_its_parent_had_open(small: SmallCache, how: str) -> None:
    shared = open_cache(small.path, access=how)
    shared.gather([0, 13])
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        assert all(pool.map(gathers_right, [shared] * 2, [small.arrays] * 2, range(2)))
    context = multiprocessing.get_context("fork")
    child = context.Process(target=lambda: sys.exit(not gathers_right(shared, small.arrays, 0)))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert gathers_right(shared, small.arrays, 1)


def test_a_spawned_worker_opens_the_cache_that_it_was_sent(small: SmallCache) -> None:
    shared = [open_cache(small.path, access=how) for how in ("map", "read", "zarr")]
    for cache in shared:
        cache.gather([0])
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert all(pool.map(gathers_right, shared, [small.arrays] * 3, range(3)))


def test_a_cache_travels_as_its_path(small: SmallCache, cache: Cache) -> None:
    copy = pickle.loads(pickle.dumps(cache))
    assert len(pickle.dumps(cache)) < 400
    np.testing.assert_array_equal(copy.gather([3])["image"], small.arrays["image"][[3]])
