"""Whole runs on a cache in memory: what lies in the folder, what resumes, what is refused."""

import json
import os
import re
import socket
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import tomli_w
import torch
from safetensors.torch import save_file

from difom_cache import open_cache
from difom_cache.base import hardware
from difom_cache.errors import CacheIncompleteError, DifomError, RunError, SettingsError
from difom_cache.store import TapSpec
from difom_train import load_student
from difom_train.config import OptimizerConfig, read_recipe
from difom_train.data import Feed
from difom_train.training import keeps_last, read_checkpoint, read_log, read_run, refuse_differences
from difom_train.training import trainer as loop

TAPS = {
    "wide/block@16": TapSpec("wide/block@16", "feature", 6, 2, 16, "float16"),
    "deep/neck@16": TapSpec("deep/neck@16", "feature", 5, 2, 16, "float16"),
}
train_module = import_module("difom_train.training.run")  # the package's attribute of that name is the function
TIMES = ("data_wait_frac", "train_s", "train_cpu_s")


@pytest.fixture
def train(make_cache, monkeypatch, tmp_path):
    """Return a tiny `train` on a cache in memory; its one result is the run folder."""

    def run(name="run", *, changes=(), **options):
        tiny = {"student": "unet", "width": 4, "input_size": 32, "batch_size": 4, "epochs": 3, "device": "cpu"}
        every = ["machine.logger=none", *changes]
        (folder,) = train_module.train(**(tiny | options), cache="memory", out=tmp_path / name, changes=every)
        return folder

    run.cache = make_cache(records=20, views=2, picture_px=32, taps=TAPS)
    monkeypatch.setattr(train_module, "open_cache", lambda path, **_: run.cache)
    return run


@pytest.fixture
def interrupt_after(monkeypatch):
    """Return a function that lets the next run be interrupted after an epoch."""
    save = loop.Trainer.save

    def arm(epoch):
        def save_and_stop(trainer, done, metrics, found):
            save(trainer, done, metrics, found)
            if done == epoch:
                monkeypatch.setattr(loop.Trainer, "save", save)
                raise KeyboardInterrupt

        monkeypatch.setattr(loop.Trainer, "save", save_and_stop)

    return arm


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_run_folder_holds_what_a_reader_needs(train):
    folder = train(recipe="difom", epochs=2, changes=["machine.logger=tensorboard"])
    names = {path.name for path in folder.iterdir()}
    assert names >= {"settings.toml", "run.json", "log.jsonl", "last.ckpt", "curves.png"}
    assert list((folder / "tensorboard").glob("events*"))
    facts = read_run(folder)
    assert facts["status"] == "finished"
    assert facts["rows"] == {"train_views": 32, "val_records": 4, "labelled_records": 16, "unlabelled_records": 0}
    assert len(facts["manifest_digests"][0]) == 64
    assert facts["datasets"] == {"memory": 20} and facts["teachers"] == {"wide": "wide:", "deep": "deep:"}
    assert facts["taps"] == list(TAPS)
    assert load_student(folder).meta["input_px"] == 32


def test_log_says_how_alive_the_distillation_is(train):
    lines = read_log(train(recipe="difom-paper", input_size=32))
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert [line["phase"]["distillation"] for line in lines] == [0.0, 1.0, 1.0]
    assert "distill/gradient_share" not in lines[0]
    assert 0 < lines[1]["distill/gradient_share"] < 1
    for key in ("distill/target_var/low", "distill/student_var/z1", "distill/explained/high"):
        assert key in lines[2]
    assert all(0 <= line["data_wait_frac"] < 1 and line["val_pictures"] == 4 for line in lines)


def test_frozen_encoder_keeps_its_weights_and_statistics(train, interrupt_after, tmp_path):
    interrupt_after(epoch=1)
    with pytest.raises(KeyboardInterrupt):
        train(recipe="difom-paper")
    before = read_checkpoint(tmp_path / "run")[1]["learner"]
    folder = train(recipe="difom-paper", resume=True)
    after = read_checkpoint(folder)[1]["learner"]
    student = load_student(folder)
    names = {id(tensor): name for name, tensor in student.state_dict(keep_vars=True).items()}
    frozen = {
        f"student.{names[id(tensor)]}"
        for part in student.encoder_modules()
        for tensor in part.state_dict(keep_vars=True).values()
    }
    assert any("running_mean" in name for name in frozen)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved and not moved & frozen


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("baseline", ["optimizer.name=sgd"]),
        ("difom", ["data.accumulate=2"]),
        ("difom-multiscale", ["optimizer.ema_decay=0.9", "data.scales=[1.0, 2.0]"]),
    ],
)
def test_stop_and_resume_equals_no_stop(train, interrupt_after, recipe, changes, tmp_path):
    whole = train("whole", recipe=recipe, changes=changes)
    interrupt_after(epoch=1)
    with pytest.raises(KeyboardInterrupt):
        train("stopped", recipe=recipe, changes=changes)
    assert len(read_log(tmp_path / "stopped")) == 2
    stopped = train("stopped", recipe=recipe, changes=changes, resume=True)

    assert_equal(load_student(whole).state_dict(), load_student(stopped).state_dict())
    assert_equal(read_checkpoint(whole)[1]["learner"], read_checkpoint(stopped)[1]["learner"])
    logs = [[{k: v for k, v in line.items() if k not in TIMES} for line in read_log(run)] for run in (whole, stopped)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("older", [False, True])
def test_resume_needs_the_folder_alone(train, interrupt_after, older, tmp_path):
    whole = train("whole", recipe="difom", epochs=2, labels=0.5)
    interrupt_after(epoch=0)
    with pytest.raises(KeyboardInterrupt):
        train("stopped", recipe="difom", epochs=2, labels=0.5)
    if older:  # as runs were written before: [optimiser], and nothing of where the caches are
        settings = tmp_path / "stopped" / "settings.toml"
        table = tomllib.loads(settings.read_text()) | {"optimiser": tomllib.loads(settings.read_text())["optimizer"]}
        settings.write_text(tomli_w.dumps({key: table[key] for key in table.keys() - {"optimizer", "run"}}))
    (stopped,) = train_module.train(out=tmp_path / "stopped", resume=True)
    assert_equal(load_student(whole).state_dict(), load_student(stopped).state_dict())


def test_a_resume_that_finds_its_cache_gone_names_the_option_that_is_missing(train, monkeypatch):
    folder = train(recipe="baseline", epochs=1)
    monkeypatch.setattr(train_module, "open_cache", open_cache)
    settings = folder / "settings.toml"
    settings.write_text(settings.read_text().replace(str(Path("memory").resolve()), "/moved/feats"))
    with pytest.raises(RunError, match=r"was trained from /moved/feats, which is not there; say with --cache where"):
        train_module.train(out=folder, resume=True)


def test_line_of_an_epoch_without_checkpoint_is_written_anew(train, interrupt_after, tmp_path):
    interrupt_after(epoch=0)
    with pytest.raises(KeyboardInterrupt):
        train(recipe="baseline")
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": 1, "loss": 9}) + "\n" + '{"epoch": 2, "lo')
    lines = read_log(train(recipe="baseline", resume=True))
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert lines[1]["loss"] != 9


def test_a_first_epoch_that_left_its_line_and_no_checkpoint_stands_in_the_log_once(train, tmp_path):
    """Where the disk was full or the power went between the two, the run that started over had the line twice."""
    train(recipe="baseline", epochs=1)
    (tmp_path / "run" / "last.ckpt").unlink()
    folder = train(recipe="baseline", epochs=1, resume=True)
    assert [line["epoch"] for line in read_log(folder)] == [0]


def test_folder_in_use_is_refused_and_names_the_way_on(train):
    train(recipe="baseline", epochs=1)
    with pytest.raises(RunError, match="already holds a run; go on with it by --resume"):
        train(recipe="baseline", epochs=1)


def test_folder_of_something_else_is_refused(train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="holds something that is no run"):
        train(recipe="baseline", epochs=1)


def test_few_validation_images_choose_no_epoch(train, tmp_path):
    """Fourteen once kept an epoch four points of Dice below the last one."""
    folder = train("few", recipe="baseline")
    log, facts = read_log(folder), read_run(folder)
    assert (
        facts["best_epoch"] == 2
        and facts["best_val_dice"] == log[2]["val_dice"] == load_student(folder).meta["val_dice"]
    )
    said = (folder / "train.log").read_text()
    assert "the last epoch is kept: 4 validation images would choose by chance" in said
    assert f"the last epoch is kept, of validation Dice {log[2]['val_dice']:.4f}" in said
    chosen = train("chosen", recipe="baseline", changes=["optimizer.keep=best"])
    best = max(read_log(chosen), key=lambda line: line["val_dice"])
    assert load_student(chosen).meta["epoch"] == read_run(chosen)["best_epoch"] == best["epoch"]
    held = [keeps_last(OptimizerConfig(**options), images) for options, images in KEEPS]
    assert held == [True, False, False, True, False]


KEEPS = [({}, 99), ({}, 100), ({"patience_epochs": 3}, 9), ({"keep": "last"}, 500), ({"keep": "best"}, 9)]


def test_what_a_killed_run_left_in_its_first_moments_is_no_hindrance(train, tmp_path):
    """Before it has settings: a temporary file of a process that is no more."""
    (tmp_path / "run").mkdir()
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
    left = tmp_path / "run" / f".tmp-{host}~999999999~0abc~settings.toml"
    left.write_text("half")
    assert read_run(train(recipe="baseline", epochs=1))["status"] == "finished"
    assert not left.exists()


def test_the_lines_of_an_epoch_are_on_the_disk_before_its_checkpoint(train, tmp_path, monkeypatch):
    """After a power loss a finished run once had empty logs."""
    synced: list[str] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").readlink().name), sync(fd)))
    train(recipe="baseline", epochs=2)
    order = [name for name in synced if name in ("log.jsonl", "train.log") or name.endswith("last.ckpt")]
    checkpoints = [place for place, name in enumerate(order) if name.endswith("last.ckpt")]
    assert len(checkpoints) == 2
    for before, place in zip([0, *checkpoints], checkpoints, strict=False):
        assert {"log.jsonl", "train.log"} <= set(order[before:place])


def test_a_second_log_that_fails_is_said_once_and_ends_nothing(train, monkeypatch, capsys):
    """Its thread raises again what happened on the disk, at a later call."""
    from torch.utils.tensorboard import SummaryWriter

    def fail(*_):
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    folder = train(recipe="baseline", epochs=3, changes=["machine.logger=tensorboard"])
    assert capsys.readouterr().err.count("WARNING: the tensorboard log failed") == 1
    assert read_run(folder)["status"] == "finished" and len(read_log(folder)) == 3


def test_a_resume_of_a_folder_that_is_not_there_starts_no_default_run(train, tmp_path):
    with pytest.raises(
        RunError, match=r"typo is not there: nothing to resume; name a recipe or other options to start"
    ):
        train_module.train(out=tmp_path / "typo", resume=True)
    assert not (tmp_path / "typo").exists()


def test_resume_with_other_settings_names_each_difference(train):
    train(recipe="baseline", epochs=1)
    with pytest.raises(RunError, match=r"data.batch_size: 4 there, 8 here; optimizer.epochs: 1 there, 2 here"):
        train(recipe="baseline", epochs=2, batch_size=8, resume=True)


def test_resume_on_another_cache_is_refused(train, make_cache):
    train(recipe="baseline", epochs=1)
    train.cache = make_cache(records=20, views=2, picture_px=32, taps=TAPS, name="other")
    with pytest.raises(RunError, match=r"hold other records \([0-9a-f]{12}\.\.\. there, [0-9a-f]{12}\.\.\. here\)"):
        train(recipe="baseline", epochs=1, resume=True)


def test_what_differs_in_a_cache_is_named_before_its_digests(tmp_path):
    there, here = ({"cache_digests": [{"pictures": "a" * 64, "teachers/sam": each * 64}]} for each in "bc")
    with pytest.raises(RunError, match=r"the cache holds other teachers/sam \(b{12}\.\.\. there, c{12}\.\.\. here\)"):
        refuse_differences(there, here, ["cache_digests"], tmp_path)


def test_more_views_than_there_are_is_one_line(train, capsys):
    train(recipe="baseline", epochs=1, views=9)
    assert "NOTE: --views 9 was asked for, but the cache has 2: all 2 are used" in capsys.readouterr().err
    train("two", recipe="baseline", epochs=1, views=2)
    assert "NOTE" not in capsys.readouterr().err


def test_a_kind_of_distillation_that_no_phase_uses_is_a_warning(train, capsys):
    said = "WARNING: distill.kind is multiscale, but no phase has distillation above 0"
    train(recipe="baseline", epochs=1, changes=["distill.kind=multiscale"])
    assert said in capsys.readouterr().err
    train("on", epochs=1, recipe="baseline", changes=["distill.kind=multiscale", "phases.0.distillation=1"])
    assert "WARNING: distill.kind" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["student.safetensors", "student.json", "last.ckpt", "log.jsonl", "settings.toml", "run.json"]
)
def test_a_finished_run_with_a_damaged_file_is_no_success_when_resumed(train, name):
    folder = train(recipe="baseline", epochs=1)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2] + b"\n\xff")
    with pytest.raises(DifomError, match=name):
        train(recipe="baseline", epochs=1, resume=True)


def test_papers_of_a_run_hold_no_path_that_could_be_relative(train, tmp_path):
    facts = read_run(train(recipe="baseline", epochs=1))
    assert facts["caches"] == [os.path.relpath(Path("memory").resolve(), (tmp_path / "run").resolve())]
    assert "/" not in facts["command"][0]


def test_a_run_that_has_not_begun_is_started_by_resume_without_a_word_of_another(train, capsys):
    folder = train(recipe="baseline", epochs=1, resume=True)
    assert "starts over" not in capsys.readouterr().err
    for name in ("last.ckpt", "student.safetensors", "run.json", "log.jsonl"):
        (folder / name).unlink()
    train(recipe="baseline", epochs=1, resume=True)
    assert f"{folder} holds no checkpoint to resume from: the run starts over" in capsys.readouterr().err


def test_finished_run_resumes_to_itself(train):
    folder = train(recipe="baseline", epochs=1)
    before = load_student(folder).state_dict()
    assert_equal(before, load_student(train(recipe="baseline", epochs=1, resume=True)).state_dict())


def test_refused_run_leaves_no_folder(train, tmp_path):
    with pytest.raises(SettingsError, match="the nearest is 32 px"):
        train(recipe="baseline", input_size=33)
    assert not (tmp_path / "run").exists()


def test_unfinished_cache_says_how_many_views_are_missing(train):
    train.cache.finished[3:8] = False
    with pytest.raises(CacheIncompleteError, match=r"5 of 36 views are not finished.*--allow-partial"):
        train(recipe="difom", epochs=1)
    folder = train(recipe="difom", epochs=1, allow_partial=True)
    assert read_run(folder)["rows"]["train_views"] == 27


def test_cache_without_a_needed_tap_lists_what_it_has(train, make_cache):
    train.cache = make_cache(records=20, views=1, picture_px=32, taps={})
    with pytest.raises(CacheIncompleteError, match=r"holds no teacher.*difom-cache extract"):
        train(recipe="difom", epochs=1)


def test_unknown_teacher_is_refused_by_name(train):
    with pytest.raises(SettingsError, match="wid"):
        train(recipe="difom", epochs=1, teachers=["wid"])


def test_chosen_teachers_alone_are_read(train):
    assert read_run(train(recipe="difom", epochs=1, teachers=["deep"]))["taps"] == ["deep/neck@16"]


def test_loss_that_is_not_finite_names_its_records_and_keeps_the_checkpoint(train, tmp_path, interrupt_after):
    interrupt_after(epoch=0)
    with pytest.raises(KeyboardInterrupt):
        train(recipe="difom-multiscale")
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    broken = train.cache._arrays["wide/block@16/code"]
    broken[:] = float("nan")
    with pytest.raises(RunError, match=r"epoch 2, step 1 is not finite; .*not-finite.json"):
        train(recipe="difom-multiscale", resume=True)
    dump = json.loads((tmp_path / "run" / "not-finite.json").read_text())
    assert len(dump["records"][0]) == 4 and dump["records"][0][0].startswith("memory/")
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before


def test_averaged_weights_teach_without_any_teacher_and_a_resumed_run_ends_the_same(train, make_cache, interrupt_after):
    train.cache = make_cache(records=20, views=2, picture_px=32, taps={})
    whole = train("whole", recipe="mean-teacher", labels=0.5, changes=["distill.confidence=0.5"])
    assert read_run(whole)["rows"]["unlabelled_records"] > 0
    lines = read_log(whole)
    assert lines[-1]["consistency"] > 0 and lines[-1]["distill/gradient_share"] > 0
    interrupt_after(1)
    with pytest.raises(KeyboardInterrupt):
        train("halted", recipe="mean-teacher", labels=0.5, changes=["distill.confidence=0.5"])
    halted = train("halted", recipe="mean-teacher", labels=0.5, changes=["distill.confidence=0.5"], resume=True)
    assert_equal(load_student(halted).state_dict(), load_student(whole).state_dict())
    with pytest.raises(SettingsError, match=r"set optimizer\.ema_decay"):
        train("plain", recipe="mean-teacher", changes=["optimizer.ema_decay=0"])


@pytest.mark.parametrize(("recipe", "terms"), [("pseudo-masks", {"logits"}), ("logits-only", {"logits"})])
def test_recipes_of_logits_alone_learn_from_nothing_else(train, make_cache, recipe, terms):
    taps = TAPS | {"probe/logits@4": TapSpec("probe/logits@4", "logits", 1, 8, 4, "float16")}
    train.cache = make_cache(records=20, views=2, picture_px=32, taps=taps)
    folder = train(recipe=recipe, epochs=1, labels=0.5)
    assert read_run(folder)["taps"] == ["probe/logits@4"]
    assert terms <= read_log(folder)[0].keys() and "feature" not in read_log(folder)[0]
    with pytest.raises(SettingsError, match="every training image has its own mask"):
        train("whole", recipe=recipe, epochs=1)


def test_teachers_masks_are_not_read_where_every_image_has_its_own(train, make_cache, capsys):
    taps = TAPS | {"probe/logits@4": TapSpec("probe/logits@4", "logits", 1, 8, 4, "float16")}
    train.cache = make_cache(records=20, views=2, picture_px=32, taps=taps)
    folder = train(recipe="difom-multiscale", epochs=1)
    assert "probe/logits@4" not in read_run(folder)["taps"] and "logits" not in read_log(folder)[0]
    assert "every training image has its own mask" in capsys.readouterr().err


def test_features_only_reads_no_logits(train, make_cache):
    taps = TAPS | {"probe/logits@4": TapSpec("probe/logits@4", "logits", 1, 8, 4, "float16")}
    train.cache = make_cache(records=20, views=2, picture_px=32, taps=taps)
    assert "probe/logits@4" not in read_run(train(recipe="features-only", epochs=1, labels=0.5))["taps"]


@pytest.mark.parametrize(
    "recipe", ["baseline", "difom", "difom-paper", "difom-published", "difom-multiscale", "mean-teacher"]
)
def test_every_recipe_trains_in_bfloat16(train, recipe):
    lines = read_log(train(recipe=recipe, precision="bfloat16"))
    assert len(lines) == 3
    assert ("distill/gradient_share" in lines[-1]) == (recipe != "baseline")


def test_a_look_at_the_gradients_changes_no_training(train, monkeypatch):
    looked = load_student(train("looked", recipe="difom-multiscale", epochs=2)).state_dict()
    monkeypatch.setattr(loop, "gradient_share", lambda *_: 0.5)
    assert_equal(looked, load_student(train("blind", recipe="difom-multiscale", epochs=2)).state_dict())


def test_a_wanted_share_of_the_gradient_is_what_the_terms_get(train):
    """With the paper's weights they had a few percent of it; the batches differ, so the mean is looked at."""
    share = ["distill.gradient_share=0.6", "distill.low_weight=0.001", "distill.high_weight=0.001"]
    lines = read_log(train("asked", recipe="difom", epochs=12, changes=share))
    measured = [line["distill/gradient_share"] for line in lines]
    assert measured[0] < 0.1 and sum(measured[4:]) / len(measured[4:]) == pytest.approx(0.6, abs=0.1)
    assert lines[0]["distill/factor"] == 1.0 and lines[-1]["distill/factor"] > 10
    plain = read_log(train("plain", recipe="difom", epochs=2, changes=[*share, "distill.gradient_share=0"]))
    assert max(line["distill/gradient_share"] for line in plain) < 0.1 and "distill/factor" not in plain[0]


def test_a_run_of_another_revision_is_refused_in_one_line(train, interrupt_after, tmp_path):
    """A later version's, say, whose distillation of that name teaches otherwise."""
    interrupt_after(epoch=0)
    with pytest.raises(KeyboardInterrupt):
        train(recipe="difom")
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace('"revision": 3', '"revision": 4'))
    with pytest.raises(RunError, match=r"another version.* \(revision 4 there, 3 here\): its student opens as before"):
        train(recipe="difom", resume=True)


def test_share_of_labels_leaves_the_other_frames_to_the_teachers(train):
    distilled = train("distilled", recipe="difom", epochs=1, labels=0.25)
    rows = read_run(distilled)["rows"]
    assert rows["labelled_records"] + rows["val_records"] == 4  # two groups of two are nearest to 5 of 20 masks
    assert rows["labelled_records"] + rows["unlabelled_records"] == 16
    plain = train("plain", recipe="baseline", epochs=1, labels=0.25)
    assert read_run(plain)["steps_per_epoch"] == read_run(distilled)["steps_per_epoch"] == 4


def test_frames_without_a_mask_train_beside_the_others(train, make_cache):
    train.cache = make_cache(records=20, views=2, picture_px=32, taps=TAPS, unlabelled=6)
    folder = train(recipe="difom-multiscale", epochs=1)
    assert read_run(folder)["rows"]["unlabelled_records"] == 6


def test_several_seeds_make_several_runs(train, tmp_path):
    runs = train_module.train(
        "unet", cache="memory", recipe="baseline", out=tmp_path / "study", width=4, input_size=32,
        batch_size=8, epochs=1, seeds=[0, 1],        device="cpu", changes=["machine.logger=none"],
    )  # fmt: skip
    assert [run.name for run in runs] == ["study-seed0", "study-seed1"]
    one, other = (load_student(run).state_dict() for run in runs)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_same_seed_gives_the_same_student(train):
    one, other = train("one", recipe="difom", epochs=2), train("other", recipe="difom", epochs=2)
    assert_equal(load_student(one).state_dict(), load_student(other).state_dict())


def test_a_phase_learns_features_and_the_next_one_masks(train, make_cache, monkeypatch, tmp_path):
    taps = TAPS | {"probe/logits@4": TapSpec("probe/logits@4", "logits", 1, 8, 4, "float16")}
    train.cache, read = make_cache(records=20, views=2, picture_px=32, taps=taps), []
    batches = Feed.train_batches
    monkeypatch.setattr(
        Feed, "train_batches", lambda feed, epoch, taps, **more: read.append(taps) or batches(feed, epoch, taps, **more)
    )
    recipe = tmp_path / "features-first.toml"
    recipe.write_text(
        '[distill]\nkind = "multiscale"\nrelation_weight = 1.0\n'
        '[[phases]]\nuntil_frac = 0.5\nsegmentation = 0.0\ndistillation = 1.0\nlearn = "features"\n'
        '[[phases]]\ndistillation = 1.0\nlearn = "masks"\n'
    )
    first, second = read_log(train(recipe=str(recipe), epochs=2, labels=0.5))
    assert read == [tuple(TAPS), ("probe/logits@4",)]
    assert {"feature", "relation"} <= first.keys() and "logits" not in first
    assert second["logits"] > 0 and "feature" not in second and "relation" not in second


def test_early_stopping_ends_the_run(train):
    folder = train(recipe="baseline", epochs=8, patience=1, lr=1e-9)
    assert read_run(folder)["epochs_done"] < 8


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "said"), [("bfloat16", 1), ("auto", 0)])
def test_a_precision_that_the_processor_emulates_is_one_line(train, capsys, monkeypatch, tmp_path, precision, said):
    (tmp_path / "cpuinfo").write_text("model name\t: Old 5000\nflags\t: avx2\n")
    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "cpuinfo")
    train(recipe="baseline", epochs=1, precision=precision)
    assert capsys.readouterr().err.count("NOTE: Old 5000 has no instructions for bfloat16") == said


def test_published_losses_collapse_and_mark_the_run(train, capsys):
    changes = ["optimizer.lr=0.03", "phases.0.until_frac=0.0", "phases.1.until_frac=1.0", "phases.1.segmentation=0.0"]
    folder = train(recipe="difom-published", epochs=8, changes=changes)
    facts = read_run(folder)["distillation"]
    assert facts["alive"] is False
    assert any(line.startswith("distill/target_var/") and "collapsed" in line for line in facts["warnings"])
    assert "WARNING: the distillation is dead" in capsys.readouterr().err


def test_difom_stays_alive_where_published_dies(train):
    facts = read_run(train(recipe="difom", epochs=2))["distillation"]
    assert facts["alive"] is True and facts["warnings"] == []


@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")  # timm's file has these names
def test_the_pretrained_encoders_recipe_starts_from_timms_own_file(train, tmp_path):
    pytest.importorskip("segmentation_models_pytorch")
    import timm

    torch.manual_seed(0)
    state = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    save_file(state, tmp_path / "lite0.safetensors")
    name = read_recipe("pretrained-encoder").student.name
    options = {"student": name, "student_weights": str(tmp_path / "lite0.safetensors"), "width": 0, "lr": 1e-9}
    student = load_student(train(recipe="pretrained-encoder", epochs=1, **options))
    trained = student.encoder.state_dict()
    assert not read_run(tmp_path / "run")["taps"]
    assert torch.allclose(trained["conv_stem.weight"], state["conv_stem.weight"], atol=1e-6)


def test_terms_keep_their_weight_beside_a_mask_loss_that_sums_four_outputs_and_the_papers_theirs(train):
    four = {"student": "unet++", "changes": ["student.deep_supervision=true"]}
    (line,) = read_log(train("ours", recipe="difom-multiscale", epochs=1, **four))
    assert line["loss"] - line["segmentation"] == pytest.approx(4 * (line["feature"] + line["relation"]), rel=1e-4)
    line = read_log(train("paper", recipe="difom-paper", **four))[1]
    assert line["loss"] - 0.6 * line["segmentation"] == pytest.approx(0.1 * (line["low"] + line["high"]), rel=1e-3)


@pytest.mark.parametrize(
    ("recipe", "changes", "revision"),
    [
        ("baseline", ["data.fresh_views=false"], 1),  # as it was before views were drawn anew
        ("baseline", [], 2),
        ("baseline", ["data.fresh_views=false", "optimizer.ema_decay=0.9"], 2),
        ("difom-multiscale", ["data.fresh_views=false"], 4),
        ("difom", [], 3),
        ("mean-teacher", [], 2),
    ],
)
def test_a_run_that_another_version_would_teach_otherwise_is_not_resumed(train, recipe, changes, revision):
    folder = train(recipe=recipe, changes=changes, epochs=1)
    facts = json.loads((folder / "run.json").read_text())
    assert facts["revision"] == revision
    (folder / "run.json").write_text(json.dumps(facts | {"revision": revision - 1}))
    with pytest.raises(RunError, match="teaches otherwise"):
        train(recipe=recipe, changes=changes, epochs=1, resume=True)
