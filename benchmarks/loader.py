"""How fast a cache is read: against copies of memory and of a mapped file, other formats, and a file for each feature."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from benchmarks.made_caches import write_random_cache
from benchmarks.options import LoaderConfig
from benchmarks.peers import name_absent, open_peers
from difom_cache import Cache
from difom_cache.base.text import format_table
from difom_train.data.caches import JointCache
from difom_train.data.loader import Loader
from difom_train.data.stage import PICTURES, choose_stage
from difom_train.training.run_folder import describe_hardware, describe_versions

TAPS, CHANNELS, GRID, PICTURE_PX = 3, 256, 22, 352
# What the published notebook stores for each picture, fp32: SAM, OneFormer and DINOv2 as its loader names them
# (arXiv:2512.09307, released notebook), about 15.4 MB a view. It resizes all to 64 x 64 while loading.
NOTEBOOK_SHAPES = ((9, 256, 256), (256, 56, 56), (768, 37, 37))
NOTEBOOK_GRID, NOTEBOOK_VIEWS = 64, 24
_ROUNDS = 5
_LOADER_BATCHES = 50

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class LoaderSpeeds:
    """Samples a second of each way of reading, medians over alternating rounds.

    Attributes:
        samples_per_s: by the clock.
        samples_per_cpu_s: of this process's threads together, which other work on the machine disturbs less; warm ways alone.
        sample_bytes: of one.
        about: the measured cache, versions and hardware.
    """

    samples_per_s: dict[str, float]
    samples_per_cpu_s: dict[str, float]
    sample_bytes: int
    about: dict[str, Any]

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as fast `gather` is as each other way."""
        gather = self.samples_per_s["gather"]
        return {name: gather / speed for name, speed in self.samples_per_s.items() if name != "gather"}

    @property
    def cpu_ratios(self) -> dict[str, float]:
        """How many times as many samples `gather` reads in a second of the CPU as each other way."""
        gather = self.samples_per_cpu_s["gather"]
        return {name: gather / speed for name, speed in self.samples_per_cpu_s.items() if name != "gather"}

    def render(self) -> str:
        """Return one line for each way."""
        rows = [["way of reading", "samples/s", "GB/s", "gather is", "by CPU time"]]
        for name, speed in self.samples_per_s.items():
            times = f"{self.ratios[name]:.2f} x" if name in self.ratios else ""
            cpu = f"{self.cpu_ratios[name]:.2f} x" if name in self.cpu_ratios else ""
            rows.append([name, f"{speed:.1f}", f"{speed * self.sample_bytes / 1e9:.2f}", times, cpu])
        held = f"zarr-python {zarr.__version__}, {self.about['views']} views of {self.sample_bytes} bytes"
        absent = self.about["not_installed"]
        return "\n".join(
            [format_table(rows), held, *([f"not measured, as not installed: {', '.join(absent)}"] if absent else [])]
        )

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        return asdict(self) | {"ratios": self.ratios, "cpu_ratios": self.cpu_ratios}


def bench_loader(config: LoaderConfig) -> LoaderSpeeds:
    """Return how fast random batches are read in each way, from a warm page cache, and once from a cold one.

    The measured cache, the notebook's files and those of every peer that is installed are made in the folder, unless they are
    there already; the plain buffer is as large as the cache.
    """
    folder, size_gb, batch_size, seconds = config.folder, config.size_gb, config.batch_size, config.seconds
    sample_bytes = TAPS * CHANNELS * (GRID**2 + 4) + 4 * PICTURE_PX**2
    views = max(batch_size, int(size_gb * 1e9 / sample_bytes))
    cache = write_random_cache(
        folder / "feats", views=views, taps=TAPS, channels=CHANNELS, grid=GRID, picture_px=PICTURE_PX
    )
    notebook = _write_notebook(folder / "notebook")
    mapped = _map_flat(folder / "flat.bin", views, sample_bytes)
    cold = _time_cold(cache, folder / "feats", batch_size)
    ways = {
        "memcpy": _copy_memory(views, sample_bytes, batch_size),
        "NumPy's take from one mapped file": _take_mapped(mapped, batch_size),
        "the same as one take an array": _take_arrays(mapped, batch_size),
        "gather": _gather(cache, batch_size),
        "difom_train's loader": _load(cache, batch_size),
        "zarr-python, row by row": _read_zarr(folder / "feats", cache, batch_size, by_row=True),
        "zarr-python, a batch at a time": _read_zarr(folder / "feats", cache, batch_size, by_row=False),
        "notebook's files": _read_notebook(notebook),
    }
    if find_spec("tensorstore"):
        ways["tensorstore"] = _read_tensorstore(folder / "feats", cache)
    ways |= {
        name: partial(_count, take) for name, take in open_peers(folder / f"peers-{views}", mapped, batch_size).items()
    }
    speeds, cpu_speeds = _measure(ways, views, batch_size, seconds)
    about = {
        "views": views,
        "batch_size": batch_size,
        "not_installed": name_absent() + ([] if "tensorstore" in ways else ["tensorstore"]),
        "versions": describe_versions() | {"zarr": zarr.__version__},
        "hardware": describe_hardware(torch.device("cpu"), 1),
    }
    return LoaderSpeeds(speeds | {"gather, cold": cold}, cpu_speeds, sample_bytes, about)


def _measure(
    ways: dict[str, Callable[[Rows], int]], views: int, batch: int, seconds: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the median samples a second of each way, by the clock and of the CPU; ways alternate.

    Each has read all rows before, or as many as the time of its rounds lets it: a map's first look at a page is no reading.
    """
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in ways}
    cpu_found: dict[str, list[float]] = {name: [] for name in ways}
    for read in ways.values():
        started = time.process_time()
        for first in range(0, views - batch + 1, batch):
            read(np.arange(first, first + batch))
            if time.process_time() - started > seconds:
                break
    for _ in range(_ROUNDS):
        for name, read in ways.items():
            samples, started, cpu_started = 0, time.perf_counter(), time.process_time()
            while time.perf_counter() - started < seconds / _ROUNDS or not samples:
                samples += read(rng.integers(0, views, batch))
            found[name].append(samples / (time.perf_counter() - started))
            cpu_found[name].append(samples / max(time.process_time() - cpu_started, 1e-9))
    clock, cpu = ({name: statistics.median(each) for name, each in some.items()} for some in (found, cpu_found))
    return clock, cpu


def _copy_memory(views: int, sample_bytes: int, batch: int) -> Callable[[Rows], int]:
    """Return a copy of the same bytes at random offsets out of a plain buffer as large as the cache."""
    buffer = np.zeros((views, sample_bytes), np.uint8)
    buffer[:, ::4096] = 1  # every page is there before the clock runs
    out = np.empty((batch, sample_bytes), np.uint8)

    def read(rows: Rows) -> int:
        np.take(buffer, rows, axis=0, out=out, mode="clip")
        return len(rows)

    return read


def _map_flat(path: Path, views: int, sample_bytes: int) -> NDArray[np.uint8]:
    """Return a map of one flat file that holds all of a view in one row, (views, sample_bytes), as anybody would make it."""
    if not path.exists() or path.stat().st_size != views * sample_bytes:
        rng = np.random.default_rng(0)
        with path.open("wb") as file:
            for _ in range(views):
                file.write(rng.integers(0, 256, sample_bytes, np.uint8).data)
    return np.memmap(path, np.uint8, "r", shape=(views, sample_bytes))


def _take_mapped(mapped: NDArray[np.uint8], batch: int) -> Callable[[Rows], int]:
    out = np.empty((batch, mapped.shape[1]), np.uint8)

    def read(rows: Rows) -> int:
        np.take(mapped, rows, axis=0, out=out, mode="clip")
        return len(rows)

    return read


def _take_arrays(mapped: NDArray[np.uint8], batch: int) -> Callable[[Rows], int]:
    """Return copies of the same bytes out of the same map, its arrays one after the other, as a cache has them."""
    tap_bytes = [CHANNELS * GRID**2, CHANNELS * 4]
    arrays, start = [], 0
    for row_bytes in [3 * PICTURE_PX**2, PICTURE_PX**2, *tap_bytes * TAPS]:
        stop = start + len(mapped) * row_bytes
        arrays.append(mapped.reshape(-1)[start:stop].reshape(len(mapped), row_bytes))
        start = stop
    outs = [np.empty((batch, array.shape[1]), np.uint8) for array in arrays]

    def read(rows: Rows) -> int:
        for array, out in zip(arrays, outs, strict=True):
            np.take(array, rows, axis=0, out=out, mode="clip")
        return len(rows)

    return read


def _count(take: Callable[[Rows], NDArray[np.uint8]], rows: Rows) -> int:
    return len(take(rows))


def _load(cache: Cache, batch: int) -> Callable[[Rows], int]:
    """Return the trainer's way, with its threads, over many batches at a time."""
    groups, cpu = [PICTURES, *cache.taps], torch.device("cpu")
    joint = JointCache([cache])
    stage = choose_stage("disk", joint, used=np.arange(len(cache)), groups=groups, device=cpu)
    loader = Loader(stage, batch, cpu)
    rng = np.random.default_rng(0)

    def read(rows: Rows) -> int:
        table = rng.integers(0, len(cache), (_LOADER_BATCHES, len(rows)))
        return sum(len(each.rows) for each in loader.batches(table, groups))

    return read


def _read_tensorstore(path: Path, cache: Cache) -> Callable[[Rows], int]:
    tensorstore = import_module("tensorstore")  # a peer to measure against, which nothing here needs
    names = ["pictures/image", "pictures/mask"]
    names += [f"teachers/{tap}/{part}" for tap in cache.taps for part in ("code", "scale")]
    spec = {"driver": "zarr3", "context": {"cache_pool": {"total_bytes_limit": 0}}}
    arrays = [
        tensorstore.open(spec | {"kvstore": {"driver": "file", "path": str(path / name)}}, open=True).result()
        for name in names
    ]

    def read(rows: Rows) -> int:
        for values in [array[rows].read() for array in arrays]:
            values.result()
        return len(rows)

    return read


def _gather(cache: Cache, batch: int) -> Callable[[Rows], int]:
    out = {
        key: np.empty_like(array) for key, array in cache.gather(np.zeros(batch, np.int64)).items() if key != "valid"
    }

    def read(rows: Rows) -> int:
        cache.gather(rows, out=out)
        return len(rows)

    return read


def _read_zarr(path: Path, cache: Cache, batch: int, *, by_row: bool) -> Callable[[Rows], int]:
    names = ["pictures/image", "pictures/mask"]
    names += [f"teachers/{tap}/{part}" for tap in cache.taps for part in ("code", "scale")]
    arrays = [zarr.open_array(path / name, mode="r") for name in names]

    def read(rows: Rows) -> int:
        for array in arrays:
            if by_row:
                np.stack([np.asarray(array[int(row)]) for row in rows])
            else:
                order, places = np.unique(rows, return_inverse=True)
                np.asarray(array.oindex[order])[places]
        return len(rows)

    return read


def _write_notebook(folder: Path) -> list[tuple[list[Path], Path]]:
    """Return the files of some pictures as the notebook lays them down: one tensor a teacher, and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    kept = []
    for view in range(NOTEBOOK_VIEWS):
        tensors = [folder / f"{view:03d}-{teacher}.pt" for teacher in range(len(NOTEBOOK_SHAPES))]
        picture = folder / f"{view:03d}.png"
        if not picture.exists():
            for path, shape in zip(tensors, NOTEBOOK_SHAPES, strict=True):
                torch.save(torch.rand((1, *shape), generator=generator), path)
            noise = torch.randint(0, 256, (PICTURE_PX, PICTURE_PX, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(noise.numpy()).save(picture)
        kept.append((tensors, picture))
    return kept


def _read_notebook(files: Sequence[tuple[list[Path], Path]]) -> Callable[[Rows], int]:
    """Return the notebook's way of one item at a time: load, resize, decode."""

    def read(rows: Rows) -> int:
        tensors, picture = files[int(rows[0]) % len(files)]
        for path in tensors:
            feature = torch.load(path, weights_only=True)
            interpolate(feature, (NOTEBOOK_GRID, NOTEBOOK_GRID), mode="bilinear", align_corners=False)
        np.asarray(Image.open(picture).convert("RGB").resize((PICTURE_PX, PICTURE_PX)))
        return 1

    return read


def _time_cold(cache: Cache, path: Path, batch: int) -> float:
    """Return the samples a second of one pass over all rows from the disk; no page may be mapped before."""
    _forget(path)
    read = _gather(cache, batch)
    rows = np.random.default_rng(1).permutation(len(cache))
    started = time.perf_counter()
    done = sum(read(rows[start : start + batch]) for start in range(0, len(rows) - batch + 1, batch))
    return done / (time.perf_counter() - started)


def _forget(folder: Path) -> None:
    """Ask the system to drop the files' pages, so that the next reading comes from the disk."""
    for path in folder.rglob("c.*"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
