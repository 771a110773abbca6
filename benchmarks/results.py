"""Tables of the pages, made from the results.json of studies that lie in benchmarks/results."""

import re
from pathlib import Path

from benchmarks.options import ResultsConfig
from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import RunError, SettingsError, name_nearest
from difom_cache.base.text import format_markdown
from difom_train.studies import read_results, tabulate

MARK = re.compile(r"(<!-- table of ([\w.-]+):(.*?)-->\n).*?(<!-- end of table -->)", re.S)
"""Where a table stands in a page: its file, the titles of its columns between bars (none: all), words in place of others
(`; FOUND = SHOWN`), and what was written last."""
_MADE_WITH = {"torch": "made", "revision": "made", "input_px": "data", "epochs": "optimizer"}
"What is said below a table, and where it lies: of a run's making, or of its settings."


def write_tables(config: ResultsConfig) -> list[str]:
    """Write the table of each file into the pages that name it; return a line for each.

    Raises:
        RunError: no such page, or a damaged file.
        SettingsError: a page asks for a column that the table lacks.
    """
    lines = []
    for page in config.pages:
        if not page.is_file():
            raise RunError(f"{page} does not exist; --pages names the pages to write tables into")
        text = page.read_text(encoding="utf-8")
        write_atomic(page, fill_page(text, config.folder).encode())
        for name in [found[2] for found in MARK.finditer(text)]:
            there = (config.folder / name).is_file()
            lines.append(f"{page}: {name}{'' if there else ' is not there: what stands in its place is kept'}")
    return lines


def fill_page(text: str, folder: Path) -> str:
    """Return a page with each of its tables made anew; where a file is missing, what stands there is kept."""

    def fill(found: re.Match[str]) -> str:
        path = folder / found[2]
        return f"{found[1]}\n{draw_table(path, found[3])}\n{found[4]}" if path.is_file() else found[0]

    return MARK.sub(fill, text)


def draw_table(path: Path, columns: str) -> str:
    """Return a study's table as Markdown, and below it what its runs were trained with."""
    runs, beside = read_results(path)
    head, *rows = tabulate(runs, beside).words
    titles, *words = columns.split(";")
    asked = [each.strip() for each in titles.split("|") if each.strip()] or head
    for column in asked:
        if column not in head:
            raise SettingsError(f"{path}: {name_nearest('column', column, head)}")
    table = format_markdown([[row[head.index(column)] for column in asked] for row in (head, *rows)])
    for found, shown in (each.split(" = ") for each in words):
        table = table.replace(found.strip(), shown.strip())
    facts = [{"made": run.made, **(run.settings or {})} for run in runs.values()]
    said = [("on", [each["made"].get("gpu", each["made"].get("cpu")) for each in facts])]
    said += [(name, [each.get(place, {}).get(name) for each in facts]) for name, place in _MADE_WITH.items()]
    made = [f"{name} {' and '.join(dict.fromkeys(map(str, values)))}" for name, values in said]
    return f"{table}\n{len(runs)} runs: {', '.join(made)}.\n"
