"""The reading bench measures every way on one cache, and says what it measured."""

import json
from importlib.util import find_spec

import pytest

from difom_train import bench_loader


@pytest.fixture(scope="module")
def speeds(tmp_path_factory):
    return bench_loader(tmp_path_factory.mktemp("bench"), size_gb=0.01, batch_size=4, seconds=0.1)


def test_every_way_is_measured(speeds):
    peers = {"tensorstore"} if find_spec("tensorstore") else set()
    assert speeds.samples_per_s.keys() - peers == {
        "memcpy",
        "NumPy's take from one mapped file",
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


def test_sample_has_three_taps_their_scales_picture_and_mask(speeds):
    assert speeds.sample_bytes == 3 * 256 * (22 * 22 + 4) + 352 * 352 * 4


def test_answer_reads_for_people_and_programs(speeds):
    assert "zarr-python 3" in speeds.render()
    assert json.loads(json.dumps(speeds.as_json()))["about"]["views"] == speeds.about["views"]
