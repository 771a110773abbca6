"""Whether a place to write can be used, asked before any work is done."""

import os
from collections.abc import Sequence
from pathlib import Path

from difom_cache.base.errors import SettingsError


def check_out_folder(folder: Path, option: str = "--out") -> None:
    """Raise unless `folder` is a folder that can be written, or could be made.

    Raises:
        SettingsError: it is a file, lies below one, is a link to nothing, or may not be written.
    """
    if _leads_nowhere(folder):
        raise SettingsError(f"{option} {folder} is a link to nothing; remove it, or choose another folder")
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{option} {folder} is a file, but a folder is to be written; choose another path")
    _check_way(folder, option)


def check_out_file(path: Path, option: str = "--out", *, endings: Sequence[str] = (), force: bool = True) -> None:
    """Raise unless the file `path` can be written.

    Args:
        path: the file.
        option: what the user calls it.
        endings: those that its name may have; none means any.
        force: whether a file that lies there may be replaced.

    Raises:
        SettingsError: it is a folder, lies below a file, is a link to nothing, has another ending, may not be written, or
            is there already.
    """
    if path.is_dir():
        raise SettingsError(f"{option} {path} is a folder, but a file is to be written; name a file in it")
    if _leads_nowhere(path):
        raise SettingsError(f"{option} {path} is a link to nothing; remove it, or choose another file")
    if path.exists() and not path.is_file():
        raise SettingsError(f"{option} {path} is no plain file, so nothing is written there; choose another path")
    if endings and path.suffix.lower() not in endings:
        raise SettingsError(f"{option} {path} has to end in {' or '.join(endings)}")
    if path.exists() and not force:
        raise SettingsError(f"{option} {path} exists; choose another file, or replace it with --force")
    _check_way(path.parent, option)


def check_outputs(folder: Path, outputs: Sequence[Path], inputs: Sequence[Path], *, force: bool = True) -> None:
    """Raise unless every output lies in `folder`, each has a place of its own, and none is an input.

    Args:
        folder: what the user chose to be written.
        outputs: every file that is going to be written.
        inputs: every file that is read, and existing.
        force: whether files that lie there may be replaced.

    Raises:
        SettingsError: names the first output that is wrong, or is there already.
    """
    home, read = folder.resolve(), {_identity(path): path for path in inputs}
    whole = set(outputs)
    for path in outputs:
        if not path.parent.resolve().is_relative_to(home):
            raise SettingsError(f"{path} would be written outside {folder}; choose another --out")
        if path.parent in whole:
            raise SettingsError(f"{path.parent} would be a file and a folder; rename one of the inputs")
        if path.exists() and _identity(path) in read:
            raise SettingsError(
                f"{path} is an input ({read[_identity(path)]}), and is never written; choose another --out"
            )
    if len(whole) < len(outputs):
        twice = next(path for number, path in enumerate(outputs) if path in set(outputs[:number]))
        raise SettingsError(f"two inputs would both be written to {twice}; rename one of them")
    there = [] if force else [path for path in outputs if path.exists() or path.is_symlink()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise SettingsError(f"{there[0]}{more} exist; choose another --out, or replace what is there with --force")


def _check_way(folder: Path, option: str) -> None:
    """Raise unless the nearest folder above that exists is one, and can be written."""
    for place in (folder, *folder.absolute().parents):
        if _leads_nowhere(place):
            raise SettingsError(f"{option}: {place} is a link to nothing; remove it, or choose another path")
        if place.exists():
            if not place.is_dir():
                raise SettingsError(f"{option}: {place} is a file, so nothing can lie below it; choose another path")
            if not os.access(place, os.W_OK | os.X_OK):
                raise SettingsError(f"{option}: {place} may not be written; choose another path")
            return


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
