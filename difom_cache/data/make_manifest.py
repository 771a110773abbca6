"""TOP FILE of `difom-cache manifest`: a folder becomes a manifest, and on request a report on it."""

import json
from pathlib import Path

from difom_cache.data.check import Report, check_records
from difom_cache.data.manifest import Record, load_records, write_manifest, write_names
from difom_cache.data.montage import draw_montage
from difom_cache.store.atomic import write_atomic


def make_manifest(
    data: Path,
    out: Path | None = None,
    *,
    unlabelled: bool = False,
    check: bool = False,
    montage: Path | None = None,
    names: Path | None = None,
) -> tuple[list[Record], Report | None]:
    """Return the records of `data`, and, if `check`, what is odd about them.

    Args:
        data: a folder, or a manifest to check.
        out: the CSV to write; with `check` also a report beside it, whose name ends in .check.json. None writes neither.
        unlabelled: pictures without a mask are meant.
        check: look for twins, leaks across splits, empty masks and odd sizes.
        montage: the PNG of the pairs that `check` finds; None puts it beside `out`, ending in .check.png.
        names: a folder for one CSV a data set with names, splits and groups, as data_manifests/ holds them.

    Raises:
        DataError, ManifestError, ImageError: as `load_records` and `check_records`.
    """
    records = load_records(data, unlabelled=unlabelled)
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
