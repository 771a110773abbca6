"""Nothing is silent for long: a line in a log file where there is no terminal, and only where it takes a while."""

import os
import subprocess
import sys
import time
from pathlib import Path

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


KERNEL = """
import sys
import IPython, ipykernel
from difom_cache.base import progress
from difom_cache.base.progress import say, track
progress.FIRST_S = 0.05
import time
for _ in track(range(4), "verify pictures", "block"):
    time.sleep(0.1)
say("done")
"""
STAND_INS = {
    "ipykernel/__init__.py": "import ipykernel.zmqshell",
    "ipykernel/zmqshell.py": "class ZMQInteractiveShell:\n    config = {'IPKernelApp': {}}\n",
    "IPython/__init__.py": """
from ipykernel.zmqshell import ZMQInteractiveShell as get_ipython
""",
    "IPython/display.py": "def display(shown):\n    print('displayed', type(shown).__name__)\n",
}
WIDGETS = """
import atexit
from types import SimpleNamespace
class Widget:
    def __init__(self, **given):
        self.layout, self.style, self.bar_style, self.value = SimpleNamespace(), SimpleNamespace(bar_color=None), "", 0
        vars(self).update(given)
    def close(self):
        pass
class HTML(Widget): pass
class HBox(Widget): pass
class FloatProgress(Widget):
    def __init__(self, **given):
        super().__init__(**given)
        atexit.register(lambda: print("bar at", self.value, "of", self.max))
"""


@pytest.mark.parametrize("has_widgets", [True, False], ids=["widgets", "no-widgets"])
def test_a_notebook_shows_a_bar_where_it_has_widgets_and_plain_lines_where_it_has_not(
    has_widgets: bool, tmp_path: Path
):
    for name, text in STAND_INS.items() | {("ipywidgets.py", WIDGETS if has_widgets else "raise ImportError")}:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", KERNEL], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == (["displayed TqdmHBox", "bar at 4 of 4"] if has_widgets else [])
    lines = done.stderr.splitlines()
    assert lines[-1] == "done" and (len(lines) == 1) is has_widgets
    assert all(line.startswith("verify pictures: ") for line in lines[:-1])
