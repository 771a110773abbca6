"""Engines that cannot do the work say so in one line, before a block is computed."""

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import get_args

import pytest

from difom_cache.errors import EngineError, SettingsError, StorageError
from difom_cache.extraction import (
    ENGINES,
    EngineOptions,
    ExtractConfig,
    count_local,
    engines,
    open_executor,
    read_job_options,
    refuse_unlike_workers,
    run_jobs,
)


def worker(**other: object) -> dict[str, object]:
    libraries = {library: version(library) for library in ("difom", "torch", "zarr")}
    return {"threads": 1, **libraries, **other}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_every_engine_can_be_chosen() -> None:
    assert set(get_args(ExtractConfig.model_fields["engine"].annotation)) == set(ENGINES)


def test_unknown_engine_names_the_nearest() -> None:
    with (
        pytest.raises(SettingsError, match="no engine 'slrum'; did you mean 'slurm'"),
        open_executor(EngineOptions("slrum")),
    ):
        pass


def test_every_engine_of_the_documentation_exists() -> None:
    assert set(ENGINES) == {"local", "dask", "slurm", "pbs", "lsf", "sge", "htcondor"}


def test_local_processes_are_as_many_as_asked_for_or_as_there_are_gpus() -> None:
    assert count_local(EngineOptions()) == 1
    assert count_local(EngineOptions(devices=4)) == 4
    assert count_local(EngineOptions(workers=2, devices=4)) == 2


def test_workers_are_sent_blocks_in_runs_so_that_the_next_ones_pictures_are_read_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[list[int]] = []

    def compute(jobs: list[SimpleNamespace]) -> tuple[list[SimpleNamespace], None]:
        sent.append([job.block for job in jobs])
        return jobs, None

    monkeypatch.setattr("difom_cache.extraction.compute.compute_run", compute)
    for blocks, size in ((3, 1), (40, 2), (64, 4), (1000, 4)):
        sent.clear()
        with ThreadPoolExecutor(1) as executor:
            done = list(run_jobs([SimpleNamespace(block=block) for block in range(blocks)], executor))  # type: ignore[misc]
        assert sorted(report.block for report in done) == list(range(blocks))
        assert sorted(sent) == [list(range(start, min(start + size, blocks))) for start in range(0, blocks, size)]


def test_what_a_worker_finished_before_an_error_is_counted_and_the_rest_sent_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[int] = []

    def compute(jobs: list[SimpleNamespace]) -> Iterator[SimpleNamespace]:
        for job in jobs:
            tried.append(job.block)
            if job.block == 5 and tried.count(5) == 1:
                raise StorageError("a server is away")
            yield job

    monkeypatch.setattr("difom_cache.extraction.blocks.compute_blocks", compute)
    with ThreadPoolExecutor(1) as executor:
        done = list(run_jobs([SimpleNamespace(block=block) for block in range(64)], executor))  # type: ignore[misc]
    assert sorted(report.block for report in done) == list(range(64))
    assert tried.count(4) == 1 and tried.count(5) == 2
    assert "a server is away; trying again" in capsys.readouterr().err


def test_each_local_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with open_executor(EngineOptions("local", workers=2, devices=2)) as executor:
        seen = {executor.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() for _ in range(8)}
    assert seen <= {"0", "1"} and seen


def test_gpus_that_the_batch_system_granted_are_the_ones_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    numbers: Queue[int] = Queue()
    numbers.put(1)  # the second process of two
    engines._take_device(numbers, 2)  # type: ignore[arg-type]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"


def test_killed_local_process_is_one_clear_line() -> None:
    with (
        pytest.raises(EngineError, match=r"one of 1 worker processes was killed.*run the same command again"),
        open_executor(EngineOptions("local", workers=1)) as executor,
    ):
        executor.submit(die).result()


def test_local_engine_yields_a_standard_executor() -> None:
    with open_executor(EngineOptions("local")) as executor:
        assert isinstance(executor, Executor)


def test_dask_without_an_address_says_what_is_missing() -> None:
    with pytest.raises(SettingsError, match="--scheduler ADDRESS"), open_executor(EngineOptions("dask")):
        pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_unreachable_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "CONNECT_S", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nothing can answer here
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(EngineError, match=f"no Dask scheduler answers at {address} within 1 s"),
            open_executor(EngineOptions("dask", scheduler=address)),
        ):
            pass


def test_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with (
        pytest.raises(EngineError, match=r"needs distributed: run pip install '\.\[cluster\]'"),
        open_executor(EngineOptions("dask", scheduler="tcp://localhost:1")),
    ):
        pass


def test_batch_system_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(EngineError, match="submits jobs with condor_submit, which this machine does not have"),
        open_executor(EngineOptions("htcondor")),
    ):
        pass


def test_worker_of_another_version_is_refused_with_both_versions() -> None:
    found = {"tcp://a:1": worker(), "tcp://b:2": worker(difom="0.0.1")}
    with pytest.raises(EngineError, match=rf"tcp://b:2 has difom 0\.0\.1, this machine {version('difom')}"):
        refuse_unlike_workers(found)


def test_worker_without_difom_is_refused() -> None:
    with pytest.raises(EngineError, match="tcp://b:2 has difom None"):
        refuse_unlike_workers({"tcp://b:2": worker(difom=None)})


def test_worker_with_several_threads_is_told_how_to_start() -> None:
    with pytest.raises(EngineError, match=r"runs 4 tasks at a time.*--nthreads 1"):
        refuse_unlike_workers({"tcp://b:2": worker(threads=4)})


def test_worker_that_cannot_answer_is_named() -> None:
    with pytest.raises(EngineError, match=r"tcp://b:2 cannot be asked.*OSError"):
        refuse_unlike_workers({"tcp://b:2": OSError("gone")})


def test_workers_like_this_machine_are_taken() -> None:
    refuse_unlike_workers({"tcp://a:1": worker(), "tcp://b:2": worker()})


def test_job_options_come_from_the_file_and_a_worker_always_computes_one_block_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text('cores = 8\nwalltime = "00:30:00"\nworker_extra_args = ["--lifetime", "25m"]\n')
    options = read_job_options(path)
    assert (options["cores"], options["walltime"], options["memory"]) == (8, "00:30:00", "8GB")
    assert options["worker_extra_args"] == ["--lifetime", "25m", "--nthreads", "1"]


def test_job_options_that_cannot_be_read_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    with pytest.raises(SettingsError, match="there is no such file"):
        read_job_options(path)
    path.write_text("cores = = 8")
    with pytest.raises(SettingsError, match=r"jobs\.toml is not TOML"):
        read_job_options(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scheduler_options = 3", "scheduler_options is a table"),
        ('worker_extra_args = "-x"', "worker_extra_args a list"),
    ],
)
def test_job_options_of_another_kind_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=rf"jobs\.toml: .*{said}"):
        read_job_options(path)


@pytest.mark.parametrize("text", ["", 'interface = "ib77"', '[scheduler_options]\ninterface = "ib77"'])
def test_a_scheduler_that_would_listen_on_every_network_is_not_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setattr(engines.shutil, "which", lambda command: f"/usr/bin/{command}")
    path = tmp_path / "jobs.toml"
    path.write_text(text)
    with (
        pytest.raises(
            SettingsError, match=r"runs code for whoever reaches it.*jobs\.toml, such as interface = .*\blo\b"
        ),
        open_executor(EngineOptions("slurm", jobs=path)),
    ):
        pass


@pytest.mark.parametrize("text", ['interface = "lo"', '[scheduler_options]\nhost = "127.0.0.1"'])
def test_a_scheduler_on_a_named_network_is_started(tmp_path: Path, text: str) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text(text)
    engines.refuse_open_scheduler(read_job_options(path), "slurm", path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_scheduler_of_jobs_listens_on_the_named_network_alone(tmp_path: Path) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue")
    path = tmp_path / "jobs.toml"
    path.write_text('interface = "lo"\n')
    with jobqueue.SLURMCluster(**read_job_options(path)) as cluster:
        listening = {
            line.split()[1].split(":")[0]
            for line in Path("/proc/net/tcp").read_text().splitlines()
            if int(line.split()[1].partition(":")[2] or "0", 16) == int(cluster.scheduler_address.rpartition(":")[2])
        }
    assert cluster.scheduler_address.startswith("tcp://127.0.0.1:") and listening == {"0100007F"}


class FakeClient:
    """A Dask client whose scheduler has as many workers as it is told."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.scheduler = SimpleNamespace(address="tcp://head:8786")

    def wait_for_workers(self, number: int, timeout: float) -> None:
        if self.workers < number:
            raise TimeoutError

    def run(self, function: object, on_error: str) -> dict[str, object]:
        return {f"tcp://node:{number}": worker() for number in range(self.workers)}

    def get_executor(self, retries: int) -> Executor:
        return ThreadPoolExecutor(1)


def test_scheduler_without_workers_says_how_to_start_one() -> None:
    with (
        pytest.raises(EngineError, match=r"tcp://head:8786 has no worker after 2 s.*dask worker tcp://head:8786"),
        engines._serve(FakeClient(0), 2),
    ):
        pass


def test_block_that_kills_every_worker_ends_the_run_in_one_line() -> None:
    scheduler = pytest.importorskip("distributed.scheduler")
    lost = scheduler.KilledWorker("block", SimpleNamespace(address="tcp://node:1"), 3)
    with (
        pytest.raises(EngineError, match=r"4 workers died on it, the last at tcp://node:1, most often for memory"),
        engines._serve(FakeClient(1), 2),
    ):
        raise lost
