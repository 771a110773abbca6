"""TOP FILE of `difom-cache manifest`: a folder becomes a manifest, and on request a report on it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difom_cache.base.atomic import make_private_folder, write_atomic
from difom_cache.base.errors import SettingsError
from difom_cache.base.options import read_call
from difom_cache.base.outputs import check_out_file, check_outputs
from difom_cache.base.progress import say
from difom_cache.data.addresses import EmptyAddress, PolygonsAddress, file_of, parse_address
from difom_cache.data.check import Report, check_records
from difom_cache.data.coco import read_coco
from difom_cache.data.decoded import read_file
from difom_cache.data.images import (
    Drawn,
    exif_of,
    picture_of_bytes,
    read_head,
    read_mask,
    read_mask_pixels,
    turn,
    write_picture,
)
from difom_cache.data.manifest import read_source, warn_of_fresh_splits, write_manifest, write_names
from difom_cache.data.mask_levels import MaskLevels, parse_levels
from difom_cache.data.mask_pixels import Level, find_levels
from difom_cache.data.options import ManifestConfig
from difom_cache.data.record import Record, refuse_twins
from difom_cache.data.sheet import draw_montage, draw_sheet
from difom_cache.data.understood import Understood

if TYPE_CHECKING:
    from difom_cache.keywords import ManifestKeywords


def make_manifest(
    data: str | Path | Sequence[str | Path] | ManifestConfig = (),
    out: str | Path | None = None,
    /,
    **options: "Unpack[ManifestKeywords]",
) -> tuple[list[Record], Report | None]:
    """Return the records of `data`, and, if `check`, what is odd about them.

    Args:
        data: a folder, a COCO file, a video, or a manifest to check; or several, which become one; or the config of the call.
        out: the CSV to write; with `check` also a report beside it, whose name ends in .check.json, and a picture of the pairs
            that it finds, ending in .check.png. With `mask_levels` or `exif` the masks are written as black and white beside it,
            into a folder whose name ends in -masks; with `bits` images of 16 bits as 8-bit ones, into one that ends in -images.
        **options: as the signature lists them.

    Raises:
        DataError, ManifestError, ImageError: as `load_records` and `check_records`.
    """
    config = read_call(ManifestConfig, {"out": out} | options, data=data or None)
    out, montage, exif = config.out, config.montage, config.exif
    if out is not None and not config.force and (out.exists() or out.is_symlink()):
        raise SettingsError(f"--out {out} exists; choose another file, or pass --force to write over it")
    for picture, option in ((montage, "--montage"), (config.sheet, "--sheet")):
        if picture is not None:
            check_out_file(picture, option, force=config.force)
    said = {"--mask-levels": config.mask_levels, "--exif": exif, "--bits": config.bits}
    decided = [flag for flag, value in said.items() if value is not None]
    if decided and out is None:
        raise SettingsError(f"{decided[0]} writes files beside the manifest: name it with --out")
    levels = parse_levels(config.mask_levels) if config.mask_levels is not None else None
    sources = config.find_sources()
    understood = Understood(())
    for source in sources:
        found = read_source(source, levels=levels, exif=exif, skip_broken=config.skip_broken)
        warn_of_fresh_splits(source, found.records)
        origins = dict.fromkeys((*understood.origins, *found.origins))
        understood = Understood((*understood.seen, *found.seen), tuple(origins))
    records = understood.records
    refuse_twins(records, sources[0].place)
    outs = [out, out.with_suffix(".check.json"), out.with_suffix(".check.png")] if out else []
    read = {file_of(path) for record in records for path in (record.image, record.mask) if path is not None}
    for path in filter(None, [*outs, montage, config.sheet]):
        check_outputs(path.parent, [path], sorted(read))
    for line in understood.describe():
        say(line)
    if config.sheet is not None:
        draw_sheet(understood.seen, config.sheet)
    if config.bits is not None and out is not None:
        records = write_images(records, out.with_name(f"{out.stem}-images"), config.bits)
    if decided and out is not None:
        records = write_masks(records, out.with_name(f"{out.stem}-masks"), levels, exif)
    if out is not None:
        write_manifest(records, out)
    if config.names is not None:
        write_names(records, config.names)
    if not config.check:
        return records, None
    report = check_records(records)
    if out is not None:
        text = json.dumps(report.as_json(), indent=1, ensure_ascii=False)
        write_atomic(out.with_suffix(".check.json"), f"{text}\n".encode())
        montage = montage or out.with_suffix(".check.png")
    if montage is not None:
        draw_montage(report, records, montage)
    return records, report


def write_images(records: list[Record], folder: Path, bits: int) -> list[Record]:
    """Write images of 16 bits as 8-bit ones, white where all `bits` are set, and return records of these.

    Raises:
        ImageError: an image has a higher level.
    """
    said = []
    for number, record in enumerate(records):
        picture = None
        if parse_address(record.image) is None:
            picture = picture_of_bytes(read_file(record.image), record.image, None, bits=bits)
        if picture is not None and picture.top:
            turned = _orientation_of(record.image)
            path, digest = _write_beside(record, folder, number, turn(picture.rgb, turned, back=True), turned)
            record = replace(record, image=path, image_sha256=digest, reading=1)
        said.append(record)
    return said


def _write_beside(record: Record, folder: Path, number: int, pixels: NDArray[Any], turned: int) -> tuple[Path, str]:
    """Write pixels as they are stored under EXIF's `turned`, and return the file and its digest."""
    path = folder / f"{number:06d}-{record.image.stem[:100]}.png"
    make_private_folder(folder)
    write_picture(path, Image.fromarray(pixels), exif=exif_of(turned))
    return path, sha256(path.read_bytes()).hexdigest()


def write_masks(
    records: list[Record], folder: Path, levels: MaskLevels | None, exif: Drawn | None = None
) -> list[Record]:
    """Write masks as black and white, polyp where `levels` says, and turned by EXIF as their pictures are.

    Without `levels`, only those masks are written that are turned otherwise than their pictures.

    Args:
        records: whose masks are read.
        folder: is made for them.
        levels: which are polyp; None where the masks say it themselves.
        exif: what masks were drawn on that are turned otherwise than their pictures.

    Returns:
        The records, with the masks that were written.
    """
    if levels is not None:
        refuse_absent_levels(records, levels)
    said = []
    for number, record in enumerate(records):
        turned = _orientation_of(record.image)
        own = turned if record.mask is None else _orientation_of(record.mask)
        if record.mask is not None and (levels is not None or own != turned):
            mask = read_mask(record.mask, levels, max_pixels=None)
            if exif == "raw":
                mask = turn(turn(mask, own, back=True), turned)
            path, digest = _write_beside(record, folder, number, turn(mask, turned, back=True) == 1, turned)
            record = replace(record, mask=path, mask_sha256=digest)
        said.append(record)
    return said


def _orientation_of(path: Path) -> int:
    """Return how EXIF turns a picture or mask; what lies inside a larger file is never turned, and no mask is as its picture."""
    address = parse_address(path)
    if isinstance(address, EmptyAddress):
        return _orientation_of(address.image)
    return read_head(path).orientation if address is None else 1


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
