"""What a run computes on: one CPU or GPU, or the processes that torchrun or srun has started, with a device each."""

import gc
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from difom_cache.base.errors import RunError, SettingsError
from difom_cache.base.hardware import emulates_bfloat16

_MOST_PROCESSES = 1_000_000
_INTERACTIVE = {"bash", "interactive"}  # job names under which Slurm has allocated, but started nothing with srun
_CONNECTION = re.compile(
    "(?i)gloo|^Dist|NCCL|connection (closed|reset)"
)  # in what PyTorch raises where another process is gone
_ENDED = "difom/ended"  # what the first process to end with an error leaves its number under
Value = TypeVar("Value")


@dataclass(frozen=True)
class Started:
    """How many processes train together."""

    on_machine: int
    machines: int

    @property
    def world(self) -> int:
        """All of them."""
        return self.on_machine * self.machines


@dataclass(frozen=True)
class Processes:
    """Those of a run, as one of them sees it.

    Attributes:
        device: of this one.
        bfloat16: whether forward passes run under bfloat16 autocast; gradients and the step stay float32, without a scaler.
        rank: of this one, from 0.
        world: how many there are.
        store: where they leave word for one another.
    """

    device: torch.device
    bfloat16: bool = False
    rank: int = 0
    world: int = 1
    store: "distributed.Store | None" = None

    @property
    def is_main(self) -> bool:
        """Whether this is the first, which writes files and speaks."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return what averages the gradients of all processes; the network itself where there is one."""
        if self.world == 1:
            return network
        # Some parameters have no gradient in some phases (heads, a frozen encoder), and each process keeps its own
        # batch-norm statistics within an epoch, as one process does over accumulated passes.
        devices = [self.device] if self.device.type == "cuda" else None
        names = signature(DistributedDataParallel).parameters  # torch 2.15 renamed it
        own_buffers: dict[str, Any] = {
            "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers": False
        }
        return DistributedDataParallel(network, devices, find_unused_parameters=True, **own_buffers)

    def hold_gradients(self, network: nn.Module, hold: bool) -> AbstractContextManager[Any]:
        """Return a context in which processes do not average their gradients, where they shall hold them."""
        return network.no_sync() if hold and isinstance(network, DistributedDataParallel) else nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """Return `values` with those of all processes added, in place."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def share(self, value: Value) -> Value:
        """Return what the first process has."""
        box = [value]
        if self.world > 1:
            distributed.broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.world > 1:
            distributed.barrier()

    @contextmanager
    def explain_lost(self) -> Iterator[None]:
        """Let the others know where this process ends with an error, and turn what they then see into one line.

        Raises:
            RunError: another process has ended; its number is named where it could leave word, or is the only other one.
        """
        try:
            yield
        except BaseException as error:
            if self.store is None:
                raise
            if isinstance(error, RuntimeError) and _CONNECTION.search(f"{type(error).__name__} {error}"):
                raise RunError(
                    f"{self._find_lost()} of the {self.world} processes of this run has ended, so the others end too; its own "
                    "output says why, or the scheduler's, where it was killed. The last checkpoint is whole: start all of them "
                    "again with --resume"
                ) from None
            with suppress(RuntimeError):  # the store went with its process
                self.store.set(_ENDED, str(self.rank))
            raise

    def _find_lost(self) -> str:
        with suppress(RuntimeError):
            if self.store is not None and self.store.check([_ENDED]):
                return f"process {int(self.store.get(_ENDED))}"
        return f"process {1 - self.rank}" if self.world == 2 else "one"


def open_processes(device: torch.device, precision: str) -> Processes:
    """Return the processes of a run, connected.

    Args:
        device: kind, and number where it matters.
        precision: float32, bfloat16 or auto (bfloat16 on CUDA that has it).
    """
    is_cuda, started = device.type == "cuda", count_processes(dict(os.environ))
    rank, place = _find_place() if started.world > 1 else (0, device.index or 0)
    if is_cuda:
        device = torch.device("cuda", place)
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
    store = _connect("nccl" if is_cuda else "gloo", rank, started.world) if started.world > 1 else None
    is_usual = precision == "auto" and is_cuda and not emulates_bfloat16(device)
    return Processes(device, precision == "bfloat16" or is_usual, rank, started.world, store)


@cache
def _connect(backend: str, rank: int, world: int) -> "distributed.Store | None":
    """Connect the processes of a run, once; return where they leave word. None where the user has connected them."""
    if distributed.is_initialized():
        return None
    store: distributed.Store = next(distributed.rendezvous("env://", rank, world))[0]
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world)
    return store


def count_processes(environment: dict[str, str]) -> Started:
    """Return how many processes torchrun or srun has started; one where neither has."""
    if "LOCAL_WORLD_SIZE" in environment:
        here = _read_count(environment, "LOCAL_WORLD_SIZE")
        return Started(here, max(1, _read_count(environment, "WORLD_SIZE") // here))
    tasks, job = _read_count(environment, "SLURM_NTASKS"), environment.get("SLURM_JOB_NAME", "")
    if tasks > 1 and "SLURM_PROCID" in environment and job not in _INTERACTIVE:
        machines = _read_count(environment, "SLURM_NNODES")
        return Started(max(1, tasks // machines), machines)
    return Started(1, 1)


def _read_count(environment: dict[str, str], name: str) -> int:
    """Return a number that torchrun or Slurm has set; 1 where it has not."""
    text = environment.get(name, "1")
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= _MOST_PROCESSES):
        raise SettingsError(
            f"{name} is {text!r} in the environment; expected a number of processes, or no such variable"
        )
    return int(text)


def _find_place() -> tuple[int, int]:
    """Return the rank of this process, and its number on its machine; say to PyTorch where the first one of srun listens."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    os.environ.setdefault("MASTER_ADDR", first_host(os.environ.get("SLURM_NODELIST", "127.0.0.1")))
    os.environ.setdefault("MASTER_PORT", str(15_000 + int(os.environ.get("SLURM_JOB_ID", "0")[-4:])))
    return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_LOCALID"])


def first_host(nodes: str) -> str:
    """Return the first of Slurm's nodes, which may be written as `node[01-03,07],other`."""
    return re.split(r"[ ,]", re.sub(r"\[(\w+)[^]]*\]", r"\1", nodes))[0]


def mean_over_processes(processes: Processes, figures: dict[str, float]) -> dict[str, float]:
    """Return the mean of what each process has measured."""
    if processes.world == 1:
        return figures
    names = sorted(figures)
    values = torch.tensor([figures[name] for name in names], device=processes.device)
    return dict(zip(names, (processes.sum(values) / processes.world).tolist(), strict=True))


def average_statistics(processes: Processes, *networks: nn.Module) -> None:
    """Make batch-norm statistics equal on all processes: the mean of what each has seen."""
    if processes.world > 1:
        for buffer in [each for network in networks for each in network.buffers() if each.is_floating_point()]:
            processes.sum(buffer).div_(processes.world)


def leave_processes() -> None:
    """End the talk between the processes of a run, where there are several; the last thing a successful command does.

    Gloo's threads must end before the interpreter: one that still frees a tensor while Python shuts down aborts its
    process, and torchrun then reports a finished run as failed. Unreachable modules that hold the group go first.
    """
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()
