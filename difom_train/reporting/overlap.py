"""Which test frames a clean table keeps: none that shows a training picture, and of equal ones the first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difom_cache import Record, load_records
from difom_cache.base.errors import RunError
from difom_cache.data import DataSource, check_records, describe_unknown
from difom_train.evaluation.summary import LEFT_OUT, FrameInfo


@dataclass(frozen=True)
class Twins:
    """What is known of frames that show the same.

    Attributes:
        leaked: test frames of which a training picture shows the same.
        repeated: test frames that repeat an earlier frame of the sets that a mean counts (or of their own set).
        family: frame id to the group that it is drawn with: its video where known, else the frames that show the same.
        shared_videos: test frames whose video has training frames, by test set.
        trained_on: whether training pictures were looked at.
        unknown_groups: a sentence for every test set whose videos or patients nobody knows.
    """

    leaked: frozenset[str]
    repeated: frozenset[str]
    family: Mapping[str, str]
    shared_videos: Mapping[str, int]
    trained_on: bool
    unknown_groups: tuple[str, ...] = ()

    def rows(self, frames: Sequence[FrameInfo]) -> NDArray[np.bool_]:
        """Return True for the frames that a clean table keeps, (N,)."""
        return np.array([frame.id not in self.leaked and frame.id not in self.repeated for frame in frames])

    def groups(self, frames: Sequence[FrameInfo]) -> list[str]:
        """Return the group of each frame."""
        return [self.family.get(frame.id) or frame.group or frame.id for frame in frames]

    def describe(self) -> list[str]:
        """Return what was left out, and what was not looked for, a sentence each."""
        told = [f"{len(self.repeated)} frames repeat another test frame, {len(self.leaked)} show a training picture."]
        if not self.trained_on:
            told = [
                f"{len(self.repeated)} frames repeat another test frame. Training pictures were not looked at: pass --data."
            ]
        told += [f"{line}." for line in self.unknown_groups]
        for dataset, count in self.shared_videos.items():
            told.append(
                f"{count} frames of {dataset} come from videos that also have training frames; they stay in both tables."
            )
        return told


def find_twins(sets: Mapping[str, Sequence[FrameInfo]], data: DataSource | None) -> Twins:
    """Return the twins among test frames and, with `data`, between them and the training pictures.

    Args:
        sets: test set to its frames; their pictures must still be where they were scored.
        data: holds the training records; None looks at test frames only.

    Raises:
        RunError: pictures are gone.
    """
    tests = [_record_of(dataset, frame) for dataset, frames in sets.items() for frame in frames]
    gone = [str(record.image) for record in tests if not record.image.is_file()]
    if gone:
        raise RunError(
            f"{len(gone)} of {len(tests)} scored pictures are gone, the first is {gone[0]}; without them equal frames "
            "cannot be found: evaluate again where the pictures are"
        )
    trained = [] if data is None else [each for each in load_records(data, unlabelled=True) if each.split != "test"]
    checked = check_records([*tests, *trained])
    place = {record.id: number for number, record in enumerate(tests)}
    dataset = {record.id: record.dataset for record in tests}
    leaked = set()
    repeated = set()
    for pair in checked.pairs:
        inside = [name for name in (pair.first, pair.second) if name in place]
        if len(inside) == 1:
            leaked.add(inside[0])
        elif len(inside) == 2 and _count_together(*(dataset[name] for name in inside)):
            repeated.add(max(inside, key=place.__getitem__))
    groups = {record.id: record.group for record in tests}
    families = {name: groups[name] or family[0] for family in checked.families for name in family if name in place}
    videos = {record.group for record in trained if record.group}
    shared = {name: sum(frame.group in videos for frame in frames) for name, frames in sets.items()}
    return Twins(
        leaked=frozenset(leaked),
        repeated=frozenset(repeated),
        family=families,
        shared_videos={name: count for name, count in shared.items() if count},
        trained_on=data is not None,
        unknown_groups=tuple(
            describe_unknown([record.dataset for record in tests], [record.group for record in tests])
        ),
    )


def _count_together(first: str, second: str) -> bool:
    """Return whether a mean counts frames of both sets, so that a frame in both would count twice."""
    return LEFT_OUT.get(first) != second and LEFT_OUT.get(second) != first


def _record_of(dataset: str, frame: FrameInfo) -> Record:
    return Record(
        id=frame.id,
        dataset=dataset,
        split="test",
        image=Path(frame.image),
        mask=Path(frame.mask) if frame.mask else None,
        width=frame.width,
        height=frame.height,
        image_sha256=frame.image_sha256,
        mask_sha256=frame.mask_sha256,
        group=frame.group,
    )
