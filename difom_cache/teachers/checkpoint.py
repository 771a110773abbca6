"""A file or folder of weights as a table of tensors, whatever its trainer put around them.

Pickles are read with weights_only alone, TorchScript archives by a reader that knows tensors and attributes and nothing
else; no code that comes with weights is ever run.
"""

import argparse
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from difom_cache.base.errors import WeightsError
from difom_cache.base.files import open_plain
from difom_cache.teachers.places import FOLDER_FILES, first_line, list_shards, read_json, way_out

PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # the last as in .pth.tar
SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)
DETECTRON2 = ".pkl"
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
SETS = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params"),
    *("teacher", "student", "ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "params_ema"),
)
"""What trainers call the table of tensors; whatever else lies beside it, such as statistics, is not the network."""
WRAPPERS = ("_orig_mod", "backbone", "encoder")
"""What else is put before a network's names, by torch.compile and by networks around it."""
_NOT_WEIGHTS = ("optim", "sched", "scaler", "loss")
_TEXT_BYTES = 200
STORAGES = {
    **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16},
    **{"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8},
    **{"Byte": torch.uint8, "Bool": torch.bool},
}
"""TorchScript's names of kinds of tensors."""


def read_tensors(path: Path, teacher: str) -> dict[str, Tensor]:
    """Return the tensors of one weights file, or of a folder in transformers' format, on the CPU.

    Raises:
        WeightsError: the path is missing, holds no weights, is truncated, holds other things than tensors, or NaN.
    """
    if path.is_dir():
        return _read_folder(path, teacher)
    if not path.exists():
        raise WeightsError(f"{teacher}: there are no weights at {path}; {way_out(teacher)}")
    return read_checkpoint(path)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one weights file, out of what its trainer put around them, on the CPU.

    Raises:
        WeightsError: it is no whole weights file, holds other things than tensors, several sets of weights, or NaN.
    """
    if path.suffix == DETECTRON2:
        raise WeightsError(
            f"{path}: a pickle of NumPy arrays, as detectron2 publishes its networks, could run code and is not opened; "
            'where you trust it: python -c "import pickle, sys, torch; a, b = sys.argv[1:]; torch.save({k: torch.tensor(v) '
            f"for k, v in pickle.load(open(a, 'rb'))['model'].items()}}, b)\" {path.name} {path.stem}.pth"
        )
    if path.suffix not in SUFFIXES:
        kinds = ", ".join(PICKLE_SUFFIXES)
        raise WeightsError(f"{path}: expected a .safetensors file, a {kinds} file or a folder, found {path.suffix!r}")
    _refuse_text(path)
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except (SafetensorError, OSError, ValueError) as err:
        raise WeightsError(f"{path}: not a whole safetensors file ({first_line(err)}); copy or fetch it again") from err
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{path}: tensor {name} holds NaN or infinity; copy or fetch the file again")
    return tensors


def only_file(folder: Path) -> Path:
    """Return the weights file of a folder in another library's format, such as timm's; else `folder` as it is."""
    if not folder.is_dir() or _is_transformers(folder):
        return folder
    files = [file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES and file.is_file()]
    published = [file for file in files if file.name in (*OPEN_CLIP_FILES, *FOLDER_FILES)]
    safe = [file for file in published or files if file.suffix == ".safetensors"]
    chosen = safe or published or files  # the hub has one network in both formats
    return chosen[0] if len(chosen) == 1 else folder


def _is_transformers(folder: Path) -> bool:
    """Whether a folder is to be read as transformers': its own settings, or its files without any others'."""
    held = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    return "architecture" not in held and any((folder / name).is_file() for name in FOLDER_FILES)


def _read_folder(folder: Path, teacher: str) -> dict[str, Tensor]:
    found = next((folder / name for name in FOLDER_FILES if (folder / name).is_file()), None)
    if found is None:
        raise WeightsError(f"{folder}: expected one of {', '.join(FOLDER_FILES)}, found none; {way_out(teacher)}")
    if found.suffix != ".json":
        return read_tensors(found, teacher)
    tensors: dict[str, Tensor] = {}
    for shard in list_shards(found):
        if Path(shard).name != shard:
            raise WeightsError(f"{found}: names a shard outside its folder: {shard!r}")
        tensors |= read_tensors(folder / shard, teacher)
    return tensors


def _refuse_text(path: Path) -> None:
    """Raise where a file is what a server or Git gave in place of weights."""
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            head = file.read(_TEXT_BYTES)
    except OSError as err:
        raise WeightsError(f"{path}: cannot be read ({err.strerror or err})") from err
    try:
        text = head.decode("ascii").strip()
    except UnicodeDecodeError:
        return
    if text and all(letter.isprintable() or letter.isspace() for letter in text):
        kinds = {"<": "a web page", "version https://git-lfs": "a Git LFS pointer"}
        kind = next((kind for start, kind in kinds.items() if text.startswith(start)), "text")
        first = text.splitlines()[0][:60]
        raise WeightsError(f"{path}: holds {kind} ({first!r}), no weights; fetch the file itself again")


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        held = _read_script(path)
        if held is None:
            with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old files' storages, which are no fault of the user's
                held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        found = re.search(r"GLOBAL (\S+)", str(err))
        what = f" ({found[1]})" if found else f", or is damaged ({first_line(err)})"
        raise WeightsError(
            f"{path}: holds more than tensors{what}; only plain tensors are read, so save its state_dict() alone, "
            "best as .safetensors"
        ) from err
    except MemoryError:
        raise
    except Exception as err:  # damaged pickles end in errors of every kind
        raise WeightsError(f"{path}: not a whole weights file ({first_line(err)}); copy or fetch it again") from err
    return unwrap(held, path)


def unwrap(held: Any, path: Path) -> dict[str, Tensor]:
    """Return the table of tensors in what a trainer saved: as it is, or below `state_dict`, `model`, `teacher`, `ema`...

    Where a student lies beside its teacher, the teacher is taken, as the authors of DINO and DINOv2 do.

    Raises:
        WeightsError: there is no such table, or there are several.
    """
    if _is_table(held):
        return dict(held)
    tables = dict(_tables(held)) if isinstance(held, dict) else {}
    named = {name: table for name, table in tables.items() if name.split(".")[-1] in SETS}
    name = choose_one(list(named or tables), f"{path}: holds several sets of weights")
    if name is None:
        raise WeightsError(f"{path}: expected a state dict of tensors, found {type(held).__name__}")
    return (named or tables)[name]


def choose_one(names: list[str], several: str) -> str | None:
    """Return the one of `names`, the teacher of a teacher and a student, None of none.

    Raises:
        WeightsError: there are more; `several` begins the line that names them.
    """
    if len(names) > 1:
        teachers = [name for name in names if "teacher" in name.split(".")]
        students = [name for name in names if "student" in name.split(".")]
        if len(teachers) != 1 or len(teachers) + len(students) != len(names):
            raise WeightsError(f"{several} ({', '.join(map(repr, names))}); save the one that you mean alone")
        names = teachers
    return names[0] if names else None


def _is_table(held: Any) -> bool:
    return isinstance(held, Mapping) and all(isinstance(key, str) and isinstance(v, Tensor) for key, v in held.items())


def _tables(held: Mapping[Any, Any], depth: int = 2) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Give every table of tensors in nested dicts, under the names that lead to it."""
    for key, value in held.items():
        if not isinstance(key, str) or not isinstance(value, Mapping) or not value or key.startswith(_NOT_WEIGHTS):
            continue
        if _is_table(value):
            yield key, dict(value)
        elif depth > 1:
            yield from ((f"{key}.{name}", table) for name, table in _tables(value, depth - 1))


def _read_script(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors of a TorchScript archive, as OpenAI publishes CLIP; None of any other file."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        root = next((name.removesuffix("/constants.pkl") for name in names if name.endswith("/constants.pkl")), None)
        if root is None or f"{root}/data.pkl" not in names:
            return None
        with archive.open(f"{root}/data.pkl") as file:
            return dict(_Script(file, archive, root).load().tensors())


class _Attributes:
    """A module of an archive: its attributes, and nothing of its code."""

    def __setstate__(self, held: dict[str, Any]) -> None:
        self.held = held

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Give parameters and buffers under the names of `state_dict`."""
        for name, value in self.held.items():
            if isinstance(value, Tensor):
                yield prefix + name, value
            elif isinstance(value, _Attributes):
                yield from value.tensors(f"{prefix}{name}.")


class _Script(pickle.Unpickler):
    """Reads the tree of an archive's modules; names of anything but tensors and modules are refused."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Attributes
        if module == "torch.jit._pickle":  # lists of numbers and the like
            return lambda *held: held
        if module == "torch" and name.removesuffix("Storage") in STORAGES:
            return STORAGES[name.removesuffix("Storage")]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: storage.as_strided(size, stride, offset)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        if key not in self.storages:
            content = bytearray(self.archive.read(f"{self.root}/data/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self.storages[key]
