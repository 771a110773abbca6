"""Pairs of tap and level that have one grid, compared as one: a GPU is given few large products in place of many small ones."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from difom_train.distill.comparison import Comparison, to_grid
from difom_train.distill.heads import read_levels
from difom_train.distill.matching import Match, teacher_of

Group = tuple[tuple[str, ...], Comparison]
"""The tap of each of P pairs, and the pairs as one comparison of (P * B, k, g, g)."""


def join_pairs(
    matches: Sequence[Match],
    heads: Iterable[nn.Module],
    levels: dict[str, Tensor],
    targets: dict[str, Tensor],
    inside_of: Callable[[Tensor], Tensor],
) -> list[Group]:
    """Return all pairs that have a target, those of one grid and one number of channels together.

    Args:
        matches, heads: of the pairs.
        levels: name to the student's map.
        targets: tap to its target.
        inside_of: gives (B, 1, g, g), 1 where a cell counts, for a map (B, k, g, g).
    """
    groups: dict[tuple[int, int], dict[str, list[tuple[str, nn.Module]]]] = defaultdict(lambda: defaultdict(list))
    for match, head in zip(matches, heads, strict=True):
        if match.tap not in targets:
            continue
        target = targets[match.tap]
        grid = min(levels[match.level].shape[-1], target.shape[-1])
        groups[grid, target.shape[1]][match.level].append((match.tap, head))
    joined = []
    for (grid, channels), by_level in groups.items():
        taps = [tap for own in by_level.values() for tap, _ in own]
        read = []
        for level, own in by_level.items():
            cells = read_levels([head for _, head in own], levels[level], grid)  # (B, g, g, P * k)
            read.append(cells.float().unflatten(-1, (len(own), channels)).permute(3, 0, 1, 2, 4))
        wanted = {tap: to_grid(targets[tap], grid).permute(0, 2, 3, 1) for tap in dict.fromkeys(taps)}
        student, target = torch.cat(read).flatten(0, 1), torch.stack([wanted[tap] for tap in taps]).flatten(0, 1)
        inside = inside_of(wanted[taps[0]].permute(0, 3, 1, 2)).repeat(len(taps), 1, 1, 1)
        pair = Comparison("", "", student.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2), inside)
        joined.append((tuple(taps), pair))
    return joined


def mean_together(losses: Sequence[tuple[tuple[str, ...], Tensor]]) -> Tensor:
    """Return the mean over teachers of the mean over each teacher's losses; (taps, (terms, P * B)) each -> (terms, B)."""
    every = tuple(tap for taps, _ in losses for tap in taps)
    parts = [
        (_shares(taps, every, loss.device) * loss.unflatten(1, (len(taps), -1))).sum(dim=1) for taps, loss in losses
    ]
    return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]


@lru_cache(maxsize=64)
def _shares(taps: tuple[str, ...], every: tuple[str, ...], device: torch.device) -> Tensor:
    """Return what each of some pairs adds to a mean over all pairs, (P, 1)."""
    own = Counter(teacher_of(tap) for tap in every)
    return torch.tensor([[1 / (len(own) * own[teacher_of(tap)])] for tap in taps], device=device)
