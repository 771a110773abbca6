"""What a check of a cache found, and how it is told."""

from dataclasses import dataclass, field
from typing import Any

from difom_cache.base.text import Shown, format_table


@dataclass(repr=False)
class VerifyReport(Shown):
    """What was found: problems as sentences, damaged and missing blocks by column folder, comparisons by tap, and notes."""

    checked_files: int = 0
    problems: list[str] = field(default_factory=list)
    damaged: dict[str, list[int]] = field(default_factory=dict)
    missing: dict[str, list[int]] = field(default_factory=dict)
    recomputed: dict[str, dict[str, float]] = field(default_factory=dict)
    mirrored: dict[str, float] = field(default_factory=dict)
    warped: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing was found damaged; missing blocks are no damage."""
        return not self.problems

    def render(self) -> str:
        """Return what was found, a line each."""
        lines = [*self.problems]
        for folder, blocks in self.missing.items():
            lines.append(
                f"{folder}: {len(blocks)} blocks are not there yet; `difom-cache extract` with the same arguments makes them"
            )
        for name, figures in self.recomputed.items():
            lines.append(
                f"{name}: stored against live over {figures['views']:.0f} views: cosine {figures['cosine_mean']:.6f}, "
                f"1st percentile {figures['cosine_percentile_1']:.6f}, largest error {figures['max_error']:.3g}"
            )
        for tap, cosine in self.mirrored.items():
            lines.append(f"{tap}: a mirrored cached map against the map of the mirrored picture: cosine {cosine:.4f}")
        if self.warped:
            lines.append(format_warped(self.warped))
        lines += self.notes
        if self.damaged:
            named = ", ".join(f"{folder} {numbers}" for folder, numbers in self.damaged.items())
            lines.append(
                f"damaged blocks: {named}; `difom-cache extract` with the same arguments makes just those anew"
            )
        lines.append(self._line())
        return "\n".join(lines)

    def _line(self) -> str:
        return f"{self.checked_files} files checked, {'sound' if self.sound else f'{len(self.problems)} problems'}"

    def _table(self) -> list[list[object]]:
        rows: list[list[object]] = [["column", "damaged blocks", "missing blocks"]]
        for folder in self.damaged | self.missing:
            rows.append([folder, self.damaged.get(folder, []), self.missing.get(folder, [])])
        return rows

    def as_json(self) -> dict[str, Any]:
        """Return the report for a program to read."""
        return {**vars(self), "sound": self.sound}


def format_warped(figures: dict[str, dict[str, float]]) -> str:
    """Return the figures as a table, a line a tap."""
    rows = [["view 0's map, warped, against the encoded one", "cosine", "Dice encoded", "Dice warped"]]
    for tap, figure in figures.items():
        dice = [f"{figure[name]:.3f}" if name in figure else "" for name in ("dice_encoded", "dice_warped")]
        rows.append([tap, f"{figure['cosine']:.3f}", *dice])
    views = next(iter(figures.values()))["views"]
    return f"{format_table(rows)}\n{views:.0f} views; Dice at 0.5 against the stored masks"
