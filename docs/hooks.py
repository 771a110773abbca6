"""What mkdocs runs while it builds the site: tables of options come from the commands, and a page from the notebook."""

import json
import re
from importlib import import_module
from inspect import isfunction
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import difom_cache.cli
import difom_train.cli
from difom_cache.base.console import Program
from difom_cache.base.options import find_config, format_options

MARK = re.compile(r"^<!-- options of (difom-cache|difom-train) -->$", re.M)
NOTEBOOK, NOTEBOOK_PAGE = "notebook.ipynb", "notebook.md"
PACKAGE = re.compile(
    r"^::: (difom_cache|difom_train)$", re.M
)  # whose names are loaded late: no list of them stands in the code
SPEC = re.compile(r"(?<!`)\S+\[\S+\](?!`)")  # NAME[:VARIANT], which Markdown would take for a link
WORD = re.compile(r"(?<=[\s>(])(?:--[a-z][a-z-]*|difom-(?:cache|train))(?![^<]*>)")
OUTSIDE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+(?:tests|benchmarks|difom_cache|difom_train|data_manifests|CONTRIBUTING|README)[^)]*\)"
)


def on_files(files: Files, *, config: MkDocsConfig) -> None:
    """Add the notebook as a page: text as it is, code in fences; the file itself stays there for download."""
    parts = [f"[Download this notebook]({NOTEBOOK})."]
    for cell in json.loads(Path(config.docs_dir, NOTEBOOK).read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    title, *rest = parts[1:]
    files.append(File.generated(config, NOTEBOOK_PAGE, content="\n\n".join([title, parts[0], *rest])))


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Put every command's options where a page asks for them; links that leave docs/ become plain text."""
    if page.file.src_uri != NOTEBOOK_PAGE:
        markdown = markdown.replace(f"]({NOTEBOOK})", f"]({NOTEBOOK_PAGE})")
    programs = {each.name: each for each in (difom_cache.cli.PROGRAM, difom_train.cli.PROGRAM)}
    markdown = PACKAGE.sub(
        lambda found: f"{found[0]}\n    options:\n      members: {order_names(programs[found[1].replace('_', '-')])}",
        markdown,
    )
    markdown = MARK.sub(lambda found: describe(programs[found[1]]), markdown)
    return OUTSIDE.sub(r"`\1`", markdown)


def on_page_content(html: str, **_: object) -> str:
    """Mark options and programs, so that no line ends after one of their hyphens."""
    return WORD.sub(r'<span class="word">\g<0></span>', html)


def order_names(program: Program) -> list[str]:
    """Return a package's names: commands as `--help` has them, other functions, then what they take and return."""
    package = import_module(program.name.replace("-", "_"))
    commands = [command.run.__name__ for command in program.commands]
    called = [name for name in package.__all__ if isfunction(getattr(package, name)) and name not in commands]
    return [*dict.fromkeys([*(name for name in commands if name in package.__all__), *called, *package.__all__])]


def describe(program: Program) -> str:
    """Return a section of Markdown for each command of a program."""
    parts = []
    for command in program.commands:
        name = " ".join([program.name, *command.words])
        options = format_options(find_config(command.config)).replace("### ", "### Section ") if command.config else ""
        parts += [f"## {name}", "", "\n\n".join(command.help), "", SPEC.sub(r"`\g<0>`", options), ""]
    return "\n".join(parts)
