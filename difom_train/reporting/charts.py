"""Small line and interval charts as SVG text, for a page that loads nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 30
TICKS = 4
DASHES = ("", "6 3", "2 3", "8 3 2 3")


@dataclass(frozen=True)
class Line:
    """One curve: its name, its points, its colour, and the dash that tells lines of one colour apart."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dash: int = 0


@dataclass(frozen=True)
class Interval:
    """One estimate with its interval."""

    name: str
    value: float
    low: float
    high: float
    colour: str
    words: str


def draw_lines(title: str, lines: Sequence[Line], *, logarithmic: bool = False) -> str:
    """Return a chart of curves over epochs; values that a logarithmic axis cannot show are left out."""
    kept = [
        (line, [(x, y) for x, y in line.points if math.isfinite(y) and (y > 0 or not logarithmic)]) for line in lines
    ]
    values = [y for _, points in kept for _, y in points]
    if not values:
        return ""
    across = [x for _, points in kept for x, _ in points]
    low, high = _span([math.log10(y) for y in values] if logarithmic else values)
    first, last = min(across), max(max(across), min(across) + 1)

    def place(x: float, y: float) -> str:
        height = math.log10(y) if logarithmic else y
        return (
            f"{LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT):.1f},"
            f"{HEIGHT - BOTTOM - (height - low) / (high - low) * (HEIGHT - TOP - BOTTOM):.1f}"
        )

    parts = [_frame(title, low, high, first, last, logarithmic=logarithmic)]
    for line, points in kept:
        if not points:
            continue
        drawn = " ".join(place(x, y) for x, y in points)
        dash = f' stroke-dasharray="{DASHES[line.dash % len(DASHES)]}"' if line.dash else ""
        if len(points) == 1:
            x, y = drawn.split(",")
            parts.append(
                f'<circle cx="{x}" cy="{y}" r="3" fill="{line.colour}"><title>{escape(line.name)}</title></circle>'
            )
        else:
            parts.append(
                f'<polyline points="{drawn}" fill="none" stroke="{line.colour}" stroke-width="2"{dash} '
                f'stroke-linejoin="round"><title>{escape(line.name)}</title></polyline>'
            )
    return "".join([*parts, "</svg>"])


def draw_intervals(title: str, intervals: Sequence[Interval]) -> str:
    """Return a chart of estimates with their intervals around a line at zero."""
    row_px, head_px = 44, 30
    width, height = 560, head_px + row_px * len(intervals) + 26
    reach = max(1e-9, *(abs(end) for each in intervals for end in (each.low, each.high))) * 1.15
    left, right = 16, width - 16

    def place(value: float) -> float:
        return left + (value + reach) / (2 * reach) * (right - left)

    zero = place(0)
    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">',
        f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="8" y2="{height - 24}" class="zero"/>',
        f'<text x="{zero:.1f}" y="{height - 8}" text-anchor="middle">0</text>',
        f'<text x="{left}" y="{height - 8}">{-reach:.1f}</text>',
        f'<text x="{right}" y="{height - 8}" text-anchor="end">+{reach:.1f}</text>',
    ]
    for number, each in enumerate(intervals):
        y = head_px + row_px * number
        parts += [
            f'<text x="{left}" y="{y - 12}" class="name">{escape(each.name)}</text>',
            f'<text x="{right}" y="{y - 12}" text-anchor="end">{escape(each.words)}</text>',
            f'<line x1="{place(each.low):.1f}" x2="{place(each.high):.1f}" y1="{y}" y2="{y}" stroke="{each.colour}" '
            'stroke-width="4" stroke-linecap="round"/>',
            f'<circle cx="{place(each.value):.1f}" cy="{y}" r="6" fill="{each.colour}"/>',
        ]
    return "".join([*parts, "</svg>"])


def _frame(title: str, low: float, high: float, first: float, last: float, *, logarithmic: bool) -> str:
    """Return the opening of a chart: grid, numbers, title for screen readers."""
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for number in range(TICKS + 1):
        value = low + (high - low) * number / TICKS
        y = HEIGHT - BOTTOM - number / TICKS * (HEIGHT - TOP - BOTTOM)
        words = f"{10**value:.1g}" if logarithmic else f"{value:.3g}"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{words}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}">epoch {first:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{last:g}</text>')
    return "".join(parts)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin
