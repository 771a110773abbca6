"""Where a teacher's weights come from, and the digest that says which they are.

Sources: a hub (hub.py), a local folder or file (checkpoint.py) in one of several layouts (layouts.py), or "random".
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from difom_cache.base.errors import SettingsError, WeightsError
from difom_cache.base.files import read_plain

WEIGHTS_VARIABLE = "DIFOM_WEIGHTS"
HUB, MAIN = "hub", "main"
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@dataclass(frozen=True)
class Weights:
    """Which weights a teacher holds: where they came from, for people, and the digest that decides."""

    source: str
    digest: str


def is_outline() -> bool:
    """Return whether networks are being made without their numbers: then weights are neither read nor drawn."""
    return torch.get_default_device().type == "meta"


def outline_weights(weights: str) -> Weights:
    """Return what stands for weights that are not read: no digest, and a source only where it is "random"."""
    return Weights("random" if weights == "random" else "", "")


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over the sorted names, shapes, types and bytes of `tensors`, whatever file held them."""
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
    that a cell of a map is about the place it lies over.
    """
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


def weight_files(folder: Path) -> list[Path]:
    """Return the files in transformers' format that hold the weights in `folder`; empty if any is missing."""
    first = next((folder / name for name in FOLDER_FILES if (folder / name).is_file()), None)
    if first is None:
        return []
    if first.suffix != ".json":
        return [first]
    shards = [folder / name for name in sorted(set(read_json(first)["weight_map"].values()))]
    return shards if all(shard.is_file() for shard in shards) else []


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


def read_json(path: Path) -> dict:
    """Return the JSON object in `path`, or raise a WeightsError that names it."""
    try:
        held = json.loads(read_plain(path))
    except FileNotFoundError as err:
        raise WeightsError(f"{path.parent}: expected a {path.name} beside the weights, found none") from err
    except (OSError, ValueError, RecursionError) as err:
        raise WeightsError(f"{path}: not readable as JSON ({first_line(err)})") from err
    if not isinstance(held, dict):
        raise WeightsError(f"{path}: expected a JSON object, found {type(held).__name__}")
    return held


def fetched_folder(teacher: str) -> Path | None:
    """Return where `difom-cache weights fetch` put this teacher's weights, if DIFOM_WEIGHTS points there."""
    root = os.environ.get(WEIGHTS_VARIABLE)
    if not root:
        return None
    folder = Path(root) / folder_name(teacher)
    return folder if folder.is_dir() else None


def folder_of(path: Path, teacher: str) -> Path:
    """Return the folder of one teacher in a folder that holds one for each, as `weights fetch` makes; else `path` itself."""
    own = path / folder_name(teacher)
    return own if own.is_dir() else path


def folder_name(teacher: str) -> str:
    """Return the folder that holds the weights of "dinov2:base", such as "dinov2-base"."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", teacher)


def read_revision(weights: str) -> str | None:
    """Return the revision that "hub" (its main branch) or "hub@REVISION" means, None for anything else.

    Raises:
        SettingsError: nothing follows the @.
    """
    name, at, revision = weights.partition("@")
    if name != HUB:
        return None
    if at and not revision:
        raise SettingsError(f"--weights {weights}: expected a branch, tag or commit after the @")
    return revision or MAIN


def way_out(teacher: str) -> str:
    """Return what to do about weights that are not here, for the end of a message."""
    return (
        f"on a machine with network run `difom-cache weights fetch {teacher} --to DIR`, then set "
        f"{WEIGHTS_VARIABLE}=DIR or pass --weights DIR/{folder_name(teacher)}"
    )


def first_line(err: BaseException) -> str:
    """Return the first line of an error's message, in plain letters."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(err)).strip()  # PyTorch writes some of its messages in bold
    return (plain.splitlines() or [type(err).__name__])[0][:160]
