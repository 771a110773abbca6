"""A record's files, decoded."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from difom_cache.data.images import read_image, read_mask
from difom_cache.data.manifest import check_unchanged
from difom_cache.data.record import Record


@dataclass(frozen=True)
class Frame:
    """A decoded record: picture (3, H, W) uint8, mask (H, W) uint8 of 0 and 1 or None, and the seconds it took."""

    image: Tensor
    mask: Tensor | None
    decode_s: float


def read_frame(record: Record, *, masks: bool) -> Frame:
    """Return a record's decoded files, which must be those that the manifest speaks of.

    Raises:
        ManifestError: a file changed since.
        ImageError: a file cannot be read.
    """
    started_s = time.perf_counter()
    check_unchanged(record)
    image = torch.from_numpy(
        np.ascontiguousarray(read_image(record.image, max_pixels=None).transpose(2, 0, 1))
    )  # (H, W, 3) -> (3, H, W)
    mask = torch.from_numpy(read_mask(record.mask, max_pixels=None)) if masks and record.mask is not None else None
    return Frame(image, mask, time.perf_counter() - started_s)
