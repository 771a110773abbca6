"""Which masks a trained student has learnt from: a list in its run folder, for those that it will teach."""

import json
from pathlib import Path

from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import RunError
from difom_cache.base.files import read_object

MASKS_FILE = "masks.json"
Seen = frozenset[str] | None
"SHA-256 of mask files; None where nobody knows."


def write_run_masks(folder: Path, seen: Seen) -> None:
    """Keep the digests of the masks that a run's student has learnt from, for those that it will teach."""
    text = json.dumps({"masks": None if seen is None else sorted(seen)}, indent=1)
    write_atomic(folder / MASKS_FILE, f"{text}\n".encode())


def read_run_masks(folder: Path) -> Seen:
    """Return the digests of the masks that a run's student has learnt from; None where nobody knows, as of older runs.

    Raises:
        RunError: the list is damaged.
    """
    path = folder / MASKS_FILE
    if not path.is_file():
        return None
    hint = "restore it from a copy of the run, or remove it"
    held = read_object(path, RunError, hint)
    try:
        masks = held["masks"]
        return None if masks is None else frozenset(str(mask) for mask in masks)
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({error}); {hint}") from error
