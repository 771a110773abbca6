"""The view policies that there are, as a table."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from difom_cache.base.text import format_table
from difom_cache.views.draw import POLICIES, ViewPolicy


def describe_plans(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the fields of some policies by their names."""
    return {name: asdict(POLICIES[name]) for name in names}


def format_plans(names: Sequence[str]) -> str:
    """Return some policies in words, one a line."""
    rows = [
        ("plan", "mirrored", "quarter turns", "least of the frame", "aspect", "rotated", "corners", "recorded colour")
    ]
    return format_table(
        [*rows, *(_as_line(name, policy) for name, policy in ((name, POLICIES[name]) for name in names))], left=None
    )


def _as_line(name: str, policy: ViewPolicy) -> tuple[str, ...]:
    share, angle = policy.rotate_frac, policy.largest_angle_deg
    return (
        name,
        "half, both ways" if policy.flips else "no",
        "0 to 3" if policy.quarter_turns else "no",
        f"{policy.smallest_keep_frac:.0%} of its area",
        f"up to x {policy.largest_aspect:g}" if policy.largest_aspect > 1 else "the frame's",
        f"{share:.0%}, up to {angle:g} degrees" if share else "no",
        ("empty" if policy.pad else "cut off") if share else "-",
        f"up to {policy.colour_permille / 10:g} %" if policy.colour_permille else "no",
    )
