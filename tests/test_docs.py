"""The documentation builds without a warning, and its tables of options are those of the commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_of_the_folder_is_in_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages == {path.parent.relative_to(site).as_posix() for path in site.rglob("*/index.html")} | {"index"}


def test_options_stand_on_the_page_of_commands(site: Path) -> None:
    page = (site / "reference/commands/index.html").read_text(encoding="utf-8")
    for option in ("--teacher", "--input-size", "--labels-seed", "--dry-run"):
        assert f"<code>{option}</code>" in page


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
