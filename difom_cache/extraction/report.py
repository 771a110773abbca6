"""What a run did, and where its time went: seconds by stage."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difom_cache.base.text import Shown, count_of, format_bytes, format_seconds
from difom_cache.extraction.estimate import Estimate

STAGES = ("decode", "render", "teacher", "encode", "copy", "write", "wait")


@dataclass(repr=False)
class ExtractReport(Shown):
    """What a run did: the estimate it began with, seconds by column and stage, blocks computed, missing, and missing
    of this run's own part (`left_blocks`), which is a failure."""

    cache: Path
    estimate: Estimate
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    wall_s: dict[str, float] = field(default_factory=dict)
    views: Counter[str] = field(default_factory=Counter)
    computed_blocks: Counter[str] = field(default_factory=Counter)
    missing_blocks: dict[str, int] = field(default_factory=dict)
    left_blocks: dict[str, list[int]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every block of every column of this run is finished."""
        return not any(self.missing_blocks.values())

    def _line(self) -> str:
        missing = sum(self.missing_blocks.values())
        state = f"{count_of(missing, 'block')} missing" if missing else "complete"
        return (
            f"{self.cache}: {state}; {count_of(self.estimate.rows, 'view')}, {format_bytes(self.estimate.total_bytes)}"
        )

    def _table(self) -> list[list[object]]:
        rows: list[list[object]] = [["column", "a view", "blocks computed", "blocks missing"]]
        for folder, missing in self.missing_blocks.items():
            name = folder.removeprefix("teachers/")
            sizes = self.estimate.bytes_per_view.items()
            size = sum(each for array, each in sizes if array.partition("/")[0] == name)
            rows.append([name, format_bytes(size), self.computed_blocks[folder], missing])
        return rows


def format_rates(report: ExtractReport) -> str:
    """Return one table of seconds by stage, and what each column was limited by."""
    lines = []
    for folder, seconds in report.seconds.items():
        views = report.views[folder]
        missing = report.missing_blocks.get(folder, 0)
        state = f"{missing} blocks missing" if missing else "complete"
        if not views:
            lines.append(f"{folder}: {state}, nothing to compute")
            continue
        wall_s = report.wall_s[folder]
        lines.append(f"{folder}: {state}; {views} views in {format_seconds(wall_s)}, {views / wall_s:.1f} views/s")
        lines.append("  " + "  ".join(f"{stage} {seconds[stage]:.1f} s" for stage in STAGES))
        lines.append(f"  limited by {name_limit(seconds)}")
    return "\n".join(lines)


def name_limit(seconds: dict[str, Any]) -> str:
    """Return the stage that the pass waited for longest, in words."""
    if seconds["wait"] > seconds["teacher"] + seconds["render"] + seconds["encode"] + seconds["copy"]:
        return "reading and decoding pictures" if seconds["decode"] > seconds["write"] else "writing to the disk"
    stage = max(("render", "teacher", "encode", "copy"), key=lambda name: seconds[name])
    return {"render": "rendering views", "teacher": "the teacher", "encode": "pooling and encoding"}.get(
        stage, "copying codes"
    )
