"""One file from a hub, whole: patience with a hub that is busy, and what is compared before a file counts.

Nothing waits without a bound: a silent hub is given up after `HF_HUB_DOWNLOAD_TIMEOUT` seconds (10), three times in a
row; a file goes on where an earlier try, or an earlier run, ended.
"""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from httpx2 import HTTPError, ProxyError, Response
from huggingface_hub import constants, errors, get_session
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status
from tqdm import tqdm

from difom_cache.teachers.hub_cache import sha256_of

TRIES, WAIT_S = 3, 1.0  # one more try after a second, and one more after two
RETRIED = (408, 425, 429, 500, 502, 503, 504)
STEP_FRAC, LEAST_BYTES = 0.01, 1 << 16  # of a file: a try that brought so much was none in vain
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


def patiently(ask: Callable[[], T]) -> T:
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


def difference_of(path: Path, remote: Remote) -> str | None:
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


def receive(url: str, part: Path, remote: Remote) -> Remote:
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
    if difference := difference_of(part, remote):
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
