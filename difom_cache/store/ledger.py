"""Done markers: the only thing that says a block is finished, and what its files must then contain."""

import re
import stat
from pathlib import Path

from difom_cache.base import disk
from difom_cache.base.atomic import remove, write_atomic, write_once
from difom_cache.base.errors import CacheDamagedError
from difom_cache.store.layout import DAMAGED, Column, canonical, marker_path, moments_path, shard_path, totals_path
from difom_cache.store.schema import DamagedHeld, DoneMarker, read_checked, read_model


def write_marker(cache: Path, column: Column, marker: DoneMarker) -> None:
    """Say that a block is finished. Everything that the marker names must lie on the disk already."""
    write_once(marker_path(cache, column, marker.block), [canonical(marker.model_dump())])


def is_done(cache: Path, column: Column, block: int) -> bool:
    return disk.is_there(marker_path(cache, column, block))


def read_marker(path: Path) -> DoneMarker:
    """Return the marker in `path`.

    Raises:
        CacheDamagedError: it cannot be read as a marker.
    """
    try:
        return read_model(path, DoneMarker, CacheDamagedError, "`difom-cache verify` says what to do")
    except (FileNotFoundError, NotADirectoryError):
        raise CacheDamagedError(f"{path} cannot be read: it is gone; run the same command again") from None


def list_markers(cache: Path, column: Column) -> dict[int, Path]:
    """Return the file of every marker of a column, readable or not, by the block's number.

    Copies that a file manager or a synchronising service left beside them ("000001 (1).json") are none.
    """
    folder = cache / column.folder / "ticks"
    found = [name for name in disk.list_names(folder) if re.fullmatch("[0-9]{6,9}[.]json", name)]
    numbered = {int(name.removesuffix(".json")): folder / name for name in found}
    return {block: path for block, path in numbered.items() if block < column.blocks}


def read_markers(cache: Path, column: Column, *, skip_unreadable: bool = False) -> dict[int, DoneMarker]:
    """Return every finished block of a column, by its number.

    Args:
        cache: the cache's folder.
        column: pictures or one teacher.
        skip_unreadable: leave markers out that cannot be believed, so that their blocks count as missing.

    Raises:
        CacheDamagedError: a marker cannot be read, or speaks of another block or other arrays than its column has.
    """
    markers, arrays = {}, sorted(array.path for array in column.arrays)
    for block, path in list_markers(cache, column).items():
        try:
            marker = read_marker(path)
            said = (marker.block, marker.start, marker.stop, sorted(marker.files))
            due = (block, *column.range_of(block), arrays)
            if said != due:
                raise CacheDamagedError(
                    f"the marker {path} says (block, start, stop, arrays) {said}, its column has {due}; "
                    "`difom-cache extract` with the same arguments makes the block anew"
                )
            markers[block] = marker
        except CacheDamagedError:
            if not skip_unreadable:
                raise
    return markers


def read_damaged(cache: Path) -> dict[str, list[int]]:
    """Return the blocks that `verify` found damaged, by the folder of their column.

    Raises:
        CacheDamagedError: the list cannot be read.
    """
    path = cache / DAMAGED
    try:
        hint = f"remove it and run `difom-cache verify {cache}`, which writes it anew"
        return dict(read_checked(path, DamagedHeld, CacheDamagedError, hint))
    except (FileNotFoundError, NotADirectoryError):
        return {}


def write_damaged(cache: Path, damaged: dict[str, list[int]]) -> None:
    """Keep the list of damaged blocks; readers refuse them and the next extraction makes them anew."""
    kept = {folder: sorted(blocks) for folder, blocks in damaged.items() if blocks}
    if kept:
        write_atomic(cache / DAMAGED, [canonical(kept)])
    else:
        remove(cache / DAMAGED)


def withdraw_block(cache: Path, column: Column, block: int) -> None:
    """Make a block missing: first its marker goes, then its files, so that no reader trusts what is on its way out."""
    remove(marker_path(cache, column, block))
    remove(moments_path(cache, column, block))
    for array in column.arrays:
        remove(shard_path(cache, column, array, block))


def find_short_blocks(cache: Path, column: Column, markers: dict[int, DoneMarker], *, sizes: bool = True) -> list[int]:
    """Return the marked blocks that lack a shard or their statistics, or have a shard of another size than marked.

    Folders are listed: a network file system answers for a hundred names at once. A list may be late, so that what it lacks is
    asked for by its name.

    Args:
        cache: the cache's folder.
        column: pictures or one teacher.
        markers: of its finished blocks.
        sizes: whether sizes are looked at too, which is a question for each file.
    """
    short: set[int] = set()
    for array in column.arrays:
        folder = shard_path(cache, column, array, 0).parent
        held = disk.list_sizes(folder) if sizes else dict.fromkeys(disk.list_names(folder))
        for block, marker in markers.items():
            path, due = shard_path(cache, column, array, block), marker.files[array.path].file_bytes
            if path.name in held:
                short |= {block} if held[path.name] not in (None, due) else set()
            else:
                found = disk.find(path)
                short |= {block} if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != due else set()
    listed = set(disk.list_names(moments_path(cache, column, 0).parent)) if column.label else set()
    folded = [
        block
        for block, marker in markers.items()
        if marker.moments and moments_path(cache, column, block).name not in listed
    ]
    if folded and not disk.is_there(totals_path(cache, column.folder)):  # asked second: written before moments go
        short |= {block for block in folded if not disk.is_there(moments_path(cache, column, block))}
    return sorted(short)
