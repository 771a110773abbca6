"""An HDF5 file of unknown origin: what is read of it was named before, lies in the file itself, and is as large as it says.

HDF5 can point elsewhere in five ways (soft and external links, external storage, virtual datasets, filters that load
plug-ins); none of them is followed.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from difom_cache.base.errors import CacheFormatError
from difom_cache.store.identity import AnyIdentity
from difom_cache.store.schema import check_value, parse_json

EXPORT_AGAIN = "export the cache again with `difom-cache export`"


class Book:
    """An open HDF5 file; names in it are written as paths from its root."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file, self.path = file, path

    def holds(self, name: str) -> bool:
        """Whether there is an object of this name."""
        parent, _, last = name.rpartition("/")
        return last in self.names(parent)

    def names(self, group: str) -> list[str]:
        """Return the names in a group, sorted."""
        held = self._object(group, h5py.Group)
        with self._garbled(group):
            return sorted(held)

    def expect(self, group: str, needed: Sequence[str], allowed: Sequence[str] = ()) -> None:
        """Return if a group holds what is needed and nothing that is not allowed.

        Names with a slash stand for their first part.

        Raises:
            CacheFormatError: it does not.
        """
        held = set(self.names(group))
        due = {name.partition("/")[0] for name in needed}
        missing, strange = sorted(due - held), sorted(held - due - set(allowed))
        if missing or strange:
            what = f"lacks {missing[0]!r}" if missing else f"holds {strange[0]!r}, which no cache has there"
            raise self._refuse(f"{group or 'its root'} {what}")

    def identity(self, group: str, kind: type[AnyIdentity]) -> AnyIdentity:
        """Return the identity that a group carries as an attribute."""
        held = self._object(group, h5py.Group)
        with self._garbled(f"identity of {group}"):
            text = held.attrs.get("identity")
        if text is None:
            raise CacheFormatError(f"{self.path} is no cache exported by `difom-cache export`: it has no identity")
        where = f"{self.path}: the identity of {group or 'the cache'}"
        if not isinstance(text, str):
            raise CacheFormatError(f"{where} is no text; {EXPORT_AGAIN}")
        value = parse_json(text, where, CacheFormatError, EXPORT_AGAIN)
        check_value(value, dict[str, Any], where, CacheFormatError, EXPORT_AGAIN)
        return kind.from_dict(value, where)

    def json(self, name: str, schema: Any) -> Any:
        """Return the JSON value that lies in a dataset of bytes."""
        where = f"{self.path}: {name}"
        value = parse_json(self.read_bytes(name), where, CacheFormatError, EXPORT_AGAIN)
        return check_value(value, schema, where, CacheFormatError, EXPORT_AGAIN)

    def read_bytes(self, name: str) -> bytes:
        """Return a dataset of bytes."""
        return bytes(self.read(name, None, "uint8"))

    def read(self, name: str, shape: tuple[int, ...] | None, dtype: str, rows: slice = slice(None)) -> NDArray[Any]:
        """Return `rows` of a dataset.

        Args:
            name: of the dataset.
            shape: that it must have; None for any number of values in one dimension.
            dtype: that it must have.
            rows: of its first dimension.
        """
        data = self._object(name, h5py.Dataset)
        with self._garbled(name):
            return self._read_plain(data, name, shape, dtype, rows)

    def _read_plain(
        self, data: h5py.Dataset, name: str, shape: tuple[int, ...] | None, dtype: str, rows: slice
    ) -> NDArray[Any]:
        if data.external is not None or data.is_virtual:
            raise self._refuse(f"{name} points to other files")
        if data.dtype != np.dtype(dtype) or (data.ndim != 1 if shape is None else data.shape != shape):
            raise self._refuse(f"{name} is {data.shape} {data.dtype}, expected {shape or 'one dimension'} {dtype}")
        if data.id.get_create_plist().get_nfilters():
            raise self._refuse(f"{name} is compressed or filtered, exports are plain")
        size_bytes = math.prod(data.shape) * data.dtype.itemsize
        if data.id.get_storage_size() < size_bytes:
            raise self._refuse(f"{name} has {data.id.get_storage_size()} of its {size_bytes} bytes in the file")
        return np.asarray(data[rows])

    def _object(self, name: str, kind: type) -> Any:
        """Return a group or dataset, every step to it a hard link."""
        found: Any = self._file
        for part in name.split("/") if name else []:
            with self._garbled(name):
                link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
                if not isinstance(link, h5py.HardLink):
                    raise self._refuse(f"{name} is missing or a link to something else")
                found = found[part]
        if not isinstance(found, kind):
            raise self._refuse(f"{name} is no {kind.__name__.lower()}")
        return found

    @contextmanager
    def _garbled(self, name: str) -> Iterator[None]:
        """Turn what h5py raises from a garbled file into one line."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
            what = " ".join(str(error).split()) or type(error).__name__
            raise self._refuse(f"{name or 'its root'} cannot be read ({what})") from None

    def _refuse(self, what: str) -> CacheFormatError:
        return CacheFormatError(f"{self.path}: {what}; {EXPORT_AGAIN}")
