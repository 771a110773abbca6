"""The documentation builds without a warning, and its tables of options are those of the commands."""

import ast
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
UNBROKEN = ("measurements.md", "CONTRIBUTING.md")  # commands as they were run; no page of the site
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)


class Words(HTMLParser):
    """What a reader sees of a page, without its code."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self._inside = "", 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._inside += tag in ("script", "style", "code", "pre")

    def handle_endtag(self, tag: str) -> None:
        self._inside -= tag in ("script", "style", "code", "pre")
        self.text += "\n" if tag in ("p", "li", "td", "th", "h1", "h2", "h3", "div") else ""

    def handle_data(self, data: str) -> None:
        self.text += data if not self._inside else ""


def read_words(page: Path) -> str:
    """Return the text of a built page as a reader sees it."""
    words = Words()
    words.feed(page.read_text(encoding="utf-8"))
    return words.text


def blocks_of(kind: str) -> dict[str, str]:
    """Return every fenced block of one kind on every page, by page and number."""
    found = {}
    for page in PAGES:
        blocks = [body for name, body in BLOCK.findall(page.read_text(encoding="utf-8")) if name == kind]
        found |= {f"{page.relative_to(ROOT)} {number}": body for number, body in enumerate(blocks)}
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    compiled = ROOT / "docs" / "__pycache__"  # as Python leaves it beside the pages' scripts
    compiled.mkdir(exist_ok=True)
    (compiled / "left.pyc").write_bytes(b"")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_of_the_folder_is_in_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    pages.add("notebook")  # made from notebook.ipynb
    assert pages == {path.parent.relative_to(site).as_posix() for path in site.rglob("*/index.html")} | {"index"}


def test_the_notebook_is_a_page_that_others_link_to_and_a_file_to_download(site: Path) -> None:
    page = (site / "notebook/index.html").read_text(encoding="utf-8")
    cells = json.loads((ROOT / "docs/notebook.ipynb").read_text("utf-8"))["cells"]
    code = re.sub(r"<[^>]+>", "", page)
    for cell in cells:
        first = html.escape(cell["source"][0].strip(), quote=False) if cell["cell_type"] == "code" else ""
        assert first in code
    assert 'href="../notebook.ipynb"' in page and (site / "notebook.ipynb").is_file()
    assert 'href="../notebook/"' in (site / "first-hour/index.html").read_text(encoding="utf-8")


def test_options_stand_on_the_page_of_commands(site: Path) -> None:
    page = (site / "reference/commands/index.html").read_text(encoding="utf-8")
    for option in ("--teacher", "--input-size", "--labels-seed", "--dry-run"):
        assert f'<code><span class="word">{option}</span></code>' in page


def test_public_names_stand_on_the_page_of_python(site: Path) -> None:
    page = (site / "reference/python/index.html").read_text(encoding="utf-8")
    for name in ("difom_cache.extract", "difom_cache.open_cache", "difom_train.train", "difom_train.load_student"):
        assert f'id="{name}"' in page


def test_pages_show_the_scripts_that_they_name(site: Path) -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert not [path for path, text in pages.items() if "docs/" in text and "8&lt;" in text]
    for script, page in (("own_loop.py", "training-loop"), ("use_cache.py", "reference/python")):
        first = (ROOT / "docs" / script).read_text(encoding="utf-8").splitlines()[0].strip('"')
        assert first in pages[site / page / "index.html"]


def test_nothing_of_markup_is_left_on_a_page_and_nothing_of_python_in_the_site(site: Path) -> None:
    left = re.compile(r"\*\*|\]\(|^:::|```|-8<-|<!--|\{\{|^\| |\| ---", re.M)
    for page in site.rglob("*.html"):
        words = read_words(page)
        assert len(words) > 200 or page.name == "404.html"
        assert not left.search(words), f"{page.relative_to(site)}: {left.search(words)}"
    assert not [path for path in site.rglob("*") if path.suffix in (".py", ".pyc") or path.name == "__pycache__"]


def test_the_page_of_python_begins_with_what_is_called(site: Path) -> None:
    page = (site / "reference/python/index.html").read_text(encoding="utf-8")
    places = [
        page.index(f'id="{name}"') for name in ("difom_cache.extract", "difom_cache.open_cache", "difom_cache.Cache")
    ]
    assert places == sorted(places)
    places = [
        page.index(f'id="{name}"') for name in ("difom_train.train", "difom_train.load_student", "difom_train.Student")
    ]
    assert places == sorted(places)


def test_code_on_the_pages_is_no_wider_than_their_column() -> None:
    """92 characters, as `site.css` gives them beside both columns of links."""
    pages = {path.relative_to(ROOT): path.read_text("utf-8") for path in PAGES if path.name not in UNBROKEN}
    shown = [body for text in pages.values() for name, body in BLOCK.findall(text) if "--8<--" in body]
    pages |= {name: f"```\n{(ROOT / name).read_text('utf-8')}```" for name in (body.splitlines()[1] for body in shown)}
    lines = {
        (page, line) for page, text in pages.items() for _, body in BLOCK.findall(text) for line in body.splitlines()
    }
    assert len(shown) == 5 and len(lines) > 400
    assert not {each for each in lines if len(each[1]) > 92}


def test_fenced_programs_are_python_whose_imports_are_there() -> None:
    blocks = blocks_of("python")
    assert len(blocks) >= 9
    for place, body in blocks.items():
        if body.startswith("--8<--"):
            body = (ROOT / body.splitlines()[1]).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(body, place)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("difom"):
                module = import_module(str(node.module))
                assert not [each.name for each in node.names if not hasattr(module, each.name)], place


def test_fenced_settings_and_scripts_are_read_by_what_reads_them() -> None:
    assert len(blocks_of("toml")) >= 4 and len(blocks_of("bash")) >= 9
    for body in blocks_of("toml").values():
        assert tomllib.loads(body)
    for body in blocks_of("yaml").values():
        assert yaml.safe_load(body)
    bash = shutil.which("bash")
    for place, body in {**blocks_of("bash"), **blocks_of("")}.items():
        typed = (
            re.match(r"(#|\w+=|[a-z][\w-]* )", body) and "..." not in body and " -> " not in body
        )  # not what commands print
        if bash and typed and not body.startswith("images:"):
            done = subprocess.run([bash, "-n"], input=body, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{place}: {done.stderr}"


@pytest.mark.slow
@pytest.mark.journey
@pytest.mark.skipif("DIFOM_DINOV2" not in os.environ, reason="DIFOM_DINOV2 names no folder of the real DINOv2 ViT-S/14")
def test_the_first_hour_goes_as_its_page_says(tmp_path: Path) -> None:
    """Every command of the page in turn, with fewer painted images and one epoch; its sample line has the run's own terms."""
    page = (ROOT / "docs/first-hour.md").read_text(encoding="utf-8")
    lines = "\n".join(body for name, body in BLOCK.findall(page) if not name).replace("\\\n", " ").splitlines()
    commands = [line.replace("--train 200", "--train 60").replace("--epochs 4", "--epochs 1") for line in lines]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/dinov2-small").symlink_to(os.environ["DIFOM_DINOV2"])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DIFOM_WEIGHTS": str(tmp_path / "weights"), "HF_HUB_OFFLINE": "1"}
    ran = [command for command in commands if command.startswith("difom-")]
    assert len(ran) == 12
    for command in ran:
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    terms = re.compile(r"(\w+) \d+\.\d{4}[,)]")
    (sample,) = [body for name, body in BLOCK.findall(page) if name == "text"]
    said = (tmp_path / "runs/taught/train.log").read_text()
    assert terms.findall(sample) == terms.findall(said.partition("epoch 1/1")[2].partition("\n")[0])
    assert (tmp_path / "report/report.html").is_file()
