"""What is published about the five benchmark sets: their names, PraNet's split and the video sequences."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

CLINICDB_SIZE_PX = (384, 288)

# Folder names in the wild, in small letters without punctuation -> the set's own name, which is its CSV's name too.
_NAMES = {
    "kvasir": "Kvasir",
    "kvasirseg": "Kvasir",
    "cvcclinicdb": "CVC-ClinicDB",
    "clinicdb": "CVC-ClinicDB",
    "cvc612": "CVC-ClinicDB",
    "cvccolondb": "CVC-ColonDB",
    "colondb": "CVC-ColonDB",
    "etislaribpolypdb": "ETIS-LaribPolypDB",
    "etislarib": "ETIS-LaribPolypDB",
    "etis": "ETIS-LaribPolypDB",
    "cvc300": "CVC-300",
}


@dataclass(frozen=True)
class Frame:
    """One picture of a benchmark set: its published split ("train", "val" or "test") and group ("" = unknown)."""

    split: str
    group: str


def find_set(folder_name: str) -> str | None:
    """Return the benchmark set that a folder of this name holds, or None."""
    return _NAMES.get("".join(letter for letter in folder_name.lower() if letter.isalnum()))


@cache
def read_frames(dataset: str) -> dict[str, Frame]:
    """Return the frames of a benchmark set by stem; an empty dictionary for a data set that is none."""
    if dataset not in _NAMES.values():
        return {}
    text = files("data_manifests").joinpath(f"{dataset}.csv").read_text(encoding="utf-8")
    return {row["name"]: Frame(row["split"], row["group"]) for row in csv.DictReader(text.splitlines())}
