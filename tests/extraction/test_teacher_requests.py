"""Teachers of a process: at most one on a GPU, none held once a run has ended or only hands out work."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from painted_folder import paint_folder

from difom_cache import extract, open_cache, verify
from difom_cache.extraction import load_teacher, release_teachers, teachers
from difom_cache.teachers import TapNetwork, TeacherRequest

REQUEST = TeacherRequest("one", device="cuda", picture_px=64)


class Moved:
    """A teacher that says where it stands."""

    def __init__(self, name: str, stand: dict[str, str]) -> None:
        self.name, self.stand = name, stand
        self.stand[name] = "cuda"

    def to(self, device: str) -> "Moved":
        self.stand[self.name] = device
        return self


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Where each teacher stands; building one checks that no other is on the GPU."""
    where: dict[str, str] = {}

    def build(request: TeacherRequest) -> Moved:
        assert "cuda" not in where.values(), f"{request.name} is built beside {where}"
        return Moved(request.name, where)

    monkeypatch.setattr(teachers, "build_requested", build)
    yield where
    release_teachers()


def test_a_teacher_has_the_gpu_for_itself(stand: dict[str, str]) -> None:
    first = load_teacher(REQUEST)
    load_teacher(replace(REQUEST, name="two"))
    assert stand == {"one": "cpu", "two": "cuda"}
    assert load_teacher(REQUEST) is first
    assert stand == {"one": "cuda", "two": "cpu"}


def test_teachers_on_the_cpu_stay_where_they_are(stand: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "build_requested", lambda request: Moved(request.name, {}))
    first = load_teacher(replace(REQUEST, device="cpu"))
    load_teacher(replace(REQUEST, name="two", device="cpu"))
    assert first.stand == {"one": "cuda"}  # type: ignore[attr-defined]  # nobody has moved it


def test_a_process_that_hands_out_work_holds_no_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    monkeypatch.setattr("difom_cache.extraction.compute.run_jobs", lambda jobs, executor: look(held))
    data = paint_folder(tmp_path / "data", frames=4)
    small = {"teacher": "dinov2:tiny@56", "weights": "random", "input_size": 64, "views": 1, "quiet": True}
    extract(data=data, cache=tmp_path / "here", **small)
    extract(data=data, cache=tmp_path / "elsewhere", workers=2, **small)
    assert held == [1, 1, 0, 0]  # pictures and teacher, first computed here, then by two processes
    assert not teachers._held


def look(held: list[int]) -> Iterator[Any]:
    """Compute nothing, but note how many teachers are held."""
    held.append(len(teachers._held))
    return iter(())


def test_a_compiled_cache_is_recomputed_by_a_compiled_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bool] = []
    monkeypatch.setattr(TapNetwork, "compile", lambda self, **options: compiled.append(True))  # a minute, else
    data = paint_folder(tmp_path / "data", frames=4)
    small = {"teacher": "dinov2:tiny@56", "weights": "random", "input_size": 64, "views": 1, "quiet": True}
    extract(data=data, cache=tmp_path / "feats", compile=True, **small)
    assert open_cache(tmp_path / "feats").teachers["dinov2-tiny-random"].teacher.options == {"compile": True}
    report = verify(tmp_path / "feats", recompute=2, data=data)
    assert compiled == [True, True] and report.recomputed
