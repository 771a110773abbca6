"""Which tap of a cache teaches which level of a student."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Protocol

from torch import Tensor

from difom_cache.errors import CacheIncompleteError, SettingsError, name_nearest
from difom_train.students.base import BOTTLENECK, Level, Student

FARTHEST = log(2) + 1e-6  # a tap and a level may differ by a factor of two in stride, no more


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


def far_by_stride(tap: Tap, level: Level) -> float:
    """Return how far a tap is from a level: 0 at the same stride, log 2 at twice or half of it."""
    return round(abs(log(tap.stride / level.stride)), 6)


def far_by_grid(tap: Tap, level: Level, input_px: int) -> float:
    """Return how far a tap is from a level: 0 on a grid of as many cells, log 2 on one of twice or half as many a side."""
    return round(abs(log(tap.grid * level.stride / input_px)), 6)


def mismatch(tap: Tap, level: Level, input_px: int) -> tuple[float, float]:
    """Return how far a tap is from a level, smaller is nearer: first by stride or grid, then by stride alone.

    A student often sees smaller pictures than the cache holds, so equal strides and equal grids may name different
    levels; either counts as near, and the stride decides between the two.
    """
    by_stride = far_by_stride(tap, level)
    return min(by_stride, far_by_grid(tap, level, input_px)), by_stride


def match_bottleneck(cache: TeachingCache, teachers: Sequence[str], student: Student, input_px: int) -> list[Match]:
    """Return, for each teacher, its feature tap nearest to the student's bottleneck (all that are equally near).

    A teacher that gives nothing but logits, such as a probe, is left out beside others.

    Raises:
        CacheIncompleteError: a teacher has none within a factor of two; lists what the cache holds.
    """
    level = student.levels[BOTTLENECK]
    matches = []
    for teacher in [each for each in teachers if taps_of(cache, [each], "feature")] or teachers:
        taps = taps_of(cache, [teacher], "feature")
        nearest = min((mismatch(cache.taps[tap], level, input_px) for tap in taps), default=None)
        if nearest is None or nearest[0] > FARTHEST:
            raise CacheIncompleteError(
                f"{student.name} needs a feature tap of {teacher} near stride {level.stride} (its bottleneck), "
                f"but the cache holds {_list_taps(cache, [teacher])}; extract one with --strides {level.stride}, "
                "or choose other teachers with --teachers"
            )
        chosen = [tap for tap in taps if mismatch(cache.taps[tap], level, input_px) == nearest]
        matches += [Match(tap, BOTTLENECK, _grid(cache.taps[tap], level, input_px)) for tap in chosen]
    return matches


def match_levels(cache: TeachingCache, teachers: Sequence[str], student: Student, input_px: int) -> list[Match]:
    """Return every pair of a feature tap and a level that is nearest to it.

    All taps of a teacher are matched by stride; or by grid, where each of their grids is a level's and no stride is. One rule
    for all of them keeps their order, so that a deeper tap never teaches a shallower level than the tap above it. Taps farther
    than a factor of two from every level are left out (`describe` of the distiller shows which are in).
    """
    matches, levels = [], student.levels.items()
    for teacher in teachers:
        taps = {name: cache.taps[name] for name in taps_of(cache, [teacher], "feature")}
        by_grid = _meet_on_grids_alone(taps.values(), student.levels.values(), input_px)
        for tap_name, tap in taps.items():
            far = {
                name: far_by_grid(tap, each, input_px) if by_grid else far_by_stride(tap, each) for name, each in levels
            }
            if (nearest := min(far.values())) <= FARTHEST:
                matches += [
                    Match(tap_name, name, _grid(tap, each, input_px)) for name, each in levels if far[name] == nearest
                ]
    return matches


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
    strides = sorted({level.stride for level in student.levels.values()})
    raise CacheIncompleteError(
        f"no tap can teach {student.name}, whose levels have strides {strides}: {held}; "
        "extract taps at one of these strides (--strides)"
    )


def _grid(tap: Tap, level: Level, input_px: int) -> int:
    """Return the coarser of the tap's grid and the level's."""
    return min(tap.grid, input_px // level.stride)


def _list_taps(cache: TeachingCache, teachers: Sequence[str]) -> str:
    names = [f"{name} ({tap.kind})" for name, tap in cache.taps.items() if teacher_of(name) in teachers]
    return ", ".join(names) or "none"
