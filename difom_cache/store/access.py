"""Three ways to the rows of one sharded array, all giving the same bytes into a buffer that the caller owns.

map     every shard mapped into one reserved stretch of memory, so that a batch of rows from any shards is a single
        strided copy with no Python work for each row; for local disks
read    preadv into the same buffers; for network file systems, where a lost server under a map would kill the process
zarr    zarr-python; for compressed shards
"""

import ctypes
import math
import mmap
import os
import resource
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from difom_cache.base import disk
from difom_cache.base.errors import CacheDamagedError, StorageError
from difom_cache.base.files import explain, open_once
from difom_cache.store.layout import ArraySpec, Column, shard_path
from difom_cache.store.shard import index_bytes_of, parse_index

LOCAL_FILE_SYSTEMS = {
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "zfs",
    "f2fs",
    "bcachefs",
    "jfs",
    "tmpfs",
    "ramfs",
    "overlay",
}
"""Those on which no server can be away while a page is looked at, which would kill the process without a word (SIGBUS)."""
# Reads under way at once: a server's answer takes a fraction of a millisecond, a local copy a tenth of that.
_READERS = 16
_READ_BYTES = 512 * 1024  # that one thread reads in a row
_MAP_FIXED, _PROT_NONE = 0x10, 0  # on Linux, macOS and the BSDs
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0)


class RowAccess(Protocol):
    """Something that copies rows of one array."""

    def __init__(self, cache: Path, column: Column, array: ArraySpec, blocks: Sequence[int]) -> None:
        """Open the shards of `array` that lie in `blocks`, and check them."""

    def take(self, rows: NDArray[np.int64], out: NDArray[np.generic]) -> None:
        """Fill `out` (len(rows), *row_shape) with `rows`, all of which lie in finished blocks."""


def choose_access(cache: Path, compression: str = "none", asked: str = "auto") -> str:
    """Return "map", "read" or "zarr": as asked, or by how the shards are stored and where they lie."""
    if compression != "none":
        return "zarr"
    if asked != "auto":
        return asked
    return "map" if file_system_of(cache) in LOCAL_FILE_SYSTEMS else "read"


def file_system_of(path: Path) -> str:
    """Return the type of the file system that holds `path`, such as "ext4" or "nfs4"; "" where it cannot be told."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return ""
    best, kind, wanted = -1, "", path.resolve()
    for line in mounts.read_text().splitlines():
        fields = line.split()
        point = Path(fields[4].replace("\\040", " "))
        if (wanted == point or point in wanted.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[fields.index("-") + 1]
    return kind


def open_access(how: str, cache: Path, column: Column, array: ArraySpec, blocks: Sequence[int]) -> RowAccess:
    """Return the way `how` to the rows of `array` that lie in `blocks`."""
    openers: dict[str, type[RowAccess]] = {"map": MappedRows, "read": ReadRows, "zarr": ZarrRows}
    return openers[how](cache, column, array, blocks)


def take_all(rows: NDArray[np.int64], takes: Sequence[tuple[RowAccess, NDArray[np.generic]]]) -> None:
    """Fill each array with `rows` of its access; reads, which may wait for a server, overlap."""
    parts: list[tuple[ReadRows, NDArray[np.int64], NDArray[np.generic]]] = []
    # Arrays of one column mostly lie at the same distances.
    places: dict[tuple[int, int], tuple[NDArray[np.int64], set[int]]] = {}
    for access, out in takes:
        if isinstance(access, ReadRows):
            each = max(1, _READ_BYTES // access.row_bytes)
            parts += [(access, rows[i : i + each], out[i : i + each]) for i in range(0, len(rows), each)]
        elif isinstance(access, MappedRows):
            if access.distances not in places:
                places[access.distances] = access.places_of(rows)
            access.copy(*places[access.distances], out)
        else:
            access.take(rows, out)
    if parts:
        list(_readers(os.getpid()).map(lambda part: part[0].take(part[1], part[2]), parts))


@cache
def _readers(process: int) -> ThreadPoolExecutor:
    """Return the reading threads of a process; those of its parent do not live on in it."""
    return ThreadPoolExecutor(_READERS, thread_name_prefix=f"read-{process}")


class MappedRows:
    """All shards of one array side by side in memory, at distances that are whole rows and whole pages.

    Blocks that are not there stay reserved but unreadable: the caller checks rows against the markers first.
    """

    def __init__(self, cache: Path, column: Column, array: ArraySpec, blocks: Sequence[int]) -> None:
        shard_bytes = column.block_rows * array.row_bytes + index_bytes_of(column.block_rows)
        step = math.lcm(array.row_bytes, mmap.PAGESIZE)
        stride = -(-shard_bytes // step) * step
        # In rows: of a block, and from the beginning of a block to that of the next.
        self.distances = column.block_rows, stride // array.row_bytes
        base = _reserve(stride * column.blocks)
        weakref.finalize(self, _libc().munmap, base, stride * column.blocks)
        self._shards = _OpenShards(cache, column, array, blocks)
        for block, (descriptor, size_bytes) in self._shards.files.items():
            flags = mmap.MAP_SHARED | _MAP_FIXED
            address = base + block * stride
            if _libc().mmap(address, size_bytes, mmap.PROT_READ, flags, descriptor, 0) != address:
                raise OSError(ctypes.get_errno(), "cannot map", str(self._shards.paths[block]))
        memory = (ctypes.c_ubyte * (stride * column.blocks)).from_address(base)
        shape = (self.distances[1] * column.blocks, *array.row_shape)
        self._rows: NDArray[np.generic] = np.frombuffer(memoryview(memory), dtype=array.dtype).reshape(shape)

    def take(self, rows: NDArray[np.int64], out: NDArray[np.generic]) -> None:
        self.copy(*self.places_of(rows), out)

    def places_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], set[int]]:
        """Return where `rows` lie in the stretch, and in which blocks; the same for all arrays of the same distances."""
        block_rows, stride_rows = self.distances
        blocks = rows // block_rows
        return rows + blocks * (stride_rows - block_rows), set(blocks.tolist())

    def copy(self, places: NDArray[np.int64], blocks: set[int], out: NDArray[np.generic]) -> None:
        """Fill `out` with the rows at `places`.

        Raises:
            CacheDamagedError: a shard was cut since it was mapped; looking at what is gone would kill the process (SIGBUS).
        """
        for block in blocks:
            descriptor, size_bytes = self._shards.files[block]
            if os.lseek(descriptor, 0, os.SEEK_END) < size_bytes:  # sooner than fstat
                raise self._shards.became_shorter(block)
        self._rows.take(places, axis=0, out=out, mode="clip")  # "raise" would copy twice


class ReadRows:
    """Every shard as an open file; each row is read straight into its place."""

    def __init__(self, cache: Path, column: Column, array: ArraySpec, blocks: Sequence[int]) -> None:
        self._block_rows, self.row_bytes = column.block_rows, array.row_bytes
        self._shards = _OpenShards(cache, column, array, blocks)

    def take(self, rows: NDArray[np.int64], out: NDArray[np.generic]) -> None:
        whole = out.reshape(-1).view(np.uint8).data
        for place, row in enumerate(rows.tolist()):
            block, local = divmod(row, self._block_rows)
            start, stop = place * self.row_bytes, (place + 1) * self.row_bytes
            while start < stop:
                start += self._read(block, whole[start:stop], (local + 1) * self.row_bytes - stop + start)

    def _read(self, block: int, out: memoryview, offset: int) -> int:
        """Fill the beginning of `out`; where a try fails, the next one reads the same file through a new descriptor.

        Raises:
            CacheDamagedError: the file was cut.
            StorageError: the file system cannot say.
        """
        descriptor, size_bytes = self._shards.files[block]

        def read() -> int:
            try:
                got = os.preadv(descriptor, [out], offset)
                if got == 0:  # a row lies before the index at the shard's end
                    disk.check_whole(offset, size_bytes)
            except OSError:
                self._shards.open_again(block)
                raise
            return got

        path = self._shards.paths[block]
        try:
            return disk.ask(path, read)
        except StorageError:
            with suppress(OSError):
                if path.stat().st_size < size_bytes:
                    raise self._shards.became_shorter(block) from None
            raise


class ZarrRows:
    """The array as zarr-python reads it."""

    def __init__(self, cache: Path, column: Column, array: ArraySpec, blocks: Sequence[int]) -> None:
        for block in blocks:
            if not disk.is_there(shard_path(cache, column, array, block)):
                raise CacheDamagedError(f"{shard_path(cache, column, array, block)} is missing although it is marked")
        import zarr  # late: half of what asking a cache for its contents takes, and other ways do without

        self._array = zarr.open_array(cache / column.folder / array.path, mode="r")

    def take(self, rows: NDArray[np.int64], out: NDArray[np.generic]) -> None:
        order, places = np.unique(rows, return_inverse=True)
        out[...] = np.asarray(self._array.oindex[order])[places]


class _OpenShards:
    """The shards of some blocks of one array, each open and checked.

    Attributes:
        paths: of each block's shard.
        files: descriptor and size in bytes of each.
    """

    def __init__(self, cache: Path, column: Column, array: ArraySpec, blocks: Sequence[int]) -> None:
        self.paths = {block: shard_path(cache, column, array, block) for block in blocks}
        self.files: dict[int, tuple[int, int]] = {}
        self._written_ns: dict[int, int] = {}
        weakref.finalize(self, _close_all, self.files)
        _allow_open_files(len(blocks))
        for block, path in self.paths.items():
            descriptor, found = _open_shard(path)
            self.files[block], self._written_ns[block] = (descriptor, found.st_size), found.st_mtime_ns
            _check_index(descriptor, found.st_size, path, column, array, block)

    def open_again(self, block: int) -> None:
        """Let the descriptor of a shard lead to a file that was just opened, if its size and time say that it is the same one.

        A descriptor may be dead for good once its server was away, as those of sshfs.
        """
        held, size_bytes = self.files[block]
        with suppress(OSError):  # still away, or gone: the caller's error says more
            descriptor, found = open_once(self.paths[block])
            try:
                if (found.st_size, found.st_mtime_ns) == (size_bytes, self._written_ns[block]):
                    os.dup2(descriptor, held, inheritable=False)  # at once, while other threads read through it
            finally:
                os.close(descriptor)

    def became_shorter(self, block: int) -> CacheDamagedError:
        """Return the error of a shard that was cut while it was read."""
        return CacheDamagedError(
            f"{self.paths[block]} became shorter while it was read: was its cache copied over, or its block made anew? "
            "`difom-cache verify` says what of it is whole"
        )


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_longlong]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


def _reserve(size_bytes: int) -> int:
    """Return the address of a stretch that takes no memory until shards are mapped over it."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    address = _libc().mmap(None, size_bytes, _PROT_NONE, flags, -1, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), f"cannot reserve {size_bytes} bytes of address space")
    return int(address)


def _open_shard(path: Path) -> tuple[int, os.stat_result]:
    """Return a descriptor of a shard, and what is known of the file."""
    try:
        return disk.ask(path, lambda: open_once(path))
    except FileNotFoundError:
        raise CacheDamagedError(
            f"{path} is missing although its block is marked as finished: was the cache copied whole? "
            "Run `difom-cache verify` on it"
        ) from None
    except OSError as error:
        raise CacheDamagedError(
            f"{path} cannot be read: {explain(error)}; run `difom-cache verify` on its cache"
        ) from None


def _check_index(descriptor: int, size_bytes: int, path: Path, column: Column, array: ArraySpec, block: int) -> None:
    """Raise unless the index of an open shard says that its rows lie one after the other."""
    start, stop = column.range_of(block)
    tail_bytes = index_bytes_of(column.block_rows)
    wanted = (stop - start) * array.row_bytes + tail_bytes
    if size_bytes != wanted:
        raise CacheDamagedError(f"{path} has {size_bytes} bytes and should have {wanted}; run `difom-cache verify`")
    tail = disk.ask(path, lambda: os.pread(descriptor, tail_bytes, size_bytes - tail_bytes))
    index = parse_index(tail, path)[: stop - start]
    expected = np.arange(stop - start, dtype=np.uint64) * np.uint64(array.row_bytes)
    if not (np.array_equal(index[:, 0], expected) and (index[:, 1] == array.row_bytes).all()):
        raise CacheDamagedError(
            f"the rows of {path} do not lie in order (FORMAT.md, section 3); was another tool its writer?"
        )


def _allow_open_files(more: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = soft + more
    if hard == resource.RLIM_INFINITY or wanted <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _close_all(files: dict[int, tuple[int, int]]) -> None:
    for descriptor, _ in files.values():
        with suppress(OSError):  # of a server that is away; nothing was written
            os.close(descriptor)
