"""What a comparison found: tables, differences with intervals, costs; and how it reads on a terminal and for programs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from difom_cache.base.text import Shown, count_of, format_table
from difom_train.evaluation.cost import Cost
from difom_train.reporting.bootstrap import Difference
from difom_train.reporting.tables import ScoreTable

HEADLINES = ("fixed/dice", "pranet/dice")  # what differences are given for


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """What `compare` found and wrote.

    Attributes:
        out: the folder.
        table: every frame.
        clean: without frames that repeat another or show a training picture; None if no frame does.
        differences: entry name to "fixed/dice" or "pranet/dice" to its difference to the first entry.
        costs: entry name to its cost; empty if it was not measured.
    """

    out: Path
    table: ScoreTable
    clean: ScoreTable | None
    differences: Mapping[str, Mapping[str, Difference]]
    costs: Mapping[str, Cost]

    def render(self) -> str:
        """Return both tables and the differences."""
        parts = [self.table.render()]
        if self.clean is not None:
            parts.append(self.clean.render())
        if self.differences:
            parts.append(f"{self.difference_title}\n{format_table(self.difference_rows())}")
        return "\n\n".join([*parts, f"report: {self.out / 'report.html'}"])

    def _line(self) -> str:
        measured = sum(not row.published for row in self.table.rows)
        return f"{count_of(measured, 'network')}, Dice at 0.5; report: {self.out / 'report.html'}"

    def _table(self) -> list[list[str]]:
        name, rows = HEADLINES[0], [row for row in self.table.rows if not row.published]
        gains = {entry: found[name].render() for entry, found in self.differences.items()}
        cells = [[f"{row.values[place][name]:.3f}" for place in self.table.places] for row in rows]
        head = ["network", *self.table.places, f"points over {rows[0].name}"]
        return [head, *([r.label, *cell, gains.get(r.name, "-")] for r, cell in zip(rows, cells, strict=True))]

    @property
    def difference_title(self) -> str:
        """Return what the differences are of."""
        first, places = self.table.rows[0].name, self.table.places
        return f"difference to {first} in points of Dice ({places[-1]}), 95 % interval, p"

    def difference_rows(self) -> list[list[str]]:
        """Return a head line and a line an entry."""
        rows = [["network", *(f"{name.replace('/dice', '')} mDice" for name in HEADLINES)]]
        for name, found in self.differences.items():
            rows.append([name, *(found[metric].render() for metric in HEADLINES)])
        return rows

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        tables = [self.table] if self.clean is None else [self.table, self.clean]
        return {
            "scores": [record for table in tables for record in table.to_records()],
            "notes": [list(table.notes) for table in tables],
            "differences": {
                name: {metric: asdict(difference) for metric, difference in found.items()}
                for name, found in self.differences.items()
            },
            "costs": {name: asdict(cost) for name, cost in self.costs.items()},
            "report": str(self.out / "report.html"),
        }
