"""What this machine computes with: a device by name, its processor's name, PyTorch's threads."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from difom_cache.base.errors import DeviceError

_CPUINFO = Path("/proc/cpuinfo")
_NO_ROOM = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # x86's instructions, and ARM's, as Linux calls them


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device that a name means; "auto" is CUDA where there is one.

    Args:
        device: auto, cpu, cuda or cuda:N.

    Raises:
        DeviceError: there is no such device here.
    """
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


def name_device(device: torch.device) -> str:
    """Return the name of what computes: the GPU's or the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else name_processor()


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Return `values`, which lie in host memory, on `device`; the host waits for no earlier work of a GPU.

    Only from pinned memory a copy is left to the GPU; from other memory the driver may wait until it has staged it.
    """
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def emulates_bfloat16(device: str | torch.device) -> bool:
    """Return whether a GPU has no instructions for bfloat16: those before Ampere, such as T4, V100 and RTX 2080."""
    device = torch.device(device)
    return device.type == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability(device) < (8, 0)


def explain_bfloat16(device: torch.device) -> str:
    """Return one line where `device` emulates bfloat16, which is then slower than float32; else, or where unknown, nothing."""
    if emulates_bfloat16(device):
        return (
            f"NOTE: {name_device(device)} has no instructions for bfloat16, which it would emulate; without --precision it "
            "computes in float32"
        )
    if device.type != "cpu" or not _CPUINFO.is_file():
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
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
