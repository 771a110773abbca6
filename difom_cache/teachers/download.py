"""A hub's model onto this machine by the hub's own client, with what that lacks: bounds, digests, and one line of why not.

The client waits for a body as long as single bytes come and tries again for ever while something does; it compares sizes,
never digests; and what it raises is many lines. Here the API is asked three times in all, a body that breaks off three times
in a row or comes too slowly is given up, and a file counts once it has the digest that the hub announces.
"""

import errno
import hashlib
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from httpx2 import ConnectError, HTTPError, InvalidURL, ProxyError, Response, SyncByteStream, TimeoutException
from huggingface_hub import HfApi, constants, errors, get_session, hf_hub_download
from huggingface_hub.utils import WeakFileLock, logging, validate_repo_id

from difom_cache.base.errors import WeightsError
from difom_cache.teachers.hub import NOTE, Repository, cached_folder, is_sound, sha256_of
from difom_cache.teachers.places import CONFIG, FOLDER_FILES, first_line, list_shards, way_out

PROCESSOR = ("preprocessor_config.json", "processor_config.json")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TRIES, WAIT_S = 3, 1.0  # one more try after a second, and one more after two
RETRIED = (408, 425, 429, 500, 502, 503, 504)
LEAST_BYTES = 1 << 16  # a try that brought so much was none in vain
SLOW_WINDOW_S, SLOW_BYTES_PER_S = 30, 1024
T = TypeVar("T")


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
    with explain_hub(teacher, repository, way_out(teacher), gated=", or pass --weights PATH"):
        if to is not None:
            return _fetch(repository, to)
        lock = (
            Path(constants.HF_HUB_CACHE) / ".locks" / f"difom-{repository.name}-{repository.revision}".replace("/", "-")
        )
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):  # of several jobs that start at once one asks and downloads, the others find it there
            return cached_folder(repository) or _fetch(repository, None)


def fetch_files(repository: Repository, names: Sequence[str], to: Path) -> list[str]:
    """Bring those of some files that a hub model has into a folder, whole and checked; return their names.

    Raises:
        WeightsError: says why the hub cannot give them, or the disk cannot take them.
    """
    with explain_hub("pull", repository, "try again later"), _watched():
        commit, remotes = _ask(repository)
        found = [name for name in names if name in remotes]
        for name in found:
            _get(repository, commit, remotes[name], to)
    shutil.rmtree(to / ".cache", ignore_errors=True)  # the client's notes, of use to nobody
    return found


@contextmanager
def explain_hub(
    subject: str, repository: Repository, hint: str, *, doing: str = "get {} from", gated: str = ""
) -> Iterator[None]:
    """Turn what the hub's client raises of a model into one line.

    Args:
        subject: begins the line: a teacher, or a command.
        repository: the model.
        hint: ends the line where the hub cannot be used.
        doing: what is done with the model.
        gated: ends the line where the model is gated.

    Raises:
        WeightsError: the line.
    """
    name = repository.name
    try:
        validate_repo_id(name)
        yield
    except errors.HFValidationError as err:
        raise WeightsError(f"{subject}: {name!r} is neither a folder nor the id of a hub model") from err
    except errors.GatedRepoError as err:
        raise WeightsError(
            f"{subject}: {name} is gated; log in, accept its licence at {constants.ENDPOINT}/{name} "
            f"and set HF_TOKEN{gated}"
        ) from err
    except errors.RevisionNotFoundError as err:
        raise WeightsError(f"{subject}: {name} has no revision {repository.revision!r} on the hub") from err
    except errors.RepositoryNotFoundError as err:
        raise WeightsError(f"{subject}: the hub has no model {name}, or it wants a token (HF_TOKEN)") from err
    except (HTTPError, InvalidURL, OSError, BrokenFileError, errors.OfflineModeIsEnabled) as err:
        what = doing.format(name)
        raise WeightsError(f"{subject}: cannot {what} {constants.ENDPOINT}: {_cause(err)}; {hint}") from err


def _cause(err: BaseException) -> str:
    if (
        isinstance(err, errors.LocalEntryNotFoundError) and err.__cause__ is not None
    ):  # what the client says of all others
        return _cause(err.__cause__)
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
    if isinstance(err, OSError) and err.errno:
        place = err.filename or constants.HF_HUB_CACHE
        way = "free some space" if err.errno in FULL else "set HF_HOME to a folder"
        return f"{place} cannot be written ({err.strerror or err}); {way}"
    return first_line(err)


def _ask(repository: Repository) -> tuple[str, dict[str, Any]]:
    """Return the commit of a hub model, and what the hub announces of each of its files."""
    ask = HfApi().model_info
    wait_s, revision = constants.HF_HUB_DOWNLOAD_TIMEOUT, repository.revision
    info = retry(lambda: ask(repository.name, revision=revision, files_metadata=True, timeout=wait_s))
    if not re.fullmatch("[0-9a-f]{40,64}", commit := info.sha or ""):  # it becomes the name of a folder
        raise BrokenFileError(f"it names its commit {commit[:80]!r}, which is none")
    return commit, {remote.rfilename: remote for remote in info.siblings or []}


def _fetch(repository: Repository, to: Path | None) -> Path:
    revision = repository.revision
    commit, remotes = _ask(repository)
    first = next((name for name in FOLDER_FILES if name in remotes), None)
    if first is None:
        raise BrokenFileError(f"it holds none of {', '.join(FOLDER_FILES)}")
    wanted = dict.fromkeys((CONFIG, *PROCESSOR, *(name for group in repository.needs for name in group), first))
    with _watched():
        paths = {name: _get(repository, commit, remotes[name], to) for name in wanted if name in remotes}
        for name in list_shards(paths[first]) if first.endswith(".json") else ():
            if name not in remotes or Path(name).name != name:
                raise BrokenFileError(f"its {first} names {name}, which is not there")
            _get(repository, commit, remotes[name], to)
        if to is None:
            hf_hub_download(repository.name, next(iter(paths)), revision=revision)  # notes what the revision means
            return paths[first].parent
    shutil.rmtree(to / ".cache", ignore_errors=True)  # the client's notes, of use to nobody
    note = {"repository": repository.name, "revision": revision, "commit": commit}
    (to / NOTE).write_text(json.dumps(note) + "\n")
    return to


def _get(repository: Repository, commit: str, remote: Any, to: Path | None) -> Path:
    """Return the file, whole and checked, fetched where it was not."""
    name, difference = remote.rfilename, None
    for force in (False, True):  # one that lay there damaged, or came so, is fetched once more
        try:
            path = Path(hf_hub_download(repository.name, name, revision=commit, local_dir=to, force_download=force))
        except OSError as err:
            if sizes := re.search(r"of size (\d+) but has size (\d+)", str(err)):
                raise BrokenFileError(f"{name} has {sizes[2]} bytes, and {sizes[1]} are announced") from err
            if err.errno and not err.filename:
                err.filename = f"{to or constants.HF_HUB_CACHE}/{name}.incomplete"
            raise
        difference = _difference_of(path, remote)
        if difference is None:
            return path
        path.resolve().unlink()
        path.unlink(missing_ok=True)
    raise BrokenFileError(f"{name} arrived damaged: {difference}, which is announced")


def _difference_of(path: Path, remote: Any) -> str | None:
    """Return how a file differs from what the hub announces."""
    if remote.lfs is not None:
        expected = remote.lfs.sha256
        is_equal = is_sound(path) if path.resolve().name == expected else sha256_of(path) == expected
        return None if is_equal else f"its SHA-256 is not {expected[:12]}..."
    data = path.read_bytes()
    git_id = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return None if remote.blob_id in (None, git_id) else f"its git id is not {remote.blob_id[:12]}..."


def retry(ask: Callable[[], T]) -> T:
    """Return what `ask` gives, asking again where the hub is silent or says that it is busy."""
    tries = 0
    while True:
        try:
            return ask()
        except HTTPError as err:
            tries += 1
            status = err.response.status_code if isinstance(err, errors.HfHubHTTPError) else None
            is_passing = status in RETRIED or (status is None and not isinstance(err, ProxyError))
            if tries == TRIES or not is_passing:
                raise
            time.sleep(tries * WAIT_S)


@contextmanager
def _watched() -> Iterator[None]:
    """Have the client's bodies watched, and its own remarks on them unsaid."""
    client, misses = get_session(), Counter[str]()
    hooks, verbosity = client.event_hooks, logging.get_verbosity()

    def watch(response: Response) -> None:
        response.stream = _Watched(response.stream, response.url.path, misses)

    client.event_hooks = {**hooks, "response": [*hooks["response"], watch]}
    logging.set_verbosity_error()
    try:
        yield
    finally:
        client.event_hooks = hooks
        logging.set_verbosity(verbosity)


class _Watched(SyncByteStream):
    """A body that is given up where it comes too slowly, or where it broke off three times in a row."""

    def __init__(self, stream: Any, path: str, misses: Counter[str]) -> None:
        self.stream, self.path, self.misses = stream, path, misses

    def __iter__(self) -> Iterator[bytes]:
        total = seen = 0
        window_s = time.monotonic()
        try:
            for data in self.stream:
                yield data
                total += len(data)
                if (took_s := time.monotonic() - window_s) > SLOW_WINDOW_S:
                    if total - seen < took_s * SLOW_BYTES_PER_S:
                        name = self.path.rpartition("/")[2]
                        raise BrokenFileError(f"{name} comes at less than {SLOW_BYTES_PER_S} bytes a second")
                    window_s, seen = time.monotonic(), total
        except HTTPError as err:
            self.misses[self.path] = 1 if total > LEAST_BYTES else self.misses[self.path] + 1
            if self.misses[self.path] == TRIES:
                raise BrokenFileError(_cause(err)) from err
            raise

    def close(self) -> None:
        self.stream.close()
