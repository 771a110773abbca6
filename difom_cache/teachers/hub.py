"""Published weights: under DIFOM_WEIGHTS, in the cache of the hub's client, and only then at the hub itself.

The client files weights under their SHA-256 and trusts what lies there. Here a file is compared with it once, whoever put
it there, and that is noted beside.
"""

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from difom_cache.base.errors import WeightsError
from difom_cache.teachers.places import (
    CONFIG,
    MAIN,
    fetched_folder,
    folder_name,
    read_json,
    read_revision,
    weight_files,
)

NOTE = "difom-hub.json"  # in a folder that was fetched: which model and commit lies there


@dataclass(frozen=True)
class Repository:
    """One model on the hub at one revision.

    Attributes:
        name: such as "facebook/dinov2-base".
        revision: a branch, tag or commit.
        needs: files without which the model is of no use, beside its weights; one of each group.
    """

    name: str
    revision: str = MAIN
    needs: tuple[tuple[str, ...], ...] = ((CONFIG,),)


def locate(weights: str, teacher: str, repository: str) -> tuple[Path, str]:
    """Return where a teacher's weights are, and what to record as their source.

    Args:
        weights: "hub", "hub@REVISION" or a path: of the weights, or of a folder that holds one for each teacher.
        teacher: such as "dinov2:base".
        repository: the hub model that its weights are published in, "" for none.

    Raises:
        WeightsError: as `find_published`.
    """
    revision = read_revision(weights)
    if revision is not None:
        return find_published(teacher, Repository(repository, revision))
    own = Path(weights) / folder_name(teacher)
    path = own if own.is_dir() else Path(weights)
    return path, str(path)


def find_published(teacher: str, repository: Repository) -> tuple[Path, str]:
    """Return the folder of `teacher`'s published weights, and what to record as their source.

    Looked for under DIFOM_WEIGHTS, then in the cache of the hub's client, and only then at the hub itself.

    Raises:
        WeightsError: no weights are published for this variant, or they are not here and the hub cannot give them, or an
            outline shall be made without them.
    """
    from difom_cache.teachers.download import download
    from difom_cache.teachers.weights import is_outline

    fetched = fetched_folder(teacher)
    if fetched is not None and (noted := _noted_source(fetched, repository)):
        return fetched, noted
    if not repository.name:
        raise WeightsError(
            f"no weights of {teacher} are published; give a file of your own with --weights FILE, or try --weights random"
        )
    folder = cached_folder(repository)
    if folder is None and is_outline():
        raise WeightsError(
            f"{teacher} is not on this machine, and a dry run fetches nothing; get it with `difom-cache weights fetch "
            f"{teacher} --to DIR` and set DIFOM_WEIGHTS=DIR, or leave out --dry-run"
        )
    folder = folder or download(teacher, repository)
    return folder, f"{repository.name}@{folder.name}"


def _noted_source(folder: Path, repository: Repository) -> str | None:
    """Return what a fetched folder's note says, None where another revision is wanted than it holds."""
    note = read_json(folder / NOTE) if (folder / NOTE).is_file() else {}
    if repository.revision not in (MAIN, note.get("commit"), note.get("revision")):
        return None
    return f"{note['repository']}@{note['commit']}" if {"repository", "commit"} <= note.keys() else str(folder)


def is_here(teacher: str, repository: str) -> bool:
    """Return whether whole weights of a hub model are on this machine: under DIFOM_WEIGHTS or in the hub's cache."""
    fetched = fetched_folder(teacher)
    if fetched is not None:
        return bool(weight_files(fetched)) or len(list(fetched.glob("*.pth"))) == 1
    return _snapshot_here(Repository(repository)) is not None


def _snapshot_here(repository: Repository) -> Path | None:
    """Return the folder of the client's cache that holds whole weights and everything needed beside them, unchecked."""
    with suppress(OSError, HFValidationError):  # a cache that cannot be read is none, and a path is no model
        config = try_to_load_from_cache(repository.name, CONFIG, revision=repository.revision)
        folder = Path(config).parent if isinstance(config, str) else None
        if folder is not None and weight_files(folder):
            needs = (any((folder / name).is_file() for name in group) for group in repository.needs)
            return folder if all(needs) else None
    return None


def cached_folder(repository: Repository) -> Path | None:
    """Return the folder in the cache of the hub's client that holds the whole model; None if any file is missing.

    Its weights are compared with the digests that they are filed under, once: that is noted beside them.
    """
    folder = _snapshot_here(repository)
    return folder if folder is not None and all(map(is_sound, weight_files(folder))) else None


def is_sound(path: Path) -> bool:
    """Return whether a cached file has the SHA-256 that it is filed under; one that is filed otherwise is trusted."""
    blob = path.resolve()
    if not re.fullmatch("[0-9a-f]{64}", blob.name):
        return True
    note, stat = path.parents[2] / ".difom" / blob.name, blob.stat()
    seen = f"{stat.st_size} {stat.st_mtime_ns}"
    with suppress(OSError):
        if note.read_text() == seen:
            return True
    if sha256_of(blob) != blob.name:
        return False
    with suppress(OSError):  # a cache that is shared read-only is compared at every start
        note.parent.mkdir(exist_ok=True)
        note.write_text(seen)
    return True


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
