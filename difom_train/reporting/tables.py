"""One table of all entries by test set, written for a terminal, Markdown, LaTeX and CSV."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from difom_cache.base.text import format_csv, format_markdown, format_table
from difom_train.evaluation.metrics import PROTOCOLS
from difom_train.evaluation.summary import (
    METRICS,
    PROTOCOL_TITLES,
    Metric,
    counted_sets,
    format_value,
    mean_label,
)
from difom_train.reporting.entries import Entry
from difom_train.reporting.published import FOOTNOTE

MARK = "†"  # after the name of a published row
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
)


@dataclass(frozen=True)
class Row:
    """One network in a table: test set, or the mean's label, to metric name to value."""

    name: str
    published: bool
    seeds: int
    values: Mapping[str, Mapping[str, float]]

    @property
    def label(self) -> str:
        """Return the name with what a reader must know at once."""
        seeds = f" ({self.seeds} seeds)" if self.seeds > 1 else ""
        return f"{self.name}{seeds}{f' {MARK}' if self.published else ''}"


@dataclass(frozen=True)
class ScoreTable:
    """Rows by test set.

    Attributes:
        title: what the table shows.
        frames: test set to how many frames it has here.
        rows: measured entries first, then published ones.
        notes: a sentence each.
    """

    title: str
    frames: Mapping[str, int]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def places(self) -> list[str]:
        """Return the test sets, and the mean if there are several."""
        names = list(self.frames)
        return [*names, mean_label(names)] if len(names) > 1 else names

    def blocks(self, protocol: str) -> Iterator[tuple[str, list[Row]]]:
        """Yield each place with the rows that have scores there under a protocol."""
        for place in self.places:
            rows = [row for row in self.rows if any(m.name in row.values.get(place, {}) for m in metrics_of(protocol))]
            if rows:
                yield place, rows

    def best(self, place: str, metric: Metric) -> float | None:
        """Return the best measured value as it is written, or None where fewer than two rows compete."""
        values = [
            round(row.values[place][metric.name], metric.decimals)
            for row in self.rows
            if not row.published and metric.name in row.values.get(place, {})
        ]
        if len(values) < 2:
            return None
        return max(values) if metric.rises else min(values)

    def is_best(self, row: Row, place: str, metric: Metric) -> bool:
        """Return whether a measured row has the best value of its block."""
        value = row.values[place].get(metric.name)
        return not row.published and value is not None and round(value, metric.decimals) == self.best(place, metric)

    def render(self) -> str:
        """Return the table for a terminal."""
        parts = [self.title]
        for protocol in PROTOCOLS:
            rows = [["test set / network", *(metric.label for metric in metrics_of(protocol))]]
            for place, block in self.blocks(protocol):
                rows.append([f"{self._place(place)}", *("" for _ in metrics_of(protocol))])
                rows += [[f"  {row.label}", *self._cells(row, place, protocol)] for row in block]
            parts.append(f"{PROTOCOL_TITLES[protocol]}\n{format_table(rows)}")
        return "\n\n".join([*parts, "\n".join(self.notes)]).rstrip()

    def to_markdown(self) -> str:
        """Return the table as Markdown, best measured values in bold."""
        lines = [f"## {self.title}", ""]
        for protocol in PROTOCOLS:
            lines += [f"**{PROTOCOL_TITLES[protocol]}**", ""]
            rows = [["test set", "network", *(metric.label for metric in metrics_of(protocol))]]
            rows += [row for block in self._words(protocol, "**{}**") for row in block]
            lines.append(format_markdown(rows, left=2))
        return "\n".join([*lines, *self.notes, ""])

    def to_latex(self) -> str:
        """Return the table as LaTeX (booktabs), best measured values in bold."""
        lines = []
        for protocol in PROTOCOLS:
            metrics = metrics_of(protocol)
            lines += [r"\begin{table}[t]", r"\centering", r"\small", rf"\begin{{tabular}}{{ll{'r' * len(metrics)}}}"]
            lines += [r"\toprule", "Test set & Network & " + " & ".join(_escape(m.label) for m in metrics) + r" \\"]
            for block in self._words(protocol, r"\textbf{{{}}}"):
                lines.append(r"\midrule")
                for place, name, *cells in block:
                    row = [_escape(place), _escape(name), *cells]
                    lines.append(" & ".join(row).replace(MARK, r"$\dagger$") + r" \\")
            caption = _escape(f"{self.title}. Protocol {PROTOCOL_TITLES[protocol]}. {' '.join(self.notes)}")
            caption = caption.replace(MARK, r"$\dagger$")
            lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}"]
            lines += [r"\end{table}", ""]
        return "\n".join(lines)

    def to_records(self) -> list[dict[str, Any]]:
        """Return one dictionary a place, row and metric: the long form that CSV and JSON hold."""
        return [
            {
                "table": self.title,
                "test_set": place,
                "frames": self.frames.get(place, ""),
                "network": row.name,
                "published": row.published,
                "seeds": row.seeds,
                "protocol": metric.protocol,
                "metric": metric.key,
                "value": row.values[place][metric.name],
            }
            for place in self.places
            for row in self.rows
            for metric in METRICS
            if metric.name in row.values.get(place, {})
        ]

    def _words(self, protocol: str, bold: str) -> Iterator[list[list[str]]]:
        """Yield each place's rows: the place where it begins, the network, and values, the best measured ones in `bold`."""
        for place, block in self.blocks(protocol):
            rows: list[list[str]] = []
            for row in block:
                cells = zip(self._cells(row, place, protocol), metrics_of(protocol), strict=True)
                values = [
                    bold.format(cell) if cell and self.is_best(row, place, each) else cell for cell, each in cells
                ]
                rows.append(["" if rows else self._place(place), row.label, *values])
            yield rows

    def _place(self, place: str) -> str:
        return f"{place} ({self.frames[place]})" if place in self.frames else place

    def _cells(self, row: Row, place: str, protocol: str) -> list[str]:
        values = row.values[place]
        return [format_value(m, values[m.name]) if m.name in values else "" for m in metrics_of(protocol)]


def metrics_of(protocol: str) -> list[Metric]:
    """Return the columns of a protocol."""
    return [metric for metric in METRICS if metric.protocol == protocol]


def build_table(
    title: str,
    entries: Sequence[Entry],
    published: Mapping[str, Mapping[str, Mapping[str, float]]],
    notes: Sequence[str],
) -> ScoreTable:
    """Return the table of some entries, with published rows below them."""
    frames = {name: len(scores.frames) for name, scores in entries[0].seeds[0].items()}
    names = list(frames)
    rows = [Row(entry.name, False, len(entry.seeds), _with_mean(entry.summarise(), names)) for entry in entries] + [
        Row(name, True, 1, _with_mean(dict(values), names)) for name, values in published.items()
    ]
    if published:
        notes = [*notes, f"{MARK} {FOOTNOTE}."]
    return ScoreTable(title, frames, tuple(rows), tuple(notes))


def to_csv(tables: Sequence[ScoreTable]) -> str:
    """Return tables in long form as CSV."""
    return format_csv([record for table in tables for record in table.to_records()])


def _with_mean(values: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """Return the values with the mean over sets, if they hold every set that it counts."""
    counted = counted_sets(names)
    if len(names) < 2 or any(name not in values for name in counted):
        return dict(values)
    shared = [m.name for m in METRICS if all(m.name in values[name] for name in counted)]
    means = {metric: sum(values[name][metric] for name in counted) / len(counted) for metric in shared}
    return {**values, mean_label(names): means}


def _escape(words: str) -> str:
    return words.translate(_LATEX)
