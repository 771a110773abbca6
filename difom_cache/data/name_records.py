"""A source becomes records by names alone: which picture, which mask, which data set, split and group."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from difom_cache.data.addresses import frame_path, spell_time
from difom_cache.data.benchmark import CLINICDB_SIZE_PX, read_frames
from difom_cache.data.decoded import Memory
from difom_cache.data.groups import below, read_group_rule, refuse_unnamed
from difom_cache.data.images import read_size
from difom_cache.data.layouts import describe_video, find_folders, pair_folders
from difom_cache.data.listing import list_videos, natural_key
from difom_cache.data.pairing import Pair, PictureFolder, pair_files
from difom_cache.data.record import Record, belongs_to_val, refuse_twins
from difom_cache.data.sample_video import sample_video
from difom_cache.data.source import DataSource
from difom_cache.data.video import VIDEO_SUFFIXES
from difom_cache.errors import DataError, DifomWarning, SettingsError
from difom_cache.progress import say
from difom_cache.store.layout import SPLITS
from difom_cache.text import name_some


def name_records(source: DataSource, memory: Memory) -> list[Record]:
    """Return the records of a source that is no manifest, in order of split and name.

    Records of pictures still lack sizes and digests, which only their bytes tell; a video's frames have both.

    Raises:
        DataError: as `find_folders`, `pair_files` and `sample_video`; or two records have one id.
        SettingsError: an option that this source has no use for.
    """
    videos = _find_videos(source)
    if videos:
        records = _name_frames(videos, source, memory)
    else:
        if source.every is not None:
            raise SettingsError(f"--every is for videos, and {source.place} holds none; leave it out")
        records = _name_pictures(source)
    refuse_twins(records, source.place)
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
    refuse_unnamed([record.id for record, name in zip(records, names, strict=True) if not name], rule)
    return [replace(record, group=f"{record.dataset}/{name}") for record, name in zip(records, names, strict=True)]


def _name_pictures(source: DataSource) -> list[Record]:
    folders = find_folders(source.data) if source.data else pair_folders(source.images or Path(), source.masks)
    named: list[tuple[Record, PictureFolder]] = []
    for folder, pairs in zip(folders, pair_files(folders, unlabelled=source.unlabelled), strict=True):
        name_set = _recogniser(pairs, by_size=not folder.part) if folder.mixed else None
        for pair in pairs:
            own = name_set(pair) if name_set else None
            named.append((_name_record(pair, folder, own), folder))
    records = [record for record, _ in named]
    if source.group_by is not None:
        records = set_groups(records, source)
    return [
        replace(record, split=_choose_split(record, folder)) for record, (_, folder) in zip(records, named, strict=True)
    ]


def _name_record(pair: Pair, folder: PictureFolder, own_set: str | None) -> Record:
    """Return one record; `own_set` is the benchmark set that its name gives away in a folder of several."""
    dataset = own_set or folder.dataset
    frame = read_frames(dataset).get(pair.stem)
    group = frame.group if frame else ""
    part = "" if own_set or not folder.part else f"{folder.part}/"
    split = folder.split or (frame.split if frame else "train")
    return Record(f"{dataset}/{part}{pair.stem}", dataset, split, pair.image, pair.mask, 0, 0, "", "", group)


def _choose_split(record: Record, folder: PictureFolder) -> str:
    """Return the split of a record.

    A folder without splits counts as train, except that frames of a benchmark set keep their published split: a test
    frame that slips into the training records would make every later score worthless. A tenth of the groups of training
    records validate, unless their publisher has chosen a validation set. In folders such as train/ what validates follows
    from the name inside the data set: a set that is renamed keeps its validation records.
    """
    own = folder.part and record.dataset == folder.dataset
    key = record.group or (record.id.removeprefix(f"{record.dataset}/") if own else record.id)
    return "val" if record.split == "train" and not folder.own_val and belongs_to_val(key) else record.split


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
    try:
        pictures = find_folders(data)
    except DataError:
        pictures = []
    if not pictures:
        return videos
    warnings.warn(
        f"{data} holds pictures and {len(videos)} videos ({name_some([video.name for video in videos])}): the videos are left "
        "out; give their folder by itself",
        DifomWarning,
        stacklevel=2,
    )
    return []


def _name_frames(videos: Sequence[Path], source: DataSource, memory: Memory) -> list[Record]:
    """Return a record for every frame that is taken; a video is a group, and its frames have no masks."""
    root = source.place.resolve()
    root = root if root.is_dir() else root.parent
    records = []
    for video in videos:
        found = sample_video(video, source.every_ms, memory)
        say(f"{video}: {len(found.frames)} frames, {found.near} near-duplicates left out")
        dataset, split = describe_video(video, root)
        inside = video.relative_to(root).with_suffix("").as_posix()
        for frame in found.frames:
            records.append(
                Record(
                    id=f"{dataset}/{inside}/{spell_time(frame.time_ms)}",
                    dataset=dataset,
                    split=split,
                    image=frame_path(video, frame.time_ms),
                    mask=None,
                    width=frame.width,
                    height=frame.height,
                    image_sha256=frame.pixels_sha256,
                    mask_sha256="",
                    group=f"{dataset}/{inside}",
                )
            )
    return records if source.group_by is None else set_groups(records, source)
