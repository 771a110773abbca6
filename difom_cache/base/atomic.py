"""Files that appear whole or not at all, on local disks and on the network file systems of clusters.

Every file that either package writes goes through here, in this order: temporary name, fsync, publish, fsync of the
folder. Nothing here takes a lock, so nothing can be left locked by a job that was killed.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from difom_cache.base import disk
from difom_cache.base.errors import CacheSpaceError, StorageError
from difom_cache.base.files import open_once, read_plain

STALE_AFTER_S = 24 * 3600  # a temporary file of another host is taken for abandoned after a day
_TEMP = re.compile(r"^\.tmp-(?P<host>[^~]*)~(?P<pid>\d+)~[0-9a-f]+~")
_NAME_BYTES = 100
_TRIES = 5
_PRIVATE_MODE = 0o750
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}
_NO_ROOM = {*disk.FULL, errno.EACCES, errno.EPERM}
_NO_PLACE = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG}


T = TypeVar("T")


class FileDigest(BaseModel):
    """What a marker promises about one file."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    file_bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def write_once(path: Path, parts: Iterable[bytes | memoryview]) -> FileDigest:
    """Make `path` hold the bytes of `parts`, unless a file lies there already.

    Args:
        path: the final name; its folder is made if needed.
        parts: buffers, written one after the other.

    Returns:
        The digest of the file that lies there afterwards: ours, or that of the writer who came first.

    Raises:
        CacheSpaceError: the disk is full or the folder cannot be written. No file is left behind.
    """
    digest, ours = _write(path, parts, _publish)
    try:
        return digest if ours else digest_file(path)
    except FileNotFoundError:  # of equal bytes, and removed since: moments go once another writer has summed them up
        return digest


def publish_once(path: Path, parts: Iterable[bytes | memoryview]) -> tuple[FileDigest, bool]:
    """Write `parts` as `write_once` does; return their own digest, and whether the file that lies there has it."""
    digest, ours = _write(path, parts, _publish)
    try:
        return digest, ours or digest_file(path) == digest
    except OSError:  # gone again, or no plain file
        return digest, False


def _write(
    path: Path, parts: Iterable[bytes | memoryview], publish: Callable[[Path, Path], bool]
) -> tuple[FileDigest, bool]:
    held = list(parts)  # an error of the file system begins the whole file anew

    def write() -> tuple[FileDigest, bool]:
        temp = path.parent / _temp_name(path.name)
        try:
            try:
                digest = _write_synced(temp, held)
            except FileNotFoundError:  # mostly the folder is there, and to ask would be one more call for each file
                _make_folder(path.parent)
                digest = _write_synced(temp, held)
            try:
                ours = publish(temp, path)
            except FileNotFoundError:
                if _digest_file(path) != digest:  # as in `rename`
                    raise
                ours = True
        finally:
            temp.unlink(missing_ok=True)
        _sync(path.parent)
        return digest, ours

    return _do(path, write)


def write_atomic(path: Path, content: bytes | Iterable[bytes | memoryview]) -> FileDigest:
    """Make `path` hold `content`, whatever lay there before.

    Args:
        path: the final name; its folder is made if needed.
        content: bytes, or buffers that are written one after the other.

    Returns:
        The digest of what was written.

    Raises:
        CacheSpaceError: the disk is full, or nothing can be written there. What lay there before is untouched.
    """
    parts = [content] if isinstance(content, bytes) else content
    return _write(path, parts, lambda temp, path: bool(temp.replace(path)))[0]


def append_synced(path: Path, text: str) -> None:
    """Add text to the end of a file, which is on the disk when this returns.

    Raises:
        CacheSpaceError: as `write_atomic`.
    """
    held_bytes: list[int] = []

    def append() -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            held_bytes.append(os.fstat(descriptor).st_size)
            os.ftruncate(descriptor, held_bytes[0])  # what an earlier try has left of it
            _write_whole(descriptor, memoryview(text.encode()))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    _do(path, append)


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Yield a name to write to; it becomes `path` when the block ends well, and is removed when it does not.

    For libraries that write files by name or piece by piece; the draft has the ending of `path`.

    Raises:
        CacheSpaceError: as `write_atomic`, also for what the block itself could not write.
    """
    _do(path, lambda: _make_folder(path.parent))
    temp = path.parent / _temp_name(path.name)
    try:
        try:
            yield temp
        except OSError as error:
            if error.errno in disk.FULL or error.filename == str(temp):
                raise _explain(error, path) from error
            raise  # the block read something else, and failed there
        _do(path, lambda: _sync(temp))
        try:
            rename(temp, path)
        except OSError as error:
            raise _explain(error, path) from error
        _do(path, lambda: _sync(path.parent))
    finally:
        temp.unlink(missing_ok=True)


def keep(path: Path, content: bytes) -> None:
    """Make `path` hold `content`, which is known to belong there; a file that holds it already stays."""
    try:
        if read_plain(path) != content:
            write_atomic(path, content)
    except FileNotFoundError:
        write_once(path, [content])
    except OSError:
        write_atomic(path, content)


@contextmanager
def build_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that becomes `folder` when the block ends, and vanishes where it fails.

    Raises:
        CacheSpaceError: something lies at `folder` by then, or it cannot be written.
    """
    draft = folder.parent / _temp_name(folder.name)

    def begin() -> None:
        _make_folder(folder.parent)
        for left in folder.parent.glob(".tmp-*"):
            if left.is_dir() and left.name.endswith(f"~{folder.name}"):
                _remove_abandoned(left)
        draft.mkdir(exist_ok=True)

    _do(folder, begin)
    try:
        try:
            yield draft
        except OSError as error:
            if error.errno in disk.FULL:
                raise _explain(error, folder) from error
            raise
        try:
            rename(draft, folder)
        except OSError as error:
            raise _explain(error, folder) from error
        _do(folder, lambda: _sync(folder.parent))
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def rename(source: Path, to: Path) -> None:
    """Make what lies at `source` lie at `to`, tried again for some seconds.

    Where the server renamed and its answer was lost, NFS asks again and is told that nothing lies at `source`: no error.

    Raises:
        OSError: it lies where it lay.
    """
    number = disk.ask(source, source.stat, writes=True).st_ino

    def act() -> None:
        try:
            source.replace(to)
        except FileNotFoundError:
            if to.stat().st_ino != number:
                raise

    disk.ask(to, act, writes=True)


def remove(path: Path) -> None:
    """Make `path` not exist, and the folder know it."""

    def take_away() -> None:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync(path.parent)

    _do(path, take_away)


def remove_empty(folder: Path) -> None:
    """Make `folder` hold no folder without a file in it, and go itself where it holds nothing."""
    for path in (*sorted(folder.rglob("*"), reverse=True), folder):
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # it holds something
                path.rmdir()


def remove_tree(folder: Path) -> None:
    """Make `folder` not exist, also where others take files out of it or put some in meanwhile.

    Raises:
        OSError: something in it stays.
    """
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    shutil.rmtree(folder)


def digest_file(path: Path) -> FileDigest:
    """Return size and SHA-256 of the file that lies at `path`."""
    return disk.ask(path, lambda: _digest_file(path))


def _digest_file(path: Path) -> FileDigest:
    descriptor, found = open_once(path)
    with os.fdopen(descriptor, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        disk.check_whole(file.tell(), found.st_size)
    return FileDigest(file_bytes=found.st_size, sha256=sha256)


def remove_stale(folder: Path) -> list[Path]:
    """Remove the temporary files under `folder` whose writer is dead; return what was removed.

    A writer of this host is dead when no process has its number; one of another host when its file is older than a day.
    """
    removed = []
    for path in disk.ask(folder, lambda: sorted(folder.rglob(".tmp-*"))):
        if _remove_abandoned(path):
            removed.append(path)
    return removed


def _remove_abandoned(path: Path) -> bool:
    match = _TEMP.match(path.name)
    if not match or not _is_dead(path, match["host"], int(match["pid"])):
        return False
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        remove(path)
    return True


def _make_folder(folder: Path) -> None:
    """Make `folder` exist, and the folder above it know it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def make_private_folder(folder: Path) -> None:
    """Make `folder` exist; a new one is for its owner and, as far as the umask allows, the group to enter."""

    def make() -> None:
        _make_folder(folder.parent)
        if not folder.is_dir():
            folder.mkdir(exist_ok=True, mode=_PRIVATE_MODE)
            _sync(folder.parent)

    _do(folder, make)


def _temp_name(name: str) -> str:
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
    ending = os.fsencode(name)[-_NAME_BYTES:].decode(
        errors="ignore"
    )  # a name may be as long as the disk allows already
    return f".tmp-{host}~{os.getpid()}~{secrets.token_hex(4)}~{ending}"


def _write_synced(temp: Path, parts: Iterable[bytes | memoryview]) -> FileDigest:
    sha256, file_bytes = hashlib.sha256(), 0
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less what the umask takes
    try:
        for part in parts:
            view = memoryview(part).cast("B")
            sha256.update(view)
            file_bytes += len(view)
            _write_whole(descriptor, view)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return FileDigest(file_bytes=file_bytes, sha256=sha256.hexdigest())


def _write_whole(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]


def _publish(temp: Path, path: Path) -> bool:
    """Give `temp` its final name; False when another writer's file was there first."""
    try:
        os.link(temp, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        temp.rename(path)  # a file system without links: the last equal file wins, which is as good
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems cannot sync a folder, and need not
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _is_dead(path: Path, host: str, pid: int) -> bool:
    if host == re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
    try:
        return time.time() - path.stat().st_mtime > STALE_AFTER_S
    except FileNotFoundError:
        return False


def _do(path: Path, action: Callable[[], T]) -> T:
    """Return what `action` returns, tried again for some seconds; an error says what of `path` cannot be written, and why."""
    try:
        return disk.ask(path, action, writes=True)
    except OSError as error:
        raise _explain(error, path) from error


def _explain(error: OSError, path: Path) -> Exception:
    if error.errno in _NO_ROOM:
        hint = ". What is finished is safe; make room or choose a folder that can be written, then run the same command again."
    elif error.errno in disk.UNANSWERED:
        said = f"cannot write {path} now: {os.strerror(error.errno or 0)}. What is finished is safe. "
        return StorageError(said + disk.say_way_on(error))
    elif error.errno in _NO_PLACE:
        hint = "; choose a path whose folders are folders, and that is none itself"
    else:
        return OSError(error.errno or 0, disk.explain(error), str(path))
    return CacheSpaceError(f"cannot write {path}: {os.strerror(error.errno or 0)}{hint}")
