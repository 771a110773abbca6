"""A source becomes records by names alone: which picture, which mask, which data set, split and group."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from difom_cache.base.errors import DataError, DifomWarning, SettingsError, warn
from difom_cache.base.progress import say
from difom_cache.base.text import name_some
from difom_cache.data.addresses import VIDEO_SUFFIXES, empty_path, frame_path, parse_address, spell_time
from difom_cache.data.decoded import Memory, digest_empty
from difom_cache.data.groups import CLINICDB_SIZE_PX, below, read_frames, read_group_rule
from difom_cache.data.images import read_size
from difom_cache.data.layouts import describe_video, find_folders, is_of_masks, pair_folders
from difom_cache.data.listing import has_pictures, list_videos, natural_key
from difom_cache.data.options import DataSource
from difom_cache.data.pairing import Pair, PictureFolder, pair_files
from difom_cache.data.record import Record, choose_validating, refuse_twins
from difom_cache.store.layout import SPLITS


def name_records(source: DataSource, memory: Memory) -> tuple[list[Record], tuple[str, ...]]:
    """Return the records of a source that is no manifest, in order of split and name, and where their splits came from, in words.

    Records of pictures still lack sizes and digests, which only their bytes tell; a video's frames have both.

    Raises:
        DataError: as `find_folders`, `pair_files` and `sample_video`; or two records have one id.
        SettingsError: an option that this source has no use for.
    """
    videos = _find_videos(source)
    origins: tuple[str, ...] = ()
    if videos:
        records = _name_frames(videos, source, memory)
    else:
        if source.every is not None:
            raise SettingsError(f"--every is for videos, and {source.place} holds none; leave it out")
        records, origins = _name_pictures(source)
    refuse_twins(records, source.place)
    return _sort(records), origins


def _sort(records: Sequence[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (SPLITS.index(record.split), natural_key(record.id)))


def set_groups(records: Sequence[Record], source: DataSource) -> list[Record]:
    """Return the records with the groups that --group-by names, each inside its data set.

    Raises:
        DataError: it names none for some records.
        SettingsError: it is no rule.
    """
    rule = source.group_by or ""
    namer, root = read_group_rule(rule), source.place.resolve()
    root = root if root.is_dir() else root.parent
    names = [namer(record.id, below(record.image, root)) for record in records]
    if lost := [record.id for record, name in zip(records, names, strict=True) if not name]:
        raise DataError(
            f"--group-by {rule}: no group for {len(lost)} records: {name_some(lost)}; fix the rule, or leave it out"
        )
    return [replace(record, group=f"{record.dataset}/{name}") for record, name in zip(records, names, strict=True)]


def _name_pictures(source: DataSource) -> tuple[list[Record], tuple[str, ...]]:
    folders = find_folders(source.data) if source.data else pair_folders(source.images or Path(), source.masks)
    folders = _mark_negatives(folders, source.negatives) if source.negatives else folders
    records: list[Record] = []
    homes: list[PictureFolder] = []
    for folder, pairs in zip(folders, pair_files(folders, unlabelled=source.unlabelled), strict=True):
        name_set = _recogniser(pairs, by_size=not folder.part) if folder.mixed else lambda pair: None
        records += set_splits([_name_record(pair, folder, name_set(pair)) for pair in pairs], folder)
        homes += [folder] * len(pairs)
    if source.group_by is not None:
        records = set_groups(records, source)
    split = validate_some(records, homes)
    return split, _describe_origins(split, homes)


def _describe_origins(records: Sequence[Record], folders: Sequence[PictureFolder]) -> tuple[str, ...]:
    """Return what the splits of records follow from, in words, each once."""
    found: dict[str, None] = {}
    for record, folder in zip(records, folders, strict=True):
        if folder.lists is not None:
            origin = ", ".join(file.name for file in folder.lists.files)
        elif folder.split is not None:
            origin = "folder names"
        else:
            origin = "PraNet's split" if read_frames(record.dataset).get(_stem_of(record, folder)) else ""
        listed = folder.lists is not None and "val" in folder.lists.split_of.values()
        by_hash = record.split == "val" and folder.split != "val" and not listed
        found |= dict.fromkeys([origin, "val by hash" if by_hash else ""])
    return tuple(filter(None, found))


def _name_record(pair: Pair, folder: PictureFolder, own_set: str | None) -> Record:
    """Return one record; `own_set` is the benchmark set that its name gives away in a folder of several."""
    dataset = own_set or folder.dataset
    frame = read_frames(dataset).get(pair.stem)
    group = frame.group if frame else folder.group
    part = "" if own_set or not folder.part else f"{folder.part}/"
    mask = empty_path(pair.image) if folder.negative else pair.mask
    return Record(f"{dataset}/{part}{pair.stem}", dataset, "train", pair.image, mask, 0, 0, "", "", group)


def _mark_negatives(folders: Sequence[PictureFolder], negatives: Path) -> list[PictureFolder]:
    """Return the folders, with those of --negatives marked; they are added where they lie elsewhere.

    Raises:
        DataError: there are none, or they have masks.
    """
    root = negatives.resolve()
    found = [folder for folder in folders if folder.images.is_relative_to(root)]
    more = [] if found else find_folders(root)
    for each in [*found, *more]:
        if each.masks and (each.masks.is_file() or has_pictures(each.masks)):
            raise DataError(f"--negatives {negatives}: {each.images} has masks; name a folder whose images have none")
    marked = found or more
    return [replace(each, bare=True, negative=True) if each in marked else each for each in [*folders, *more]]


def set_splits(records: Sequence[Record], folder: PictureFolder) -> list[Record]:
    """Return the records of a folder with the splits that its publisher chose; those of which nothing is said train.

    A folder without splits counts as train, except that frames of a benchmark set keep their published split: a test frame that
    slips into the training records would make every later score worthless.
    """
    stems = [_stem_of(record, folder) for record in records]
    frames = [read_frames(record.dataset).get(stem) for record, stem in zip(records, stems, strict=True)]
    published = [folder.split or ("test" if frame and frame.split == "test" else "train") for frame in frames]
    listed = folder.lists.choose(stems) if folder.lists else None
    if listed is None:
        return [replace(record, split=split) for record, split in zip(records, published, strict=True)]
    seen = [stem for stem, split in zip(stems, published, strict=True) if split == "test" and listed[stem] != "test"]
    if seen:
        warn(
            f"{folder.images}: lists beside it put {len(seen)} of {folder.dataset}'s published test images into train or val "
            f"({name_some(seen)}): a student of these must not be scored on that test set"
        )
    return [replace(record, split=listed[stem]) for record, stem in zip(records, stems, strict=True)]


def keep_splits(records: Sequence[Record], held: Mapping[str, tuple[str, str]]) -> list[Record]:
    """Return the records with the (split, group) that `held` has for their ids, in order; a warning says what differs."""
    own = [held.get(record.id, (record.split, record.group)) for record in records]
    kept = [replace(record, split=split, group=group) for record, (split, group) in zip(records, own, strict=True)]
    if told := describe_kept(kept, records):
        warn(f"the cache keeps the splits and groups of its records.csv: {told}; another --cache takes it")
    return _sort(kept)


def split_again(records: Sequence[Record]) -> list[Record]:
    """Return a manifest's records with the splits that a fresh reading of their folders would give, and groups as they are.

    Those whose folders say nothing (any more) are returned as they are.
    """
    folders: dict[Path, PictureFolder] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DifomWarning)
        try:
            for home in {record.image.parent for record in records if parse_address(record.image) is None}:
                folders |= {folder.images: folder for folder in find_folders(home)}
            found = [folders.get(record.image.parent.resolve()) for record in records]
            named: list[Record] = []
            homes: list[PictureFolder] = []
            for folder in folders.values():
                own = [record for record, home in zip(records, found, strict=True) if home is folder]
                named += set_splits(own, folder)
                homes += [folder] * len(own)
        except (DataError, OSError):
            return list(records)
    split_of = {record.id: record.split for record in validate_some(named, homes)}
    return [replace(record, split=split_of.get(record.id, record.split)) for record in records]


def describe_kept(kept: Sequence[Record], fresh: Sequence[Record]) -> str:
    """Return how many records a fresh reading would put into another split or group, and into which; "" where it would none."""
    pairs = list(zip(kept, fresh, strict=True))
    moves = Counter(f"{old.split} -> {new.split}" for old, new in pairs if old.split != new.split)
    grouped = sum(old.group != new.group for old, new in pairs)
    told = [f"{count} {move}" for move, count in moves.items()] + ([f"{grouped} other groups"] if grouped else [])
    return f"a fresh reading would differ for {', '.join(told)} of {len(pairs)} records" if told else ""


def _stem_of(record: Record, folder: PictureFolder) -> str:
    own = f"{folder.part}/" if folder.part and record.dataset == folder.dataset else ""
    return record.id.removeprefix(f"{record.dataset}/{own}")


def validate_some(records: Sequence[Record], folders: Sequence[PictureFolder]) -> list[Record]:
    """Return the records; of the training groups of each data set a tenth validates, unless its publisher has chosen some.

    In folders such as train/ what validates follows from the name inside the data set: a set that is renamed keeps its
    validation records.
    """
    validated = {record.dataset for record in records if record.split == "val"}
    keys: dict[str, set[str]] = defaultdict(set)
    key_of = []
    for record, folder in zip(records, folders, strict=True):
        own = folder.part and record.dataset == folder.dataset
        key = record.group or (record.id.removeprefix(f"{record.dataset}/") if own else record.id)
        key = key.rpartition("/")[2] if folder.group and key == folder.group else key
        trains = record.split == "train" and not folder.own_val and record.dataset not in validated
        key_of.append(key if trains else "")
        if trains:
            keys[record.dataset].add(key)
    chosen = {dataset: choose_validating(each) for dataset, each in keys.items()}
    return [
        replace(record, split="val") if key and key in chosen[record.dataset] else record
        for record, key in zip(records, key_of, strict=True)
    ]


def _recogniser(pairs: list[Pair], *, by_size: bool) -> Callable[[Pair], str | None]:
    """Return what names the benchmark set of a picture in a training folder that may mix several.

    ClinicDB's names are bare numbers, as many others' are: they count beside Kvasir's names, or, where the folder is named as
    the benchmark's is (`by_size`), at ClinicDB's size.
    """
    kvasir, clinic = read_frames("Kvasir"), read_frames("CVC-ClinicDB")
    beside_kvasir = any(pair.stem in kvasir for pair in pairs)

    def name_set(pair: Pair) -> str | None:
        if pair.stem in kvasir:
            return "Kvasir"
        if pair.stem in clinic and (beside_kvasir or (by_size and read_size(pair.image) == CLINICDB_SIZE_PX)):
            return "CVC-ClinicDB"
        return None

    return name_set


def _find_videos(source: DataSource) -> list[Path]:
    """Return the videos that a source means; none where it holds pictures too, which are then meant."""
    data = source.data
    if data is None:
        return []
    data = data.resolve()
    if data.is_file():
        return [data] if data.suffix.lower() in VIDEO_SUFFIXES else []
    videos = list_videos(data) if data.is_dir() else []
    if not videos:
        return []
    if masks := [video.relative_to(data).as_posix() for video in videos if is_of_masks(video, data)]:
        raise DataError(
            f"{data} holds videos of masks ({name_some(masks)}), which are not read as masks and are no images: write the frames "
            "of both as PNG into images/ and masks/, or give the folder of the other videos"
        )
    try:
        pictures = find_folders(data)
    except DataError:
        pictures = []
    if not pictures:
        return videos
    warn(
        f"{data} holds pictures and {len(videos)} videos ({name_some([video.name for video in videos])}): the videos are left "
        "out; give their folder by itself"
    )
    return []


def _name_frames(videos: Sequence[Path], source: DataSource, memory: Memory) -> list[Record]:
    """Return a record for every frame that is taken; a video is a group, and its frames have no masks."""
    root = source.place.resolve()
    root = root if root.is_dir() else root.parent
    negatives = source.negatives.resolve() if source.negatives else None
    if negatives and not any(video.is_relative_to(negatives) for video in videos):
        raise SettingsError(f"--negatives {source.negatives} holds none of the videos in {source.place}")
    from difom_cache.data.sample_video import sample_video  # here, as its scipy is no part of a run's start

    records = []
    for video in videos:
        found = sample_video(video, source.every_ms, memory)
        say(f"{video}: {len(found.frames)} frames, {found.near} near-duplicates left out")
        dataset, split = describe_video(video, root)
        inside = video.relative_to(root).with_suffix("").as_posix()
        shows_none = negatives is not None and video.is_relative_to(negatives)
        for frame in found.frames:
            image, size, group = frame_path(video, frame.time_ms), (frame.width, frame.height), f"{dataset}/{inside}"
            name, digest = f"{group}/{spell_time(frame.time_ms)}", frame.pixels_sha256
            mask, mask_sha256 = (empty_path(image), digest_empty(*size[::-1])) if shows_none else (None, "")
            one = Record(name, dataset, split, image, mask, *size, digest, mask_sha256, group, found.reading)
            records.append(one)
    return records if source.group_by is None else set_groups(records, source)
