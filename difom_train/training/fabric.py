"""The machine a run computes on: Lightning Fabric for one CPU, one GPU, or the processes of torchrun and Slurm."""

import gc
import os
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from difom_cache.base.errors import SettingsError
from difom_train.training.lightning_parts import CSVLogger, DDPStrategy, Fabric, Precision, TensorBoardLogger

_MOST_PROCESSES = 1_000_000
_INTERACTIVE = {"bash", "interactive"}  # job names under which Slurm has allocated, but started nothing with srun


class Bfloat16(Precision):
    """Forward passes under bfloat16 autocast, and nothing else.

    Fabric's own "bf16-mixed" also rounds every input, the teachers' features among them, to eight bits, and lets no
    gradient be looked at before the step. bfloat16 needs neither, nor a scaler.
    """

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type

    def forward_context(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        return torch.autocast(self.device_type, torch.bfloat16)


@dataclass(frozen=True)
class Processes:
    """How many processes train together."""

    on_machine: int
    machines: int

    @property
    def world(self) -> int:
        """All of them."""
        return self.on_machine * self.machines


def count_processes(environment: dict[str, str]) -> Processes:
    """Return how many processes torchrun or srun has started; one where neither has."""
    if "LOCAL_WORLD_SIZE" in environment:
        here = _read_count(environment, "LOCAL_WORLD_SIZE")
        return Processes(here, max(1, _read_count(environment, "WORLD_SIZE") // here))
    tasks, job = _read_count(environment, "SLURM_NTASKS"), environment.get("SLURM_JOB_NAME", "")
    if tasks > 1 and "SLURM_PROCID" in environment and job not in _INTERACTIVE:
        machines = _read_count(environment, "SLURM_NNODES")
        return Processes(max(1, tasks // machines), machines)
    return Processes(1, 1)


def _read_count(environment: dict[str, str], name: str) -> int:
    """Return a number that torchrun or Slurm has set; 1 where it has not."""
    text = environment.get(name, "1")
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= _MOST_PROCESSES):
        raise SettingsError(
            f"{name} is {text!r} in the environment; expected a number of processes, or no such variable"
        )
    return int(text)


def open_fabric(device: torch.device, precision: str, *, logger: str, folder: Path) -> Fabric:
    """Return Fabric, launched.

    Args:
        device: kind, and number where it matters.
        precision: float32, bfloat16 or auto (bfloat16 on CUDA).
        logger: tensorboard, csv or none; written to a folder of that name inside `folder`.
        folder: of the run.
    """
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    processes = count_processes(dict(os.environ))
    with warnings.catch_warnings():
        # It warns wherever Slurm is installed but not used, which is no news to who trains on one machine.
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        fabric = _build_fabric(device, precision, processes, _build_logger(logger, folder))
        fabric.launch()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    return fabric


def mean_over_processes(fabric: Fabric, figures: dict[str, float]) -> dict[str, float]:
    """Return the mean of what each process has measured."""
    if fabric.world_size == 1:
        return figures
    values = torch.tensor([figures[name] for name in sorted(figures)], device=fabric.device)
    means = fabric.all_reduce(values, reduce_op="mean").tolist()  # type: ignore[union-attr]
    return dict(zip(sorted(figures), means, strict=True))


def average_statistics(fabric: Fabric, *networks: nn.Module) -> None:
    """Make batch-norm statistics equal on all processes: the mean of what each has seen."""
    if fabric.world_size > 1:
        for buffer in [each for network in networks for each in network.buffers() if each.is_floating_point()]:
            buffer.copy_(fabric.all_reduce(buffer, reduce_op="mean"))  # type: ignore[arg-type]


def leave_processes() -> None:
    """End the talk between the processes of a run, where there are several; the last thing a successful command does.

    Gloo's threads must end before the interpreter: one that still frees a tensor while Python shuts down aborts its
    process, and torchrun then reports a finished run as failed. Unreachable modules that hold the group go first.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


def _build_fabric(device: torch.device, precision: str, processes: Processes, loggers: Any) -> Fabric:
    several = processes.world > 1
    # Some parameters have no gradient in some phases (heads, a frozen encoder), and each process keeps its own
    # batch-norm statistics within an epoch, as one process does over accumulated passes.
    strategy = DDPStrategy(
        find_unused_parameters=True,
        broadcast_buffers=False,
        process_group_backend="nccl" if device.type == "cuda" else "gloo",
    )
    return Fabric(
        accelerator=device.type,
        devices=[device.index] if device.index is not None and not several else processes.on_machine,
        num_nodes=processes.machines,
        strategy=strategy if several else "auto",
        plugins=[Bfloat16(device.type)] if precision == "bfloat16" else [],
        loggers=loggers,
    )


def _build_logger(name: str, folder: Path) -> Any:
    if name == "none":
        return []
    kind = {"tensorboard": TensorBoardLogger, "csv": CSVLogger}[name]
    return kind(root_dir=folder, name="", version=name)
