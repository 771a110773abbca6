"""TOP FILE of `difom-cache manifest`: a folder becomes a manifest, and on request a report on it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from PIL import Image

from difom_cache.data.check import Report, check_records
from difom_cache.data.images import read_mask, write_picture
from difom_cache.data.manifest import load_records, write_manifest, write_names
from difom_cache.data.mask_levels import MaskLevels, parse_levels
from difom_cache.data.montage import draw_montage
from difom_cache.data.record import Record, refuse_twins
from difom_cache.data.source import DataSource
from difom_cache.errors import SettingsError
from difom_cache.outputs import check_out_file
from difom_cache.store.atomic import make_private_folder, write_atomic


def make_manifest(
    data: Path | DataSource | Sequence[Path | DataSource],
    out: Path | None = None,
    *,
    unlabelled: bool = False,
    check: bool = False,
    montage: Path | None = None,
    names: Path | None = None,
    mask_levels: str | None = None,
    force: bool = False,
) -> tuple[list[Record], Report | None]:
    """Return the records of `data`, and, if `check`, what is odd about them.

    Args:
        data: a folder, a COCO file, a video, or a manifest to check; or several, which become one.
        out: the CSV to write; with `check` also a report beside it, whose name ends in .check.json. None writes neither.
        unlabelled: pictures without a mask are meant.
        check: look for twins, leaks across splits, empty masks and odd sizes.
        montage: the PNG of the pairs that `check` finds; None puts it beside `out`, ending in .check.png.
        mask_levels: which levels of the masks are polyp, such as "100", "1,2", "129-255", "#ff0000" or "alpha". The masks are
            then written as black and white beside `out`, into a folder whose name ends in -masks.
        force: write over what lies at `out` and `montage`.
        names: a folder for one CSV a data set with names, splits and groups, as data_manifests/ holds them.

    Raises:
        DataError, ManifestError, ImageError: as `load_records` and `check_records`.
    """
    if out is not None and not force and (out.exists() or out.is_symlink()):
        raise SettingsError(f"--out {out} exists; choose another file, or pass --force to write over it")
    if montage is not None:
        check_out_file(montage, "--montage", force=force)
    if mask_levels is not None and out is None:
        raise SettingsError("--mask-levels writes masks beside the manifest: name it with --out")
    levels = parse_levels(mask_levels) if mask_levels is not None else None
    sources = [data] if isinstance(data, Path | DataSource) else list(data)
    records = [
        record for source in sources for record in load_records(source, unlabelled=unlabelled, mask_levels=levels)
    ]
    refuse_twins(records, sources[0] if isinstance(sources[0], Path) else sources[0].place)
    if levels is not None and out is not None:
        records = write_masks(records, out.with_name(f"{out.stem}-masks"), levels)
    if out is not None:
        write_manifest(records, out)
    if names is not None:
        write_names(records, names)
    if not check:
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
