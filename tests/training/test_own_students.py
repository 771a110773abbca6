"""Whole runs of students from outside: trained, resumed, and refused where a file would say what to import."""

from importlib import import_module

import pytest
import torch
from strange_students import LEVELS, Small

from difom_cache.errors import DifomError, RunError, SettingsError
from difom_cache.store import TapSpec
from difom_train import build_student, load_student, read_recipe, wrap_student
from difom_train.training import read_checkpoint, read_run

TAPS = {"wide/block@8": TapSpec("wide/block@8", "feature", 6, 4, 8, "float16")}
CODE = "strange_students:build"
train_module = import_module("difom_train.training.run")  # the package's attribute of that name is the function


@pytest.fixture
def train(make_cache, monkeypatch, tmp_path):
    """Return a tiny `train` on a cache in memory; its one result is the run folder."""
    cache = make_cache(records=20, views=2, picture_px=32, taps=TAPS)
    monkeypatch.setattr(train_module, "open_cache", lambda path, **_: cache)

    def run(student=None, name="run", *, changes=(), **options):
        tiny = {"input_size": 32, "batch_size": 8, "epochs": 2, "device": "cpu"} | options
        every = ["machine.logger=none", *changes]
        (folder,) = train_module.train(student, **tiny, cache=tmp_path, out=tmp_path / name, changes=every)
        return folder

    return run


@pytest.mark.parametrize("recipe", ["difom-multiscale", "difom", "baseline", "mean-teacher"])
def test_a_wrapped_module_is_trained_by_every_recipe_and_stays_as_it_is(train, recipe):
    network = Small("dict")
    before = [each.clone() for each in network.parameters()]
    run = train(wrap_student(network, LEVELS, name="mine"), recipe=recipe)
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    assert read_run(run)["status"] == "finished"
    student = load_student(run, student=network)
    assert student.name == "mine" and (student.neck is not None) == (recipe == "difom")
    assert not torch.equal(student.network.head.weight, network.head.weight)


def test_a_run_of_code_is_trained_and_resumed_with_the_code_alone(train, tmp_path):
    whole = train(CODE, "whole", epochs=2)
    with pytest.raises(RunError, match="already holds a run"):
        train(CODE, "whole", epochs=2)
    resumed = train(CODE, "whole", epochs=2, resume=True)
    assert read_checkpoint(resumed)[0].epochs_done == 2
    with pytest.raises(SettingsError, match=f"settings.toml says student.name = '{CODE}'.*--student {CODE}"):
        train(None, "whole", epochs=2, resume=True)
    assert load_student(whole, student=CODE).name == CODE


def test_a_network_that_a_function_without_arguments_returns_learns_from_features_and_is_loaded_by_its_code(train):
    code = "strange_students:make_small"
    run = train(code, recipe="difom-multiscale")
    pairs = read_run(run)["distillation"]["about"]
    assert any("wide/block@8 -> bottleneck" in line for line in pairs), pairs
    student = load_student(run, student=code)
    assert list(student.settings.wrap.strides) == ["backbone.3", "backbone"] and student.name == code


def test_a_wrapped_run_is_resumed_with_the_student_handed_in_again(train, monkeypatch):
    torch.manual_seed(0)
    student = wrap_student(Small(), LEVELS)
    whole = train(student, "whole", recipe="difom-multiscale", epochs=3)
    loop = import_module("difom_train.training.trainer").Trainer
    save = loop.save

    def save_and_stop(trainer, epoch, metrics, found):
        save(trainer, epoch, metrics, found)
        if epoch == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(student, "cut", recipe="difom-multiscale", epochs=3)
    with pytest.raises(DifomError, match="no student 'Small'"):
        train(None, "cut", resume=True, epochs=3)
    resumed = train(wrap_student(Small(), LEVELS), "cut", resume=True, epochs=3)
    one, other = (load_student(run, student=Small()).state_dict() for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_recipe_names_no_code(tmp_path, train):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'[student]\nname = "{CODE}"\n')
    with pytest.raises(
        SettingsError, match=rf"mine\.toml says student\.name = '{CODE}', and what a file says is not imported"
    ):
        read_recipe(recipe)
    with pytest.raises(SettingsError, match="not imported"):
        train(None, recipe=str(recipe))
    assert read_run(train(CODE, recipe=str(recipe), epochs=1))["settings"]["student"]["name"] == CODE


def test_a_built_in_student_can_be_handed_in_with_its_weights(train):
    student = build_student("unet", width=3, seed=9)
    run = train(student, recipe="baseline", epochs=1, changes=["optimizer.lr=0.0"])
    loaded = load_student(run)
    assert torch.equal(loaded.head.weight, student.head.weight) and loaded.settings.width == 3


def test_an_encoder_that_comes_with_weights_moves_at_a_rate_of_its_own(train):
    run = train(wrap_student(Small(), LEVELS, pretrained=True), recipe="baseline", epochs=1)
    groups = read_checkpoint(run)[1]["optimiser"]["param_groups"]
    assert {round(group["highest_lr"], 7) for group in groups} == {5e-4, 1e-4}
