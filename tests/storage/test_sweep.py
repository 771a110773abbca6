"""No call on the storage that fails costs finished work, lets wrong bytes pass, or ends in a line that does not help."""

from pathlib import Path

import pytest
from kernel import Died, watched
from sweep import COMMANDS, FAILURES, sweep

from difom_cache.base.atomic import write_atomic

QUICK = {
    ("verify", "EIO"): 12,
    ("finish", "EIO for good"): 12,
    ("copy", "ENOSPC"): 20,
    ("copy", "answer lost"): 12,
    ("copy", "dies"): 60,
    ("drop", "dies, names stay"): 20,
    ("drop", "answer lost"): 1,
    ("export", "ESTALE"): 20,
    ("import", "EIO"): 90,
    ("import", "answer lost"): 12,
}
HEAVY = ("extract", "extract again", "probe", "train")


def refuse_harm(command: str, failure: str, folder: Path, every: int) -> None:
    row = sweep(command, failure, folder, every=every)
    assert (row.lost, row.wrong, row.unclear) == ([], [], [])
    assert row.tries >= min(2, row.places // every)
    assert failure.startswith("dies") or row.got_over + len(row.ended) == row.tries
    assert failure != "answer lost" or row.ended == []


@pytest.mark.parametrize(("command", "failure"), QUICK)
def test_some_calls_of_every_small_command_fail_without_harm(tmp_path: Path, command: str, failure: str):
    refuse_harm(command, failure, tmp_path, QUICK[command, failure])


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("command", COMMANDS)
def test_the_calls_of_every_command_fail_without_harm(tmp_path: Path, command: str, failure: str):
    refuse_harm(command, failure, tmp_path, 6 if command in HEAVY else 1)


@pytest.mark.parametrize(("names", "left"), [(False, {"old": b"1"}), (True, {"old": b"1", "new": b""})])
def test_a_cut_of_power_leaves_what_was_synced(tmp_path: Path, names: bool, left: dict[str, bytes]):
    home = tmp_path / "home"
    home.mkdir()
    (home / "old").write_bytes(b"1")
    with watched(home) as below:
        (home / "new").write_bytes(b"2")
    below.cut_power(names=names)
    below.close()
    assert {path.name: path.read_bytes() for path in home.iterdir()} == left


def test_a_file_is_on_the_disk_when_its_writer_says_so(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    with watched(home) as below:
        write_atomic(home / "folder" / "file", b"1")
    below.cut_power(names=False)
    below.close()
    assert (home / "folder" / "file").read_bytes() == b"1"


def test_a_process_that_died_does_nothing_more(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    with watched(home, 3, None) as below, pytest.raises(Died):
        write_atomic(home / "file", b"1")
    below.close()
    assert below.dead and len(below.calls) == 4
    assert not (home / "file").exists() and len(list(home.iterdir())) == 1, "its temporary file stays"
