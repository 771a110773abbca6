"""A hub's model onto this machine: each file published under its name once it is whole and checked."""

import errno
import json
import os
import re
import secrets
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from httpx2 import ConnectError, HTTPError, InvalidURL, ProxyError, TimeoutException
from huggingface_hub import HfApi, constants, errors, hf_hub_url
from huggingface_hub.utils import WeakFileLock, validate_repo_id

from difom_cache.base.errors import WeightsError
from difom_cache.teachers.hub_cache import CONFIG, Repository, cached_folder, is_sound, note_sound
from difom_cache.teachers.receive import BrokenFileError, Remote, difference_of, patiently, receive
from difom_cache.teachers.weights import FOLDER_FILES, first_line, read_json, way_out

_COMMIT = re.compile("[0-9a-f]{40,64}")  # it becomes the name of a folder

PROCESSOR = ("preprocessor_config.json", "processor_config.json")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOTE = "difom-hub.json"  # in a folder of its own: which model and commit lies there


def download(teacher: str, repository: Repository, to: Path | None = None) -> Path:
    """Return a folder with the model's settings and weights, fetching and checking what is not there yet.

    Args:
        teacher: named in messages.
        repository: the hub model.
        to: a folder of its own, None for the cache of the hub's client.

    Raises:
        WeightsError: says why the hub cannot give the model, or the disk cannot take it.
    """
    try:
        return _download(repository, to)
    except errors.HFValidationError as err:
        raise WeightsError(f"{teacher}: {repository.name!r} is neither a folder nor the id of a hub model") from err
    except errors.GatedRepoError as err:
        raise WeightsError(
            f"{teacher}: {repository.name} is gated; log in, accept its licence at {constants.ENDPOINT}/{repository.name} "
            f"and set HF_TOKEN, or pass --weights PATH"
        ) from err
    except errors.RevisionNotFoundError as err:
        raise WeightsError(f"{teacher}: {repository.name} has no revision {repository.revision!r} on the hub") from err
    except errors.RepositoryNotFoundError as err:
        raise WeightsError(
            f"{teacher}: the hub has no model {repository.name}, or it wants a token (HF_TOKEN)"
        ) from err
    except (HTTPError, InvalidURL, OSError, BrokenFileError, errors.OfflineModeIsEnabled) as err:
        raise WeightsError(
            f"{teacher}: cannot get {repository.name} from {constants.ENDPOINT}: {_cause(err)}; {way_out(teacher)}"
        ) from err


def _cause(err: Exception) -> str:
    if isinstance(err, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(err, errors.HfHubHTTPError):
        status = err.response.status_code
        more = {429: ": too many requests from this address; wait, or set HF_TOKEN", 401: ": HF_TOKEN is not valid"}
        return f"it answers {status}{more.get(status, '')}"
    if isinstance(err, ProxyError):
        return f"the proxy refuses ({first_line(err)})"
    if isinstance(err, TimeoutException):
        return f"no answer within {constants.HF_HUB_DOWNLOAD_TIMEOUT} s"
    if isinstance(err, ConnectError):
        return f"no connection ({first_line(err)})"
    if isinstance(err, HTTPError | InvalidURL):
        return f"the connection broke off ({first_line(err)})"
    if isinstance(err, OSError):
        place = err.filename or constants.HF_HUB_CACHE
        way = "free some space" if err.errno in FULL else "set HF_HOME to a folder"
        return f"{place} cannot be written ({err.strerror or err}); {way}"
    return first_line(err)


def _download(repository: Repository, to: Path | None) -> Path:
    validate_repo_id(repository.name)
    if to is not None:
        return _fetch(repository, to)
    locks = repository.storage.parent / ".locks" / repository.storage.name
    locks.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(locks / f"difom-{repository.revision.replace('/', '-')}.lock"):
        # of several jobs that start at once one asks and downloads, the others find it there
        return cached_folder(repository) or _fetch(repository, None)


def _fetch(repository: Repository, to: Path | None) -> Path:
    api = HfApi()
    info = patiently(
        lambda: api.model_info(
            repository.name,
            revision=repository.revision,
            files_metadata=True,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        )
    )
    commit = info.sha or repository.revision
    if info.sha and not _COMMIT.fullmatch(info.sha):
        raise BrokenFileError(f"it names its commit {commit[:80]!r}, which is none")
    remotes = {
        s.rfilename: Remote(s.rfilename, s.size, s.lfs.sha256 if s.lfs else None, None if s.lfs else s.blob_id)
        for s in info.siblings or []
    }
    folder = to or repository.storage / "snapshots" / commit
    shelf = Shelf(repository, commit, to)
    first = next((name for name in FOLDER_FILES if name in remotes), None)
    if first is None:
        raise BrokenFileError(f"it holds none of {', '.join(FOLDER_FILES)}")
    wanted = [name for group in repository.needs for name in group]
    settings = [name for name in dict.fromkeys((*wanted, CONFIG, *PROCESSOR)) if name in remotes]
    for name in [*settings, first]:
        shelf.get(remotes[name])
    if first.endswith(".json"):
        for name in sorted(set(read_json(folder / first)["weight_map"].values())):
            if name not in remotes or Path(name).name != name:
                raise BrokenFileError(f"its {first} names {name}, which is not there")
            shelf.get(remotes[name])
    shelf.close()
    return folder


@dataclass(frozen=True)
class Shelf:
    """Where the files of one commit are put: the cache of the hub's client, or a folder of their own."""

    repository: Repository
    commit: str
    to: Path | None

    def get(self, remote: Remote) -> None:
        """Make the file be in its place, whole and checked."""
        final = self._final(remote.name)
        final.parent.mkdir(parents=True, exist_ok=True)
        work = final.parent if self.to else self.repository.storage / "blobs"
        work.mkdir(parents=True, exist_ok=True)
        # of one host: where locks do not reach across hosts, two of them must not write one file
        part = work / f"{self.commit}-{remote.name.replace('/', '-')}.{socket.gethostname()}.incomplete"
        if not self._is_there(final, remote):
            url = hf_hub_url(self.repository.name, remote.name, revision=self.commit)
            self._publish(part, final, receive(url, part, remote))

    def close(self) -> None:
        """Say, last of all, that the commit is here."""
        if self.to is not None:
            note = {"repository": self.repository.name, "revision": self.repository.revision, "commit": self.commit}
            (self.to / NOTE).write_text(json.dumps(note) + "\n")
        elif self.repository.revision != self.commit:
            ref = self.repository.storage / "refs" / self.repository.revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            draft = ref.with_name(f"{ref.name}.{secrets.token_hex(4)}.tmp")
            draft.write_text(self.commit)
            draft.replace(ref)

    def _final(self, name: str) -> Path:
        return (self.to or self.repository.storage / "snapshots" / self.commit) / name

    def _is_there(self, final: Path, remote: Remote) -> bool:
        if not final.is_file():
            return False
        if self.to is None:
            return is_sound(final, self.repository.storage)
        return bool(remote.sha256 or remote.git_id) and difference_of(final, remote) is None

    def _publish(self, part: Path, final: Path, remote: Remote) -> None:
        etag = remote.sha256 or remote.git_id
        if self.to is not None or etag is None:
            part.replace(final)
            return
        blob = part.with_name(etag)
        part.replace(blob)
        note_sound(blob, self.repository.storage)
        final.unlink(missing_ok=True)
        try:
            final.symlink_to(os.path.relpath(blob, final.parent))
        except OSError:  # a file system without links
            shutil.copyfile(blob, final)
