"""Curves of several runs in one picture."""

import json

import pytest
from PIL import Image

from difom_cache.errors import RunError
from difom_train import curves


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
