"""Nothing is silent for long: a line in a log file where there is no terminal, and only where it takes a while."""

import time

import pytest

from difom_cache.base import progress
from difom_cache.base.progress import ProgressBar, explain_wait, track


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(progress, "FIRST_S", 0.05)
    monkeypatch.setattr(progress, "THEN_S", 0.05)


def test_slow_work_without_a_terminal_says_how_far_it_is(quick, capsys):
    for _ in track(range(4), "verify pictures", "block"):
        time.sleep(0.06)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "verify pictures: 0 of 4 blocks"
    assert "verify pictures: 2 of 4 blocks, 0 s left" in lines


def test_quick_work_without_a_terminal_is_silent(capsys):
    assert list(track(iter("abc"), "reading", "file", total=3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_quiet_work_is_silent_however_long_it_takes(quick, capsys):
    for _ in track(range(2), "verify pictures", "block", quiet=True):
        time.sleep(0.06)
    assert capsys.readouterr().err == ""


def test_time_left_counts_what_this_program_did_itself(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with ProgressBar(10, "epoch 1/2", "step", done=4, quiet=True) as bar:
        now[0] += 6
        bar.update(3)
        bar.tell("loss 0.500", title="epoch 2/2")
        # 3 steps in 6 s, and 3 are left
        assert bar.describe() == "epoch 2/2: 7 of 10 steps, 6 s left, loss 0.500"


def test_a_wait_is_explained_only_where_it_is_one(quick, capsys):
    with explain_wait("opening feats"):
        pass
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
    with explain_wait("opening feats"):
        time.sleep(0.1)
    assert capsys.readouterr().err == "opening feats ...\n"
