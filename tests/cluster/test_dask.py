"""Dask fills a cache with the same bytes as one process, however many workers it has and however they die."""

import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from painted_folder import paint_folder

from difom_cache import extract, finish, open_cache

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets of killed workers
]
SMALL: dict[str, Any] = {
    "teacher": ["dinov2:tiny@56", "mask2former:tiny@64"],
    "weights": "random",
    "input_size": 64,
    "views": 5,
    "quiet": True,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_folder(tmp_path_factory.mktemp("data"), frames=30)


@pytest.fixture(scope="module")
def expected(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of a cache that one process filled."""
    cache = tmp_path_factory.mktemp("one") / "feats"
    assert extract(data=data, cache=cache, **SMALL).complete
    return open_cache(cache).content_digests()


@contextmanager
def cluster(workers: int, folder: Path) -> Iterator[Any]:
    options = {"n_workers": workers, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    before = os.environ.copy()
    try:
        with distributed.LocalCluster(**options, silence_logs=50, local_directory=str(folder)) as running:
            yield running
    finally:  # a cluster sets OMP_NUM_THREADS here for the workers it starts, and leaves it behind
        os.environ.clear()
        os.environ.update(before)


def worker_pids(running: Any) -> list[int]:
    return [nanny.pid for nanny in running.workers.values() if nanny.pid]


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param(1, marks=pytest.mark.slow),
        pytest.param(2, marks=pytest.mark.journey),
        pytest.param(4, marks=pytest.mark.slow),
    ],
)
def test_workers_fill_a_cache_with_the_bytes_of_one_process(
    workers: int, data: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    with cluster(workers, tmp_path / "dask") as running:
        report = extract(
            data=data, cache=tmp_path / "feats", engine="dask", scheduler=running.scheduler_address, **SMALL
        )
    assert report.complete
    assert open_cache(tmp_path / "feats").content_digests() == expected


@pytest.mark.slow
def test_the_page_on_clusters_lets_nobody_in_without_the_key(tmp_path: Path) -> None:
    """The page's commands on one machine: only the network, the names of machine and folders and the teacher are others."""
    pytest.importorskip("cryptography")
    page = (Path(__file__).parents[2] / "docs/cluster.md").read_text().partition("### TLS")[2]
    make_keys, run = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)[:2]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for ours, here in {"ib0": "lo", "head": "127.0.0.1", "8786": str(port)}.items():
        run = run.replace(ours, here)
    exports, commands = run.replace("\\\n", " ").split("\n\n")
    home = os.environ | {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-ec", make_keys], env=home, check=True, capture_output=True)
    assert (tmp_path / ".difom-keys/key.pem").stat().st_mode & 0o077 == 0
    told = subprocess.run(["bash", "-ec", f"{exports}\nenv -0"], env=home, check=True, capture_output=True, text=True)
    keyed = dict(each.split("=", 1) for each in told.stdout.split("\0") if each)
    scheduler, worker, command = (shlex.split(line.removesuffix("&")) for line in commands.strip().splitlines())
    small = ["--teacher", "dinov2:tiny@56", "--weights", "random", "--input-size", "64", "--views", "2"]
    small += ["--data", str(paint_folder(tmp_path / "data", frames=6)), "--cache"]
    reached = command[command.index("--engine") :]
    with ExitStack() as running:
        for words in (scheduler, worker):
            process = running.enter_context(subprocess.Popen(words, env=keyed, cwd=tmp_path, stderr=subprocess.DEVNULL))
            running.callback(process.terminate)
        for cache, more in (("feats", reached), ("one", [])):
            words = ["difom-cache", "extract", *small, str(tmp_path / cache), *more]
            done = subprocess.run(words, env=keyed, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        for address in (f"tls://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}"):
            stranger = distributed.Security.temporary() if address.startswith("tls") else None
            with pytest.raises(OSError, match=r"TLS certificate does not match|reset by peer|Timed out"):
                distributed.Client(address, security=stranger, timeout=3)
    digests = [open_cache(tmp_path / cache).content_digests() for cache in ("feats", "one")]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_workers_killed_in_the_middle_of_a_block_cost_nothing_but_time(
    data: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    feats, problems, kills = tmp_path / "feats", [], 0

    def run(address: str) -> None:
        try:
            extract(data=data, cache=feats, engine="dask", scheduler=address, **SMALL)
        except BaseException as error:
            problems.append(error)

    with cluster(2, tmp_path / "dask") as running:
        extraction = threading.Thread(target=run, args=(running.scheduler_address,))
        extraction.start()
        for markers in (1, 4, 7):
            while extraction.is_alive() and len(list(feats.rglob("ticks/*.json"))) < markers:
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.5))
            pids = worker_pids(running)
            if extraction.is_alive() and pids:
                os.kill(random.choice(pids), signal.SIGKILL)
                kills += 1
        extraction.join()
    assert not problems
    assert kills == 3
    assert open_cache(feats).content_digests() == expected
    finish(feats)
    assert not list(feats.rglob(".tmp-*"))


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_line_that_says_how_to_go_on(
    data: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    programs = Path(sys.executable).parent
    scheduler = [str(programs / "dask"), "scheduler", "--host", address, "--no-dashboard"]
    worker = [str(programs / "dask"), "worker", address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "5"]
    small = ["--weights", "random", "--input-size", "64", "--views", "5", "--data", str(data)]
    small += [word for teacher in SMALL["teacher"] for word in ("--teacher", teacher)]
    command = [str(programs / "difom-cache"), "extract", *small, "--cache", str(tmp_path / "feats")]
    settings = os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s"}
    with ExitStack() as running:
        silent = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        head, hand = [running.enter_context(subprocess.Popen(words, **silent)) for words in (scheduler, worker)]
        running.callback(head.kill)
        running.callback(hand.kill)
        asked = [*command, "--engine", "dask", "--scheduler", address]
        run = subprocess.Popen(asked, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        running.callback(run.kill)
        while run.poll() is None and not list((tmp_path / "feats").rglob("ticks/*.json")):
            time.sleep(0.05)
        head.kill()
        told = run.communicate(timeout=120)[1]
    assert run.returncode == 2, told
    lines = [line for line in told.replace("\r", "\n").splitlines() if line.strip() and "view/s" not in line]
    assert "Traceback" not in told and lines[-1].startswith(f"error: the Dask scheduler at {address} is gone"), told
    assert "run the same command again" in lines[-1]
    subprocess.run(command, check=True, capture_output=True)
    assert open_cache(tmp_path / "feats").content_digests() == expected
