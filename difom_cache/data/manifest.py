"""A folder or a CSV becomes records: which picture, which mask, which split, and the digests of both files."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import AnnotationError, DataError, ManifestError, SettingsError, name_nearest, warn
from difom_cache.base.files import explain, find_absent, read_plain
from difom_cache.base.hardware import count_cores
from difom_cache.base.progress import ProgressBar
from difom_cache.base.text import format_rows, unguard_cell
from difom_cache.data.addresses import VIDEO_SUFFIXES, file_of, parse_address
from difom_cache.data.coco import is_coco
from difom_cache.data.decoded import Decoded, Memory, digest_of, examine_image, examine_mask, mask_key
from difom_cache.data.images import Drawn, refuse_large, turns_sideways
from difom_cache.data.mask_levels import MaskLevels
from difom_cache.data.name_records import describe_kept, keep_splits, name_records, set_groups, split_again
from difom_cache.data.options import DataSource
from difom_cache.data.record import COLUMNS, READINGS, Record, by_hash, refuse_twins
from difom_cache.data.understood import Seen, Understood
from difom_cache.store.layout import SPLITS

_PX, _SHA256 = re.compile("[1-9][0-9]{0,5}"), re.compile("[0-9a-f]{64}")
_MOST_TOGETHER = 100  # records that a thread takes at once: handing one over takes longer than looking it up


def load_records(
    data: str | Path | DataSource,
    *,
    unlabelled: bool = False,
    splits: Sequence[str] | None = None,
    limit: int | None = None,
    mask_levels: MaskLevels | None = None,
    exif: Drawn | None = None,
    quiet: bool = False,
) -> list[Record]:
    """Return the records of a manifest CSV, of a folder in any layout that layouts.py knows, of a COCO file, or of videos.

    Every picture and mask is decoded once (decoded.py), so that a damaged one is named before anything is begun.

    Args:
        data: a manifest, a benchmark's root, any folder inside it, a COCO file or a video; or what was said of one.
        unlabelled: pictures without a mask are meant. A manifest has said so by an empty `mask` already.
        splits: keep these only; None keeps all.
        limit: keep so many of each split, those whose ids hash lowest, so that every data set has its share.
        mask_levels: which levels of the masks are polyp; None where the masks say it themselves.
        exif: what masks were drawn on whose pictures EXIF turns otherwise than themselves; None refuses such a pair.
        quiet: do not say how far the reading is.

    Raises:
        DataError: a folder, a picture or a partner is missing; sizes of picture and mask differ; nothing is left.
        ImageError: a file cannot be decoded, or a mask does not say which of its levels are polyp.
        ManifestError: the CSV is not a manifest, or its files are gone, changed, or of another size than it says.
        SettingsError: an unknown split, a limit below one, or an option that this data has no use for.
    """
    source = data if isinstance(data, DataSource) else DataSource(Path(data))
    source = replace(source, unlabelled=source.unlabelled or unlabelled)
    return read_source(source, splits=splits, limit=limit, levels=mask_levels, exif=exif, quiet=quiet).records


def read_source(
    source: DataSource,
    *,
    splits: Sequence[str] | None = None,
    limit: int | None = None,
    levels: MaskLevels | None = None,
    exif: Drawn | None = None,
    skip_broken: bool = False,
    held: Mapping[str, tuple[str, str]] | None = None,
    quiet: bool = False,
) -> Understood:
    """Return the records of a source, and what their files gave, as `load_records`.

    Args:
        source: what was given.
        splits, limit, levels, exif, quiet: as of `load_records`.
        held: (split, group) by record id, of a cache that was begun: it keeps them, whatever a fresh reading of folders says;
            but --group-by is another wish.
    """
    for name in splits or ():
        if name not in SPLITS:
            raise SettingsError(name_nearest("split", name, list(SPLITS)))
    if limit is not None and limit < 1:
        raise SettingsError(f"--limit: expected at least 1 record, found {limit}")
    memory = Memory()
    try:
        if source.data is not None and _is_manifest(source.data):
            records = _load_manifest(source, source.data)
            read: Callable[[Record, _Rules], Seen | AnnotationError] = _check_record
            origins: tuple[str, ...] = (source.data.name,)
        else:
            (records, origins), read = name_records(source, memory), _read_record
            if held and source.group_by is None:
                records, origins = keep_splits(records, held), ("the cache's records.csv",)
        chosen = _choose(records, source.place, splits, limit)
        rules = _Rules(memory, levels, exif, source.max_pixels, skip_broken)
        with ProgressBar(len(chosen), "reading files", "record", quiet=quiet) as bar:
            found = _read_files(chosen, lambda record: read(record, rules), bar)
    finally:
        memory.save()
    understood = Understood(tuple(found), origins)
    understood.warn()
    return understood


def warn_of_fresh_splits(source: DataSource, records: Sequence[Record]) -> None:
    """Warn where records of a manifest, which keeps its splits, would be split otherwise by a fresh reading of their folders."""
    held = source.data is not None and _is_manifest(source.data)
    if held and (told := describe_kept(records, split_again(records))):
        warn(f"{source.data} keeps its splits: {told}; `difom-cache manifest FOLDER --out FILE.csv` writes those")


def _is_manifest(data: Path) -> bool:
    other = data.suffix.lower() in VIDEO_SUFFIXES or (data.suffix.lower() == ".json" and is_coco(data))
    return not data.is_dir() and (data.is_symlink() or data.exists()) and not other


def _load_manifest(source: DataSource, path: Path) -> list[Record]:
    if source.every is not None:
        raise SettingsError(f"--every is for videos; {path} is a manifest, which names its frames")
    if source.negatives is not None:
        raise SettingsError(
            f"--negatives {source.negatives} is for folders; to add it to {path}: `difom-cache manifest {path} "
            f"{source.negatives} --negatives {source.negatives} --out NEW.csv`"
        )
    records = read_manifest(path)
    files = [each for record in records for each in (record.image, record.mask) if each is not None]
    if absent := set(find_absent([file_of(each) for each in files])):
        missing = [each for each in files if file_of(each) in absent]
        raise ManifestError(f"{path}: {len(missing)} files are not there, the first is {missing[0]}; scan again")
    return records if source.group_by is None else set_groups(records, source)


def read_manifest(path: Path) -> list[Record]:
    """Return the records of a manifest CSV; relative paths start at its folder. The pictures are not looked at.

    Raises:
        ManifestError: the file is missing, has other columns, or a row does not make a record.
    """
    try:
        text = read_plain(path).decode("utf-8-sig")  # spreadsheets put a byte order mark first
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        names = next(rows, [])
        if tuple(names) != COLUMNS:
            raise ManifestError(f"{path}: {_refuse_columns(names)}")
        records, folder = [], path.parent
        for line, row in enumerate(filter(None, rows), start=2):
            try:
                records.append(_record_of(row, folder))
            except ValueError as error:
                raise ManifestError(f"{path}, line {line}: {error}") from None
    except OSError as error:
        raise ManifestError(f"{path}: expected a manifest CSV ({explain(error)})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: expected a manifest CSV ({error})") from error
    if not records:
        raise ManifestError(f"{path}: expected records, found none below the head line")
    refuse_twins(records, path)
    return records


def _refuse_columns(names: Sequence[str]) -> str:
    found = ",".join(names)[:200]
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if tuple(found.split(separator)) == COLUMNS:
            return f"its values are separated by {word}; save it with commas"
    return f"expected the columns {','.join(COLUMNS)}; found {found or 'none'}"


def write_manifest(records: Sequence[Record], path: Path) -> None:
    """Write records as CSV; paths inside the CSV's folder become relative, so that the folder can move."""
    folder = path.resolve().parent

    def format_path(file: Path | None) -> str:
        if file is None:
            return ""
        whole = file if file.is_absolute() else file.absolute()
        return (whole.relative_to(folder) if whole.is_relative_to(folder) else whole).as_posix()

    lines = [vars(each) | {"image": format_path(each.image), "mask": format_path(each.mask)} for each in records]
    write_atomic(path, format_rows(COLUMNS, ([str(line[name]) for name in COLUMNS] for line in lines)).encode())


def write_names(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write one CSV a data set with its records' names, splits and groups, and return the files.

    This is how data_manifests/ is made: it says which pictures a benchmark consists of, and holds none of them.
    """
    paths = []
    for dataset in sorted({record.dataset for record in records}):
        own = [each for each in records if each.dataset == dataset]
        names = [each.image.stem if parse_address(each.image) is None else each.id[len(dataset) + 1 :] for each in own]
        lines = [(name, each.split, each.group) for name, each in zip(names, own, strict=True)]
        paths.append(folder / f"{dataset}.csv")
        write_atomic(paths[-1], format_rows(("name", "split", "group"), lines).encode())
    return paths


def check_unchanged(record: Record) -> None:
    """Return if the record's files are still those of the manifest.

    Raises:
        ManifestError: a file is gone or has another digest; both digests are named.
    """
    for path, wanted in ((record.image, record.image_sha256), (record.mask, record.mask_sha256)):
        if path is None:
            continue
        try:
            found = digest_of(path, mask=path is record.mask)
        except OSError as error:
            raise ManifestError(f"{path}: record {record.id} names this file, but it cannot be read") from error
        if found != wanted:
            raise ManifestError(
                f"{path}: changed since the manifest was made: record {record.id} has SHA-256 {wanted[:12]}…, the file "
                f"{found[:12]}…; restore the file, or make the manifest and the cache anew"
                + (f" (an older difom read {READINGS[1]}; this one {READINGS[2]})" if parse_address(path) else "")
            )


def _choose(records: list[Record], data: Path, splits: Sequence[str] | None, limit: int | None) -> list[Record]:
    chosen = [record for record in records if splits is None or record.split in splits]
    if not chosen:
        held = ", ".join(f"{count} {split}" for split, count in Counter(record.split for record in records).items())
        raise DataError(f"{data}: expected records of split {' or '.join(splits or SPLITS)}, found {held or 'none'}")
    if limit is None:
        return chosen
    ids = [[record.id for record in chosen if record.split == split] for split in SPLITS]
    kept = {name for each in ids for name in sorted(each, key=by_hash)[:limit]}
    return [record for record in chosen if record.id in kept]


@dataclass(frozen=True)
class _Rules:
    """How files are read, and what is remembered of them."""

    memory: Memory
    levels: MaskLevels | None
    exif: Drawn | None
    max_pixels: int
    skip_broken: bool
    "Whether a record whose COCO annotations cannot be drawn is left out."


Reading = Callable[[Record], Seen | AnnotationError]


def _read_files(records: list[Record], read: Reading, bar: ProgressBar) -> list[Seen]:
    """Return the records as `read` gives them, by threads (decoding and hashing release the interpreter)."""
    together = min(_MOST_TOGETHER, 1 + len(records) // 1000)
    parts = [records[start : start + together] for start in range(0, len(records), together)]
    found: list[Seen | AnnotationError] = []
    with ThreadPoolExecutor(min(8, count_cores())) as threads:
        for done in threads.map(lambda part: [read(record) for record in part], parts):
            found += done
            bar.update(len(done))
    broken = [str(each).partition(";")[0] for each in found if isinstance(each, AnnotationError)]
    if len(broken) == len(found):
        raise DataError(f"no image is left: the annotations of none can be drawn, the first are {broken[0]}")
    if broken:
        warn(
            f"{len(broken)} of {len(found)} images are left out, whose annotations cannot be drawn: {'; '.join(broken)}"
        )
    return [each for each in found if isinstance(each, Seen)]


def _read_record(record: Record, rules: _Rules) -> Seen | AnnotationError:
    """Return a named record with sizes and digests, and what its files gave; or why it is left out."""
    if record.image_sha256:  # of a video, which was decoded when its frames were chosen
        return Seen(record, mask=Decoded(record.width, record.height) if record.mask else None)
    image_sha256, image = examine_image(record.image, rules.memory, rules.max_pixels)
    mask_sha256, mask = "", None
    if record.mask is not None:
        try:
            mask_sha256, mask = examine_mask(record.mask, rules.memory, rules.levels, rules.max_pixels)
        except AnnotationError as error:
            if not rules.skip_broken:
                raise
            return error
        _refuse_unlike(record, image, mask, rules.exif)
    record = replace(record, width=image.width, height=image.height, reading=image.reading)
    return Seen(replace(record, image_sha256=image_sha256, mask_sha256=mask_sha256), image, mask)


def _check_record(record: Record, rules: _Rules) -> Seen:
    """Return a record of a manifest whose files can be decoded, and what they gave.

    Files that were decoded before are not read: extraction compares each with its digest once more.
    """
    image = rules.memory.find(f"i {record.image_sha256}")
    if image is None:
        check_unchanged(record)
        _, image = examine_image(record.image, rules.memory, rules.max_pixels)
    refuse_large(record.image, image.width, image.height, rules.max_pixels)
    if (image.width, image.height) != (record.width, record.height):
        raise ManifestError(
            f"{record.image}: has {image.width} x {image.height} px, the manifest says {record.width} x {record.height}; "
            "make the manifest anew with `difom-cache manifest`"
        )
    if image.reading != record.reading:
        record = replace(record, reading=image.reading)
    if record.mask is None:
        return Seen(record, image)
    mask = rules.memory.find(mask_key(record.mask_sha256, rules.levels))
    if mask is None:
        check_unchanged(record)
        _, mask = examine_mask(record.mask, rules.memory, rules.levels, rules.max_pixels)
    _refuse_unlike(record, image, mask, rules.exif)
    return Seen(record, image, mask)


def _refuse_unlike(record: Record, image: Decoded, mask: Decoded, exif: Drawn | None) -> None:
    """Raise where a mask is not turned as its picture, and nobody has said how, or where it has another size."""
    if image.orientation != mask.orientation and exif is None:
        raise DataError(
            f"{record.image}: EXIF turns this image (orientation {image.orientation}), and not in the same way its mask "
            f"{record.mask} (orientation {mask.orientation}); say what the masks were drawn on: `difom-cache manifest DATA "
            "--exif upright --out FILE.csv` for the image as viewers show it, --exif raw for its pixels as they are stored, "
            "and give FILE.csv as the data"
        )
    mask_px = (mask.width, mask.height)
    if exif == "raw" and turns_sideways(image.orientation) != turns_sideways(mask.orientation):
        mask_px = mask_px[::-1]
    if mask_px != (image.width, image.height):
        turned = f" (EXIF turns it, orientation {image.orientation})" if image.orientation != 1 else ""
        raise DataError(
            f"{record.mask}: expected a mask of the picture's size, {image.width} x {image.height} px as "
            f"{record.image.name}{turned}, found {mask_px[0]} x {mask_px[1]} px; export it again at the picture's size"
            + (f", or is --exif {exif} the wrong one?" if exif and turned else "")
        )


def _record_of(row: Sequence[str], folder: Path) -> Record:
    """Return the record of one line of a manifest.

    Args:
        row: cells in the order of `COLUMNS`.
        folder: where relative paths start.

    Raises:
        ValueError: it does not make a record.
    """
    if len(row) != len(COLUMNS):
        raise ValueError(f"expected {len(COLUMNS)} values")
    letters = "".join(row)
    if "\0" in letters:
        raise ValueError("found a zero byte, which no name can hold")
    cells = [unguard_cell(cell) for cell in row] if "'" in letters else row
    name, dataset, split, image, mask, width, height, image_sha256, mask_sha256, group = cells
    if not name or not image or split not in SPLITS:
        found = dict(zip(COLUMNS, cells, strict=True))
        raise ValueError(f"expected an id, an image and a split of {', '.join(SPLITS)}; found {found}")
    if not (_PX.fullmatch(width) and _PX.fullmatch(height)):
        raise ValueError(f"expected width and height in px, found {width!r} and {height!r}")
    if not _SHA256.fullmatch(image_sha256) or not (_SHA256.fullmatch(mask_sha256) if mask else mask_sha256 == ""):
        raise ValueError(f"expected a SHA-256 for each file of record {name}, and for no other")
    files = folder / image, folder / mask if mask else None
    return Record(name, dataset, split, *files, int(width), int(height), image_sha256, mask_sha256, group)
