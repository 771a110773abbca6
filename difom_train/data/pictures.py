"""Images that are rendered from their files while training, for caches without them and for new views at full detail."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from difom_cache import Record, ViewParams, load_records, read_image, read_mask, replay_image, replay_mask
from difom_cache.base.errors import DataError, ManifestError
from difom_cache.data import DataSource, refuse_other_reading
from difom_cache.store import NO_MASK
from difom_cache.views import FreshView, replay_valid
from difom_train.data.caches import HostBatch, JointCache

_SHOWN_IDS = 3


class SourcePictures:
    """The picture files behind the rows of a cache, rendered row by row on a few threads.

    Args:
        cache: whose rows are rendered.
        data: the pictures that the cache was made from.
        threads: that render.
    """

    def __init__(self, cache: JointCache, data: DataSource, *, threads: int = 4) -> None:
        self._cache = cache
        records = load_records(data, unlabelled=True)
        self._records = {record.id: record for record in records}
        self._by_content = {_digests(record): record for record in records}
        self._refuse_others(data.place)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="render")

    def fill(self, rows: NDArray[np.int64], out: HostBatch, fresh: Sequence[FreshView | None] | None = None) -> None:
        """Render `rows` into `image` (B, S, S, 3), `mask` and `valid` (B, S, S) of `out`, all uint8.

        Args:
            rows: of the cache.
            out: buffers.
            fresh: (B,) the view that each shows in place of the one that the cache recorded; None where it shows that one.
        """
        records = [self._find(line) for line in self._cache.records_of(rows)]
        views = [ViewParams.from_row(numbers) for numbers in self._cache.params(rows)]
        if fresh is not None:
            views = [new[0] if new else own for new, own in zip(fresh, views, strict=True)]
        list(
            self._pool.map(lambda place: self._fill_one(place, records[place], views[place], out), range(len(records)))
        )

    def _find(self, line: Mapping[str, str]) -> Record:
        """Return the record of a cache's line: of its name, or, where another image has that name here, of its content."""
        named = self._records.get(line["id"])
        return named if named and _digests(named) == _stored_digests(line) else self._by_content[_stored_digests(line)]

    def _fill_one(self, place: int, record: Record, params: ViewParams, out: HostBatch) -> None:
        side_px = out["image"].shape[1]
        # As extraction lays it out: another memory layout resamples to other last bits.
        picture = torch.from_numpy(
            np.ascontiguousarray(read_image(record.image, max_pixels=None).transpose(2, 0, 1))
        )  # -> (3, H, W)
        view = replay_image(picture, params, side_px)
        out["image"][place] = (view * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        out["valid"][place] = replay_valid(params, side_px).numpy()
        if record.mask is None:
            out["mask"][place] = NO_MASK
        else:
            out["mask"][place] = replay_mask(
                torch.from_numpy(read_mask(record.mask, max_pixels=None)), params, side_px
            ).numpy()

    def _refuse_others(self, data: Path) -> None:
        """Raise unless `data` holds every record of the cache, unchanged."""
        lines = [line for part in self._cache.parts for line in part.table.records]
        others = [line["id"] for line in lines if _stored_digests(line) not in self._by_content]
        absent = [record_id for record_id in others if record_id not in self._records]
        if absent:
            raise DataError(
                f"{data} lacks {len(absent)} of the {len(lines)} records of the cache, such as "
                f"{', '.join(absent[:_SHOWN_IDS])}; give the data that the cache was extracted from"
            )
        if others:
            raise ManifestError(
                f"{len(others)} pictures or masks in {data} changed since the cache was made, such as "
                f"{', '.join(others[:_SHOWN_IDS])}; restore them, or extract a new cache"
            )
        for part in self._cache.parts:
            own = [self._records[str(line["id"])] for line in part.table.records]
            refuse_other_reading(part.identity.reading, own, part.path)


def _digests(record: Record) -> tuple[str, str]:
    return record.image_sha256, record.mask_sha256


def _stored_digests(line: Mapping[str, str]) -> tuple[str, str]:
    return line["image_sha256"], line["mask_sha256"]
