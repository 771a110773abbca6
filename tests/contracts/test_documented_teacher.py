"""The teachers that docs/add-a-teacher.md writes out and names, run as they stand there."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import teacher_template
import torch
from torch import nn

from difom_cache import errors, teachers

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


def test_the_template_reads_its_weights_and_says_in_one_line_which_are_missing(tmp_path: Path) -> None:
    network = teacher_template.EdgeTaps()
    torch.save(network.state_dict(), tmp_path / "edges.pth")
    request = teachers.TeacherRequest("edges", input_px=64, weights=str(tmp_path / "edges.pth"), picture_px=64)
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(three)[:, None, None] for three in (teachers.IMAGENET_MEAN, teachers.IMAGENET_STD))
    fine = torch.tanh(network.fine((pixels - mean) / std))
    torch.testing.assert_close(teacher_template.build(request).features(pixels)["fine"], fine)
    torch.save({"fine.weight": network.fine.weight.detach()}, tmp_path / "part.pth")
    with pytest.raises(errors.WeightsError, match=r"part.pth: not the weights of edges: 3 missing \(coarse.bias"):
        teacher_template.build(replace(request, weights=str(tmp_path / "part.pth")))
    with pytest.raises(errors.WeightsError, match="no weights of edges are published"):
        teacher_template.build(replace(request, weights="hub"))


def test_a_teacher_is_described_without_numbers_as_it_is_with_them() -> None:
    request = teachers.TeacherRequest("edges", input_px=64, weights="random", picture_px=64)
    spec = teacher_template.build(request).spec
    with torch.device("meta"):
        outline = teacher_template.build(request).spec
    assert outline == replace(spec, weights=teachers.Weights("random", ""))
