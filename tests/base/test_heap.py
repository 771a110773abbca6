"""Commands that train keep the memory that a step frees; others, and a process that only calls the library, are left alone."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from difom_cache.base.heap import keep_freed_memory
from difom_train.cli import PROGRAM

FAULTS = """
import os, resource, sys
import numpy as np
from difom_cache.base.heap import keep_freed_memory
if sys.argv[1] == "command":
    keep_freed_memory()
def faults() -> int:
    # 2 MB each: NumPy asks for large pages from 4 MB on, of which one fault brings many.
    step = lambda: [np.ones(1 << 21, np.uint8) for _ in range(16)]
    step(); step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10): step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults())
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")


def faults_of(how: str, **environment: str) -> int:
    """Return the pages that the kernel hands out for ten steps of 32 MB, 8192 pages each."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "DIFOM_HEAP"))}
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean | environment)
    return int(done.stdout)


@glibc
def test_a_command_takes_what_it_freed_again():
    assert faults_of("command") < 8192


@glibc
@pytest.mark.parametrize(("how", "environment"), [("library", {}), ("command", {"DIFOM_HEAP": "system"})])
def test_who_only_calls_the_library_or_says_so_is_left_alone(how: str, environment: dict[str, str]):
    assert faults_of(how, **environment) > 5 * 8192


def test_glibcs_own_variables_and_other_c_libraries_come_first(monkeypatch: pytest.MonkeyPatch):
    assert not keep_freed_memory({"MALLOC_ARENA_MAX": "2"})
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory({})


@pytest.mark.parametrize(
    ("called", "words", "kept"),
    [
        ("difom_train.training.run.train", [], 1),
        ("difom_train.studies.study.study", ["study"], 1),
        ("difom_train.training.curves.curves", ["curves", "run"], 0),
    ],
)
def test_commands_that_train_keep_what_they_free_and_no_other(
    monkeypatch: pytest.MonkeyPatch, called: str, words: list[str], kept: int
):
    """It was measured for training steps; it costs up to a quarter more memory."""
    asked: list[str] = []
    monkeypatch.setattr(called, lambda config: SimpleNamespace(render=lambda: ""))
    monkeypatch.setattr("difom_train.cli.keep_freed_memory", lambda: asked.append(called))
    PROGRAM.call(words)
    assert len(asked) == kept
