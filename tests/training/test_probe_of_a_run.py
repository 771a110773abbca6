"""A run on features alone fits a probe to its own masks, keeps it in its folder, and leaves the cache as it was."""

import hashlib
import shutil
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from painted_folder import paint_folder

from difom_cache import copy, extract, open_cache, probe
from difom_cache.errors import DifomError
from difom_cache.probing import KINDS
from difom_train import load_student, train
from difom_train.training import probe as probe_file
from difom_train.training import read_log, read_run
from difom_train.training import trainer as loop

TINY = {
    "student": "unet",
    "width": 4,
    "input_size": 64,
    "batch_size": 4,
    "epochs": 2,
    "labels": 0.75,
    "labels_seed": 1,
    "device": "cpu",
    "changes": ["machine.logger=none"],
}
LABEL = "dinov2-tiny-random-probe-l75-s1"
run_file = import_module("difom_train.training.run")


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = paint_folder(tmp_path_factory.mktemp("data") / "frames", frames=24)
    extract(
        teacher="dinov2:tiny@56", weights="random", input_size=64, views=2, data=root, cache=root / "feats", quiet=True
    )
    return root / "feats"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KINDS["decoder"], "STEPS", 10)


def digest_tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_first_weights_that_are_missing_are_told_before_heads_are_fitted(painted: Path, tmp_path: Path) -> None:
    weights = {
        "student": "smp:unet/resnet18",
        "width": 0,
        "student_weights": f"imagenet:{tmp_path / 'gone.safetensors'}",
    }
    with pytest.raises(DifomError, match=r"gone\.safetensors"):
        train(**TINY | weights, cache=painted, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_it_is_the_probe_of_the_same_budget_and_the_cache_stays_as_it_was(
    painted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = digest_tree(painted)
    (run,) = train(**TINY, cache=painted, out=tmp_path / "run")
    said = capfd.readouterr().err
    assert digest_tree(painted) == before
    facts = read_run(run)
    assert f"{LABEL}/logits@4" in facts["taps"] and any("logits" in line for line in read_log(run)[-1])
    assert facts["teachers"] == {"dinov2-tiny-random": "dinov2:tiny"}  # a probe's licence is that of what it reads
    taught = facts["masks"]["taught_by"][LABEL]
    assert facts["masks"]["mark"] == "" and taught["masks"] > 0 and taught["outside"] == 0
    assert f"{LABEL}: 5 heads on" in said and "about" in said and "make it once" not in said

    whole = Path(shutil.copytree(painted, tmp_path / "feats"))
    report = probe(whole, teachers="dinov2", labels=0.75, labels_seed=1, quiet=True)
    kept, cached = open_cache(painted, beside=run / "probe"), open_cache(whole)
    rows = np.arange(len(kept))
    for each in (kept, cached):
        assert each.seen_masks(LABEL) == cached.seen_masks(LABEL) and len(each.seen_masks(LABEL)) == report.masks
    np.testing.assert_array_equal(
        *(each.gather(rows, [report.tap], pictures=False)[f"{report.tap}/code"] for each in (kept, cached))
    )
    assert kept.content_digests()[f"teachers/{LABEL}"] == facts["cache_digests"][0][f"teachers/{LABEL}"]


def test_stop_and_resume_equals_no_stop_and_fits_nothing_again(
    painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = train(**TINY, cache=painted, out=tmp_path / "whole")
    save = loop.Trainer.save

    def save_and_stop(trainer: object, *args: object) -> None:
        save(trainer, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(**TINY, cache=painted, out=tmp_path / "cut")
    monkeypatch.setattr(probe_file, "probe", None)  # which nobody calls
    (cut,) = train(**TINY, cache=painted, out=tmp_path / "cut", resume=True)
    ours, theirs = (load_student(each).state_dict() for each in (whole, cut))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert read_run(cut)["cache_digests"] == read_run(whole)["cache_digests"]


@pytest.mark.parametrize("case", ["none", "named", "all labelled", "bare", "two", "few"])
def test_a_run_without_one_says_why_where_it_could_have_had_one(
    painted: Path, tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    caches, options, line = [painted], {}, ""
    if case == "none":
        options = {"probe": "none"}
    elif case == "named":
        options = {"teachers": ["dinov2-tiny-random"]}
    elif case == "all labelled":
        options = {"labels": 1.0}
    elif case == "bare":
        copy(painted, tmp_path / "bare", pictures=False)
        caches, line = [tmp_path / "bare"], "holds no masks (it was made with --no-pictures)"
        options = {"data": painted.parent}
    elif case == "two":
        extract(like=painted, data=paint_folder(tmp_path / "more", frames=8), cache=tmp_path / "two", quiet=True)
        caches, line = [painted, tmp_path / "two"], "several caches are trained on together"
    else:
        options, line = {"labels": 0.15}, "which 5 folds cannot share"
    (run,) = train(**TINY | options, cache=caches, out=tmp_path / "run")
    said = capfd.readouterr().err
    assert not (run / "probe").exists() and not any("probe" in tap for tap in read_run(run)["taps"])
    assert ("no probe is fitted, and no teacher's mask teaches" in said) == bool(line) and line in said


def test_what_an_earlier_start_with_other_settings_left_is_replaced(painted: Path, tmp_path: Path) -> None:
    probe(painted, into=tmp_path / "run" / "probe", teachers="dinov2", labels=0.75, labels_seed=1, folds=2, quiet=True)
    shutil.move(tmp_path / "run" / "probe", tmp_path / "probe")
    (tmp_path / "run").rmdir()
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_file, "build_learner", interrupt)
        train(**TINY, cache=painted, out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "probe")
    shutil.move(tmp_path / "probe", tmp_path / "run" / "probe")
    (run,) = train(**TINY, cache=painted, out=tmp_path / "run")
    assert open_cache(painted, beside=run / "probe").teachers[LABEL].probe.folds == 5


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_run_of_an_earlier_version_goes_on_without_one(painted: Path, tmp_path: Path) -> None:
    """Such a run's settings say nothing of a probe, and the recipe may be named again."""
    (whole,) = train(**TINY, probe="none", cache=painted, out=tmp_path / "whole")
    save = loop.Trainer.save

    def save_and_stop(trainer: object, *args: object) -> None:
        save(trainer, *args)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Trainer, "save", save_and_stop)
        train(**TINY, probe="none", cache=painted, out=tmp_path / "old")
    settings = tmp_path / "old" / "settings.toml"
    table = tomllib.loads(settings.read_text())
    assert table["distill"].pop("probe") == "none"
    settings.write_text(tomli_w.dumps(table))
    (old,) = train(**TINY, recipe="difom-multiscale", cache=painted, out=tmp_path / "old", resume=True)
    ours, theirs = (load_student(each).state_dict() for each in (whole, old))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
