"""What a piece of code asks of a GPU, counted without one: on fake tensors, which have a device and a shape and no numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}
"""Operations that end only when the device has done all that it was given before."""
COPIES = {"_to_copy", "copy_"}
NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"}
"""Operations that give the device nothing to do."""


class DeviceWork(TorchDispatchMode):
    """Counts what the device is given, and what makes the host wait for it.

    Attributes:
        kernels: operations on the device that are no views; each counts once, however many kernels PyTorch makes of it.
        copies: between host and device that do not wait: to or from pinned memory, asked for as non-blocking.
        waits: other copies between them, and operations whose answer the host needs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[str] = []
        self.copies: list[str] = []
        self.waits: list[str] = []
        self._pinned: dict[int, torch.UntypedStorage] = {}  # held, so that no other memory gets its place

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.split("::")[1]
        if name == "is_pinned":
            return self._is_pinned(args[0])
        if name == "_pin_memory":  # the real one asks CUDA for memory
            return self._pin(args[0].clone())
        pinned = kwargs.pop("pin_memory", False)
        result = func(*args, **kwargs)
        if pinned:
            self._pin(result)
        tensors = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, torch.Tensor)]
        places = {each.device.type for each in tensors}
        if "cuda" not in places or func.namespace == "prim":
            return result
        if name in WAITS:
            self.waits.append(name)
        elif name in COPIES and "cpu" in places:
            asked = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            free = asked and any(self._is_pinned(each) for each in tensors if each.device.type == "cpu")
            (self.copies if free else self.waits).append(name)
        elif not func.is_view and name not in NOTHING:
            self.kernels.append(name)
        return result

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        self._pinned[storage._cdata] = storage
        return tensor

    def _is_pinned(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._pinned


@contextmanager
def count_device_work() -> Iterator[DeviceWork]:
    """Count what is done inside to tensors on "cuda", which are fake there."""
    with FakeTensorMode(allow_non_fake_inputs=True), DeviceWork() as work:
        yield work
