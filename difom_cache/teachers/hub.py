"""Published weights: under DIFOM_WEIGHTS, in the cache of the hub's client, and only then at the hub itself."""

from pathlib import Path

from difom_cache.base.errors import WeightsError
from difom_cache.teachers.download import NOTE, download
from difom_cache.teachers.hub_cache import Repository, cached_folder, snapshot_here
from difom_cache.teachers.weights import (
    MAIN,
    fetched_folder,
    folder_of,
    is_outline,
    read_json,
    read_revision,
    weight_files,
)


def locate(weights: str, teacher: str, repository: str) -> tuple[Path, str]:
    """Return where a teacher's weights are, and what to record as their source.

    Args:
        weights: "hub", "hub@REVISION" or a path.
        teacher: such as "dinov2:base".
        repository: the hub model that its weights are published in, "" for none.

    Raises:
        WeightsError: as `find_published`.
    """
    revision = read_revision(weights)
    if revision is None:
        path = folder_of(Path(weights), teacher)
        return path, str(path)
    return find_published(teacher, Repository(repository, revision))


def find_published(teacher: str, repository: Repository) -> tuple[Path, str]:
    """Return the folder of `teacher`'s published weights, and what to record as their source.

    Looked for under DIFOM_WEIGHTS, then in the cache of the hub's client, and only then at the hub itself.

    Raises:
        WeightsError: no weights are published for this variant, or they are not here and the hub cannot give them, or an
            outline shall be made without them.
    """
    fetched = fetched_folder(teacher)
    if fetched is not None and (noted := _noted_source(fetched, repository)):
        return fetched, noted
    if not repository.name:
        raise WeightsError(f"{teacher} is a small network for tests and has no trained weights; add --weights random")
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
    pinned = repository.revision != MAIN
    if pinned and repository.revision not in (note.get("commit"), note.get("revision")):
        return None
    return f"{note['repository']}@{note['commit']}" if {"repository", "commit"} <= note.keys() else str(folder)


def is_here(teacher: str, repository: str) -> bool:
    """Return whether whole weights of a hub model are on this machine: under DIFOM_WEIGHTS or in the hub's cache."""
    fetched = fetched_folder(teacher)
    if fetched is not None:
        return bool(weight_files(fetched)) or len(list(fetched.glob("*.pth"))) == 1
    return snapshot_here(Repository(repository)) is not None
