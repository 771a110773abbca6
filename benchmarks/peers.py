"""Other people's ways to hold the same bytes, as optional peers of `bench loader`: each is measured where it is installed.

Every peer holds a view as one value of as many bytes, the simplest layout that it has, and copies the rows of a batch into
one buffer, as training needs them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Samples = NDArray[np.uint8]
Read = Callable[[Rows], Samples]
_ARROW_ROWS = 64  # of a record batch
_MDS_BYTES = 1 << 26  # of a shard, the library's own default


@dataclass(frozen=True)
class Peer:
    """One library: what it is called, what is imported, what pip calls it, and how it is filled and read."""

    name: str
    module: str
    package: str
    open: Callable[[Path, Samples, int], Read]
    """Takes a folder of its own, all samples (N, sample_bytes) and the rows of a batch; fills the folder unless it is full."""

    @property
    def is_here(self) -> bool:
        """Whether it is installed."""
        return find_spec(self.module) is not None


def open_peers(folder: Path, samples: Samples, batch: int) -> dict[str, Read]:
    """Return how each installed peer reads a batch, from files below `folder` that hold `samples`."""
    return {peer.name: peer.open(folder / peer.module, samples, batch) for peer in PEERS if peer.is_here}


def name_absent() -> list[str]:
    """Return what is not measured because it is not installed, as pip calls it."""
    return [peer.package for peer in PEERS if not peer.is_here]


def _open_lmdb(folder: Path, samples: Samples, batch: int) -> Read:
    lmdb = import_module("lmdb")
    folder.mkdir(parents=True, exist_ok=True)  # it makes the last folder alone
    store = lmdb.open(str(folder), map_size=2 * samples.nbytes + (1 << 24), readahead=False)
    with store.begin() as reading:
        there = reading.stat()["entries"]
    for start in range(there, len(samples), batch):
        with store.begin(write=True) as writing:
            for row in range(start, min(start + batch, len(samples))):
                writing.put(row.to_bytes(8, "big"), samples[row].data)
    out = np.empty((batch, samples.shape[1]), np.uint8)

    def read(rows: Rows) -> Samples:
        with store.begin(buffers=True) as reading:
            for place, row in enumerate(rows.tolist()):
                out[place] = np.frombuffer(reading.get(row.to_bytes(8, "big")), np.uint8)
        return out

    return read


def _open_arrow(folder: Path, samples: Samples, batch: int) -> Read:
    arrow: Any = import_module("pyarrow")
    ipc: Any = import_module("pyarrow.ipc")
    path, kind = folder / "samples.arrow", arrow.binary(samples.shape[1])
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "samples.unfinished"
        schema = arrow.schema([("sample", kind)])
        with arrow.OSFile(str(unfinished), "wb") as file, ipc.new_file(file, schema) as writer:
            for start in range(0, len(samples), _ARROW_ROWS):
                part = np.ascontiguousarray(samples[start : start + _ARROW_ROWS])
                values = arrow.FixedSizeBinaryArray.from_buffers(kind, len(part), [None, arrow.py_buffer(part)])
                writer.write_batch(arrow.record_batch([values], schema=schema))
        unfinished.rename(path)
    column = ipc.open_file(arrow.memory_map(str(path))).read_all().column("sample")

    width, out = samples.shape[1], np.empty((batch, samples.shape[1]), np.uint8)
    # Row by row out of the mapped batches: `take` would copy all of them together first, whatever it is asked for.
    held = [np.frombuffer(each.buffers()[1], np.uint8, len(each) * width).reshape(-1, width) for each in column.chunks]

    def read(rows: Rows) -> Samples:
        for place, row in enumerate(rows.tolist()):
            out[place] = held[row // _ARROW_ROWS][row % _ARROW_ROWS]
        return out

    return read


def _open_mds(folder: Path, samples: Samples, batch: int) -> Read:
    streaming = import_module("streaming")
    if not (folder / "index.json").exists():  # the library writes it last
        columns = {"sample": "bytes"}
        with streaming.MDSWriter(out=str(folder), columns=columns, size_limit=_MDS_BYTES, exist_ok=True) as writer:
            for sample in samples:
                writer.write({"sample": sample.tobytes()})
    held = streaming.LocalDataset(local=str(folder))
    out = np.empty((batch, samples.shape[1]), np.uint8)

    def read(rows: Rows) -> Samples:
        for place, row in enumerate(rows.tolist()):
            out[place] = np.frombuffer(held[row]["sample"], np.uint8)
        return out

    return read


PEERS = (
    Peer("LMDB", "lmdb", "lmdb", _open_lmdb),
    Peer("Arrow, mapped", "pyarrow", "pyarrow", _open_arrow),
    Peer("MDS", "streaming", "mosaicml-streaming", _open_mds),
)
