"""A cache in a training loop of one's own: items and batches are what the cache holds, in every process."""

import pickle

import numpy as np
import pytest
import torch
from small_cache import EMPTY_MASK_ROW, NO_MASK_ROW, Shape, write_small_cache
from torch.utils.data import DataLoader, Subset

from difom_cache import open_cache
from difom_cache.errors import CacheIncompleteError, SettingsError
from difom_train import CacheDataset, CacheLoader
from difom_train.data import keys_of

FEATURE, LOGITS = "one/block1@2", "one/logits@2"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small_cache(tmp_path_factory.mktemp("small") / "feats")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Compressed shards go through zarr-python, whose threads do not live on in a fork."""
    return write_small_cache(tmp_path_factory.mktemp("packed") / "feats", Shape(compression="zstd"))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[key])), key


def decoded(small, rows):
    return small.arrays[f"{FEATURE}/code"][rows].astype("f4") * small.arrays[f"{FEATURE}/scale"][rows][:, :, None, None]


def test_an_item_is_what_the_row_holds(small):
    data = CacheDataset(small.path, split=None)
    assert len(data) == small.rows and data.rows.tolist() == list(range(small.rows))
    item = data[9]
    assert {key: tuple(value.shape) for key, value in item.items()} == {
        **{"row": (), "labelled": (), "image": (3, 8, 8), "mask": (8, 8), "valid": (8, 8)},
        **{f"{FEATURE}/code": (3, 4, 4), f"{FEATURE}/scale": (3,), f"{LOGITS}/code": (1, 4, 4)},
    }
    assert item["row"] == 9 and item["labelled"]
    assert torch.equal(
        (item["image"] * 255).round().byte(), torch.from_numpy(small.arrays["image"][9].transpose(2, 0, 1))
    )
    assert item["valid"].all()
    for key in ("mask", f"{FEATURE}/code", f"{FEATURE}/scale", f"{LOGITS}/code"):
        assert np.array_equal(item[key], small.arrays[key][9]), key


def test_a_missing_mask_is_no_empty_one(small):
    data = CacheDataset(small.path, split=None, taps=())
    assert not data[NO_MASK_ROW]["labelled"] and (data[NO_MASK_ROW]["mask"] == 255).all()
    assert data[EMPTY_MASK_ROW]["labelled"] and (data[EMPTY_MASK_ROW]["mask"] == 0).all()
    resized = CacheDataset(small.path, split=None, taps=(), input_px=4)[NO_MASK_ROW]
    assert (resized["mask"] == 255).all() and resized["mask"].shape == (4, 4)


def test_features_can_be_decoded_and_pictures_kept_as_bytes(small):
    item = CacheDataset(small.path, split="val", taps=(FEATURE,), decode=True, floats=False)[1]
    assert set(item) == {"row", "labelled", "image", "mask", "valid", FEATURE}
    assert item["image"].dtype == torch.uint8 and item["image"].is_contiguous()
    np.testing.assert_allclose(item[FEATURE], decoded(small, [int(item["row"])])[0], rtol=1e-6)
    assert set(CacheDataset(small.path, taps=(FEATURE,), pictures=False)[0]) == {
        *("row", "labelled", f"{FEATURE}/code", f"{FEATURE}/scale")
    }


def test_rows_are_chosen_by_split_view_and_mask(small):
    table = open_cache(small.path).table
    for options, expected in (
        ({"split": "train"}, table.split == 0),
        ({"split": "val", "view": 0}, (table.split == 1) & (table.view == 0)),
        ({"split": "train", "view": 1}, (table.split == 0) & (table.view == 1)),
        ({"split": "train", "labelled": True}, (table.split == 0) & (table.labelled > 0)),
        ({"split": None, "labelled": False}, table.labelled == 0),
        ({"split": "test"}, np.zeros(small.rows, bool)),
    ):
        assert CacheDataset(small.path, taps=(), **options).rows.tolist() == np.flatnonzero(expected).tolist(), options


def test_indices_end_where_the_items_end(small):
    data = CacheDataset(small.path, split="val", taps=())
    assert [int(item["row"]) for item in data] == data.rows.tolist()
    assert int(data[-1]["row"]) == data.rows[-1]
    with pytest.raises(IndexError):
        data[len(data)]


def test_several_caches_are_read_as_one(small, packed):
    both = CacheDataset([small.path, open_cache(packed.path)], split=None, taps=(LOGITS,))
    assert len(both) == small.rows + packed.rows
    assert np.array_equal(both[small.rows + 2][f"{LOGITS}/code"], packed.arrays[f"{LOGITS}/code"][2])


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # a machine of one core says so
@pytest.mark.parametrize("cache", ["small", "packed"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_give_what_the_process_itself_gives(cache, workers, start, request):
    if workers == 0 and start == "spawn":
        pytest.skip("without workers none is started")
    data = CacheDataset(request.getfixturevalue(cache).path, split=None)
    expected = [data[place] for place in range(len(data))]  # the parent has read before it forks
    loader = DataLoader(data, batch_size=4, num_workers=workers, multiprocessing_context=start if workers else None)
    items = [{key: value[i] for key, value in batch.items()} for batch in loader for i in range(len(batch["row"]))]
    assert len(items) == len(expected)
    for one, other in zip(items, expected, strict=True):
        assert_same(one, other)


def test_a_batch_is_gathered_at_once(small, monkeypatch):
    data = CacheDataset(small.path, split=None)
    asked = []
    gather = data.cache.gather
    monkeypatch.setattr(
        data.cache, "gather", lambda rows, *args, **kw: (asked.append(len(rows)), gather(rows, *args, **kw))[1]
    )
    assert [len(batch["row"]) for batch in DataLoader(Subset(data, range(7)), batch_size=4)] == [4, 3]
    assert asked == [4, 3]


def test_a_pickle_is_small_and_gives_the_same_items(small):
    data = CacheDataset(small.path, split="train")
    kept = pickle.dumps(data)
    assert len(kept) < 2000 + data.rows.nbytes
    assert_same(pickle.loads(kept)[3], data[3])


def test_items_go_to_a_device_from_the_process_itself_alone(small):
    data = CacheDataset(small.path, taps=(FEATURE,), device="meta", pictures=False, decode=False)
    assert data[0][f"{FEATURE}/code"].device.type == "meta"
    loader = DataLoader(data, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(SettingsError, match="use num_workers=0"):
        next(iter(loader))


@pytest.mark.parametrize("kind", [CacheDataset, CacheLoader])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": "trian"}, SettingsError, "no split 'trian'; did you mean 'train'"),
        ({"taps": ["one/block1@3"]}, CacheIncompleteError, "no tap 'one/block1@3'; did you mean 'one/block1@2'"),
        ({"input_px": 0}, SettingsError, "input_px is 0"),
        ({"input_px": 16, "floats": False}, SettingsError, "only float pictures are resized"),
    ],
)
def test_what_does_not_exist_is_one_line(small, kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(small.path, **options)


@pytest.mark.parametrize("kind", [CacheDataset, CacheLoader])
def test_unfinished_rows_are_refused_before_the_first_batch(tmp_path, kind):
    part = write_small_cache(tmp_path / "part", leave_out=(0,)).path
    with pytest.raises(CacheIncompleteError, match="4 of 12 views are not finished"):
        kind(part)
    assert len(kind(part, taps=())) > 0  # the pictures are all there


def test_batches_are_those_of_a_data_loader(small):
    data = CacheDataset(small.path, split="val", view=0)
    for batch, other in zip(
        CacheLoader(small.path, split="val", batch_size=2), DataLoader(data, batch_size=2), strict=True
    ):
        assert_same(batch, other)


def test_an_epoch_visits_every_record_once_and_the_next_one_differs(small):
    table = open_cache(small.path).table
    loader = CacheLoader(small.path, batch_size=3, taps=())
    assert len(loader) == 2
    epochs = [torch.cat([batch["row"] for batch in loader]).tolist() for _ in range(3)]
    assert loader.epoch == 3
    assert all(sorted(table.record[rows].tolist()) == list(range(6)) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 3
    loader.epoch = 1
    assert torch.cat([batch["row"] for batch in loader]).tolist() == epochs[1]
    every = CacheLoader(small.path, batch_size=3, taps=(), all_views=True)
    assert sorted(torch.cat([batch["row"] for batch in every]).tolist()) == list(range(12))


def test_batches_that_are_kept_stay_as_they_were_unless_buffers_are_asked_for(small):
    def differences(**options):
        loader = CacheLoader(small.path, batch_size=2, all_views=True, stage="disk", **options)
        held = list(loader)
        loader.epoch = 0
        return sum(
            not torch.equal(a[f"{FEATURE}/code"], b[f"{FEATURE}/code"].clone())
            for a, b in zip(held, loader, strict=True)
        )

    assert differences() == 0
    assert differences(reuse=True) > 0


def test_two_passes_at_once_do_not_disturb_each_other(small):
    loader = CacheLoader(small.path, batch_size=2, split="val")
    for one, other in zip(loader, loader, strict=True):
        assert_same(one, other)


def test_masks_outside_of_the_budget_are_never_shown(small):
    loader = CacheLoader(small.path, batch_size=6, taps=(), labels=0.5, all_views=True)
    shown = list(loader)
    labelled = torch.cat([batch["labelled"] for batch in shown])
    masks = torch.cat([batch["mask"] for batch in shown])
    assert 0 < labelled.sum() < len(labelled)
    assert (masks[~labelled] == 255).all() and (masks[labelled] <= 1).all()
    only = CacheLoader(small.path, batch_size=6, taps=(), labels=0.5, labelled_only=True)
    assert all(batch["labelled"].all() for batch in only)


def test_processes_share_an_epoch(small):
    table = open_cache(small.path).table
    parts = [CacheLoader(small.path, batch_size=3, taps=(), rank=rank, world=2) for rank in (0, 1)]
    rows = [torch.cat([batch["row"] for batch in part]).tolist() for part in parts]
    assert sorted(table.record[rows[0] + rows[1]].tolist()) == list(range(6))
    val = [CacheLoader(small.path, split="val", taps=(), rank=rank, world=2) for rank in (0, 1)]
    assert sorted(int(batch["row"]) for part in val for batch in part) == [12, 13]


def test_an_order_is_the_trainers_own(small):
    """Counted from record names alone, as every run of this seed does."""
    table = open_cache(small.path).table
    first = [int(row) for batch in CacheLoader(small.path, batch_size=6, taps=(), seed=7) for row in batch["row"]]
    again = [int(row) for batch in CacheLoader(small.path, batch_size=6, taps=(), seed=7) for row in batch["row"]]
    assert first == again and len(set(keys_of(table.ids))) == len(table.ids)
    assert first != [
        int(row) for batch in CacheLoader(small.path, batch_size=6, taps=(), seed=8) for row in batch["row"]
    ]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_reach_a_gpu(small):
    for stage in ("disk", "gpu"):
        on_gpu = CacheLoader(small.path, split="val", batch_size=2, device="cuda", stage=stage, decode=True)
        for batch, other in zip(on_gpu, CacheLoader(small.path, split="val", batch_size=2, decode=True), strict=True):
            assert batch["image"].device.type == "cuda"
            assert_same({key: value.cpu() for key, value in batch.items()}, other)
