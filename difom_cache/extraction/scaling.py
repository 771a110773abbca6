"""How long a pass takes on many workers, and from how many on the file system is the limit: a model, not a promise.

A worker's measured rate already holds its decoding, teacher and writing, overlapped as they are there. Workers share
nothing but the file system, and the cores where they share a machine, so rates add up until one of these is full; and they take
whole blocks, so that the last round may be half empty.
"""

import math
from dataclasses import dataclass

from difom_cache.errors import SettingsError
from difom_cache.text import format_bytes, format_seconds


@dataclass(frozen=True)
class Workload:
    """What is to be computed: views of `view_bytes` in the cache, from frames of `frame_bytes`, in blocks."""

    frames: int
    views: int = 8
    view_bytes: float = 600_000
    frame_bytes: float = 100_000
    block_views: int = 256

    @property
    def rows(self) -> int:
        return self.frames * self.views


@dataclass(frozen=True)
class Cluster:
    """What computes it: workers that each do `rate` views a second after `start_s`, on one shared file system.

    Workers that share a machine share its cores too: `cpu_s` is the processor time of a view, decoding and writing
    included, and `cores` are those of all machines together.
    """

    rate: float
    workers: int = 1
    start_s: float = 30.0
    read_bytes_s: float = math.inf
    write_bytes_s: float = math.inf
    price_per_hour: float = 0.0
    cpu_s: float = 0.0
    cores: float = math.inf


@dataclass(frozen=True)
class Prediction:
    """What the model says: seconds from start to end, hours of all workers together, and what the pass waits for."""

    wall_s: float
    worker_hours: float
    cache_bytes: float
    limit: str
    price: float


def predict(load: Workload, cluster: Cluster) -> Prediction:
    """Return how long a pass takes.

    Raises:
        SettingsError: a rate or a number that is not positive.
    """
    if min(load.frames, load.views, load.block_views, cluster.workers, cluster.rate) <= 0:
        raise SettingsError("expected frames, views, workers and views per second above 0")
    blocks = math.ceil(load.rows / load.block_views)
    rounds = math.ceil(blocks / cluster.workers)
    seconds = {
        "the workers": min(rounds * load.block_views, load.rows) / cluster.rate,
        "writing": load.rows * load.view_bytes / cluster.write_bytes_s,
        "the processor": load.rows * cluster.cpu_s / cluster.cores,
        "reading": load.frames * load.frame_bytes / cluster.read_bytes_s,
    }
    limit = max(seconds, key=lambda part: seconds[part])
    wall_s = cluster.start_s + seconds[limit]
    worker_hours = wall_s * cluster.workers / 3600
    return Prediction(wall_s, worker_hours, load.rows * load.view_bytes, limit, worker_hours * cluster.price_per_hour)


def most_useful_workers(load: Workload, cluster: Cluster) -> int:
    """Return the number of workers from which on the file system, or the number of blocks, is the limit."""
    by_write = cluster.write_bytes_s / load.view_bytes / cluster.rate
    by_read = cluster.read_bytes_s / (load.frame_bytes / load.views) / cluster.rate
    blocks = math.ceil(load.rows / load.block_views)
    return max(1, math.floor(min(by_write, by_read, blocks)))


def format_prediction(workers: int, prediction: Prediction) -> str:
    """Return one line of a table."""
    return (
        f"{workers:>6} workers  {format_seconds(prediction.wall_s):>16}  {prediction.worker_hours:>10.1f} worker hours"
        f"  {prediction.price:>8.0f} in price  {format_bytes(prediction.cache_bytes):>9}  limit: {prediction.limit}"
    )
