"""Where blocks are computed: processes of this machine, a Dask cluster, or the jobs of a batch system.

Extraction sees only the standard `concurrent.futures.Executor`. Another engine is one more generator in `ENGINES`.
Lost workers and repeats are the engine's business; whatever it repeats, a block has the same bytes.
"""

import logging
import multiprocessing
import os
import shutil
import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from difom_cache.base.errors import EngineError, SettingsError, install_extra, name_nearest
from difom_cache.base.files import read_plain

CONNECT_S = 30
RETRIES = 2  # of a block whose worker raised, by Dask: a network file system may hiccup
JOB_OPTIONS: dict[str, Any] = {"cores": 1, "processes": 1, "memory": "8GB", "walltime": "04:00:00"}
JOB_QUEUES = {
    "slurm": ("SLURMCluster", "sbatch"),
    "pbs": ("PBSCluster", "qsub"),
    "lsf": ("LSFCluster", "bsub"),
    "sge": ("SGECluster", "qsub"),
    "htcondor": ("HTCondorCluster", "condor_submit"),
}


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is reached: what `extract` has under the same names.

    `devices` is the number of GPUs of this machine that local processes share out among themselves; 0 leaves the
    choice of a device to the blocks.
    """

    engine: str = "local"
    scheduler: str | None = None
    jobs: Path | None = None
    workers: int | None = None
    devices: int = 0


def open_executor(options: EngineOptions) -> AbstractContextManager[Executor]:
    """Return an executor whose workers run blocks, to be entered.

    Raises:
        SettingsError: there is no such engine, or an option is missing or unknown.
        EngineError: the engine cannot be reached, its workers run another difom, or they die on a block.
    """
    if options.engine not in ENGINES:
        raise SettingsError(name_nearest("engine", options.engine, list(ENGINES)))
    return ENGINES[options.engine](options)


def count_local(options: EngineOptions) -> int:
    """Return how many processes the local engine uses: as asked, or one a GPU, or one."""
    return options.workers or options.devices or 1


@contextmanager
def _open_local(options: EngineOptions) -> Iterator[Executor]:
    context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
    numbers: multiprocessing.Queue[int] = context.Queue()
    processes = count_local(options)
    for number in range(processes):
        numbers.put(number)
    try:
        with ProcessPoolExecutor(
            processes, context, initializer=_take_device, initargs=(numbers, options.devices)
        ) as executor:
            yield executor
    except BrokenProcessPool:
        raise EngineError(
            f"one of {processes} worker processes was killed, most often for memory. Finished blocks are safe: run "
            "the same command again, with fewer --workers or a smaller --batch-size if it happens again"
        ) from None


def _take_device(numbers: "multiprocessing.Queue[int]", devices: int) -> None:
    if devices > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(devices)))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[numbers.get() % devices]


@contextmanager
def _open_dask(options: EngineOptions) -> Iterator[Executor]:
    if not options.scheduler:
        raise SettingsError("--engine dask needs --scheduler ADDRESS, such as tcp://host:8786, of a running scheduler")
    distributed = _import_extra("distributed")
    try:
        client = distributed.Client(options.scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"no Dask scheduler answers at {options.scheduler} within {CONNECT_S} s ({error}); start one with "
            "`dask scheduler`, or name another --scheduler"
        ) from None
    with client, _serve(client, CONNECT_S) as executor:
        yield executor


@contextmanager
def _open_jobs(queue: str, options: EngineOptions) -> Iterator[Executor]:
    class_name, command = JOB_QUEUES[queue]
    distributed, jobqueue = _import_extra("distributed"), _import_extra("dask_jobqueue")
    if shutil.which(command) is None:
        raise EngineError(
            f"--engine {queue} submits jobs with {command}, which this machine does not have; run the command where "
            "jobs can be submitted from, or use --engine local"
        )
    job_options = read_job_options(options.jobs)
    usual = import_module("dask").config.get(f"jobqueue.{queue}.interface", None)
    refuse_open_scheduler({"interface": usual} | job_options, queue, options.jobs)
    jobs = options.workers or 1
    try:
        cluster = getattr(jobqueue, class_name)(**job_options)
    except (TypeError, ValueError, ImportError) as error:
        said = " ".join(str(error).split())
        raise SettingsError(f"{options.jobs or 'job options'}: dask-jobqueue's {class_name} refuses: {said}") from None
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)  # a job that ends before its blocks do is replaced
        with _serve(client, None) as executor:
            yield executor


def read_job_options(path: Path | None) -> dict[str, Any]:
    """Return what dask-jobqueue is told: our defaults, and over them the keys of a TOML file.

    A worker process runs one block at a time, whatever number of cores it is given.

    Raises:
        SettingsError: the file is missing, or is no TOML of the right kind.
    """
    given: dict[str, Any] = {}
    if path is not None:
        try:
            given = tomllib.loads(read_plain(path).decode())
        except FileNotFoundError:
            raise SettingsError(f"--jobs {path}: there is no such file; it holds dask-jobqueue's options") from None
        except (OSError, ValueError, RecursionError) as error:
            raise SettingsError(f"--jobs {path} is not TOML: {error}") from None
    scheduler, words = given.get("scheduler_options", {}), given.get("worker_extra_args", [])
    if not isinstance(scheduler, dict) or not isinstance(words, list):
        raise SettingsError(f"--jobs {path}: scheduler_options is a table and worker_extra_args a list")
    options = JOB_OPTIONS | given | {"scheduler_options": {"dashboard": False} | scheduler}
    options["worker_extra_args"] = [*words, "--nthreads", "1"]
    return options


def refuse_open_scheduler(job_options: Mapping[str, Any], queue: str, path: Path | None) -> None:
    """Raise unless job options say which network the scheduler listens on: whoever reaches it has code run by it.

    Dask would listen on every network of this machine.

    Args:
        job_options: as `read_job_options` returns them.
        queue: the engine.
        path: the file of `--jobs`, for the message.

    Raises:
        SettingsError: no network is named, or one that this machine does not have; it names those that it has.
    """
    here = [name for _, name in socket.if_nameindex()]
    scheduler = job_options["scheduler_options"]
    named = scheduler.get("interface") or job_options.get("interface")
    if scheduler.get("host") or named in here:
        return
    found = f"{named!r} is none of this machine's networks" if named else "no network is named"
    usual = next((name for name in here if name != "lo"), "lo")
    raise SettingsError(
        f"--engine {queue}: {found}, and the scheduler runs code for whoever reaches it. Put the one that jobs reach this "
        f'machine by into {path or "a file for --jobs"}, such as interface = "{usual}"; here are {", ".join(here)}'
    )


@contextmanager
def _serve(client: Any, patience_s: float | None) -> Iterator[Executor]:
    """Yield the client's executor once a worker is there and all that are there can be used."""
    try:
        client.wait_for_workers(1, timeout=patience_s)
    except TimeoutError:
        raise EngineError(
            f"the Dask scheduler at {client.scheduler.address} has no worker after {patience_s:.0f} s; start some with "
            f"`dask worker {client.scheduler.address} --nthreads 1`"
        ) from None
    refuse_unlike_workers(client.run(_look_around(), on_error="return"))
    killed = _import_extra("distributed").scheduler.KilledWorker
    try:
        with client.get_executor(retries=RETRIES) as executor:
            yield executor
    except killed as error:
        raise EngineError(
            f"a block was given up: {error.allowed_failures + 1} workers died on it, the last at "
            f"{error.last_worker.address}, most often for memory. Finished blocks are safe: give workers more memory "
            "or use a smaller --batch-size, and run the same command again"
        ) from None
    except CancelledError:
        logging.getLogger("distributed.client").disabled = True  # it says at length that it found no scheduler again
        raise EngineError(
            f"the Dask scheduler at {client.scheduler.address} is gone. Finished blocks are safe: start it anew and run the "
            "same command again"
        ) from None


def _look_around() -> Callable[[Any], dict[str, Any]]:
    """Return a function that tells about the worker it runs on, even where another difom, or none, is installed."""

    def look(dask_worker: Any) -> dict[str, Any]:  # nested, so that it is sent by value; Dask fills the argument
        from importlib.metadata import PackageNotFoundError, version

        found: dict[str, Any] = {"threads": dask_worker.state.nthreads}
        for library in ("difom", "torch", "zarr"):
            try:
                found[library] = version(library)
            except PackageNotFoundError:
                found[library] = None
        return found

    return look


def refuse_unlike_workers(found: dict[str, Any]) -> None:
    """Raise where a worker's libraries differ from this machine's, or where it runs several blocks at a time.

    Args:
        found: what `_look_around` returned, or the exception it met, by worker address.

    Raises:
        EngineError: names the worker, what it has and what it should have.
    """
    for address, worker in sorted(found.items()):
        if isinstance(worker, Exception):
            raise EngineError(f"worker {address} cannot be asked what it runs ({worker!r}); restart it")
        for library in ("difom", "torch", "zarr"):
            here = version(library)
            if worker[library] != here:
                raise EngineError(
                    f"worker {address} has {library} {worker[library]}, this machine {here}: "
                    "their blocks could differ. Install the same versions (constraints.txt) on both"
                )
        if worker["threads"] != 1:
            raise EngineError(
                f"worker {address} runs {worker['threads']} tasks at a time; a process computes one block at a time: "
                "start it with `dask worker ... --nthreads 1` and more --nworkers instead"
            )


def _import_extra(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise EngineError(f"this engine needs {name}: {install_extra('cluster')}") from None


ENGINES: dict[str, Callable[[EngineOptions], AbstractContextManager[Executor]]] = {
    "local": _open_local,
    "dask": _open_dask,
    **{queue: partial(_open_jobs, queue) for queue in JOB_QUEUES},
}
