"""The run folder's papers: settings.toml, run.json, log.jsonl and curves.png."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from difom_cache.base.atomic import append_synced, remove_stale, write_atomic
from difom_cache.base.disk import is_file, list_names
from difom_cache.base.errors import RunError
from difom_cache.base.files import read_object, read_plain
from difom_cache.base.hardware import name_processor
from difom_cache.base.options import read_toml
from difom_train.config import FREE, SETTINGS_FILE, TrainConfig, find_differences, read_settings, write_settings
from difom_train.distill.catalogue import revision_of
from difom_train.students.catalogue import IMAGENET_FILE
from difom_train.training.checkpoint import CHECKPOINT

RUN_FILE, LOG_FILE = "run.json", "log.jsonl"
_LIBRARIES = ("difom", "torch", "kornia", "numpy", "timm", "zarr")


def open_folder(folder: Path, config: TrainConfig) -> bool:
    """Make `folder` ready for a run; return whether a checkpoint lies there to go on from.

    Raises:
        RunError: another run lies there, and it is not to be resumed; or it has other settings.
    """
    written = folder / SETTINGS_FILE
    remove_stale(folder)  # of a run that was killed
    there = [name for name in list_names(folder) if not name.startswith(".tmp-")]
    if there and not is_file(written):
        raise RunError(f"{folder} holds something that is no run; choose another --out")
    if not is_file(folder / CHECKPOINT):  # nothing that could be lost
        folder.mkdir(parents=True, exist_ok=True)
        write_settings(config, written)
        return False
    if not config.run.resume:
        raise RunError(f"{folder} already holds a run; go on with it by --resume, or choose another --out")
    refuse_other_settings(folder, config)
    return True


def refuse_other_settings(folder: Path, config: TrainConfig) -> None:
    """Raise RunError if the run in `folder` was started with settings that give another student."""
    written = folder / SETTINGS_FILE
    # Runs of earlier versions fitted no probe, and say nothing of one: whether there is one, their folder says.
    silent = () if "probe" in read_toml(written).get("distill", {}) else ("distill.probe",)
    differences = find_differences(read_settings(written), config, ignore=(*FREE, *silent))
    if differences:
        raise RunError(f"{folder} was started with other settings: {'; '.join(differences)}; choose another --out")
    kind = config.distill.kind
    before, now = find_run(folder).get("revision", 1), revision_of(config)
    if before != now:
        raise RunError(
            f"{folder} was begun by another version, whose distillation {kind!r} teaches otherwise (revision {before} there, "
            f"{now} here): its student opens as before, but the run cannot be resumed; choose another --out"
        )


def describe_versions() -> dict[str, str]:
    """Return the versions of what computes the run."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # not installed as a distribution, such as difom from a bare checkout
            versions[name] = "unknown"
    return versions


def describe_hardware(device: torch.device, world: int) -> dict[str, Any]:
    """Return what the run computes on."""
    hardware: dict[str, Any] = {
        "device": str(device),
        "processes": world,
        "cpu": name_processor(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }
    if device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
        hardware["cuda"] = torch.version.cuda
    return hardware


def write_run(folder: Path, facts: dict[str, Any]) -> None:
    """Write run.json whole; caches stand there by their way from the run folder, the program by its name."""
    home = folder.resolve()
    caches = [os.path.relpath(path, home) for path in facts.get("caches", ())]
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    text = json.dumps({"command": command, **facts, "caches": caches}, indent=1, default=str)
    write_atomic(folder / RUN_FILE, f"{text}\n".encode())


def read_run(folder: Path) -> dict[str, Any]:
    """Return run.json.

    Raises:
        RunError: it is missing or damaged.
    """
    return read_object(folder / RUN_FILE, RunError, "start the run anew")


def find_run(folder: Path) -> dict[str, Any]:
    """Return run.json; nothing where there is none, as in a folder of scores alone.

    Raises:
        RunError: it is damaged.
    """
    return read_run(folder) if (folder / RUN_FILE).is_file() else {}


def read_public_settings(folder: Path) -> dict[str, Any]:
    """Return settings.toml as it may leave this machine: without [run] and folders of first weights; {} where there is none."""
    if not (folder / SETTINGS_FILE).is_file():
        return {}
    settings = {name: value for name, value in read_toml(folder / SETTINGS_FILE).items() if name != "run"}
    if weights := settings.get("student", {}).get("weights"):
        kind = IMAGENET_FILE if weights.startswith(IMAGENET_FILE) else ""
        settings["student"]["weights"] = kind + Path(weights.removeprefix(kind)).name
    return settings


def describe_unfinished(folder: Path) -> str:
    """Return a sentence where the run in `folder` was not trained to its end, "" where it was or nobody knows."""
    facts = find_run(folder)
    if not facts or facts.get("status") == "finished":
        return ""
    done = len(read_log(folder))
    settings = facts.get("settings")
    optimizer = settings.get("optimizer") if isinstance(settings, dict) else None
    epochs = optimizer.get("epochs") if isinstance(optimizer, dict) else None
    of = f" of {epochs}" if epochs else ""
    return f"{folder} is not finished ({done}{of} epochs): its student is of the one kept so far"


def append_log(folder: Path, line: dict[str, Any]) -> None:
    """Add one epoch to log.jsonl."""
    append_synced(folder / LOG_FILE, json.dumps(line) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the epochs of log.jsonl; a last line that was cut off is left out.

    Raises:
        RunError: the file is damaged elsewhere.
    """
    path = folder / LOG_FILE
    if not path.exists():
        return []
    try:
        lines = [json.loads(line) for line in read_plain(path).decode().split("\n")[:-1]]
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}); remove it: the run continues without its curves") from error
    for number, line in enumerate(lines, start=1):
        figures = [line.get(key, 0.0) for key in ("loss", "val_dice")] if isinstance(line, dict) else []
        known = all(figure is None or isinstance(figure, int | float) for figure in figures)
        if not figures or not known or not isinstance(line.get("epoch"), int):
            raise RunError(
                f"{path}, line {number}: expected an epoch's figures; remove it: the run continues without curves"
            )
    return lines


def sum_cpu_s(lines: Sequence[dict[str, Any]]) -> float | None:
    """Return the CPU seconds of all epochs' steps, over all threads; None where an epoch of an earlier version has none."""
    spent_s = [line.get("train_cpu_s") for line in lines]
    return sum(spent_s) if spent_s and None not in spent_s else None  # type: ignore[arg-type]


def cut_log(folder: Path, epochs: int) -> None:
    """Keep the first `epochs` epochs of log.jsonl: what came after the checkpoint is done again."""
    if (folder / LOG_FILE).exists():
        kept = [json.dumps(line) + "\n" for line in read_log(folder) if line["epoch"] < epochs]
        write_atomic(folder / LOG_FILE, "".join(kept).encode())


def refuse_differences(there: dict[str, Any], here: dict[str, Any], keys: Iterable[str], folder: Path) -> None:
    """Raise RunError if a fact that decides the weights is not what the run was started with."""
    differences = [
        _describe_difference(key, there.get(key), here.get(key)) for key in keys if there.get(key) != here.get(key)
    ]
    if differences:
        raise RunError(f"{folder} cannot be resumed: {'; '.join(differences)}; choose another --out")


def _describe_difference(key: str, there: Any, here: Any) -> str:
    """Return what differs in words, and only then by its digests, cut short."""
    if key == "joined_by":
        return (
            f"the records of its caches were joined by {there or 'name'} there and are joined by {here or 'name'} here"
        )
    if key == "manifest_digests":
        return f"the caches hold other records ({_digests(there)} there, {_digests(here)} here)"
    if key == "cache_digests" and isinstance(there, list) and isinstance(here, list):
        old, new = (
            {f"{n}:{name}": each for n, some in enumerate(caches) for name, each in some.items()}
            for caches in (there, here)
        )
        names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        columns = ", ".join(dict.fromkeys(name.partition(":")[2] for name in names))
        shown = ({name: each.get(name) for name in names} for each in (old, new))
        return (
            f"the cache holds other {columns} ({' there, '.join(_digests(list(one.values())) for one in shown)} here)"
        )
    return f"{key}: {there!r} there, {here!r} here"


def _digests(values: Any) -> str:
    return ", ".join("none" if value is None else f"{str(value)[:12]}..." for value in values or [None])
