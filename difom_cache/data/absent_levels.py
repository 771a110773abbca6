"""Levels that a user says are polyp, and that no mask of the set has: a slip, never a set of empty masks."""

from collections.abc import Sequence

import numpy as np

from difom_cache.base.errors import SettingsError
from difom_cache.data.addresses import PolygonsAddress, parse_address
from difom_cache.data.coco import read_coco
from difom_cache.data.images import read_mask, read_mask_pixels
from difom_cache.data.mask_levels import MaskLevels
from difom_cache.data.mask_pixels import Level, find_levels
from difom_cache.data.record import Record

_TOLD = 12


def refuse_absent_levels(records: Sequence[Record], levels: MaskLevels) -> None:
    """Raise where a part of `levels` is polyp in no mask.

    Raises:
        SettingsError: names it, and the levels that are there, the nearest first.
        DataError, ImageError: a mask cannot be read.
    """
    absent = levels.split()
    masks = [record.mask for record in records if record.mask is not None]
    for mask in masks:
        absent = [part for part in absent if not read_mask(mask, part, max_pixels=None).any()]
        if not absent:
            return
    if not masks:
        return
    there: dict[str, Level] = {}
    for mask in masks:
        address = parse_address(mask)
        if isinstance(address, PolygonsAddress):
            categories = read_coco(address.file).categories
            found = [Level(str(number), f" = {name}", (number,), 0) for number, name in categories.items()]
        else:
            found = [] if address else find_levels(read_mask_pixels(mask, max_pixels=None))
        there |= {level.name + level.about: level for level in found}
    wanted = [*absent[0].colours, *((low,) for low, _ in absent[0].ranges)]
    nearest = sorted(there.items(), key=lambda item: _distance(wanted, item[1].value))
    more = f" and {len(nearest) - _TOLD} more" if len(nearest) > _TOLD else ""
    raise SettingsError(
        f"--mask-levels {absent[0].text}: none of {len(masks)} masks has it; they have, the nearest first, "
        f"{', '.join(name for name, _ in nearest[:_TOLD])}{more}"
    )


def _distance(wanted: Sequence[tuple[int, ...]], value: tuple[int, ...]) -> float:
    alike = [each for each in wanted if len(each) == len(value)]
    return float(np.linalg.norm(np.array(alike[0]) - value)) if alike else 0
