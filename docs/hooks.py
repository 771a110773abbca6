"""What mkdocs runs while it builds the site: tables of options are made from the commands themselves."""

import re
from importlib import import_module
from typing import Any

import typer

import difom_cache.cli
import difom_train.cli
from difom_cache.options import find_config, format_options

MARK = re.compile(r"^<!-- options of (difom-cache|difom-train) -->$", re.M)
PACKAGE = re.compile(
    r"^::: (difom_cache|difom_train)$", re.M
)  # whose names are loaded late: no list of them stands in the code
SPEC = re.compile(r"(?<!`)\S+\[\S+\](?!`)")  # NAME[:VARIANT], which Markdown would take for a link
OUTSIDE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+(?:tests|difom_cache|difom_train|data_manifests|CONTRIBUTING|README)[^)]*\)"
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
    commands = getattr(command, "commands", {})
    config = getattr(command, "config", None)
    if config is not None:
        options = format_options(find_config(config)).replace("### ", "### Section ")
        parts = [f"## {name}", "", (command.help or "").strip(), "", SPEC.sub(r"`\g<0>`", options), ""]
        return "\n".join([*parts, *(describe(each, f"{name} {word}") for word, each in commands.items())])
    parameters = [each for each in command.params if each.name != "help" and not getattr(each, "hidden", False)]
    parts = []
    if parameters or not commands:
        parts += [f"## {name}", "", (command.help or "").strip(), ""]
        parts += [table(parameters), ""] if parameters else []
    return "\n".join([*parts, *(describe(each, f"{name} {word}") for word, each in commands.items())])


def table(parameters: list[Any]) -> str:
    """Return the parameters of one command as a table of Markdown."""
    lines = ["| option | default | what it is |", "| --- | --- | --- |"]
    for each in parameters:
        names = each.opts if each.param_type_name == "option" else [(each.metavar or each.name).upper()]
        help_text = SPEC.sub(r"`\g<0>`", (each.help or "").replace("|", "\\|").replace("\n", " "))
        lines.append(f"| {', '.join(f'`{name}`' for name in names)} | {default_of(each)} | {help_text} |")
    return "\n".join(lines)


def default_of(parameter: Any) -> str:
    """Return how the default is shown; nothing where there is none."""
    if isinstance(parameter.show_default, str):
        return f"`{parameter.show_default}`"
    if parameter.required:
        return "required"
    return "" if parameter.default in (None, False, ()) else f"`{parameter.default}`"
