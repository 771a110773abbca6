"""What is wrong with a manifest: twins, groups and twins across splits, empty masks, odd sizes."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from difom_cache.base.hardware import count_cores
from difom_cache.base.progress import track
from difom_cache.data.duplicates import Fingerprint, Twins, find_scenes, find_twins, gather_families, take_fingerprint
from difom_cache.data.groups import describe_unknown
from difom_cache.data.images import read_image, read_mask
from difom_cache.data.layouts import split_of
from difom_cache.data.record import Record

_USUAL_SHARE = 0.9  # of a data set's records, so that another size is odd
_LEAST_SIDE_PX = 64
_MOST_ASPECT = 2.5
_TOLD = 12  # lines of one kind in the text; the JSON holds all


@dataclass(frozen=True)
class Pair:
    """Two records that show the same picture, or one scene; `mask_iou` is None where a mask is absent or the sizes differ."""

    first: str
    second: str
    kind: str
    bits: int
    turn: str
    correlation: float
    splits: tuple[str, str]
    datasets: tuple[str, str]
    same_group: bool
    mask_iou: float | None

    @property
    def is_torn(self) -> bool:
        """Whether the two lie in different splits."""
        return self.splits[0] != self.splits[1]

    @property
    def verdict(self) -> str:
        """How alike the two are, in words."""
        if self.kind == "exact":
            return "equal" if self.mask_iou in (1, None) else f"equal, masks' IoU {self.mask_iou:.2f}"
        if self.kind in ("alike", "scene"):
            how = "alike" if self.kind == "alike" else "one scene"
            return f"{how}, correlation {self.correlation:.3f}, {self.bits} of 256 bits"
        return f"{self.turn or self.kind}, {self.bits} of 256 bits"


@dataclass(frozen=True)
class Report:
    """What `check_records` found; ids name records.

    `scenes` are neighbours by their files' numbers that show one scene: no twins, so that neither `pairs`, `families` nor
    `leaks` hold them.
    """

    records: dict[str, dict[str, int]]
    pairs: list[Pair]
    scenes: list[Pair]
    families: list[list[str]]
    distinct: dict[str, int]
    groups_across_splits: dict[str, dict[str, int]]
    groups_unknown: list[str]
    empty_masks: list[str]
    odd_sizes: dict[str, str]

    @property
    def leaks(self) -> list[Pair]:
        """The pairs whose records lie in different splits."""
        return [pair for pair in self.pairs if pair.is_torn]

    @property
    def leaky(self) -> bool:
        """Whether a picture, or frames of one group, lie in more than one split."""
        return bool(self.leaks or self.groups_across_splits)

    @property
    def different_masks(self) -> list[Pair]:
        """The pairs of equal pixels whose masks differ, the most different first."""
        pairs = [pair for pair in self.pairs if pair.kind == "exact" and pair.mask_iou is not None]
        return sorted((pair for pair in pairs if pair.mask_iou != 1), key=lambda pair: pair.mask_iou or 0)

    def as_json(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        counts = {" + ".join(sets): dict(kinds) for sets, kinds in _count_pairs(self.pairs).items()}
        told = {"pair_counts": counts, "overlaps": self.overlaps, "leaks": [asdict(pair) for pair in self.leaks]}
        return asdict(self) | told | {"different_masks": [asdict(pair) for pair in self.different_masks]}

    def render(self) -> str:
        """Return what a person needs to know, a screenful."""
        lines = ["records"]
        for dataset, splits in self.records.items():
            count, distinct = sum(splits.values()), self.distinct[dataset]
            twins = "" if distinct == count else f"; {distinct} distinct images"
            lines.append(f"  {dataset}: {_format(splits)}{twins}")
        lines.append(f"pairs that show the same image: {len(self.pairs) or 'none'}")
        for sets, kinds in _count_pairs(self.pairs).items():
            between = f"inside {sets[0]}" if len(sets) == 1 else f"between {' and '.join(sets)}"
            overlap = self.overlaps[" + ".join(sets)] if len(sets) > 1 else {}
            shared = [f"{count} of {sum(self.records[name].values())} of {name}" for name, count in overlap.items()]
            lines.append(f"  {between}: {_format(kinds)}" + (f" ({', '.join(shared)})" if shared else ""))
        tested = sum(splits.get("test", 0) for splits in self.groups_across_splits.values())
        torn = [f"{group}: {_format(splits)}" for group, splits in self.groups_across_splits.items()]
        told = {
            "pairs across splits": list(map(_line, self.leaks)),
            "pairs of neighbours in one scene across splits": [_line(pair) for pair in self.scenes if pair.is_torn],
            "pairs of equal images with different masks": list(map(_line, self.different_masks)),
            "groups across splits": torn,
            "empty masks": self.empty_masks,
            "odd sizes": [f"{record}: {why}" for record, why in self.odd_sizes.items()],
        }
        for what, found in told.items():
            more = f", with {tested} test frames" if found is torn and tested else ""
            lines += [f"{what}: {len(found) or 'none'}{more}", *(f"  {each}" for each in found[:_TOLD])]
            lines += [f"  and {len(found) - _TOLD} more"] if len(found) > _TOLD else []
            lines += self.groups_unknown if found is torn else []
        return "\n".join(lines)

    @property
    def overlaps(self) -> dict[str, dict[str, int]]:
        """Per two data sets, how many records of each show a picture of the other; "A + B" -> {A: n, B: m}."""
        shared: dict[str, dict[str, set[str]]] = {}
        for pair in self.pairs:
            if pair.datasets[0] != pair.datasets[1]:
                sides = shared.setdefault(" + ".join(sorted(pair.datasets)), {})
                for dataset, record in zip(pair.datasets, (pair.first, pair.second), strict=True):
                    sides.setdefault(dataset, set()).add(record)
        return {both: {name: len(sides[name]) for name in sorted(sides)} for both, sides in sorted(shared.items())}


def check_records(records: Sequence[Record]) -> Report:
    """Return what is odd about these records; reads every picture and mask once.

    Raises:
        ImageError: a picture or mask cannot be read, or is not whole.
    """
    with ThreadPoolExecutor(min(8, count_cores())) as threads:
        read = threads.map(_read, records)
        seen = list(track(read, "comparing images", "record", total=len(records)))
    fingerprints = [fingerprint for fingerprint, _ in seen]
    # Without folders named after splits, over which one video's frames may be spread.
    series = ["/".join(part for part in record.id.split("/") if not split_of(part)) for record in records]
    twins = find_twins(fingerprints)
    ids = [record.id for record in records]
    pictures: dict[str, set[str]] = defaultdict(set)
    counts, groups = defaultdict[str, Counter[str]](Counter), defaultdict[str, Counter[str]](Counter)
    for record, (fingerprint, _) in zip(records, seen, strict=True):
        pictures[record.dataset].add(fingerprint.pixels_sha256)
        counts[record.dataset][record.split] += 1
        if record.group:
            groups[record.group][record.split] += 1
    return Report(
        records={name: dict(counts[name]) for name in sorted(counts)},
        pairs=[_describe(twin, records) for twin in twins],
        scenes=[_describe(twin, records) for twin in find_scenes(series, fingerprints, twins)],
        families=[[ids[place] for place in family] for family in gather_families(twins, len(records))],
        distinct={name: len(pictures[name]) for name in sorted(pictures)},
        groups_across_splits={name: dict(groups[name]) for name in sorted(groups) if len(groups[name]) > 1},
        groups_unknown=describe_unknown([record.dataset for record in records], [record.group for record in records]),
        empty_masks=[record.id for record, (_, empty) in zip(records, seen, strict=True) if empty],
        odd_sizes=_find_odd_sizes(records),
    )


def _read(record: Record) -> tuple[Fingerprint, bool]:
    """Return the picture's fingerprint and whether its mask is empty."""
    empty = record.mask is not None and not read_mask(record.mask, max_pixels=None).any()
    return take_fingerprint(read_image(record.image, max_pixels=None)), empty


def _describe(twins: Twins, records: Sequence[Record]) -> Pair:
    first, second = records[twins.first], records[twins.second]
    iou = None
    if twins.kind == "exact" and first.mask is not None and second.mask is not None:
        masks = read_mask(first.mask, max_pixels=None), read_mask(second.mask, max_pixels=None)
        union = int((masks[0] | masks[1]).sum())
        iou = round(int((masks[0] & masks[1]).sum()) / union, 6) if union else 1.0
    splits, datasets = (first.split, second.split), (first.dataset, second.dataset)
    same = bool(first.group) and first.group == second.group
    how = asdict(twins) | {"first": first.id, "second": second.id}
    return Pair(**how, splits=splits, datasets=datasets, same_group=same, mask_iou=iou)


def _find_odd_sizes(records: Sequence[Record]) -> dict[str, str]:
    sizes: dict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
    for record in records:
        sizes[record.dataset][record.width, record.height] += 1
    odd = {}
    for record in records:
        size = (record.width, record.height)
        (usual, count), total = sizes[record.dataset].most_common(1)[0], sizes[record.dataset].total()
        if min(size) < _LEAST_SIDE_PX:
            odd[record.id] = f"{size[0]} x {size[1]} px, a side below {_LEAST_SIDE_PX}"
        elif max(size) > _MOST_ASPECT * min(size):
            odd[record.id] = f"{size[0]} x {size[1]} px, longer than {_MOST_ASPECT} times its other side"
        elif size != usual and count >= _USUAL_SHARE * total:
            odd[record.id] = f"{size[0]} x {size[1]} px, where {count} of {total} have {usual[0]} x {usual[1]}"
    return odd


def _count_pairs(pairs: Sequence[Pair]) -> dict[tuple[str, ...], Counter[str]]:
    """Return the number of pairs of each kind by the data sets that they link."""
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        counts[tuple(sorted(set(pair.datasets)))][pair.kind] += 1
    return dict(sorted(counts.items()))


def _line(pair: Pair) -> str:
    group = ", of one group" if pair.same_group else ""
    return f"{pair.first} ({pair.splits[0]}) = {pair.second} ({pair.splits[1]}): {pair.verdict}{group}"


def _format(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
