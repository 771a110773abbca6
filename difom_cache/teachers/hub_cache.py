"""The cache of the hub's own client: where a model's files lie in it, and whether they are whole.

A weights file is filed under its SHA-256. It is compared with it once, whoever put it there, and that is noted beside.
"""

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from difom_cache.teachers.weights import MAIN, weight_files

CONFIG = "config.json"


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

    @property
    def storage(self) -> Path:
        """Return the model's folder in the cache of the hub's client."""
        return Path(constants.HF_HUB_CACHE) / f"models--{self.name.replace('/', '--')}"

    def serves(self, folder: Path) -> bool:
        """Return whether `folder` holds whole weights and everything needed beside them."""
        return bool(weight_files(folder)) and all(
            any((folder / name).is_file() for name in group) for group in self.needs
        )


def snapshot_here(repository: Repository) -> Path | None:
    """Return the folder of the client's cache that serves, unchecked."""
    try:
        commit = _commit_here(repository)
        folder = repository.storage / "snapshots" / commit if commit else None
        return folder if folder is not None and repository.serves(folder) else None
    except OSError:  # a cache that cannot be read is none
        return None


def _commit_here(repository: Repository) -> str | None:
    if re.fullmatch("[0-9a-f]{40}", repository.revision):
        return repository.revision
    ref = repository.storage / "refs" / repository.revision
    return ref.read_text().strip() if ref.is_file() else None


def cached_folder(repository: Repository) -> Path | None:
    """Return the folder in the cache of the hub's client that holds the whole model; None if any file is missing.

    Its weights are compared with the digests that they are filed under, once: that is noted beside them.
    """
    folder = snapshot_here(repository)
    if folder is None:
        return None
    return folder if all(is_sound(path, repository.storage) for path in weight_files(folder)) else None


def is_sound(path: Path, storage: Path) -> bool:
    """Return whether a cached file has the SHA-256 that it is filed under; one that is filed otherwise is trusted."""
    blob = path.resolve()
    if not re.fullmatch("[0-9a-f]{64}", blob.name):
        return True
    with suppress(OSError):
        if _note_of(blob, storage).read_text() == _seen(blob):
            return True
    if sha256_of(blob) != blob.name:
        return False
    note_sound(blob, storage)
    return True


def note_sound(blob: Path, storage: Path) -> None:
    """Note that a file was compared as it lies there; a cache that is shared read-only is compared at every start."""
    with suppress(OSError):
        note = _note_of(blob, storage)
        note.parent.mkdir(exist_ok=True)
        note.write_text(_seen(blob))


def _note_of(blob: Path, storage: Path) -> Path:
    return storage / ".difom" / blob.name


def _seen(blob: Path) -> str:
    stat = blob.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
