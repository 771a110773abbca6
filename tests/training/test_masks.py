"""A budget of masks covers training and validation, and a run says which masks taught it."""

import json
from importlib import import_module

import numpy as np
import pytest

from difom_cache import draw_budget
from difom_cache.errors import RunError, SettingsError, WeightsError
from difom_cache.store import TapSpec
from difom_train.config import DataConfig, change_config, read_recipe
from difom_train.data import JointCache, choose_masks, select_rows
from difom_train.students import read_run_masks
from difom_train.training import OUTSIDE, UNKNOWN, mark_of, read_run

TAPS = {
    "clean/block@16": TapSpec("clean/block@16", "feature", 6, 2, 16, "float16"),
    "wide/block@16": TapSpec("wide/block@16", "feature", 5, 2, 16, "float16"),
}
train_module = import_module("difom_train.training.run")


def select(cache, **options):
    joint = JointCache([cache])
    return select_rows(joint, DataConfig(**options), seed=0, usable=np.ones(len(joint), bool))


def records_of(cache, rows):
    return set(np.asarray(cache.table.record)[rows].tolist())


def test_a_share_of_labels_covers_training_and_validation_as_the_public_draw_says(make_cache):
    cache = make_cache(records=60, views=2, taps=TAPS)
    groups = [line["group"] for line in cache.table.records]
    for seed in range(4):
        budget = draw_budget(groups, np.ones(60, bool), share=0.4, labels_seed=seed)
        found = select(cache, labels=0.4, labels_seed=seed)
        training = records_of(cache, np.flatnonzero(found.supervised))
        assert training | records_of(cache, found.val) == set(np.flatnonzero(budget).tolist())
        assert not training & records_of(cache, found.val)
        assert len(found.train) == len(select(cache).train), "frames without a mask still train"


def test_masks_outside_the_budget_are_never_read_for_selection(make_cache):
    cache = make_cache(records=60, views=2, taps=TAPS)
    assert len(select(cache, labels=0.3, labels_seed=1).val) < len(select(cache).val) == 12


def test_the_seed_of_the_run_does_not_move_the_budget(make_cache):
    joint = JointCache([make_cache(records=60, views=2, taps=TAPS)])
    one, other = (choose_masks(joint, DataConfig(labels=0.3), seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    assert (choose_masks(joint, DataConfig(labels=0.3, labels_seed=1), seed=0) != one).any()


def test_a_run_of_an_earlier_version_keeps_what_its_key_means(make_cache):
    cache = make_cache(records=60, views=2, taps=TAPS)
    found = select(cache, labels_frac=0.25)
    assert len(found.val) == 12, "all of them validate"
    assert len(records_of(cache, np.flatnonzero(found.supervised))) == 12  # a quarter of 48 training masks
    old = [cache.table.record[row] for row in np.flatnonzero(select(cache, labels_frac=0.25).supervised)]
    assert set(old) == records_of(cache, np.flatnonzero(found.supervised))
    with pytest.raises(SettingsError, match=r"give data\.labels alone"):
        change_config(read_recipe("difom"), ["data.labels=0.5", "data.labels_frac=0.5"])


def test_a_budget_without_a_training_mask_is_refused(make_cache):
    cache = make_cache(records=10, views=1, taps=TAPS)
    seeds = [seed for seed in range(40) if first_group(cache, seed) == "seq4"]  # records 8 and 9, which validate
    with pytest.raises(SettingsError, match="holds no mask of a train record"):
        select(cache, labels=0.2, labels_seed=seeds[0])


def first_group(cache, seed):
    groups = [line["group"] for line in cache.table.records]
    return groups[int(np.flatnonzero(draw_budget(groups, np.ones(10, bool), share=0.2, labels_seed=seed))[0])]


@pytest.mark.parametrize(
    ("sources", "mark"),
    [
        ({}, ""),
        ({"dinov2": frozenset()}, ""),
        ({"probe": frozenset("ab")}, ""),
        ({"wide": frozenset("abc")}, OUTSIDE),
        ({"onnx": None}, UNKNOWN),
        ({"onnx": None, "wide": frozenset("c")}, f"{OUTSIDE}; {UNKNOWN}"),
    ],
)
def test_a_mark_says_what_the_teachers_have_seen(sources, mark):
    assert mark_of(sources, frozenset("ab")) == mark


@pytest.fixture
def train(make_cache, monkeypatch, tmp_path):
    cache = make_cache(records=20, views=2, picture_px=32, taps=TAPS)

    def run(name, **options):
        tiny = {"student": "unet", "width": 4, "input_size": 32, "batch_size": 4, "epochs": 1, "device": "cpu"}
        tiny |= {"cache": "memory", "out": tmp_path / name, "changes": ["machine.logger=none"]}
        (folder,) = train_module.train(**(tiny | {"recipe": "difom"} | options))
        return folder

    run.cache = cache
    monkeypatch.setattr(train_module, "open_cache", lambda path, **_: cache)
    return run


def test_a_run_names_its_masks_and_is_marked_where_a_teacher_saw_others(train, capsys):
    everything = frozenset(f"{number:064d}" for number in range(20))
    train.cache.seen = {"clean": frozenset(), "wide": everything}
    folder = train("leaking", labels=0.25)
    facts = read_run(folder)["masks"]
    assert facts["training"] + facts["validation"] == 4
    assert facts["taught_by"] == {"clean": {"masks": 0, "outside": 0}, "wide": {"masks": 20, "outside": 16}}
    assert facts["mark"] == OUTSIDE
    said = capsys.readouterr().err
    assert "NOTE: wide learnt from 16 masks that this run may not see: a gain is theirs, too\n" in said
    assert "NOTE: clean" not in said
    assert read_run_masks(folder) == everything, "what it learnt through its teacher is handed on"

    whole = train("whole", labels=1.0)
    assert read_run(whole)["masks"]["mark"] == ""
    clean = train("clean", labels=0.25, teachers=["clean"])
    assert read_run(clean)["masks"]["mark"] == "" and len(read_run_masks(clean) or ()) == 4


def test_an_unknown_teacher_makes_a_student_unknown_and_so_do_its_first_weights(train):
    train.cache.seen = {"clean": frozenset(), "wide": None}
    unknown = train("unknown", labels=0.25)
    assert read_run(unknown)["masks"]["mark"] == UNKNOWN and read_run_masks(unknown) is None
    plain = train("plain", recipe="baseline", labels=0.25)
    assert read_run(plain)["masks"]["taught_by"] == {} and len(read_run_masks(plain) or ()) == 4
    started = train("started", recipe="baseline", labels=0.25, labels_seed=2, student_weights=str(plain))
    assert read_run(started)["masks"]["mark"] == OUTSIDE
    (plain / "masks.json").unlink()  # a run of an earlier version
    old = train("old", recipe="baseline", labels=0.25, student_weights=str(plain))
    assert read_run(old)["masks"]["mark"] == UNKNOWN
    file = f"imagenet:{plain / 'student.safetensors'}"  # by the user's word, as of a file that timm publishes
    stated = train("stated", recipe="baseline", labels=0.25, student_weights=file)
    assert read_run(stated)["masks"]["mark"] == "" and read_run(stated)["masks"]["taught_by"] == {}
    with pytest.raises(WeightsError, match=r"no student weights at .*absent\.pth"):
        train("absent", recipe="baseline", labels=0.25, student_weights=f"imagenet:{plain / 'absent.pth'}")
    (plain / "masks.json").write_text(json.dumps([1]))
    with pytest.raises(RunError, match=r"masks\.json is damaged"):
        read_run_masks(plain)


def test_a_run_whose_images_all_have_masks_says_that_features_alone_teach(make_cache, monkeypatch, tmp_path, capsys):
    cache = make_cache(records=20, views=1, picture_px=32, taps=TAPS)
    monkeypatch.setattr(train_module, "open_cache", lambda path, **_: cache)
    tiny = {"width": 4, "input_size": 32, "epochs": 1, "device": "cpu", "changes": ["machine.logger=none"]}
    train_module.train("unet", cache="memory", out=tmp_path / "all", **tiny)
    assert "every training image has its own mask, so teachers teach by their features alone" in capsys.readouterr().err
    train_module.train("unet", cache="memory", out=tmp_path / "some", labels=0.5, probe="none", **tiny)
    assert "features alone" not in capsys.readouterr().err
