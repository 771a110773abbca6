"""Every private name of a library that this project uses: why, with which versions it was seen to hold, and what breaks without.

`tests/base/test_compat.py` says what breaks, and that there are no others; pyproject.toml bounds these libraries from above.
"""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # at run time loaded late: --help loads no PyTorch
    from torch import Tensor, nn
    from torch.optim import Optimizer

Init = TypeVar("Init", bound=Callable[..., None])
_MARKED = ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict")


def checked_as_a_whole(init: Init) -> Init:
    """Mark a model's own `__init__`, which raises our errors, as pydantic's: a section inside a table is not built by it.

    Else the first wrong section ends the check of its table, and the message lacks the section's name. pydantic 2.10 to 2.14.
    """
    init.__pydantic_base_init__ = True  # type: ignore[attr-defined]
    return init


def hooks_of(module: "nn.Module") -> dict[int, Any]:
    """Return the forward hooks of a module, to be looked at or taken off; a copied module's have no handle. torch 2.8 to 2.15."""
    return module._forward_hooks


def writes_of(tensor: "Tensor") -> int:
    """Return how often a tensor has been written to in place, which autograd counts. torch 2.8 to 2.15."""
    return tensor._version


def multiply_int8(left: "Tensor", right: "Tensor") -> "Tensor":
    """Return the product of two int8 matrices as int32; the public one takes floats alone. torch 2.8 to 2.15."""
    import torch

    return torch._int_mm(left, right)


def keep_graphs_of_compiled() -> None:
    """Let the graph of a compiled network be gone through twice, as the gradient share does. torch 2.8 to 2.15."""
    from torch._functorch import config

    config.donated_buffer = False


def never_compiled(kind: "type[Optimizer]") -> "Callable[..., Optimizer]":
    """Return an optimizer without the marks that its methods carry for `torch.compile`.

    They load the compiler before the first step, which takes as long as PyTorch itself; a run compiles no optimizer. torch 2.8
    to 2.15.
    """
    import torch

    plain: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in _MARKED}
    return type(kind.__name__, (kind,), plain | {"step": torch.no_grad()(plain["step"])})
