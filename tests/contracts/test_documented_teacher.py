"""The teacher that docs/add-a-teacher.md writes out, run as it stands there."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from difom_cache import teachers

PAGE = Path(__file__).parents[2] / "docs" / "add-a-teacher.md"


def test_the_documented_teacher_gives_the_maps_that_it_declares(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    held: dict[str, Any] = {name: getattr(teachers, name) for name in teachers.__all__} | {"torch": torch, "nn": nn}
    exec(code, held)
    torch.save(held["EdgeTaps"]().state_dict(), tmp_path / "edges.pth")
    request = teachers.TeacherRequest("edges", input_px=64, weights=str(tmp_path / "edges.pth"), picture_px=64)
    teacher = held["build"](request)
    maps = teacher.features(torch.rand(2, 3, 64, 64))
    assert {name: tuple(each.shape) for name, each in maps.items()} == {"fine": (2, 8, 8, 8), "coarse": (2, 16, 4, 4)}
    identity = teacher.spec.identity()
    assert [tap["name"] for tap in identity["taps"]] == ["fine@8", "coarse@16"] and "torch" in identity["libraries"]
    assert teacher.spec.label == "edges" and teacher.spec.weights_source == str(tmp_path / "edges.pth")
