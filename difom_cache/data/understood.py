"""What was understood of a source, in two lines: its images with their groups and splits, and its masks."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from difom_cache.base.errors import warn
from difom_cache.base.text import count_of
from difom_cache.data.addresses import EmptyAddress, parse_address
from difom_cache.data.decoded import Decoded
from difom_cache.data.record import Record
from difom_cache.store.layout import SPLITS

_MOST_EMPTY = 0.5  # of the masks may show no polyp before that is asked about; not tuned
_INVERTED_FRAC, _INVERTED_SHARE = 0.65, 0.5  # of a frame, in more than this share of the masks; not tuned
_KINDS_TOLD = 4

Frame = tuple[str, str, str, int, int]
'Data set, split, group ("" where unknown), width and height in px of one image.'


@dataclass(frozen=True)
class Seen:
    """A record, and what decoding its files gave; None for a video's frame, decoded before, and where there is no mask."""

    record: Record
    image: Decoded | None = None
    mask: Decoded | None = None

    @property
    def said_empty(self) -> bool:
        """Whether somebody has said that there is no polyp."""
        return self.record.mask is not None and isinstance(parse_address(self.record.mask), EmptyAddress)


@dataclass(frozen=True)
class Understood:
    """What was read of one or several sources.

    Attributes:
        seen: each record with what its files gave.
        origins: where the splits came from, in words.
    """

    seen: tuple[Seen, ...]
    origins: tuple[str, ...] = ()

    @property
    def records(self) -> list[Record]:
        """The records, in order."""
        return [each.record for each in self.seen]

    def describe(self) -> list[str]:
        """Return the two lines."""
        images = [each.image for each in self.seen if each.image]
        frames = [(r.dataset, r.split, r.group, r.width, r.height) for r in self.records]
        turned = sum(image.orientation != 1 for image in images)
        depths = Counter(image.kind for image in images if image.kind)
        more = [f"{_count_kinds(depths)} bits", f"{turned or 'none'} turned by EXIF"] if depths else []
        return [describe_frames(frames, more, self.origins), self._describe_masks()]

    def _describe_masks(self) -> str:
        masks = [each.mask for each in self.seen if each.mask]
        said = sum(each.said_empty for each in self.seen)
        bare = sum(record.mask is None for record in self.records)
        without = [f"{count_of(bare, 'image')} without one"] if bare else []
        if not masks:
            return "; ".join(["masks: none", *without])
        shares = [mask.covered for mask in masks if mask.covered]
        empty = f"{len(masks) - len(shares)} empty" + (f" ({said} by --negatives)" if said else "")
        levels = _count_kinds(Counter(mask.kind for mask in masks if mask.kind))
        parts = [f"masks: {len(masks)}", f"levels {levels}" if levels else "", f"{len(shares)} with polyp", empty]
        if shares:
            middle, low, high = (f"{100 * share:.3g}%" for share in (median(shares), min(shares), max(shares)))
            parts.append(f"a polyp covers {middle} of the frame in the median ({low} to {high})")
        return "; ".join(filter(None, [*parts, *without]))

    def warn(self) -> None:
        """Warn of masks that seem to be inverted or the wrong ones, and of images that are read nearly black."""
        masks = [each for each in self.seen if each.mask]
        wide = sum(each.mask.covered > _INVERTED_FRAC for each in masks if each.mask)
        if wide > _INVERTED_SHARE * len(masks):
            warn(
                f"{wide} of {len(masks)} masks cover more than {_INVERTED_FRAC:.0%} of their frame: are they inverted? "
                "Polyps are white, the rest is black; `difom-cache manifest FOLDER --out FILE.csv --mask-levels 0` turns them"
            )
        tops: dict[str, list[int]] = defaultdict(list)
        for each in self.seen:
            if each.image and each.image.top:
                tops[each.record.dataset].append(each.image.top)
        for dataset, found in tops.items():
            bits = next((bits for bits in (8, 10, 12) if max(found) < 2**bits), None)
            if bits:
                warn(
                    f"{dataset}: its {len(found)} images of 16 bits have no level above {max(found)}, and no file says why. "
                    f"If they are of {bits} bits, they are read nearly black: run `difom-cache manifest DATA --bits {bits} --out "
                    "FILE.csv` (--bits 16 if they are as dark as that), and give FILE.csv as the data"
                )
        drawn = [each.mask for each in masks if each.mask and not each.said_empty]
        empty = sum(not mask.covered for mask in drawn)
        if empty > _MOST_EMPTY * len(drawn):
            warn(
                f"{empty} of {len(drawn)} masks show no polyp: are they the right masks? `difom-cache manifest DATA --sheet "
                "FILE.png` draws some of them"
            )


def describe_frames(frames: Sequence[Frame], more: Sequence[str], origins: Sequence[str]) -> str:
    """Return one line on images: how many of which set, their sizes, `more`, groups, and splits with what they follow from."""
    sets = Counter(frame[0] for frame in frames)
    sizes = sorted({frame[3:] for frame in frames}, key=lambda size: (size[0] * size[1], size))
    ends = " to ".join(f"{width} x {height}" for width, height in dict.fromkeys((sizes[0], sizes[-1])))
    groups, alone = {frame[2] for frame in frames} - {""}, sum(not frame[2] for frame in frames)
    grouped = f"{len(groups)} groups" + (f", {alone} images in none" if alone else "") if groups else "groups unknown"
    counts = Counter(frame[1] for frame in frames)
    splits = ", ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])
    told = _count_kinds(sets) if len(sets) > 1 else next(iter(sets))
    by = f" ({'; '.join(origins)})" if origins else ""
    return "; ".join(
        [f"images: {len(frames)} ({told})", ", ".join([f"{ends} px", *more]), grouped, f"splits: {splits}{by}"]
    )


def _count_kinds(kinds: Counter[str]) -> str:
    """Return the kinds, each with its number where there are several."""
    if len(kinds) < 2:
        return next(iter(kinds), "")
    told = [f"{kind} ({count})" for kind, count in kinds.most_common(_KINDS_TOLD)]
    return ", ".join(told) + (f" and {len(kinds) - _KINDS_TOLD} more" if len(kinds) > _KINDS_TOLD else "")
