"""TOP FILE of `difom-cache manifest`: a folder becomes a manifest, and on request a report on it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Unpack

from PIL import Image

from difom_cache.data.check import Report, check_records
from difom_cache.data.images import read_mask, write_picture
from difom_cache.data.manifest import load_records, write_manifest, write_names
from difom_cache.data.mask_levels import MaskLevels, parse_levels
from difom_cache.data.montage import draw_montage
from difom_cache.data.options import ManifestConfig
from difom_cache.data.record import Record, refuse_twins
from difom_cache.errors import SettingsError
from difom_cache.keywords import ManifestKeywords
from difom_cache.options import read_call
from difom_cache.outputs import check_out_file
from difom_cache.store.atomic import make_private_folder, write_atomic


def make_manifest(
    data: str | Path | Sequence[str | Path] | ManifestConfig = (),
    out: str | Path | None = None,
    /,
    **options: Unpack[ManifestKeywords],
) -> tuple[list[Record], Report | None]:
    """Return the records of `data`, and, if `check`, what is odd about them.

    Args:
        data: a folder, a COCO file, a video, or a manifest to check; or several, which become one; or the config of the call.
        out: the CSV to write; with `check` also a report beside it, whose name ends in .check.json, and a picture of the pairs
            that it finds, ending in .check.png. With `mask_levels` the masks are written as black and white beside it, into a
            folder whose name ends in -masks.
        **options: listed in `ManifestKeywords`.

    Raises:
        DataError, ManifestError, ImageError: as `load_records` and `check_records`.
    """
    config = read_call(ManifestConfig, {"out": out} | options, data=data or None)
    out, montage, mask_levels = config.out, config.montage, config.mask_levels
    if out is not None and not config.force and (out.exists() or out.is_symlink()):
        raise SettingsError(f"--out {out} exists; choose another file, or pass --force to write over it")
    if montage is not None:
        check_out_file(montage, "--montage", force=config.force)
    if mask_levels is not None and out is None:
        raise SettingsError("--mask-levels writes masks beside the manifest: name it with --out")
    levels = parse_levels(mask_levels) if mask_levels is not None else None
    sources = config.find_sources()
    records = [record for source in sources for record in load_records(source, mask_levels=levels)]
    refuse_twins(records, sources[0].place)
    if levels is not None and out is not None:
        records = write_masks(records, out.with_name(f"{out.stem}-masks"), levels)
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


def write_masks(records: list[Record], folder: Path, levels: MaskLevels) -> list[Record]:
    """Write the masks of `records` as black and white, polyp where `levels` says, and return records of these masks."""
    make_private_folder(folder)
    said = []
    for number, record in enumerate(records):
        if record.mask is None:
            said.append(record)
            continue
        path = folder / f"{number:06d}-{record.image.stem[:100]}.png"
        write_picture(path, Image.fromarray(read_mask(record.mask, levels) == 1))
        said.append(replace(record, mask=path, mask_sha256=sha256(path.read_bytes()).hexdigest()))
    return said
