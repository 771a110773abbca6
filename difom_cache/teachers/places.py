"""Where weights may lie: folders, files in transformers' format, revisions; and what to do where there are none."""

import json
import os
import re
from pathlib import Path
from typing import Any

from difom_cache.base.errors import SettingsError, WeightsError
from difom_cache.base.files import read_plain

WEIGHTS_VARIABLE = "DIFOM_WEIGHTS"
HUB, MAIN = "hub", "main"
CONFIG = "config.json"
FOLDER_FILES = tuple(
    f"{name}{end}" for name in ("model.safetensors", "pytorch_model.bin") for end in ("", ".index.json")
)


def weight_files(folder: Path) -> list[Path]:
    """Return the files in transformers' format that hold the weights in `folder`; empty if any is missing."""
    first = next((folder / name for name in FOLDER_FILES if (folder / name).is_file()), None)
    if first is None:
        return []
    shards = [first] if first.suffix != ".json" else [folder / name for name in list_shards(first)]
    return shards if all(shard.is_file() for shard in shards) else []


def list_shards(index: Path) -> list[str]:
    """Return the names of the files that an index of weights names."""
    return sorted(set(read_json(index)["weight_map"].values()))


def read_json(path: Path) -> dict[str, Any]:
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
    folder = Path(root or "") / folder_name(teacher)
    return folder if root and folder.is_dir() else None


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
