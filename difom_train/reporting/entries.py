"""Runs become entries of a comparison: one entry for all seeds of the same settings."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import RunError
from difom_cache.base.options import read_toml
from difom_cache.base.text import name_some
from difom_train.config import rename_old_keys
from difom_train.evaluation.files import MAPS_VERSION, PROTOCOL_VERSION, read_set, read_summary
from difom_train.evaluation.summary import METRICS, FrameInfo, SetScores

SEED_ENDING = re.compile(r"[-_]?seed[-_]?\d+$")


@dataclass(frozen=True)
class Entry:
    """One line of a comparison: the runs of one setting, differing by seed alone.

    Attributes:
        name: the runs' folder name without its seed.
        runs: their folders.
        seeds: for each run, test set to scores; every run scored the same frames in the same order.
    """

    name: str
    runs: tuple[Path, ...]
    seeds: tuple[dict[str, SetScores], ...]

    @property
    def seeds_drawn(self) -> tuple[tuple[int, int], ...]:
        """Return the labels seed and the seed of each run; () where a folder does not say."""
        return tuple(seeds for run in self.runs if (seeds := _seeds_of(run)))

    @property
    def datasets(self) -> list[str]:
        """Return the test sets, in their order."""
        return list(self.seeds[0])

    def values(self, dataset: str, metric: str) -> NDArray[np.float64]:
        """Return one metric of every seed and frame of a test set, (seeds, N)."""
        return np.stack([sets[dataset].columns[metric] for sets in self.seeds])

    def keep(self, rows: dict[str, NDArray[np.bool_]]) -> "Entry":
        """Return the same entry on the frames that `rows` keeps of each set; sets without any are left out."""
        seeds = tuple(
            {name: scores.keep(rows[name]) for name, scores in sets.items() if rows[name].any()} for sets in self.seeds
        )
        return Entry(self.name, self.runs, seeds)

    def summarise(self) -> dict[str, dict[str, float]]:
        """Return test set to metric name to its mean over seeds."""
        return {
            dataset: {
                metric.name: float(np.mean([sets[dataset].summarise()[metric.name] for sets in self.seeds]))
                for metric in METRICS
            }
            for dataset in self.datasets
        }


def load_entries(runs: Sequence[Path | str]) -> list[Entry]:
    """Return the entries of some evaluated runs, in the order in which they were given.

    Raises:
        RunError: a run that is not evaluated; scores of different protocol versions; runs that scored other frames,
            which are counted and named.
    """
    folders = [Path(run) for run in runs]
    if not folders:
        raise RunError("nothing to compare: name at least one run folder")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError("the same run is named twice; name each run once")
    sets = {folder: _load_sets(folder) for folder in folders}
    _check_versions(folders)
    first = folders[0]
    for folder in folders[1:]:
        _check_same_frames(first, sets[first], folder, sets[folder])
    order = list(sets[first])
    grouped: dict[str, list[Path]] = {}
    for folder in folders:
        grouped.setdefault(_settings_key(folder), []).append(folder)
    for group in grouped.values():
        group.sort(key=_seeds_of)
    names = _name_entries(list(grouped.values()))
    return [
        Entry(name, tuple(group), tuple({each: sets[folder][each] for each in order} for folder in group))
        for name, group in zip(names, grouped.values(), strict=True)
    ]


def frames_of(entries: Sequence[Entry]) -> dict[str, tuple[FrameInfo, ...]]:
    """Return test set to the frames that every entry scored."""
    return {dataset: scores.frames for dataset, scores in entries[0].seeds[0].items()}


def eval_folder(run: Path) -> Path:
    """Return where the scores of a run lie: RUN/eval, or the folder itself if evaluation wrote there."""
    return run if (run / "summary.json").is_file() else run / "eval"


def _load_sets(run: Path) -> dict[str, SetScores]:
    folder = eval_folder(run)
    names = list(read_summary(folder)["sets"])
    if not names:
        raise RunError(f"{folder} has no test set; run `difom-train evaluate {run}` again")
    return {name: read_set(folder, name) for name in names}


def _check_versions(folders: Sequence[Path]) -> None:
    odd = {}
    for folder in folders:
        summary = read_summary(eval_folder(folder))
        identity = summary["identity"]
        if summary.get("protocol_version") != PROTOCOL_VERSION:
            odd[folder] = f"version {summary.get('protocol_version')}, expected {PROTOCOL_VERSION}"
        elif identity.get("source") == "maps" and identity.get("maps_version") != MAPS_VERSION:
            odd[folder] = f"saved maps of version {identity.get('maps_version')}, expected {MAPS_VERSION}"
    if odd:
        found = ", ".join(f"{folder} has {what}" for folder, what in odd.items())
        raise RunError(
            f"scores of different protocols cannot stand in one table: {found}; run `difom-train evaluate` on these again"
        )


def _check_same_frames(first: Path, wanted: dict[str, SetScores], other: Path, found: dict[str, SetScores]) -> None:
    """Return if two runs scored equal frames against equal masks in the same order."""
    if set(wanted) != set(found):
        raise RunError(
            f"{first} was evaluated on {', '.join(sorted(wanted))}; {other} on {', '.join(sorted(found))}; "
            "evaluate both on the same data"
        )
    for dataset, scores in wanted.items():
        ours = {frame.id: frame.mask_sha256 for frame in scores.frames}
        theirs = {frame.id: frame.mask_sha256 for frame in found[dataset].frames}
        absent = sorted(set(ours) ^ set(theirs))
        if absent:
            raise RunError(
                f"{dataset}: {first} scored {len(ours)} frames and {other} {len(theirs)}; only one of them has "
                f"{name_some(absent)}; evaluate both on the same data"
            )
        changed = [name for name in ours if ours[name] != theirs[name]]
        if changed:
            raise RunError(f"{dataset}: {first} and {other} were scored against other masks of {name_some(changed)}")
        if list(ours) != list(theirs):
            raise RunError(f"{dataset}: {first} and {other} list the same frames in another order; evaluate both again")


def _seeds_of(run: Path) -> tuple[int, int] | tuple[()]:
    """Return the labels seed and the seed of a run; () where its folder does not say."""
    path = run / "settings.toml"
    if not path.is_file():
        return ()
    settings = read_toml(path)
    return settings.get("data", {}).get("labels_seed", 0), settings.get("seed", 0)


def _settings_key(run: Path) -> str:
    """Return what is equal for runs that differ by their seed alone, or by that of their masks."""
    path = run / "settings.toml"
    if not path.is_file():
        return SEED_ENDING.sub("", str(run.resolve()))
    settings = rename_old_keys(read_toml(path))
    for key in ("seed", "run"):
        settings.pop(key, None)
    settings.get("data", {}).pop("labels_seed", None)
    return json.dumps(settings, sort_keys=True)


def _name_entries(groups: Sequence[Sequence[Path]]) -> list[str]:
    """Return a name for each entry; where two would be called the same, their whole folder names tell them apart."""
    short = [SEED_ENDING.sub("", group[0].resolve().name) or group[0].resolve().name for group in groups]
    whole = [group[0].resolve().name for group in groups]
    paths = [str(group[0]) for group in groups]
    for names in (short, whole):
        if len(set(names)) == len(names):
            return names
    return paths
