"""Linear layers of a frozen network, packed once for oneDNN.

PyTorch gives float32 `nn.Linear` on x86 to MKL, which is slow on processors of other makers; oneDNN, which does PyTorch's
convolutions, is not. The compiler of PyTorch packs weights with these two operators when it freezes a network; here they
serve without a compiler. The numbers stay float32; only the order of summation differs.
"""

import platform
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """An `nn.Linear` for inference in float32 on the CPU: (..., in_features) to (..., out_features).

    Attributes:
        weight: opaque, in oneDNN's layout; its dtype and shape are the layer's.
        bias: (out_features,) or None.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = linear.bias

    def forward(self, features: Tensor) -> Tensor:
        """Return what the layer would."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(features, self.weight, self.bias, "none", [], "")
        return result


def can_pack() -> bool:
    """Say whether this machine and this PyTorch have the operators, on the processors that they are made for."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return False
    return all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))


def pack_linears(network: nn.Module) -> None:
    """Replace every plain `nn.Linear` inside `network`, float32 on the CPU, by its packed twin; subclasses stay."""
    twins: dict[nn.Module, PackedLinear] = {}  # a layer that is used in two places is packed once
    for name, layer in list(network.named_modules(remove_duplicate=False)):
        if type(layer) is nn.Linear and layer.weight.dtype == torch.float32:
            if layer not in twins:
                twins[layer] = PackedLinear(layer)
            network.set_submodule(name, twins[layer])


def count_flops() -> dict[object, Callable[..., int]]:
    """Return what `FlopCounterMode(custom_mapping=...)` needs in order to see packed layers; empty without them."""

    def count(features: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
        return 2 * prod(features) * weight[0]

    return {torch.ops.mkldnn._linear_pointwise: count} if can_pack() else {}
