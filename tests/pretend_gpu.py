"""A GPU that is none: its tensors say cuda:0 and compute on the CPU, and what a real one would be given is counted.

It stands below autograd and autocast, which are PyTorch's own (autocast with the CPU's lists of operations). It times nothing.
PyTorch's C++ is told that its tensors lie on `cpu:1`, which computes as the CPU does and can be told apart from it.
"""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from difom_cache.base import hardware

ROOT = Path(__file__).parents[1]
GPU, TOLD = torch.device("cuda", 0), torch.device("cpu", 1)
MEMORY_BYTES = 8 << 30
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim", "bincount"}
"""Operations that end only when the device has done all that it was given before."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"}
"""Operations that give the device nothing to do."""


class Work:
    """What the device was given, each by operation and line of this project.

    Attributes:
        launches: operations on the device that are no views; each counts once, however many kernels PyTorch makes of it.
        uploads: copies to the device that the host does not wait for: from pinned memory, as non-blocking.
        downloads: such copies to pinned memory of the host.
        waits: other copies between them, and operations whose answer the host needs.
    """

    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self.downloads: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    @property
    def counts(self) -> tuple[int, int, int]:
        """Launches, waits and uploads."""
        return self.launches.total(), self.waits.total(), self.uploads.total()


class OnGpu(Tensor):
    """A tensor that says cuda:0; `held` is what it holds, on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGpu":
        how = {"dispatch_device": True, "device_for_backend_keys": torch.device("cpu")}
        with torch.inference_mode(held.is_inference()):
            plane = torch.empty_strided(held.size(), held.stride(), dtype=held.dtype, device="meta")
            made = Tensor._make_subclass(cls, plane, False, **how)  # type: ignore[attr-defined]
        made.held = held
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return PretendGpu.only.run(func, args, dict(kwargs or {}))

    device = property(lambda self: GPU)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def get_device(self) -> int:
        return 0

    def new_tensor(self, data: Any, **options: Any) -> Tensor:  # type: ignore[override]
        return torch.tensor(data, **{"dtype": self.dtype} | options).to(GPU)

    def tolist(self) -> Any:
        PretendGpu.only.wait("tolist")
        return self.held.tolist()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnGpu({tuple(self.shape)}, {self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made: Tensor = OnGpu(self.held.clone())
        made = torch.nn.Parameter(made) if isinstance(self, torch.nn.Parameter) else made
        return memo.setdefault(id(self), made.requires_grad_(self.requires_grad))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)

    def __tensor_flatten__(
        self,
    ) -> tuple[list[str], None]:  # a module swaps its parameters for these, and keeps the objects
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> "OnGpu":
        return OnGpu(inner["held"])


class PretendGpu(TorchDispatchMode):
    """Sees every operation of its thread and of its own tensors, and counts in `work`."""

    only: "PretendGpu"

    def __init__(self) -> None:
        super().__init__()
        self.work, self.host = Work(), threading.get_ident()
        self.most_numbers = 1 << 60
        "Of one tensor; what asks for more is out of memory."
        self._pinned: dict[int, Any] = {}  # held, so that no other memory gets its place

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, dict(kwargs or {}))

    def wait(self, what: str) -> None:
        """Count a wait of the thread that computes; others may."""
        self._count(self.work.waits, what)

    def _count(self, counter: Counter[str], what: str) -> None:
        if threading.get_ident() == self.host:
            counter[f"{what} @ {_find_line()}"] += 1

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return what an operation gives, computed on the CPU."""
        name, asked = func._schema.name.partition("::")[2], kwargs.get("device")
        if name == "device":
            return TOLD
        if torch.is_inference_mode_enabled():  # else autograd has taken such an operation to pieces
            with self:
                pieces = func.decompose(*args, **kwargs)
            if pieces is not NotImplemented:
                return pieces
        if name == "is_pinned":
            return not isinstance(args[0], OnGpu) and args[0].untyped_storage()._cdata in self._pinned
        if name == "_pin_memory":  # the real one asks CUDA for memory
            return self._pin(args[0].clone())
        pin = kwargs.pop("pin_memory", False)
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        there = [each for each in tensors if isinstance(each, OnGpu)]
        here = [each for each in tensors if not isinstance(each, OnGpu)]
        goes = bool(there) if asked is None else asked.type == "cuda" or asked == TOLD
        if not there and not goes:
            result = func(*args, **kwargs)
            return self._pin(result) if pin else result
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        if there and name not in ("copy_", "_to_copy") and any(each.dim() for each in here):
            if name not in INDEXING:
                raise RuntimeError(f"{name}: expected all tensors to be on the same device, found cuda:0 and cpu")
            self.wait(f"{name} by numbers of the host")
        result = func(*tree_map_only(OnGpu, _held, args), **tree_map_only(OnGpu, _held, kwargs))
        if name == "_to_copy" and there and goes and result.dtype == there[0].dtype and not kwargs.get("memory_format"):
            return OnGpu(there[0].held)  # is there already
        if any(each.held.shape != each.shape for each in there):
            raise NotImplementedError(f"{name} changes a tensor's shape in place")
        self._see(func, name, args, kwargs, here, there, goes)
        if any(each.numel() > self.most_numbers for each in tree_leaves(result) if isinstance(each, Tensor)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        known = {id(_held(each)): each for each in tensors}
        return tree_map_only(Tensor, lambda r: known[id(r)] if id(r) in known else OnGpu(r) if goes else r, result)

    def _see(self, func: Any, name: str, args: Any, kwargs: Any, here: list[Any], there: list[Any], goes: bool) -> None:
        bools = name in INDEXING and any(each.dtype in (torch.bool, torch.uint8) for each in there[1:])
        if (name == "_to_copy" and goes != bool(there)) or (name == "copy_" and here):
            asked = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            host = here or [torch.empty(0)]
            free = asked and any(each.untyped_storage()._cdata in self._pinned for each in host)
            up = goes if name == "_to_copy" else isinstance(args[0], OnGpu)
            way = self.work.uploads if up else self.work.downloads
            self._count(way if free else self.work.waits, name)
        elif name in WAITS or bools:
            self.wait(name)
        elif not func.is_view and name not in NOTHING:
            self._count(self.work.launches, name)

    def _pin(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._pinned[storage._cdata] = storage
        return tensor


def _held(tensor: Tensor) -> Tensor:
    return tensor.held if isinstance(tensor, OnGpu) else tensor


def _find_line() -> str:
    """Return the innermost file and line of this project's own code, or of whoever called PyTorch."""
    frame, outside = sys._getframe(1), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith((f"{ROOT}/difom_", f"{ROOT}/benchmarks")):
            return f"{name.removeprefix(f'{ROOT}/')}:{frame.f_lineno}"
        if not outside and "/torch/" not in name and name != __file__:
            outside = f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return outside


class Event:
    """A moment on the device."""

    def __init__(self, **_: Any) -> None: ...

    def record(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None:
        PretendGpu.only.wait("event.synchronize")

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: "Event") -> float:
        return 1.0


@contextmanager
def pretend_gpu() -> Iterator[PretendGpu]:
    """Give PyTorch a GPU, for as long as it lasts; yield what counts."""
    if not hasattr(torch._C, "_ensureCUDADeviceGuardSet"):
        pytest.skip(f"torch {torch.__version__} cannot pretend a GPU")
    torch._C._ensureCUDADeviceGuardSet()  # a device without a number is number 0
    gpu = PretendGpu.only = PretendGpu()
    about = SimpleNamespace(total_memory=MEMORY_BYTES, major=9, minor=0, name="Pretended GPU", multi_processor_count=1)
    answers: dict[str, Any] = {
        **{"is_available": True, "device_count": 1, "current_device": 0, "is_initialized": True, "_lazy_init": None},
        **{
            "is_bf16_supported": True,
            "get_device_name": about.name,
            "get_device_capability": (about.major, about.minor),
        },
        **{"get_device_properties": about, "mem_get_info": (MEMORY_BYTES, MEMORY_BYTES), "memory_reserved": 0},
        **{"max_memory_allocated": 0, "memory_allocated": 0, "reset_peak_memory_stats": None, "empty_cache": None},
        **{"set_device": None, "manual_seed_all": None, "current_stream": SimpleNamespace(device=GPU)},
    }
    autocast, is_enabled = torch.autocast, torch.is_autocast_enabled

    class Autocast(autocast):  # type: ignore[misc]
        def __init__(self, device_type: str, *args: Any, **options: Any) -> None:
            super().__init__("cpu", *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name, answer in answers.items():
            patch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
        patch.setattr(hardware, "has_driver", lambda: True)
        patch.setattr(torch.cuda, "synchronize", lambda *_: gpu.wait("cuda.synchronize"))
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch, "autocast", Autocast)
        patch.setattr(torch, "is_autocast_enabled", lambda *_: is_enabled("cpu"))
        patch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
        # PyTorch itself would take many tensors at once only of types and devices that it knows.
        patch.setattr(_foreach_utils, "_foreach_supported_types", [Tensor, torch.nn.Parameter, OnGpu])
        patch.setattr(_foreach_utils, "_get_foreach_kernels_supported_devices", lambda: ["cuda", "cpu"])
        lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(
            True
        )  # numbers from Python are a tensor of the host first, which is then copied
        try:
            with gpu:
                yield gpu
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts)
