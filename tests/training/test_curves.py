"""Curves of several runs in one picture."""

import json

import pytest
from PIL import Image

from difom_cache.errors import RunError
from difom_train import curves
from difom_train.training import LEARNT, draw_curves, list_panels


def write_log(folder, values):
    folder.mkdir()
    lines = [{"epoch": n, "loss": value, "val_dice": 1 - value} for n, value in enumerate(values)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_every_run_has_a_row(tmp_path):
    runs = [write_log(tmp_path / name, [0.9, 0.5]) for name in ("one", "two")]
    heights = []
    for count in (1, 2):
        with Image.open(curves(runs[:count], tmp_path / f"{count}.png")) as picture:
            heights.append(picture.height)
    assert heights[1] == 2 * heights[0]


def test_folders_without_epochs_and_equal_names_are_refused(tmp_path):
    run = write_log(tmp_path / "one", [0.5])
    with pytest.raises(RunError, match="two: holds no finished epoch"):
        curves([run, tmp_path / "two"], tmp_path / "curves.png")
    with pytest.raises(RunError, match="have one name"):
        curves([run, run], tmp_path / "curves.png")


def test_each_teacher_has_a_colour_and_each_of_its_taps_a_line_style():
    taps = [f"{teacher}/{tap}" for teacher in ("sam", "dinov2") for tap in ("a@8", "b@16", "c@32")]
    log = [{"epoch": 0, "loss": 1.0, "val_dice": None} | {f"distill/explained/{tap}": 0.1 for tap in taps}]
    panels = list_panels(log)
    assert list(panels) == ["loss", LEARNT["distill/explained/"]]  # no validation, no variances
    curves = panels[LEARNT["distill/explained/"]]
    assert [curve.label for curve in curves][:2] == ["sam, a at stride 8", "sam, b at stride 16"]
    assert len({curve.colour for curve in curves[:3]}) == 1 and curves[0].colour != curves[3].colour
    assert len({str(curve.style) for curve in curves[:3]}) == 3


def test_the_same_curves_go_into_a_png_and_an_svg(tmp_path):
    log = [{"epoch": n, "loss": 1.0 / (n + 1), "distill/explained/sam/neck@16": -5.0 + n} for n in range(3)]
    for name in ("curves.png", "curves.svg"):
        draw_curves({"run": log}, tmp_path / name)
    assert "sam, neck at stride 16" in (tmp_path / "curves.svg").read_text()
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 800
