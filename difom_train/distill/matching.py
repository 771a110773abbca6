"""Which tap of a cache teaches which level of a student: by order of depth, and strides only break ties."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as remember
from math import inf, log
from typing import Any, Protocol

from torch import Tensor

from difom_cache.base.errors import CacheIncompleteError, SettingsError, name_nearest
from difom_train.students.base import BOTTLENECK, Level, Student

FAR = 4  # times as many cells a side: beyond that, a warning says that a tap and a level hardly show the same
_PLACE = re.compile(r"(?P<kind>[a-z]+?)(?P<number>\d*)(?:_x[24]|\.keys)?")
_DEPTHS = {  # of the places in teachers that are numbered in order of depth; maps of a pyramid by the stride of their own
    **dict.fromkeys(("block", "state", "inner", "pixel"), lambda number: float(number)),
    "stage": lambda number: 2.0 ** (int(number) + 1),
    "neck": lambda number: float(number or inf),
}


class Tap(Protocol):
    """What a cache says of one of its taps (strides count picture px, the grid is square)."""

    @property
    def kind(self) -> str: ...
    @property
    def channels(self) -> int: ...
    @property
    def grid(self) -> int: ...
    @property
    def stride(self) -> float: ...


class TeachingCache(Protocol):
    """What distillation needs of a cache, or of several joined ones."""

    @property
    def taps(self) -> Mapping[str, Any]: ...

    @property
    def teachers(self) -> Mapping[str, Any]: ...

    def stats(self, tap: str) -> Any: ...

    def decode(self, tap: str, code: Tensor, scale: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Match:
    """One comparison: tap `tap` teaches level `level`, on a grid of `grid` x `grid` cells at the nominal input."""

    tap: str
    level: str
    grid: int


def teacher_of(tap: str) -> str:
    """Return the label of the teacher whose tap it is: "dinov2/block11@16" -> "dinov2"."""
    return tap.partition("/")[0]


def choose_teachers(cache: TeachingCache, wanted: Sequence[str]) -> list[str]:
    """Return the labels to learn from, in the cache's order; all of them where none is wanted by name.

    Raises:
        SettingsError: the cache has no such teacher; names the nearest.
    """
    labels = list(dict.fromkeys(teacher_of(tap) for tap in cache.taps))
    for label in wanted:
        if label not in labels:
            raise SettingsError(name_nearest("teacher in this cache", label, labels))
    return [label for label in labels if not wanted or label in wanted]


def taps_of(cache: TeachingCache, teachers: Sequence[str], kind: str) -> list[str]:
    """Return the names of the chosen teachers' taps of a kind ("feature" or "logits")."""
    return [name for name, tap in cache.taps.items() if teacher_of(name) in teachers and tap.kind == kind]


def rank_taps(cache: TeachingCache, teacher: str) -> list[list[str]]:
    """Return a teacher's feature taps, deepest first; those of one depth, such as a block and its keys, stand together.

    Taps of one depth at several strides follow each other, the coarsest first. So do all taps of a teacher where one has a name
    that says nothing of its depth (another student's, a file's own).
    """
    taps = taps_of(cache, [teacher], "feature")
    depths = {tap: _depth_of(tap) for tap in taps}
    known = None not in depths.values()
    keys = {tap: ((depths[tap] or 0.0) if known else 0.0, cache.taps[tap].stride) for tap in taps}
    return [[tap for tap in taps if keys[tap] == key] for key in sorted(set(keys.values()), reverse=True)]


def _depth_of(tap: str) -> float | None:
    """Return 11 for "dinov2/block11@16", and None where the name says nothing of depth."""
    found = _PLACE.fullmatch(tap.partition("/")[2].rpartition("@")[0])
    if found is None or found["kind"] not in _DEPTHS or not (found["number"] or found["kind"] == "neck"):
        return None
    return _DEPTHS[found["kind"]](found["number"])


def rank_levels(levels: Mapping[str, Level]) -> list[list[str]]:
    """Return the names of a student's levels, deepest first: the bottleneck, then the encoder's.

    Of levels with one stride that come before the bottleneck, the later is the deeper. A level after it, such as a decoder's,
    stands with the deepest of its stride.
    """
    names = list(levels)
    encoder, decoder = names[: names.index(BOTTLENECK)], names[names.index(BOTTLENECK) + 1 :]
    ranks = [[BOTTLENECK], *([name] for name in sorted(encoder, key=lambda x: (-levels[x].stride, -encoder.index(x))))]
    for name in decoder:
        beside = next((rank for rank in ranks if levels[rank[0]].stride == levels[name].stride), None)
        if beside is None:
            ranks.append([name])
        else:
            beside.append(name)
    return ranks[:1] + sorted(ranks[1:], key=lambda rank: -levels[rank[0]].stride)


def far_by_stride(tap: Tap, level: Level) -> float:
    """Return how far a tap is from a level: 0 at the same stride, log 2 at twice or half of it."""
    return round(abs(log(tap.stride / level.stride)), 6)


def far_by_grid(tap: Tap, level: Level, input_px: int) -> float:
    """Return how far a tap is from a level: 0 on a grid of as many cells, log 2 on one of twice or half as many a side."""
    return round(abs(log(tap.grid * level.stride / input_px)), 6)


def match_bottleneck(cache: TeachingCache, teachers: Sequence[str], student: Student, input_px: int) -> list[Match]:
    """Return, for each teacher, its deepest feature tap at the student's bottleneck (all of that depth).

    A teacher that gives nothing but logits, such as a probe, is left out beside others.

    Raises:
        CacheIncompleteError: a teacher has no feature tap; lists what the cache holds.
    """
    matches = []
    for teacher in [each for each in teachers if taps_of(cache, [each], "feature")] or teachers:
        ranks = rank_taps(cache, teacher)
        if not ranks:
            raise CacheIncompleteError(
                f"{student.name} needs a feature tap of {teacher} for its bottleneck, but the cache holds "
                f"{_list_taps(cache, [teacher])}; choose other teachers with --teachers"
            )
        matches += [
            Match(tap, BOTTLENECK, _grid(cache.taps[tap], student.levels[BOTTLENECK], input_px)) for tap in ranks[0]
        ]
    return matches


def match_levels(cache: TeachingCache, teachers: Sequence[str], student: Student, input_px: int) -> list[Match]:
    """Return every pair of a feature tap and a level that learns from it.

    A teacher's deepest tap meets the bottleneck, and its others meet shallower levels in their order, no two of them the same
    one. Where that leaves a choice, levels with nearest strides are taken; or with nearest grids, where each tap has some level's
    grid and none its stride. More taps than levels are spread evenly over all levels.
    """
    matches, levels = [], rank_levels(student.levels)
    for teacher in teachers:
        ranks = rank_taps(cache, teacher)
        taps = [cache.taps[rank[0]] for rank in ranks]
        by_grid = _meet_on_grids_alone(taps, student.levels.values(), input_px)
        places = [student.levels[rank[0]] for rank in levels]
        far = [[far_by_grid(t, each, input_px) if by_grid else far_by_stride(t, each) for each in places] for t in taps]
        for rank, chosen in zip(ranks, _place_in_order(far), strict=True):
            matches += [
                Match(tap, level, _grid(cache.taps[tap], student.levels[level], input_px))
                for tap in rank
                for level in levels[chosen]
            ]
    return matches


def _place_in_order(far: Sequence[Sequence[float]]) -> Sequence[int]:
    """Return the column of each row, the first in column 0 and each in a later one than the row before, of the smallest sum.

    Args:
        far: how far each of some taps, deepest first, is from each of the levels, deepest first.
    """
    rows, columns = len(far), len(far[0]) if far else 0
    if rows > columns:
        return [round(row * (columns - 1) / (rows - 1)) for row in range(rows)]

    @remember
    def place(row: int, first: int) -> tuple[float, tuple[int, ...]]:
        if row == rows:
            return 0.0, ()
        last = columns - rows + row if row else 0
        tried = [(column, *place(row + 1, column + 1)) for column in range(first, last + 1)]
        return min((round(far[row][column] + rest, 6), (column, *later)) for column, rest, later in tried)

    return place(0, 0)[1]


def warn_of_matches(cache: TeachingCache, matches: Sequence[Match], student: Student, input_px: int) -> list[str]:
    """Return a line where one level takes all of several taps, and for each pair that is farther apart than `FAR`."""
    lines = []
    taps, places = {match.tap for match in matches}, rank_levels(student.levels)
    if len(taps) > 1 and sum(any(match.level in rank for match in matches) for rank in places) == 1:
        lines.append(
            f"warning: all {len(taps)} taps teach {matches[0].level}; extract taps of other depths for other levels"
        )
    for match in matches:
        cells, own = cache.taps[match.tap].grid, input_px // student.levels[match.level].stride
        if max(cells, own) > FAR * min(cells, own):
            lines.append(
                f"warning: {match.tap} has {cells} x {cells} cells and {match.level} {own} x {own}, "
                f"more than {FAR} times as many a side"
            )
    return lines


def _meet_on_grids_alone(taps: Collection[Tap], levels: Collection[Level], input_px: int) -> bool:
    """Return whether each tap has the grid of some level and none has a level's stride: another student's taps, say."""
    on_grids = all(any(far_by_grid(tap, level, input_px) == 0 for level in levels) for tap in taps)
    return on_grids and not any(far_by_stride(tap, level) == 0 for tap in taps for level in levels)


def logits_taps(cache: TeachingCache, teachers: Sequence[str]) -> list[str]:
    """Return the chosen teachers' logits taps that speak of one class, as the student's do."""
    return [tap for tap in taps_of(cache, teachers, "logits") if cache.taps[tap].channels == 1]


def refuse_nothing(cache: TeachingCache, teachers: Sequence[str], student: Student, *, features: bool) -> None:
    """Raise a CacheIncompleteError: no tap of the chosen teachers can teach this student, by its features where they count."""
    held = f"the cache holds {_list_taps(cache, teachers)}"
    if not features:
        raise CacheIncompleteError(
            f"no tap can teach {student.name}: with feature_weight 0 logits alone teach, and {held}; "
            "make logits of features (difom-cache probe)"
        )
    raise CacheIncompleteError(
        f"no tap can teach {student.name}: {held}; extract a teacher's features, or make logits of them (difom-cache probe)"
    )


def _grid(tap: Tap, level: Level, input_px: int) -> int:
    """Return the coarser of the tap's grid and the level's."""
    return min(tap.grid, input_px // level.stride)


def _list_taps(cache: TeachingCache, teachers: Sequence[str]) -> str:
    names = [f"{name} ({tap.kind})" for name, tap in cache.taps.items() if teacher_of(name) in teachers]
    return ", ".join(names) or "none"
