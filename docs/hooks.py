"""What mkdocs runs while it builds the site: tables of options are made from the commands themselves."""

import re
from importlib import import_module
from typing import Any

import typer

import difom_cache.cli
import difom_train.cli
from difom_cache.base.options import find_config, format_options

MARK = re.compile(r"^<!-- options of (difom-cache|difom-train) -->$", re.M)
PACKAGE = re.compile(
    r"^::: (difom_cache|difom_train)$", re.M
)  # whose names are loaded late: no list of them stands in the code
SPEC = re.compile(r"(?<!`)\S+\[\S+\](?!`)")  # NAME[:VARIANT], which Markdown would take for a link
OUTSIDE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+(?:tests|benchmarks|difom_cache|difom_train|data_manifests|CONTRIBUTING|README)[^)]*\)"
)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put every command's options where a page asks for them; links that leave docs/ become plain text."""
    apps = {"difom-cache": difom_cache.cli.app, "difom-train": difom_train.cli.app}
    markdown = PACKAGE.sub(
        lambda found: f"{found[0]}\n    options:\n      members: {import_module(found[1]).__all__}", markdown
    )
    markdown = MARK.sub(lambda found: describe(typer.main.get_command(apps[found[1]]), found[1]), markdown)
    return OUTSIDE.sub(r"`\1`", markdown)


def describe(command: Any, name: str) -> str:
    """Return a section of Markdown for a click command and, below it, one for each of its subcommands."""
    parts = []
    if place := getattr(command, "config", None):
        options = format_options(find_config(place)).replace("### ", "### Section ")
        parts = [f"## {name}", "", (command.help or "").strip(), "", SPEC.sub(r"`\g<0>`", options), ""]
    below = getattr(command, "commands", {}).items()
    return "\n".join([*parts, *(describe(each, f"{name} {word}") for word, each in below)])
