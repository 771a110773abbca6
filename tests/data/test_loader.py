"""Batches come in order, from buffers that are used again, with what goes wrong told to who waits."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from difom_cache.errors import CacheIncompleteError, SettingsError
from difom_cache.store import TapSpec
from difom_train.data import PICTURES, DataTimer, JointCache, Loader, choose_stage

TAP = TapSpec("a/x@16", "feature", 4, 2, 16, "float16")
CPU = torch.device("cpu")
GROUPS = [PICTURES, TAP.name]


@pytest.fixture
def joint(make_cache):
    return JointCache([make_cache(records=20, taps={TAP.name: TAP})])


def stage_of(joint, wanted="disk", used=None):
    used = np.arange(len(joint)) if used is None else used
    return choose_stage(wanted, joint, used=used, groups=GROUPS, device=CPU)


def read_all(loader, table, groups=GROUPS):
    return [{key: each.clone() for key, each in batch.tensors.items()} for batch in loader.batches(table, groups)]


@pytest.mark.parametrize("wanted", ["disk", "ram"])
def test_batches_hold_the_rows_asked_for_in_order(joint, wanted):
    table = np.random.default_rng(0).integers(0, len(joint), (7, 4))
    batches = read_all(Loader(stage_of(joint, wanted), 4, CPU), table)
    assert len(batches) == 7
    for rows, batch in zip(table, batches, strict=True):
        for key, array in joint.gather(rows, [TAP.name]).items():
            assert np.array_equal(batch[key].numpy(), array), key


def test_last_batch_may_be_shorter(joint):
    batches = read_all(Loader(stage_of(joint), 4, CPU), [np.arange(4), np.arange(3)])
    assert [len(batch["image"]) for batch in batches] == [4, 3]


def test_only_what_is_asked_for_is_read(joint):
    (batch,) = read_all(Loader(stage_of(joint), 4, CPU), [np.arange(4)], [PICTURES])
    assert batch.keys() == {"image", "mask", "valid"}


def test_buffers_are_used_again(joint):
    loader = Loader(stage_of(joint), 4, CPU)
    seen = {batch.tensors["image"].data_ptr() for batch in loader.batches([np.arange(4)] * 10, GROUPS)}
    assert len(seen) <= 3


def test_error_in_the_thread_is_raised_where_batches_are_taken(make_cache):
    cache = make_cache(taps={TAP.name: TAP})
    joint = JointCache([cache])
    loader = Loader(stage_of(joint), 4, CPU)
    cache.finished[9] = False
    batches = loader.batches([np.arange(4), np.array([9])], GROUPS)
    next(batches)
    with pytest.raises(CacheIncompleteError):
        next(batches)


def test_thread_ends_with_the_iterator(joint):
    batches = Loader(stage_of(joint), 4, CPU).batches([np.arange(4)] * 50, GROUPS)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gather")]


def test_waiting_is_measured(joint, monkeypatch):
    stage = stage_of(joint)
    fill = stage.fill

    def slow(*arguments):
        time.sleep(0.05)
        fill(*arguments)

    monkeypatch.setattr(stage, "fill", slow)
    timer = DataTimer()
    for _ in Loader(stage, 4, CPU).batches([np.arange(4)] * 8, GROUPS, timer):
        pass
    assert timer.wait_s > 0.1 and 0.5 < timer.frac <= 1


def test_stage_says_what_it_decided(joint):
    assert stage_of(joint, "auto").line.startswith("stage: disk, 36 views of ")
    assert stage_of(joint, "ram").line.startswith("stage: ram, 36 views")


def test_ram_holds_what_fits(joint, monkeypatch):
    monkeypatch.setattr("difom_train.data.stage._free_ram_bytes", lambda: 36 * 40 * 2)
    stage = stage_of(joint, "ram")
    assert set(stage.held) == {TAP.name}  # 32 bytes a row; the pictures' 5120 do not fit
    (batch,) = read_all(Loader(stage, 4, CPU), [np.arange(4)])
    assert np.array_equal(batch["image"].numpy(), joint.gather(np.arange(4), [])["image"])


def test_only_used_rows_are_held(joint):
    used = np.array([3, 5, 8])
    stage = stage_of(joint, "ram", used)
    assert len(stage.held[PICTURES]["image"]) == 3
    (batch,) = read_all(Loader(stage, 4, CPU), [np.array([8, 3])])
    assert np.array_equal(batch["image"].numpy(), joint.gather(np.array([8, 3]), [])["image"])


def test_gpu_stage_without_gpu_is_refused(joint):
    with pytest.raises(SettingsError, match="--stage gpu needs a CUDA device"):
        stage_of(joint, "gpu")


def test_buffers_wait_for_the_copies_of_the_gpu_that_they_go_to(joint, monkeypatch):
    """An event on another GPU's stream is over at once, and the buffer would be refilled while it is being copied."""
    recorded = []
    loader = Loader(stage_of(joint), 4, CPU)
    read_all(loader, [np.arange(4)])  # the buffers are there, and need no pinned memory
    event = SimpleNamespace(record=lambda stream=None: recorded.append(stream), synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_, **__: tensor)
    monkeypatch.setattr(loader, "_device", torch.device("cuda:1"))
    assert len(list(loader.batches([np.arange(4)] * 2, GROUPS))) == 2
    assert recorded == ["stream of cuda:1"] * 2
