"""A comparison as one HTML file: tables, intervals, curves, cost and a gallery, with nothing to load from anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from difom_cache import __version__
from difom_cache.base.atomic import write_atomic
from difom_train.evaluation.metrics import PROTOCOLS
from difom_train.evaluation.summary import PROTOCOL_TITLES, format_value
from difom_train.reporting.comparison import HEADLINES, Comparison
from difom_train.reporting.entries import Entry
from difom_train.reporting.figures import DASHES, Interval, Line, draw_intervals, draw_lines
from difom_train.reporting.gallery import KINDS, Colour, gather_cases
from difom_train.reporting.overlap import Twins
from difom_train.reporting.tables import metrics_of
from difom_train.training.curves import DICE, LOSSES, STYLES, VARIANCES, list_panels
from difom_train.training.run_folder import read_log

TRUTH_COLOUR: Colour = (250, 250, 245)
# For each entry, in turn: on the page, and on images, where yellows and reds would drown in the colon's own. The first three and
# the truth are told apart by colour-blind readers; more networks than that have their names beside their outlines.
COLOURS: tuple[tuple[Colour, Colour], ...] = (
    ((40, 100, 200), (60, 140, 255)),
    ((208, 50, 130), (255, 60, 150)),
    ((74, 140, 40), (150, 255, 60)),
    ((0, 137, 150), (0, 235, 245)),
    ((142, 68, 190), (216, 130, 255)),
    ((200, 110, 20), (255, 200, 70)),
    ((90, 100, 110), (214, 222, 230)),
)
RESEARCH_NOTICE = "For research only: not a medical device."


def write_report(
    comparison: Comparison,
    entries: Sequence[Entry],
    twins: Twins,
    path: Path,
    *,
    per_set: int,
    anonymous: bool = False,
) -> None:
    """Write the report of a comparison.

    Args:
        comparison: what `compare` found.
        entries: its entries, in the table's order.
        twins: what is known of frames that show the same.
        path: the HTML file.
        per_set: about how many frames of each set the gallery shows.
        anonymous: number the frames in place of naming them.
    """
    pairs = [COLOURS[number % len(COLOURS)] for number in range(len(entries))]
    bright = [colour for _, colour in pairs]
    cases = gather_cases(entries, per_set=per_set, colours=bright, truth_colour=TRUTH_COLOUR)
    if anonymous:
        cases = [replace(case, id=f"frame {number}") for number, case in enumerate(cases, start=1)]
    own = {entry.name: to_hex(colour) for entry, (colour, _) in zip(entries, pairs, strict=True)}
    page = files("difom_train.reporting").joinpath("page")
    # Whatever is filled in is escaped, style and script aside, which are ours; tojson cannot close its script element.
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(page.joinpath("page.html").read_text(encoding="utf-8"))
    content = _summary(comparison, own) | _costs(comparison) | {"curves": _curves(entries, own)}
    sections = {
        "summary": "Summary",
        "scores": "Scores",
        "clean": "Without equal frames",
        "curves": "Curves" if content["curves"] else "",
        "cost": "Cost" if content["costs"] else "",
        "gallery": "Gallery" if cases else "",
    }
    names = comparison.table.frames
    text = template.render(
        **content,
        title=_count(len(entries), "network") + " on " + _count(len(names), "test set"),
        lead=f"{sum(names.values())} frames of {', '.join(names)}, each scored at full size under two protocols. "
        f"Differences are against {entries[0].name}, the first that was named.",
        footer=f"Made by difom {__version__}. {RESEARCH_NOTICE} The pictures may show patients: share with care.",
        style=Markup(page.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(page.joinpath("page.js").read_text(encoding="utf-8")),
        sections={name: words for name, words in sections.items() if words},
        own=own,
        table=comparison.table,
        clean=comparison.clean,
        overlap=twins.describe(),
        protocols=PROTOCOLS,
        titles=PROTOCOL_TITLES,
        metrics_of=metrics_of,
        format_value=format_value,
        filters={
            "sets": {"": "all", **{case.dataset: case.dataset for case in cases}},
            "kinds": {"": "all", **{kind: kind for kind in KINDS if any(kind in case.kinds for case in cases)}},
        },
        cases={
            "entries": [{"name": name, "colour": to_hex(each)} for name, each in zip(own, bright, strict=True)],
            "truth": to_hex(TRUTH_COLOUR),
            "cases": [asdict(case) for case in cases],
        },
    )
    write_atomic(path, text.strip().encode() + b"\n")


def to_hex(colour: Colour) -> str:
    """Return a colour as CSS has it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _summary(comparison: Comparison, own: Mapping[str, str]) -> dict[str, Any]:
    """Return a tile for each measured network, and the differences to the first as a chart a protocol."""
    table, place = comparison.table, comparison.table.places[-1]
    tiles = []
    for row in table.rows:
        if row.published:
            continue
        facts = [f"Dice at 0.5, {place}", f"{row.values[place]['pranet/dice']:.3f} under pranet"]
        if cost := comparison.costs.get(row.name):
            size = f"{cost.parameters / 1e6:.2f} M parameters, " if cost.parameters is not None else ""
            facts.append(f"{size}{cost.frames_per_s:.0f} frames/s")
        value = f"{row.values[place]['fixed/dice']:.3f}"
        tiles.append({"colour": own[row.name], "label": row.label, "value": value, "facts": facts})
    intervals = {}
    for metric in HEADLINES if comparison.differences else ():
        title = f"Points of {metric.split('/')[0]} Dice against {table.rows[0].name}"
        intervals[title] = draw_intervals(
            [
                Interval(name, 100 * d.mean, 100 * d.low, 100 * d.high, own[name], d.render())
                for name, found in comparison.differences.items()
                for d in [found[metric]]
            ]
        )
    note = (
        "Intervals of 95 % from a paired bootstrap over videos (or frames that show the same) within each test set, "
        "training seeds nested in their settings."
    )
    if any(1 in d.seeds for found in comparison.differences.values() for d in found.values()):
        note += " Where an entry has one seed, the chance of training is not covered: its interval is too narrow."
    return {"tiles": tiles, "intervals": intervals, "interval_notes": [note]}


def _curves(entries: Sequence[Entry], own: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the charts of the logs, with legends: loss and validation of all runs, then what each entry's first run learnt.

    Loss and validation have the colour of the entry; what is learnt has one for each teacher and a style for each of its
    taps, as in curves.png.
    """
    logs = [(entry, run, log) for entry in entries for run in entry.runs if (log := read_log(run))]
    panels = {run: list_panels(log) for _, run, log in logs}
    charts = []
    for panel, title in ((LOSSES, "Training loss"), (DICE, "Validation Dice at 0.5")):
        lines = []
        for entry, run, log in logs:
            for style, curve in enumerate(panels[run].get(panel, ())):
                name = run.resolve().name if panel == DICE else f"{run.resolve().name}, {curve.label}"
                lines.append(Line(name, _points_of(log, curve.key), own[entry.name], style))
        charts += _chart(title, lines)
    for entry in entries:
        for run, log in [(run, log) for each, run, log in logs if each is entry][:1]:
            for panel, curves in panels[run].items():
                if panel not in (LOSSES, DICE):
                    lines = [
                        Line(each.label, _points_of(log, each.key), each.colour, STYLES.index(each.style))
                        for each in curves
                    ]
                    title = f"{run.resolve().name}: {panel}"
                    charts += _chart(title, lines, logarithmic=panel == VARIANCES)
    return charts


def _points_of(log: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(line["epoch"] + 1, line[key]) for line in log if line.get(key) is not None]


def _chart(title: str, lines: Sequence[Line], *, logarithmic: bool = False) -> list[dict[str, Any]]:
    """Return one chart with its legend; none where no value can be shown."""
    source = draw_lines(lines, logarithmic=logarithmic)
    legend = [{"name": line.name, "colour": line.colour, "dash": DASHES[line.style % len(DASHES)]} for line in lines]
    return [{"title": title, "source": source, "legend": legend}] if source else []


def _costs(comparison: Comparison) -> dict[str, Any]:
    """Return the rows of the cost table."""
    rows = {name: cost.words() for name, cost in comparison.costs.items()}
    where = [f"Batch 1 on {cost.device}, {cost.threads} threads." for cost in comparison.costs.values()][:1]
    return {
        "costs": rows,
        "cost_head": ("Input px", "M parameters", "GFLOPs", "p50 ms", "p95 ms", "Frames/s"),
        "cost_notes": [f"{line} One multiply-add counts as two operations." for line in where],
    }


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
