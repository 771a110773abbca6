"""A run of two rounds trains a student alone, whose masks then teach the student that is kept."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from painted_folder import paint_folder

from difom_cache import extract
from difom_cache.errors import RunError, SettingsError
from difom_train import load_student, train
from difom_train.distill import FIRST_ROUND
from difom_train.training import read_log, read_run
from difom_train.training import trainer as loop

TINY = {
    "student": "unet",
    "width": 4,
    "input_size": 64,
    "batch_size": 4,
    "epochs": 2,
    "labels": 0.5,
    "labels_seed": 1,
    "device": "cpu",
    "changes": ["machine.logger=none"],
}
ROUNDS = {"recipe": "pseudo-masks", "rounds": 2, "probe": "none"}
run_file = import_module("difom_train.training.run")


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = paint_folder(tmp_path_factory.mktemp("data") / "frames", frames=24)
    teacher = {"teacher": "dinov2:tiny@56", "weights": "random", "cache": root / "feats"}
    extract(**teacher, input_size=64, views=2, data=root, quiet=True)
    return root / "feats"


@pytest.fixture(scope="module")
def whole(painted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (run,) = train(**TINY, **ROUNDS, cache=painted, out=tmp_path_factory.mktemp("runs") / "whole")
    return run


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_student(run).state_dict()


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_first_round_is_the_student_alone_and_its_masks_teach_the_second(
    painted: Path, whole: Path, tmp_path: Path
) -> None:
    (alone,) = train(**TINY, recipe="baseline", rounds=2, cache=painted, out=tmp_path / "alone")
    assert not (alone / "first").exists()
    run = whole
    assert equal(weights_of(run / "first"), weights_of(alone)) and not equal(weights_of(run), weights_of(alone))
    assert all(line["logits"] > 0 for line in read_log(run))
    facts, first = read_run(run), read_run(run / "first")
    assert facts["taps"] == [] and facts["masks"]["mark"] == ""
    own = sum(line["train_cpu_s"] for line in read_log(run))
    assert facts["train_cpu_s"] == pytest.approx(own + first["train_cpu_s"])
    assert any("first round -> the student's mask" in line for line in facts["distillation"]["about"])


def test_its_masks_are_what_it_sees_in_the_very_views_of_the_step(
    painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Spy(loop.Trainer):
        def make_targets(self, batch, *, side_px):  # type: ignore[no-untyped-def]
            targets = super().make_targets(batch, side_px=side_px)
            seen.append((batch.tensors["image"].clone(), targets[FIRST_ROUND]))
            return targets

    monkeypatch.setattr(run_file, "Trainer", Spy)
    (run,) = train(**TINY | {"epochs": 1}, **ROUNDS, cache=painted, out=tmp_path / "run")
    first = load_student(run / "first").eval()
    for image, prob in (seen[0], seen[-1]):
        with torch.no_grad():
            expected = first(image.movedim(-1, 1).float() / 255).sigmoid()
        assert image.dtype == torch.uint8 and image.shape[1:] == (64, 64, 3)
        torch.testing.assert_close(prob, expected, atol=1e-5, rtol=0)


def test_stop_in_the_second_round_and_resume_equals_no_stop(
    painted: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = loop.Trainer.save

    def save_and_stop(trainer: loop.Trainer, *args: object) -> None:
        save(trainer, *args)
        if trainer.first is not None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(**TINY, **ROUNDS, cache=painted, out=tmp_path / "cut")
    written = (tmp_path / "cut/first/student.safetensors").stat().st_mtime_ns
    (cut,) = train(**TINY, **ROUNDS, cache=painted, out=tmp_path / "cut", resume=True)
    assert equal(weights_of(cut), weights_of(whole))
    assert (cut / "first/student.safetensors").stat().st_mtime_ns == written


def test_no_first_round_where_no_image_lacks_a_mask_and_none_for_other_kinds(painted: Path, tmp_path: Path) -> None:
    (run,) = train(**TINY | {"labels": 1.0, "epochs": 1}, rounds=2, cache=painted, out=tmp_path / "run")
    assert not (run / "first").exists() and read_run(run)["taps"]
    with pytest.raises(SettingsError, match=r"distill\.rounds 2"):
        train(**TINY, recipe="difom", rounds=2, cache=painted, out=tmp_path / "other")


def test_a_first_round_of_other_masks_teaches_no_second_one(
    painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(loop.Trainer):
        def fit(self):  # type: ignore[no-untyped-def]
            if self.first is not None:
                raise KeyboardInterrupt
            return super().fit()

    options = TINY | {"epochs": 1, "cache": painted, "out": tmp_path / "run"} | ROUNDS
    with monkeypatch.context() as patch:
        patch.setattr(run_file, "Trainer", Stopped)
        with pytest.raises(KeyboardInterrupt):
            train(**options)
    with pytest.raises(RunError, match=r"run/first was started with other settings: data\.labels_seed"):
        train(**options | {"labels_seed": 2})
    written = (tmp_path / "run/first/student.safetensors").stat().st_mtime_ns
    (run,) = train(**options)
    assert (run / "first/student.safetensors").stat().st_mtime_ns == written and read_run(run)["status"] == "finished"
