"""A hub's model onto this machine: each file whole, checked, and published under its name after that.

Nothing waits without a bound: a silent hub is given up after `HF_HUB_DOWNLOAD_TIMEOUT` seconds (10), three times in a
row; a file goes on where an earlier try, or an earlier run, ended.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from httpx2 import ConnectError, HTTPError, InvalidURL, ProxyError, Response, TimeoutException
from huggingface_hub import HfApi, constants, errors, get_session, hf_hub_url
from huggingface_hub.utils import WeakFileLock, build_hf_headers, hf_raise_for_status
from tqdm import tqdm

from difom_cache.errors import WeightsError
from difom_cache.teachers.hub_cache import CONFIG, Repository, cached_folder, is_sound, note_sound, sha256_of
from difom_cache.teachers.weights import FOLDER_FILES, first_line, read_json, way_out

PROCESSOR = ("preprocessor_config.json", "processor_config.json")
NOTE = "difom-hub.json"  # in a folder of its own: which model and commit lies there
TRIES, WAIT_S = 3, 1.0  # one more try after a second, and one more after two
RETRIED = (408, 425, 429, 500, 502, 503, 504)
STEP_FRAC, LEAST_BYTES = 0.01, 1 << 16  # of a file: a try that brought so much was none in vain
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SLOW_WINDOW_S, SLOW_BYTES_PER_S = 30, 1024
T = TypeVar("T")


@dataclass(frozen=True)
class Remote:
    """A file that the hub announces: what it must be."""

    name: str
    size: int | None
    sha256: str | None
    git_id: str | None


class BrokenFileError(Exception):
    """What was downloaded is not what the hub announces, or comes too slowly."""


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
    lock = (to or repository.storage) / ".difom" / f"{repository.revision.replace('/', '-')}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):  # of several jobs that start at once one asks and downloads, the others find it there
        return (None if to else cached_folder(repository)) or _fetch(repository, to)


def _fetch(repository: Repository, to: Path | None) -> Path:
    api = HfApi()
    info = _patiently(
        lambda: api.model_info(
            repository.name,
            revision=repository.revision,
            files_metadata=True,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        )
    )
    commit = info.sha or repository.revision
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
            if name not in remotes:
                raise BrokenFileError(f"its {first} names {name}, which is not there")
            shelf.get(remotes[name])
    shelf.close()
    return folder


def _patiently(ask: Callable[[], T]) -> T:
    """Return what `ask` gives, asking again where the hub is silent or says that it is busy."""
    misses = 0
    while True:
        try:
            return ask()
        except HTTPError as err:
            misses += 1
            if misses == TRIES or not _is_passing(err):
                raise
            time.sleep(misses * WAIT_S)


def _is_passing(err: HTTPError) -> bool:
    """Return whether asking again may help."""
    if isinstance(err, errors.HfHubHTTPError):
        return err.response.status_code in RETRIED
    return not isinstance(err, ProxyError)


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
            self._publish(part, final, _receive(url, part, remote))

    def close(self) -> None:
        """Say, last of all, that the commit is here."""
        if self.to is not None:
            note = {"repository": self.repository.name, "revision": self.repository.revision, "commit": self.commit}
            (self.to / NOTE).write_text(json.dumps(note) + "\n")
            shutil.rmtree(self.to / ".difom", ignore_errors=True)
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
        return bool(remote.sha256 or remote.git_id) and _difference(final, remote) is None

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


def _difference(path: Path, remote: Remote) -> str | None:
    """Return how a file differs from what the hub announces."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"{remote.name} has {size} bytes, and {remote.size} are announced"
    if remote.sha256 is not None and sha256_of(path) != remote.sha256:
        return f"{remote.name} arrived damaged: its SHA-256 is not {remote.sha256[:12]}..., which is announced"
    if remote.git_id is not None and _git_id(path) != remote.git_id:
        return f"{remote.name} arrived damaged: its git id is not {remote.git_id[:12]}..., which is announced"
    return None


def _git_id(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _receive(url: str, part: Path, remote: Remote) -> Remote:
    """Make `part` hold the whole file, going on where an earlier try ended, and return what it was checked against.

    Raises:
        BrokenFileError: it is not what the hub announces.
    """
    misses = 0
    while misses < TRIES:
        before = _bytes_of(part)
        try:
            remote = _stream(url, part, remote)
            break
        except HTTPError as err:
            if isinstance(err, errors.HfHubHTTPError) and err.response.status_code == 416:
                part.unlink(missing_ok=True)  # it is longer than the file
            elif not _is_passing(err):
                raise
            gained = _bytes_of(part) - before
            misses = 0 if gained > max(LEAST_BYTES, STEP_FRAC * (remote.size or 0)) else misses + 1
            if misses == TRIES:
                raise
            time.sleep(misses * WAIT_S)
        except OSError as err:
            err.filename = err.filename or str(part)
            raise
    if difference := _difference(part, remote):
        part.unlink()
        raise BrokenFileError(difference)
    return remote


def _bytes_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _stream(url: str, part: Path, remote: Remote) -> Remote:
    """Add to `part` what it lacks, and return `remote` with what the answer's headers say of it."""
    start = _bytes_of(part)
    if start and start == remote.size and remote.sha256:
        return remote
    headers = build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    wait_s = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=wait_s, follow_redirects=True) as response:
        hf_raise_for_status(response)
        remote = _complete(remote, response)
        start = start if response.status_code == 206 else 0
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(
                total=remote.size, initial=start, desc=remote.name, unit="B", unit_scale=True, leave=False, disable=None
            ) as bar,
        ):
            window_s, window_bytes = time.monotonic(), 0
            for data in response.iter_bytes():
                file.write(data)
                bar.update(len(data))
                window_bytes += len(data)
                if time.monotonic() - window_s > SLOW_WINDOW_S:
                    if window_bytes < SLOW_WINDOW_S * SLOW_BYTES_PER_S:
                        raise BrokenFileError(f"{remote.name} comes at less than {SLOW_BYTES_PER_S} bytes a second")
                    window_s, window_bytes = time.monotonic(), 0
    return remote


def _complete(remote: Remote, response: Response) -> Remote:
    """Return `remote` with what its listing left out: a large file's digest is in the answer before the redirect."""
    headers = (response.history or [response])[0].headers
    etag = (headers.get("X-Linked-ETag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    size = headers.get("X-Linked-Size")
    sha256 = remote.sha256 or (etag if re.fullmatch("[0-9a-f]{64}", etag) else None)
    plain = not sha256 and not response.history  # of what is redirected, the tag may be that of a pointer
    git_id = etag if plain and re.fullmatch("[0-9a-f]{40}", etag) else None
    size_held = remote.size if remote.size is not None else int(size) if size else None
    return replace(remote, size=size_held, sha256=sha256, git_id=remote.git_id or git_id)
