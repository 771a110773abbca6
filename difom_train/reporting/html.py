"""A comparison as one HTML file: tables, intervals, curves, cost and a gallery, with nothing to load from anywhere."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from difom_cache import __version__, write_atomic
from difom_train.evaluation.metrics import PROTOCOLS
from difom_train.evaluation.summary import PROTOCOL_TITLES, format_value
from difom_train.reporting.charts import DASHES, Interval, Line, draw_intervals, draw_lines
from difom_train.reporting.comparison import HEADLINES, Comparison
from difom_train.reporting.entries import Entry
from difom_train.reporting.gallery import KINDS, Case, Colour, gather_cases
from difom_train.reporting.overlap import Twins
from difom_train.reporting.tables import ScoreTable, metrics_of
from difom_train.training.run_folder import read_log

TRUTH_COLOUR: Colour = (250, 250, 245)
# For each entry, in turn: on the page, and on pictures, where yellows and reds would drown in the colon's own.
COLOURS: tuple[tuple[Colour, Colour], ...] = (
    ((0, 137, 150), (0, 235, 245)),
    ((142, 68, 190), (216, 130, 255)),
    ((74, 140, 40), (150, 255, 60)),
    ((208, 50, 130), (255, 90, 190)),
    ((40, 100, 200), (90, 170, 255)),
    ((200, 110, 20), (255, 200, 70)),
    ((90, 100, 110), (214, 222, 230)),
)
PANELS = (
    ("Training loss", ("loss", "segmentation"), False),
    ("Validation Dice at 0.5", ("val_dice",), False),
    ("Share of target variance explained", ("distill/explained/",), False),
    ("Variance of targets and projections", ("distill/target_var/", "distill/student_var/"), True),
)
RESEARCH_NOTICE = "For research only: not a medical device."


def write_report(
    comparison: Comparison, entries: Sequence[Entry], twins: Twins, path: Path, *, per_set: int, anonymous: bool = False
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
    sections = {
        "summary": ("Summary", _summary(comparison, own)),
        "scores": ("Scores", _table(comparison.table, own)),
        "clean": ("Without equal frames", _clean(comparison, twins, own)),
        "curves": ("Curves", _curves(entries, own)),
        "cost": ("Cost", _cost(comparison, own)),
        "gallery": ("Gallery", _gallery(cases)),
    }
    kept = {name: (title, body) for name, (title, body) in sections.items() if body}
    names = comparison.table.frames
    page = files("difom_train.reporting").joinpath("page")
    text = Template(page.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=escape(_count(len(entries), "network") + " on " + _count(len(names), "test set")),
        lead=escape(
            f"{sum(names.values())} frames of {', '.join(names)}, each scored at full size under two protocols. "
            f"Differences are against {entries[0].name}, the first that was named."
        ),
        nav="".join(f'<a href="#{name}">{escape(title)}</a>' for name, (title, _) in kept.items()),
        sections="\n".join(
            f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{escape(title)}</h2>{body}</section>'
            for name, (title, body) in kept.items()
        ),
        footer=escape(
            f"Made by difom {__version__}. {RESEARCH_NOTICE} The pictures may show patients: share with care."
        ),
        style=page.joinpath("page.css").read_text(encoding="utf-8"),
        script=page.joinpath("page.js").read_text(encoding="utf-8"),
        cases=_script_json(
            {
                "entries": [{"name": name, "colour": to_hex(each)} for name, each in zip(own, bright, strict=True)],
                "truth": to_hex(TRUTH_COLOUR),
                "cases": [asdict(case) for case in cases],
            }
        ),
    )
    write_atomic(path, text.encode())


def to_hex(colour: Colour) -> str:
    """Return a colour as CSS has it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _script_json(value: Any) -> str:
    """Return JSON that cannot close its script element."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _summary(comparison: Comparison, own: Mapping[str, str]) -> str:
    table = comparison.table
    place = table.places[-1]
    tiles = []
    for row in table.rows:
        if row.published:
            continue
        facts = [f"Dice at 0.5, {place}"]
        facts.append(f"{row.values[place]['pranet/dice']:.3f} under pranet")
        if cost := comparison.costs.get(row.name):
            facts.append(_cost_words(cost.parameters, cost.frames_per_s))
        lines = "".join(f"<p>{escape(fact)}</p>" for fact in facts)
        value = f"{row.values[place]['fixed/dice']:.3f}"
        tiles.append(
            f'<div class="tile" style="--own:{own[row.name]}"><h3>{escape(row.label)}</h3>'
            f'<p class="big">{value}</p>{lines}</div>'
        )
    parts = [f'<div class="summary">{"".join(tiles)}</div>']
    if comparison.differences:
        parts.append(_intervals(comparison, own))
    return "".join(parts)


def _cost_words(parameters: int | None, frames_per_s: float) -> str:
    size = f"{parameters / 1e6:.2f} M parameters, " if parameters is not None else ""
    return f"{size}{frames_per_s:.0f} frames/s"


def _intervals(comparison: Comparison, own: Mapping[str, str]) -> str:
    """Return the differences to the first entry as charts, one a protocol."""
    figures = []
    for metric in HEADLINES:
        intervals = [
            Interval(name, 100 * d.mean, 100 * d.low, 100 * d.high, own[name], d.render())
            for name, found in comparison.differences.items()
            for d in [found[metric]]
        ]
        title = f"Points of {metric.split('/')[0]} Dice against {comparison.table.rows[0].name}"
        figures.append(f"<figure><figcaption>{escape(title)}</figcaption>{draw_intervals(title, intervals)}</figure>")
    once = any(1 in d.seeds for found in comparison.differences.values() for d in found.values())
    note = (
        "Intervals of 95 % from a paired bootstrap over videos (or frames that show the same) within each test set, "
        "training seeds nested in their settings."
    )
    if once:
        note += " Where an entry has one seed, the chance of training is not covered: its interval is too narrow."
    return f'<div class="charts">{"".join(figures)}</div><div class="note"><p>{escape(note)}</p></div>'


def _clean(comparison: Comparison, twins: Twins, own: Mapping[str, str]) -> str:
    if comparison.clean is None:
        return "".join(f'<p class="hint">{escape(line)}</p>' for line in twins.describe())
    return _table(comparison.clean, own)


def _table(table: ScoreTable, own: Mapping[str, str]) -> str:
    """Return a table a protocol, and its notes."""
    parts = [f'<p class="hint">{escape(table.title)}. Bold: the best measured value of a set.</p>']
    for protocol in PROTOCOLS:
        metrics = metrics_of(protocol)
        head = "".join(f'<th scope="col">{escape(metric.label)}</th>' for metric in metrics)
        body = []
        for place, rows in table.blocks(protocol):
            frames = f" <span>{table.frames[place]} frames</span>" if place in table.frames else ""
            body.append(
                f'<tr class="place"><th scope="rowgroup" colspan="{len(metrics) + 1}">{escape(place)}{frames}</th></tr>'
            )
            for row in rows:
                cells = []
                for metric in metrics:
                    value = row.values[place].get(metric.name)
                    words = "" if value is None else format_value(metric, value)
                    cells.append(
                        f"<td><b>{words}</b></td>" if table.is_best(row, place, metric) else f"<td>{words}</td>"
                    )
                dot = "" if row.published else f'<span class="dot" style="--own:{own[row.name]}"></span>'
                kind = ' class="published"' if row.published else ""
                body.append(f'<tr{kind}><th scope="row">{dot}{escape(row.label)}</th>{"".join(cells)}</tr>')
        caption = escape(PROTOCOL_TITLES[protocol])
        parts.append(
            f'<h3 class="protocol">{caption}</h3>'
            f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table>'
            f'<thead><tr><th scope="col">Network</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        )
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    return "".join([*parts, f'<div class="note">{notes}</div>' if notes else ""])


def _curves(entries: Sequence[Entry], own: Mapping[str, str]) -> str:
    """Return the charts of every log: loss, validation, and how alive the distillation is."""
    logs = [(entry, run, read_log(run)) for entry in entries for run in entry.runs]
    figures = []
    for title, starts, logarithmic in PANELS:
        lines = []
        for entry, run, log in logs:
            for dash, key in enumerate(_keys_of(log, starts)):
                points = [(line["epoch"] + 1, line[key]) for line in log if line.get(key) is not None]
                name = f"{run.resolve().name}: {key.removeprefix('distill/')}"
                lines.append(Line(name, points, own[entry.name], dash))
        chart = draw_lines(title, lines, logarithmic=logarithmic)
        if chart:
            figures.append(f"<figure><figcaption>{escape(title)}</figcaption>{chart}{_legend(lines)}</figure>")
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _keys_of(log: Sequence[Mapping[str, Any]], starts: Sequence[str]) -> list[str]:
    found = dict.fromkeys(key for line in log for key, value in line.items() if isinstance(value, int | float))
    return [
        key for key in found if any(key == start or (start.endswith("/") and key.startswith(start)) for start in starts)
    ]


def _legend(lines: Iterable[Line]) -> str:
    items = []
    for line in lines:
        dash = f' stroke-dasharray="{DASHES[line.dash % len(DASHES)]}"' if line.dash else ""
        stroke = f'<path d="M0 3h26" stroke="{line.colour}" stroke-width="3"{dash}/>'
        items.append(f'<li><svg viewBox="0 0 26 6" aria-hidden="true">{stroke}</svg>{escape(line.name)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _cost(comparison: Comparison, own: Mapping[str, str]) -> str:
    if not comparison.costs:
        return ""
    head = "".join(
        f'<th scope="col">{words}</th>'
        for words in ("Input px", "M parameters", "GFLOPs", "p50 ms", "p95 ms", "Frames/s")
    )
    rows = []
    for name, cost in comparison.costs.items():
        values = [
            str(cost.input_px),
            "unknown" if cost.parameters is None else f"{cost.parameters / 1e6:.2f}",
            "unknown" if cost.gflops is None else f"{cost.gflops:.2f}",
            f"{cost.latency_p50_ms:.1f}",
            f"{cost.latency_p95_ms:.1f}",
            f"{cost.frames_per_s:.1f}",
        ]
        cells = "".join(f"<td>{value}</td>" for value in values)
        dot = f'<span class="dot" style="--own:{own[name]}"></span>'
        rows.append(f'<tr><th scope="row">{dot}{escape(name)}</th>{cells}</tr>')
    some = next(iter(comparison.costs.values()))
    note = f"Batch 1 on {some.device}, {some.threads} threads. One multiply-add counts as two operations."
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Cost"><table><thead><tr>'
        f'<th scope="col">Network</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f'<div class="note"><p>{escape(note)}</p></div>'
    )


def _gallery(cases: Sequence[Case]) -> str:
    if not cases:
        return ""
    sets = {"": "all", **{case.dataset: case.dataset for case in cases}}
    kinds = {"": "all", **{kind: kind for kind in KINDS if any(kind in case.kinds for case in cases)}}
    filters = [
        _choices("Test set", "set", sets),
        _choices("Frames", "kind", kinds),
        _choices("Outlines", "outlines", {"on": "shown", "off": "hidden"}),
    ]
    return (
        '<p class="hint">Chosen by Dice at 0.5, mean over the networks; most changed: furthest from the first network. '
        "Masks are those of the first seed. Enlarge a frame, then leaf with the arrow keys.</p>"
        f'{"".join(filters)}<p id="shown" aria-live="polite"></p><div id="gallery-cards" class="cards"></div>'
        "<noscript><p>The gallery needs JavaScript; the tables above do not.</p></noscript>"
    )


def _choices(legend: str, name: str, options: Mapping[str, str]) -> str:
    """Return a row of radio buttons, the first one chosen."""
    inputs = "".join(
        f'<label class="choice"><input type="radio" name="{name}" value="{escape(value)}"{" checked" if number == 0 else ""}>'
        f"<span>{escape(words)}</span></label>"
        for number, (value, words) in enumerate(options.items())
    )
    return f"<fieldset><legend>{escape(legend)}</legend>{inputs}</fieldset>"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
