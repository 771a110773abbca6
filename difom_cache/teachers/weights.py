"""The tensors of a network: their digest, random ones, and those of a checkpoint put in exactly."""

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from difom_cache.base.errors import WeightsError
from difom_cache.teachers.base import RANDOM, Weights
from difom_cache.teachers.places import way_out


def is_outline() -> bool:
    """Return whether networks are being made without their numbers: then weights are neither read nor drawn."""
    return torch.get_default_device().type == "meta"


def outline_weights(weights: str) -> Weights:
    """Return what stands for weights that are not read: no digest, and a source only where it is "random"."""
    return Weights(RANDOM if weights == RANDOM else "", "")


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over the sorted names, shapes, types and bytes of `tensors`, whatever file held them.

    "" where they hold no numbers, as in an outline.
    """
    if any(tensor.is_meta for tensor in tensors.values()):
        return ""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def fill_random(network: nn.Module, name: str) -> None:
    """Draw every parameter of `network` anew, so that two processes given the same `name` hold the same network.

    Each tensor has a generator of its own, keyed by `name` and its place, on the CPU. Matrices and kernels keep
    activations of order one; what starts as ones (norms, layer scales) stays near one and the rest (biases, positions,
    tokens) near zero, so that nothing is dead. Kernels of 3x3 and more lean on their centre, as trained ones do, so
    that a cell of a map is about the place it lies over. A network that holds no numbers stays so.
    """
    if any(parameter.is_meta for parameter in network.parameters()):
        return
    for place, module in network.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            seed = hashlib.sha256(f"{name}\n{place}.{key}".encode()).digest()
            generator = torch.Generator("cpu").manual_seed(int.from_bytes(seed[:7], "big"))
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = parameter.ndim == 1 and ("norm" in type(module).__name__.lower() or "scale" in place.lower())
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and key == "weight":
                window = _centre_window(module)
                value = noise * window / math.sqrt(parameter[0].numel() * window.square().mean().item())
            elif is_scale and key != "bias":
                value = 1 + 0.02 * noise
            else:
                value = 0.02 * noise
            parameter.data.copy_(value)


def _centre_window(module: nn.Module) -> Tensor:
    """Return what a kernel is multiplied by: 1 at the centre of one that slides by single cells, a quarter around."""
    kernel, stride = getattr(module, "kernel_size", (1, 1)), getattr(module, "stride", (1, 1))
    if min(kernel) < 3 or max(stride) > 1:
        return torch.ones(())
    window = torch.full(kernel, 0.25)
    window[kernel[0] // 2, kernel[1] // 2] = 1
    return window


def load_exact(network: nn.Module, tensors: Mapping[str, Tensor], source: object, teacher: str) -> None:
    """Put `tensors` into `network`, which must have exactly these names and shapes.

    Raises:
        WeightsError: names the first keys that are missing, unexpected or of another shape.
    """
    own = network.state_dict()
    wrong = {k: (tuple(tensors[k].shape), tuple(own[k].shape)) for k in own if k in tensors}
    refuse_mismatch(
        source,
        teacher,
        missing=sorted(set(own) - set(tensors)),
        unexpected=sorted(set(tensors) - set(own)),
        shapes={k: pair for k, pair in wrong.items() if pair[0] != pair[1]},
    )
    network.load_state_dict({k: v.to(own[k].dtype) for k, v in tensors.items()})


def refuse_mismatch(
    source: object,
    teacher: str,
    *,
    missing: list[str],
    unexpected: list[str],
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> None:
    """Raise one line about a checkpoint that is not `teacher`'s, if anything differs."""
    if shapes:
        key, (found, expected) = next(iter(shapes.items()))
        raise WeightsError(
            f"{source}: not the weights of {teacher}: {key} is {found}, expected {expected} "
            f"({len(shapes)} tensors of another shape); another variant, perhaps? {way_out(teacher)}"
        )
    if missing or unexpected:
        parts = [
            f"{len(keys)} {word} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for word, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise WeightsError(f"{source}: not the weights of {teacher}: {' and '.join(parts)}; {way_out(teacher)}")
