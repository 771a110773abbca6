"""Source pictures of a run are named as those of an extraction: by a layout, or folder by folder."""

import tomllib
from pathlib import Path

import pytest
from painted_folder import paint_folder

from difom_cache import extract
from difom_cache.errors import SettingsError
from difom_train import compare, study, train
from difom_train.training import read_log

TINY = {"width": 4, "input_size": 32, "batch_size": 4, "epochs": 1, "device": "cpu", "logger": "none"}


def test_pictures_of_any_two_folders_are_rendered_while_training(tmp_path: Path) -> None:
    ward = paint_folder(tmp_path / "ward", frames=9)
    (ward / "images").rename(tmp_path / "frames")
    (ward / "masks").rename(tmp_path / "truth")
    pair = {"images": tmp_path / "frames", "masks": tmp_path / "truth"}
    extract(teacher=(), cache=tmp_path / "feats", input_size=32, views=2, quiet=True, **pair)
    common = TINY | {"cache": tmp_path / "feats", "recipe": "baseline"}
    (run,) = train("unet", out=tmp_path / "run", **common, **pair)
    assert [line["epoch"] for line in read_log(run)] == [0]
    kept = tomllib.loads((run / "settings.toml").read_text())["run"]
    assert (kept["images"], kept["masks"]) == ("../frames", "../truth"), "from the run folder"
    (again,) = train(out=run, resume=True, epochs=1)  # no path is asked for again
    assert len(read_log(again)) == 1


def test_two_places_for_one_thing_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    both = {"images": tmp_path / "frames", "out": tmp_path / "out"}
    with pytest.raises(SettingsError, match=r"--data .*ward and --images .*frames: give one of them"):
        study(tmp_path / "feats", tmp_path / "ward", **both)
    with pytest.raises(SettingsError, match=r"--data .*ward and --images .*frames: give one of them"):
        compare([tmp_path / "run"], data=tmp_path / "ward", **both)
    with pytest.raises(SettingsError, match="expected --data, or --images with --masks: one of them"):
        study(tmp_path / "feats")
    assert not both["out"].exists()
