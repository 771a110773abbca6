"""What several test files share."""

import os
import sys
from collections.abc import Callable, Iterator

import pytest
from memory_cache import MemoryCache

from difom_cache import cli


@pytest.fixture(autouse=True, scope="session")
def own_user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what commands remember of decoded files out of the home of whoever runs the tests."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("user-cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Let this process and all that it starts compute with one thread: forks wait for ever for the others, which they lack."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def nothing_waits_for_the_disk() -> Iterator[None]:
    """Let no call of a test's own process wait until a disk has what was written: a power cut is the only thing it is for.

    Waiting is most of what small caches take. Tests of the order of these calls see them all the same.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def torch_runs_teachers() -> Iterator[None]:
    """Let PyTorch run small teachers, which OpenVINO would take seconds to compile; its own tests name it."""
    before = os.environ.setdefault("DIFOM_BACKEND", "torch")
    yield
    if before == "torch":
        del os.environ["DIFOM_BACKEND"]


@pytest.fixture
def make_cache() -> Callable[..., MemoryCache]:
    """Return a builder of small caches in memory."""
    return MemoryCache


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs `difom-cache` and gives exit code, output and error output."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["difom-cache", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call
