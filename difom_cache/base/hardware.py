"""What this machine computes with: a device by name, its processor's name, PyTorch's threads."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from difom_cache.base.errors import DeviceError

if TYPE_CHECKING:  # at run time it is loaded where something is asked of it: a dry run asks nothing
    import torch
    from torch import Tensor

_CPUINFO = Path("/proc/cpuinfo")
_NO_ROOM = (
    *("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
    *("Failed to allocate memory for requested buffer", "CUDA failure 2: out of memory"),  # onnxruntime
)
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # x86's instructions, and ARM's, as Linux calls them


def settle_device(device: str) -> str:
    """Return the name of the device that a name means; PyTorch is loaded only where it might find a GPU.

    Raises:
        DeviceError: there is no such device here.
    """
    return "cpu" if device == "cpu" or (device == "auto" and not has_driver()) else str(resolve_device(device))


def has_driver() -> bool:
    """Return whether this machine has a driver of NVIDIA's, or of AMD's, without which PyTorch finds no CUDA device."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def count_cores() -> int:
    """Return how many cores this process may use: those that a job or a container was given, not the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_gpus() -> int:
    """Return how many CUDA devices PyTorch finds."""
    import torch

    return torch.cuda.device_count()


def resolve_device(device: "str | torch.device") -> "torch.device":
    """Return the device that a name means; "auto" is CUDA where there is one.

    Args:
        device: auto, cpu, cuda or cuda:N.

    Raises:
        DeviceError: there is no such device here.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = torch.device("meta")
    if chosen.type not in ("cpu", "cuda") or (chosen.type == "cpu" and chosen.index):
        raise DeviceError(f"there is no device {str(device)!r}; use auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"--device {device}: this machine has no CUDA device that PyTorch can use; use --device cpu")
    if chosen.type == "cuda" and chosen.index is not None and chosen.index >= torch.cuda.device_count():
        raise DeviceError(f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices, from cuda:0")
    return chosen


def name_processor() -> str:
    """Return the processor's name as its maker writes it, or the machine's kind where the system does not say."""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def name_device(device: "str | torch.device") -> str:
    """Return the name of what computes: the GPU's or the processor's."""
    if not str(device).startswith("cuda"):
        return name_processor()
    import torch

    return torch.cuda.get_device_name(device)


def upload(values: "Tensor", device: "torch.device") -> "Tensor":
    """Return `values`, which lie in host memory, on `device`; the host waits for no earlier work of a GPU.

    Only from pinned memory a copy is left to the GPU; from other memory the driver may wait until it has staged it.
    """
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


class Coming:
    """Values on their way from a device to the host, which goes on meanwhile; on a CPU they are there at once."""

    def __init__(self, values: "Tensor") -> None:
        import torch

        self._held = values
        self._event: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._held = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(values.device))

    @property
    def is_there(self) -> bool:
        """Whether they can be read without waiting."""
        return self._event is None or self._event.query()

    def read(self) -> "Tensor":
        """Return them, on the host."""
        if self._event is not None and not self.is_there:
            self._event.synchronize()
        return self._held


def emulates_bfloat16(device: "str | torch.device") -> bool:
    """Return whether a GPU has no instructions for bfloat16: those before Ampere, such as T4, V100 and RTX 2080."""
    if not str(device).startswith("cuda"):
        return False
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability(device) < (8, 0)


def explain_bfloat16(device: "str | torch.device") -> str:
    """Return one line where `device` emulates bfloat16, which is then slower than float32; else, or where unknown, nothing."""
    if emulates_bfloat16(device):
        return (
            f"NOTE: {name_device(device)} has no instructions for bfloat16, which it would emulate; without --precision it "
            "computes in float32"
        )
    if str(device) != "cpu" or not _CPUINFO.is_file():
        return ""
    lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    if not flags or _BFLOAT16 & set(flags):
        return ""
    return (
        f"NOTE: {name_processor()} has no instructions for bfloat16 (avx512_bf16 or amx_bf16) and emulates it, which is slower "
        "than --precision float32"
    )


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a GPU's memory was too small, which its libraries tell in other words than PyTorch."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _NO_ROOM)


@contextmanager
def explain_memory(hint: str) -> Iterator[None]:
    """Say in one line, which ends with `hint`, that a GPU's memory was too small.

    Raises:
        DeviceError: it was.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(f"the GPU ran out of memory: {str(error).splitlines()[0]} {hint}") from error


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch compute with `count` threads on the CPU, and with as many as before afterwards.

    Sums on the CPU are cut by thread, so their last bits depend on the number.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
