"""Where a teacher's weights come from, and the digest that says which they are.

Sources: a hub (hub.py), a local folder in the library's own format, one `.safetensors` or `.pth` file, or "random".
Pickles are read with weights_only alone, and no code from a hub is ever run.
"""

import hashlib
import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from difom_cache.errors import SettingsError, WeightsError
from difom_cache.files import read_plain

WEIGHTS_VARIABLE = "DIFOM_WEIGHTS"
HUB, MAIN = "hub", "main"
PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
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


def read_tensors(path: Path, teacher: str) -> dict[str, Tensor]:
    """Return the tensors of one weights file, or of a folder in transformers' format, on the CPU.

    Raises:
        WeightsError: the path is missing, holds no weights, is truncated, holds other things than tensors, or NaN.
    """
    if path.is_dir():
        return _read_folder(path, teacher)
    if not path.is_file():
        raise WeightsError(f"{teacher}: there are no weights at {path}; {way_out(teacher)}")
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
    elif path.suffix in PICKLE_SUFFIXES:
        tensors = _read_pickle(path)
    else:
        raise WeightsError(
            f"{path}: expected a .safetensors file, a {', '.join(PICKLE_SUFFIXES)} file or a folder, found {path.suffix!r}"
        )
    _check_finite(tensors, path)
    return tensors


def _read_folder(folder: Path, teacher: str) -> dict[str, Tensor]:
    found = next((folder / name for name in FOLDER_FILES if (folder / name).is_file()), None)
    if found is None:
        raise WeightsError(f"{folder}: expected one of {', '.join(FOLDER_FILES)}, found none; {way_out(teacher)}")
    if found.suffix != ".json":
        return read_tensors(found, teacher)
    shards = sorted(set(read_json(found)["weight_map"].values()))
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        if Path(shard).name != shard:
            raise WeightsError(f"{found}: names a shard outside its folder: {shard!r}")
        tensors |= read_tensors(folder / shard, teacher)
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """Return the files in transformers' format that hold the weights in `folder`; empty if any is missing."""
    first = next((folder / name for name in FOLDER_FILES if (folder / name).is_file()), None)
    if first is None:
        return []
    if first.suffix != ".json":
        return [first]
    shards = [folder / name for name in sorted(set(read_json(first)["weight_map"].values()))]
    return shards if all(shard.is_file() for shard in shards) else []


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as err:
        raise WeightsError(f"{path}: not a whole safetensors file ({err}); copy or fetch it again") from err


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        found = re.search(r"GLOBAL (\S+)", str(err))
        what = f" ({found[1]})" if found else f", or is damaged ({first_line(err)})"
        raise WeightsError(
            f"{path}: holds more than tensors{what}; only plain tensors are read, so save its state_dict() alone, "
            "best as .safetensors"
        ) from err
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as err:
        raise WeightsError(f"{path}: not a whole weights file ({first_line(err)}); copy or fetch it again") from err
    for wrapper in ("state_dict", "model"):
        if isinstance(held, dict) and isinstance(held.get(wrapper), dict):
            held = held[wrapper]
    if not isinstance(held, dict) or not all(isinstance(v, Tensor) for v in held.values()):
        raise WeightsError(f"{path}: expected a state dict of tensors, found {type(held).__name__}")
    return dict(held)


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{path}: tensor {name} holds NaN or infinity; copy or fetch the file again")


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
