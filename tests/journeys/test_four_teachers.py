"""The main job with the weights as their authors uploaded them: four teachers, one command, over a hub on loopback."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import old_layouts as old
import pytest
from fake_hub import FakeHub
from painted_folder import paint_folder
from reduced_teachers import DINOV2, SAM, SWIN

from difom_cache import open_cache
from difom_cache.store import read_source, teacher_folder

pytestmark = pytest.mark.journey

SCRIPT = Path(__file__).parent / "reduced_teachers.py"
FOUR = ["--teacher", "sam", "--teacher", "dinov2", "--teacher", "oneformer", "--teacher", "mask2former"]
REPOSITORIES = {
    "sam": "facebook/sam-vit-base",
    "dinov2": "facebook/dinov2-base",
    "oneformer": "shi-labs/oneformer_ade20k_swin_large",
    "mask2former": "facebook/mask2former-swin-large-coco-panoptic",
}


def publish(root: Path) -> None:
    """Save the four models, each in another of the forms that the hub holds."""
    files = {
        "sam": (old.sam_hub(SAM), old.sam_config(SAM), "model.safetensors"),
        "dinov2": (old.dinov2(DINOV2), old.dinov2_config(DINOV2), "pytorch_model.bin"),
        "oneformer": (old.oneformer(SWIN), old.segmenter_config("oneformer", SWIN), "sharded bin"),
        "mask2former": (old.mask2former(SWIN), old.segmenter_config("mask2former", SWIN), "sharded safetensors"),
    }
    for seed, (name, (named, config, form)) in enumerate(files.items()):
        old.save_folder(root / REPOSITORIES[name], old.fill(named, seed), config, form)


@dataclass(frozen=True)
class Command:
    """The command with small teachers, its libraries loaded once."""

    process: subprocess.Popen
    folder: Path

    def extract(self, home: str, name: str) -> tuple[int, str]:
        """Return exit code and output of the four-teacher command into the cache `name`."""
        data, cache, errors = self.folder / "data", self.folder / name, self.folder / f"{name}.txt"
        args = ["extract", *FOUR, "--data", str(data), "--cache", str(cache), "--limit", "1", "--views", "1"]
        order = {"args": args, "cache": str(self.folder / home), "errors": str(errors)}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()), errors.read_text()


@contextmanager
def start(hub: FakeHub, folder: Path) -> Iterator[Command]:
    places = os.pathsep.join([str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")])
    given = os.environ | hub.environ(folder / "home") | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    given.pop("DIFOM_WEIGHTS", None)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(SCRIPT)], env=given, **pipes) as process:
        yield Command(process, folder)


def digest_features(cache: Path) -> dict[str, str]:
    """Return the digest of every tap's codes, and of each teacher's weights."""
    opened = open_cache(cache)
    rows = np.arange(len(opened.table.view))
    held = opened.gather(rows, taps=list(opened.taps))
    found = {name: hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest() for name, values in held.items()}
    assert len(opened.taps) == 8 and all(np.asarray(held[f"{tap}/code"]).std() > 0 for tap in opened.taps)
    return found | {label: identity.teacher.weights_digest for label, identity in opened.teachers.items()}


def test_four_teachers_from_an_empty_cache_a_warm_one_and_with_the_hub_down(tmp_path):
    publish(tmp_path / "root")
    paint_folder(tmp_path / "data", frames=3)
    hub = FakeHub(tmp_path / "root")
    with start(hub, tmp_path) as command:
        with hub:
            code, said = command.extract("home", "first")
            assert code == 0, said
            for repository in REPOSITORIES.values():
                assert len([line for line in hub.log if f"/api/models/{repository}" in line]) == 1
            bodies = [line for line in hub.log if "/cdn/" in line]
            assert len(bodies) == len(set(bodies)) == 6
            for label, repository in REPOSITORIES.items():
                source = read_source(tmp_path / "first" / teacher_folder(label))
                assert source is not None and source.found == f"{repository}@{hub.commit(repository)}"
            asked = len(hub.log)
            code, said = command.extract("home", "warm")
            assert code == 0, said
            assert len(hub.log) == asked

        code, said = command.extract("home", "down")
        assert code == 0, said
        assert digest_features(tmp_path / "first") == digest_features(tmp_path / "warm")
        assert digest_features(tmp_path / "first") == digest_features(tmp_path / "down")

        code, said = command.extract("elsewhere", "none")
        assert code == 2 and said.count("\n") == 1, said
        assert "cannot get facebook/sam-vit-base" in said and "no connection" in said
        assert not (tmp_path / "none").exists()
