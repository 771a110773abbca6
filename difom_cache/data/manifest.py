"""A folder or a CSV becomes records: which picture, which mask, which split, and the digests of both files."""

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

from difom_cache.data.benchmark import CLINICDB_SIZE_PX, read_frames
from difom_cache.data.decoded import Decoded, Memory, decode_image, decode_mask, mask_key, warn_inverted
from difom_cache.data.images import read_size, size_of_bytes
from difom_cache.data.layouts import Pair, PictureFolder, find_folders, natural_key, pair_files
from difom_cache.data.mask_levels import MaskLevels
from difom_cache.errors import DataError, ManifestError, SettingsError, name_nearest
from difom_cache.files import explain, read_plain
from difom_cache.progress import track
from difom_cache.store.atomic import write_atomic
from difom_cache.store.layout import SPLITS
from difom_cache.text import escape_cell, unescape_cell

VAL_SHARE = 10  # every tenth group of the training records; not tuned


@dataclass(frozen=True)
class Record:
    """One frame: a picture, its mask, their digests, its split.

    Attributes:
        id: data set and stem, such as "Kvasir/cju0qkwl35piu0993l0dewei2"; unique in a manifest.
        dataset: a benchmark set's name, or the folder's.
        split: "train", "val" or "test".
        image: the picture's file.
        mask: the mask's file; None where the picture is unlabelled.
        width: of the picture in px, after its EXIF orientation.
        height: likewise.
        image_sha256: digest of the picture's file, hexadecimal.
        mask_sha256: digest of the mask's file; "" where there is none.
        group: the video sequence or patient that the frame belongs to; "" where unknown.
    """

    id: str
    dataset: str
    split: str
    image: Path
    mask: Path | None
    width: int
    height: int
    image_sha256: str
    mask_sha256: str
    group: str

    @property
    def labelled(self) -> bool:
        """True where the record has a mask, be it empty."""
        return self.mask is not None


COLUMNS = tuple(field.name for field in fields(Record))


def load_records(
    data: Path,
    *,
    unlabelled: bool = False,
    splits: Sequence[str] | None = None,
    limit: int | None = None,
    mask_levels: MaskLevels | None = None,
) -> list[Record]:
    """Return the records of a manifest CSV, or of a folder in any layout that layouts.py knows.

    Every picture and mask is decoded once (decoded.py), so that a damaged one is named before anything is begun.

    Args:
        data: a manifest, a benchmark's root, or any folder inside it.
        unlabelled: pictures without a mask are meant. A manifest has said so by an empty `mask` already.
        splits: keep these only; None keeps all.
        limit: keep so many of each split, those whose ids hash lowest, so that every data set has its share.
        mask_levels: which levels of the masks are polyp; None where the masks say it themselves.

    Raises:
        DataError: a folder, a picture or a partner is missing; sizes of picture and mask differ; nothing is left.
        ImageError: a file cannot be decoded, or a mask does not say which of its levels are polyp.
        ManifestError: the CSV is not a manifest, or its files are gone, changed, or of another size than it says.
        SettingsError: an unknown split, or a limit below one.
    """
    for name in splits or ():
        if name not in SPLITS:
            raise SettingsError(name_nearest("split", name, list(SPLITS)))
    if limit is not None and limit < 1:
        raise SettingsError(f"--limit: expected at least 1 record, found {limit}")
    data = Path(data)
    if not data.is_dir() and (data.is_symlink() or data.exists()):
        records = read_manifest(data)
        missing = [
            str(path) for record in records for path in (record.image, record.mask) if path and not _is_there(path)
        ]
        if missing:
            raise ManifestError(f"{data}: {len(missing)} files are not there, the first is {missing[0]}; scan again")
        return _read_files(_choose(records, data, splits, limit), _check_record, mask_levels)
    named = _choose(_name_records(data, unlabelled=unlabelled), data, splits, limit)
    return _read_files(named, _read_record, mask_levels)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no disk can hold
        return False


def read_manifest(path: Path) -> list[Record]:
    """Return the records of a manifest CSV; relative paths start at its folder. The pictures are not looked at.

    Raises:
        ManifestError: the file is missing, has other columns, or a row does not make a record.
    """
    try:
        text = read_plain(path).decode("utf-8-sig")  # spreadsheets put a byte order mark first
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        names = tuple(rows.fieldnames or ())
        if names != COLUMNS:
            raise ManifestError(_refuse_columns(path, names))
        records = [_record_of(row, path, line) for line, row in enumerate(rows, start=2)]
    except OSError as error:
        raise ManifestError(f"{path}: expected a manifest CSV ({explain(error)})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: expected a manifest CSV ({error})") from error
    if not records:
        raise ManifestError(f"{path}: expected records, found none below the head line")
    refuse_twins(records, path)
    return records


def _refuse_columns(path: Path, names: Sequence[str]) -> str:
    found = ",".join(names)[:200]
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if tuple(found.split(separator)) == COLUMNS:
            return f"{path}: its values are separated by {word}; save it with commas"
    return f"{path}: expected the columns {','.join(COLUMNS)}; found {found or 'none'}"


def write_manifest(records: Sequence[Record], path: Path) -> None:
    """Write records as CSV; paths inside the CSV's folder become relative, so that the folder can move."""
    folder = path.resolve().parent

    def format_path(file: Path | None) -> str:
        if file is None:
            return ""
        whole = file if file.is_absolute() else file.absolute()
        return (whole.relative_to(folder) if whole.is_relative_to(folder) else whole).as_posix()

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for record in records:
        values = {name: getattr(record, name) for name in COLUMNS}
        values |= {"image": format_path(record.image), "mask": format_path(record.mask)}
        rows.writerow([escape_cell(str(value)) for value in values.values()])
    write_atomic(path, text.getvalue().encode())


def write_names(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write one CSV a data set with its records' names, splits and groups, and return the files.

    This is how data_manifests/ is made: it says which pictures a benchmark consists of, and holds none of them.
    """
    paths = []
    for dataset in sorted({record.dataset for record in records}):
        paths.append(folder / f"{dataset}.csv")
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("name", "split", "group"))
        own = [record for record in records if record.dataset == dataset]
        rows.writerows(
            [escape_cell(cell) for cell in (record.image.stem, record.split, record.group)] for record in own
        )
        write_atomic(paths[-1], text.getvalue().encode())
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
            found = hashlib.sha256(read_plain(path)).hexdigest()
        except OSError as error:
            raise ManifestError(f"{path}: record {record.id} names this file, but it cannot be read") from error
        if found != wanted:
            raise ManifestError(
                f"{path}: changed since the manifest was made: record {record.id} has SHA-256 {wanted[:12]}…, the file "
                f"{found[:12]}…; restore the file, or make the manifest and the cache anew"
            )


def belongs_to_val(key: str) -> bool:
    """Return whether training records of this group (or, without one, of this id) validate: SHA-256 mod 10 = 0."""
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % VAL_SHARE == 0


def _name_records(root: Path, *, unlabelled: bool) -> list[Record]:
    """Return records that lack only what the files' bytes tell: sizes and digests."""
    folders = find_folders(root)
    records = []
    for folder, pairs in zip(folders, pair_files(folders, unlabelled=unlabelled), strict=True):
        name_set = _recogniser(pairs) if folder.mixed else None
        for pair in pairs:
            dataset = (name_set(pair) if name_set else None) or folder.dataset
            records.append(_name_record(pair, folder, dataset))
    refuse_twins(records, root)
    return sorted(records, key=lambda record: (SPLITS.index(record.split), natural_key(record.id)))


def _name_record(pair: Pair, folder: PictureFolder, dataset: str) -> Record:
    """Return one record without sizes and digests.

    A folder without splits counts as train, except that frames of a benchmark set keep their published split: a test
    frame that slips into the training records would make every later score worthless.
    """
    frame = read_frames(dataset).get(pair.stem)
    group = frame.group if frame else ""
    record_id = f"{dataset}/{pair.stem}"
    split = folder.split or (frame.split if frame else "train")
    if split == "train" and belongs_to_val(group or record_id):
        split = "val"
    return Record(record_id, dataset, split, pair.image, pair.mask, 0, 0, "", "", group)


def _recogniser(pairs: list[Pair]) -> Callable[[Pair], str | None]:
    """Return what names the benchmark set of a picture in a training folder that may mix several.

    ClinicDB's names are bare numbers, as many others' are: they count beside Kvasir's names, or at ClinicDB's size.
    """
    kvasir, clinic = read_frames("Kvasir"), read_frames("CVC-ClinicDB")
    beside_kvasir = any(pair.stem in kvasir for pair in pairs)

    def name_set(pair: Pair) -> str | None:
        if pair.stem in kvasir:
            return "Kvasir"
        if pair.stem in clinic and (beside_kvasir or read_size(pair.image) == CLINICDB_SIZE_PX):
            return "CVC-ClinicDB"
        return None

    return name_set


def _choose(records: list[Record], data: Path, splits: Sequence[str] | None, limit: int | None) -> list[Record]:
    chosen = [record for record in records if splits is None or record.split in splits]
    if not chosen:
        held = ", ".join(f"{count} {split}" for split, count in Counter(record.split for record in records).items())
        raise DataError(f"{data}: expected records of split {' or '.join(splits or SPLITS)}, found {held or 'none'}")
    if limit is None:
        return chosen
    kept: set[str] = set()
    for split in SPLITS:
        ids = [record.id for record in chosen if record.split == split]
        kept.update(sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:limit])
    return [record for record in chosen if record.id in kept]


Reading = Callable[[Record, Memory, MaskLevels | None], tuple[Record, float | None]]


def _read_files(records: list[Record], read: Reading, levels: MaskLevels | None) -> list[Record]:
    """Return the records as `read` gives them, by threads (decoding and hashing release the interpreter)."""
    memory = Memory()
    try:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            done = threads.map(lambda record: read(record, memory, levels), records)
            found = list(track(done, "reading files", "record", total=len(records)))
    finally:
        memory.save()
    warn_inverted([covered for _, covered in found if covered is not None])
    return [record for record, _ in found]


def _read_record(record: Record, memory: Memory, levels: MaskLevels | None) -> tuple[Record, float | None]:
    """Return a record of a folder with sizes and digests, and the area of its mask."""
    image_bytes = _read_bytes(record.image)
    image_sha256 = hashlib.sha256(image_bytes).hexdigest()
    image = decode_image(image_bytes, image_sha256, record.image, memory)
    mask_sha256, covered = "", None
    if record.mask is not None:
        mask_bytes = _read_bytes(record.mask)
        mask_sha256 = hashlib.sha256(mask_bytes).hexdigest()
        _refuse_other_size(record, image, size_of_bytes(mask_bytes, record.mask))
        covered = decode_mask(mask_bytes, mask_sha256, record.mask, memory, levels).covered
    size = {"width": image.width, "height": image.height}
    return replace(record, **size, image_sha256=image_sha256, mask_sha256=mask_sha256), covered  # type: ignore[arg-type]


def _check_record(record: Record, memory: Memory, levels: MaskLevels | None) -> tuple[Record, float | None]:
    """Return a record of a manifest whose files can be decoded, and the area of its mask.

    Files that were decoded before are not read: extraction compares each with its digest once more.
    """
    image = memory.find(f"i {record.image_sha256}")
    if image is None:
        check_unchanged(record)
        image = decode_image(_read_bytes(record.image), record.image_sha256, record.image, memory)
    if (image.width, image.height) != (record.width, record.height):
        raise ManifestError(
            f"{record.image}: has {image.width} x {image.height} px, the manifest says {record.width} x {record.height}; "
            "make the manifest anew with `difom-cache manifest`"
        )
    if record.mask is None:
        return record, None
    mask = memory.find(mask_key(record.mask_sha256, levels))
    if mask is None:
        check_unchanged(record)
        mask = decode_mask(_read_bytes(record.mask), record.mask_sha256, record.mask, memory, levels)
    _refuse_other_size(record, image, (mask.width, mask.height))
    return record, mask.covered


def _refuse_other_size(record: Record, image: Decoded, mask_px: tuple[int, int]) -> None:
    if mask_px != (image.width, image.height):
        raise DataError(
            f"{record.mask}: expected a mask of the picture's size, {image.width} x {image.height} px as "
            f"{record.image.name}, found {mask_px[0]} x {mask_px[1]} px; export it again at the picture's size"
        )


def _read_bytes(path: Path) -> bytes:
    try:
        return read_plain(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({explain(error)}); check its permissions") from error


def refuse_twins(records: Sequence[Record], where: Path) -> None:
    """Raise where two records have one id.

    Raises:
        DataError: names both.
    """
    first: dict[str, Record] = {}
    for record in records:
        other = first.setdefault(record.id, record)
        if other is not record:
            raise DataError(
                f"{where}: record {record.id} stands for both {other.image} and {record.image}; rename one, or pass "
                f"the folder of one"
            )


def _record_of(row: dict[str, str], path: Path, line: int) -> Record:
    place = f"{path}, line {line}"
    if None in row or None in row.values():
        raise ManifestError(f"{place}: expected {len(COLUMNS)} values")
    row = {name: unescape_cell(value) for name, value in row.items()}
    if any("\0" in value for value in row.values()):
        raise ManifestError(f"{place}: found a zero byte, which no name can hold")
    if not row["id"] or not row["image"] or row["split"] not in SPLITS:
        raise ManifestError(f"{place}: expected an id, an image and a split of {', '.join(SPLITS)}; found {row}")
    if not all(re.fullmatch("[1-9][0-9]{0,5}", row[name]) for name in ("width", "height")):
        raise ManifestError(f"{place}: expected width and height in px, found {row['width']!r} and {row['height']!r}")
    digests = [row["image_sha256"], *[row["mask_sha256"]] * bool(row["mask"])]
    if bool(row["mask"]) != bool(row["mask_sha256"]) or not all(re.fullmatch("[0-9a-f]{64}", d) for d in digests):
        raise ManifestError(f"{place}: expected a SHA-256 for each file of record {row['id']}, and for no other")
    files = {name: path.parent / row[name] if row[name] else None for name in ("image", "mask")}
    sizes = {name: int(row[name]) for name in ("width", "height")}
    return Record(**{**row, **files, **sizes})  # type: ignore[arg-type]
