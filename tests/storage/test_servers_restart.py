"""Servers that stop while a command runs, and start again, cost it time or one line; nothing that is finished, and no byte."""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from faults import photograph
from kernel import patched, path_in
from painted_folder import paint_folder
from servers import Shared, serve_gluster, serve_moose, serve_ssh, wait_until_it_answers
from sweep import SMALL, STUDENT, WAY_ON, weights

from difom_cache import extract, finish, info, open_cache, verify
from difom_cache.base import disk
from difom_cache.base.console import run_app
from difom_cache.store import read_damaged
from difom_train import evaluate, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="nothing can be mounted"),
]


@pytest.fixture(scope="module", params=[serve_gluster, serve_moose, serve_ssh], ids=["glusterfs", "moosefs", "sshfs"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with ExitStack() as stack:
        yield request.param(tmp_path_factory.mktemp("servers"), stack)


@dataclass
class Outage:
    """Servers that go before a call on a folder, and come back some seconds later.

    Attributes:
        home: the folder.
        place: number of the call, from 0; -1: they stay.
        stop, start: them.
        calls: made so far.
        back: starts them, from when they went.
    """

    home: Path
    place: int = -1
    stop: Callable[[], object] = lambda: None
    start: Callable[[], object] = lambda: None
    calls: int = 0
    back: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, name: str, target: Any, act: Callable[[], Any]) -> Any:
        if path_in(self.home, target):
            with self._lock:
                place, self.calls = self.calls, self.calls + 1
                if place == self.place:
                    self.stop()
                    self.back = threading.Thread(target=self._come_back)
                    self.back.start()
        return act()

    def _come_back(self) -> None:
        time.sleep(AWAY_S)
        self.start()


def extract_there(home: Path) -> object:
    extract(data=home / "data", cache=home / "feats", **SMALL)
    return open_cache(home / "feats", access="read").content_digests()


def train_there(home: Path) -> object:
    train(cache=(home / "feats",), out=home / "run", recipe="baseline", resume=True, **STUDENT)
    return weights(home)


def evaluate_there(home: Path) -> object:
    return evaluate(home / "run", home / "data", device="cpu", workers=0).means()


def verify_there(home: Path) -> object:
    report = verify(home / "feats")
    return report.problems, report.checked_files


def finish_there(home: Path) -> object:
    finish(home / "feats")
    return open_cache(home / "feats", access="read").content_digests()


COMMANDS: dict[str, Callable[[Path], object]] = {
    "extract": extract_there,
    "extract again": extract_there,
    "info": lambda home: json.dumps(info(home / "feats")["columns"]),  # NaN is not NaN
    "verify": verify_there,
    "finish": finish_there,
    "train": train_there,
    "evaluate": evaluate_there,
}
NEEDS = {"extract": ("data",), "evaluate": ("data", "run")}
AWAY_S = 3.0
CAUSES = {os.strerror(number).lower() for number in disk.UNANSWERED}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every command has run undisturbed."""
    home = tmp_path_factory.mktemp("whole")
    paint_folder(home / "data", frames=6)
    extract_there(home)
    finish(home / "feats")
    train_there(home)
    return home


def end_of(run: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_app(run, interrupted="")
    return int(ended.value.code or 0), capsys.readouterr().err


def finished(home: Path) -> dict[str, bytes]:
    """Return the markers that lie there: of blocks that are whole."""
    return {name: content for name, content in photograph(home).items() if "/ticks/" in name}


@pytest.mark.parametrize("how", ["half", "all"])
@pytest.mark.parametrize("command", COMMANDS)
def test_servers_that_stop_and_start_under_a_command_cost_no_finished_work(
    shared: Shared,
    whole: Path,
    command: str,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(sys, "argv", ["difom"])
    run, needs = COMMANDS[command], NEEDS.get(command, ("data", "feats"))

    def begin(name: str) -> Path:
        for each in needs:
            shutil.copytree(whole / each, shared.other / name / each)
        return shared.other / name

    due, home, undisturbed = run(whole), begin(f"{command}, {how}, undisturbed"), Outage(shared.other)
    with patched(undisturbed.call):
        assert run(home) == due
    home = begin(f"{command}, {how}")
    before = photograph(home / "feats")
    outage = Outage(shared.other, undisturbed.calls // 2)
    outage.stop, outage.start = shared.stop_half if how == "half" else shared.stop, shared.start
    with patched(outage.call):
        status, told = end_of(lambda: run(home), capsys)
    assert outage.back is not None, "it asked less often than undisturbed"
    outage.back.join()
    wait_until_it_answers(shared.other)
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    if status:
        assert status == 2 and len(errors) == 1 and "Traceback" not in told, told
        assert str(home) in errors[0] and any(cause in errors[0].lower() for cause in CAUSES), told
        assert any(word in errors[0].lower() for word in WAY_ON), told
    assert before.items() <= photograph(home / "feats").items(), "nothing is withdrawn or changed"
    ticked = finished(home)
    assert run(home) == due
    assert ticked.items() <= finished(home).items()
    if (home / "feats").exists():
        assert read_damaged(home / "feats") == {} and not any(finish(home / "feats").values())
        assert verify(home / "feats").sound
