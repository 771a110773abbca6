"""Files that are not there are told, whether their folder was listed or each was asked for."""

from pathlib import Path

import pytest

from difom_cache.base import files


@pytest.fixture(params=[1, 1000], ids=["listed", "each asked for"])
def folder(request, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(files, "_WORTH_LISTING", request.param)
    (tmp_path / "frames" / "deep").mkdir(parents=True)
    for name in ("a.png", "b.png", "deep/c.png"):
        (tmp_path / "frames" / name).touch()
    (tmp_path / "frames" / "good link.png").symlink_to("a.png")
    (tmp_path / "frames" / "dangling link.png").symlink_to("nowhere.png")
    return tmp_path / "frames"


def test_what_is_not_there_is_told_in_its_order(folder):
    there = [
        folder / "a.png",
        folder / "good link.png",
        folder / "deep" / "c.png",
        folder / "deep" / ".." / "b.png",
        folder,
    ]
    gone = [folder / "d.png", folder / "dangling link.png", folder / ("x" * 300), folder / "nowhere" / "a.png"]
    mixed = [*gone[:2], *there, *gone[2:]]
    assert files.find_absent(mixed) == gone
    assert files.find_absent(there) == [] == files.find_absent([])


def test_relative_names_are_looked_for_in_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert files.find_absent([Path("a.png"), Path("deep/c.png"), Path("c.png"), Path("a.png")]) == [Path("c.png")]


def test_a_folder_of_many_is_listed_once_and_no_file_of_it_asked_for(folder, monkeypatch):
    monkeypatch.setattr(files, "_WORTH_LISTING", 2)
    asked: list[Path] = []
    monkeypatch.setattr(files.disk, "is_there", lambda path: asked.append(path) or False)
    assert files.find_absent([folder / "a.png", folder / "b.png", folder / "z.png"]) == [folder / "z.png"]
    assert asked == [folder / "z.png"]
