"""The reading bench measures every way on one cache, and says what it measured."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks.loader import bench_loader
from benchmarks.options import LoaderConfig
from benchmarks.peers import PEERS


@pytest.fixture(scope="module")
def speeds(tmp_path_factory):
    return bench_loader(LoaderConfig(folder=tmp_path_factory.mktemp("bench"), size_gb=0.01, batch_size=4, seconds=0.1))


def test_every_way_is_measured(speeds):
    peers = {peer.name for peer in PEERS if peer.is_here} | ({"tensorstore"} if find_spec("tensorstore") else set())
    assert peers <= speeds.samples_per_s.keys()
    assert speeds.samples_per_s.keys() - peers == {
        "memcpy",
        "NumPy's take from one mapped file",
        "the same as one take an array",
        "gather",
        "difom_train's loader",
        "zarr-python, row by row",
        "zarr-python, a batch at a time",
        "notebook's files",
        "gather, cold",
    }
    assert all(speed > 0 for speed in speeds.samples_per_s.values())


def test_ratios_say_how_often_gather_is_as_fast(speeds):
    expected = speeds.samples_per_s["gather"] / speeds.samples_per_s["notebook's files"]
    assert speeds.ratios["notebook's files"] == pytest.approx(expected)


def test_warm_ways_are_counted_by_cpu_time_too(speeds):
    assert speeds.samples_per_cpu_s.keys() == speeds.samples_per_s.keys() - {"gather, cold"}
    expected = speeds.samples_per_cpu_s["gather"] / speeds.samples_per_cpu_s["memcpy"]
    assert speeds.cpu_ratios["memcpy"] == pytest.approx(expected) and expected > 0


def test_sample_has_three_taps_their_scales_picture_and_mask(speeds):
    assert speeds.sample_bytes == 3 * 256 * (22 * 22 + 4) + 352 * 352 * 4


def test_answer_reads_for_people_and_programs(speeds):
    assert "zarr-python 3" in speeds.render()
    assert json.loads(json.dumps(speeds.as_json()))["about"]["views"] == speeds.about["views"]


def test_a_peer_that_is_not_installed_is_said(speeds):
    absent = [peer.package for peer in PEERS if not peer.is_here]
    assert speeds.about["not_installed"] == absent + ([] if find_spec("tensorstore") else ["tensorstore"])
    if absent:
        assert f"not measured, as not installed: {absent[0]}" in speeds.render()


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_holds_every_sample_and_is_filled_once(peer, tmp_path):
    if not peer.is_here:
        pytest.skip(f"{peer.package} is not installed")
    samples = np.random.default_rng(0).integers(0, 256, (70, 5000), np.uint8)
    read = peer.open(tmp_path / "below" / "peer", samples, 4)
    for rows in (np.array([0, 69, 3, 3]), np.array([64, 63, 1, 2])):
        assert read(rows).tolist() == samples[rows].tolist()
    del read  # LMDB opens a folder once in a process
    again = peer.open(tmp_path / "below" / "peer", samples * 0, 4)
    assert again(np.array([5, 6, 7, 8])).tolist() == samples[5:9].tolist()
