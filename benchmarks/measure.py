"""What all benchmarks measure with: seconds on a device, the most memory, the ceiling of matrix products, the machine's state."""

import csv
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import torch

from difom_cache.base.heap import return_freed_memory
from difom_cache.teachers.base import Precision

MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
MATMUL_RUNS = 10
_STATUS = Path("/proc/self/status")
_GPU_STATE = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu"


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that `run` takes: between two events of the device's stream on CUDA, else by the clock."""
    if device.type != "cuda":
        started_s = perf_counter()
        run()
        return perf_counter() - started_s
    with torch.cuda.device(device):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        run()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1000


def count_launches(run: Callable[[], object], device: torch.device) -> int:
    """Return how many kernels `run` launches on a CUDA device."""
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        run()
        torch.cuda.synchronize(device)
    return sum(each.count for each in profile.key_averages() if "LaunchKernel" in each.key)


def measure_matmul(device: torch.device, precision: Precision) -> float:
    """Return the operations a second of the best of some large products of random matrices, after one to warm up.

    Random, as a GPU multiplies ones and zeros faster: they take less power, and so less of its clock.
    """
    side = MATMUL_SIDE[device.type]
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn((side, side), generator=generator).to(device, dtype) for _ in range(2))
    product = partial(torch.mm, left, right, out=torch.empty_like(left))
    product()
    return 2 * side**3 / min(seconds_of(product, device) for _ in range(MATMUL_RUNS))


@dataclass
class Peak:
    """The most memory that a block held beyond what was held when it began; None where the system does not say."""

    held_bytes: int | None = None


@contextmanager
def peak_of(device: torch.device) -> Iterator[Peak]:
    """Measure a block: of the device on CUDA, else of this process on Linux."""
    peak, before = Peak(), 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    elif _STATUS.exists():
        return_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to what is held now
        before = _read_status("VmRSS")
    yield peak
    if device.type == "cuda":
        peak.held_bytes = int(torch.cuda.max_memory_allocated(device)) - before
    elif _STATUS.exists():
        peak.held_bytes = max(0, _read_status("VmHWM") - before)


def _read_status(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def describe_gpus() -> list[dict[str, str]]:
    """Return driver, clocks, power and temperature of each GPU, as nvidia-smi says them; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={_GPU_STATE}", "--format=csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return list(csv.DictReader(done.stdout.splitlines(), skipinitialspace=True)) if done.returncode == 0 else []
