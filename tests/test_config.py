"""Settings: complete recipes, one value changed by name, written back, compared."""

import tomllib
from pathlib import Path

import pytest

from difom_cache.errors import SettingsError
from difom_train.config import (
    RECIPES,
    OptimizerConfig,
    Phase,
    TrainConfig,
    change_config,
    compose_keywords,
    find_differences,
    format_recipe,
    read_recipe,
    read_settings,
    recipe_names,
    to_table,
    write_settings,
)


def test_the_recipes_of_the_package_are_these():
    assert recipe_names() == [
        *("baseline", "difom", "difom-multiscale", "difom-paper", "difom-published"),
        *("mean-teacher", "pretrained-encoder", "pseudo-masks"),
    ]


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_holds_only_what_differs_and_prints_complete(name, tmp_path):
    defaults, written = to_table(TrainConfig()), tomllib.loads((RECIPES / f"{name}.toml").read_text())
    for section, values in written.items():
        for key, value in values.items() if isinstance(values, dict) else ():
            assert value != defaults[section][key], f"{section}.{key} is the default"
    complete = tomllib.loads(format_recipe(name))
    assert complete.keys() == defaults.keys() - {"run"}
    assert all(complete[section].keys() == defaults[section].keys() for section in complete.keys() - {"phases", "seed"})
    assert all(phase.keys() == Phase.model_fields.keys() for phase in complete["phases"])
    (tmp_path / "copy.toml").write_text(format_recipe(name))
    assert read_recipe(tmp_path / "copy.toml") == read_recipe(name)


def test_only_the_baselines_do_not_distil():
    assert {name for name in recipe_names() if not read_recipe(name).distils} == {"baseline", "pretrained-encoder"}


def test_settings_that_were_written_read_back_equal(tmp_path):
    changes = ["data.scales=[0.75, 1.0, 1.25]", "distill.teachers=['sam']", f"run.cache=['{tmp_path}']"]
    settings = change_config(read_recipe("difom"), changes)
    write_settings(settings, tmp_path / "settings.toml")
    assert read_recipe(tmp_path / "settings.toml") == settings


def test_settings_of_a_run_name_paths_from_its_folder_and_move_with_them(tmp_path):
    cache, run = tmp_path / "here" / "feats", tmp_path / "here" / "runs" / "one"
    changes = [f"run.cache=['{cache}']", f"run.data='{tmp_path / 'here'}'"]
    run.mkdir(parents=True)
    write_settings(change_config(read_recipe("difom"), changes), run / "settings.toml")
    held = tomllib.loads((run / "settings.toml").read_text())["run"]
    assert (held["cache"], held["data"]) == (["../../feats"], "../..")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = tmp_path / "there" / "runs" / "one" / "settings.toml"
    for read in (read_settings, read_recipe):
        assert read(moved).run.cache == (tmp_path / "there" / "feats",) and read(moved).run.data == tmp_path / "there"

    moved.write_text('[run]\ncache = ["/elsewhere/feats"]\n')  # as earlier versions wrote it
    assert read_settings(moved).run.cache == (Path("/elsewhere/feats"),)


def test_one_value_is_changed_by_its_dotted_name():
    settings = change_config(
        read_recipe("difom-paper"), ["optimizer.lr=1e-3", "student.name=unet++", "phases.1.segmentation=0.5", "seed=3"]
    )
    assert (settings.optimizer.lr, settings.student.name, settings.phases[1].segmentation) == (1e-3, "unet++", 0.5)
    assert settings.seed == 3


def test_unknown_key_names_the_nearest():
    with pytest.raises(SettingsError, match=r"'optimizer.lrr'.*did you mean 'optimizer.lr'"):
        change_config(read_recipe("difom"), ["optimizer.lrr=1"])


def test_unknown_key_in_a_file_names_file_and_nearest(tmp_path):
    (tmp_path / "mine.toml").write_text("[data]\nbatchsize = 4\n")
    with pytest.raises(SettingsError, match=r"mine.toml.*'data.batchsize'.*'data.batch_size'"):
        read_recipe(tmp_path / "mine.toml")


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(SettingsError, match=r"'difon'.*did you mean 'difom'"):
        read_recipe("difon")


def test_value_of_another_type_is_refused_with_its_key():
    with pytest.raises(SettingsError, match=r"data.batch_size is 'many'; it must be a whole number"):
        change_config(read_recipe("difom"), ["data.batch_size=many"])


def test_change_without_equals_sign_is_refused():
    with pytest.raises(SettingsError, match="has no '='"):
        change_config(read_recipe("difom"), ["optimizer.lr"])


def test_phases_must_end_with_the_run():
    with pytest.raises(SettingsError, match=r"phases end at \[0.3333, 0.6667, 0.9\]"):
        change_config(read_recipe("difom-paper"), ["phases.2.until_frac=0.9"])


def test_share_of_labels_lies_above_zero():
    with pytest.raises(SettingsError, match=r"data.labels_frac is 0; it must be in \(0, 1\]"):
        change_config(read_recipe("difom"), ["data.labels_frac=0"])


def test_fresh_views_are_refused_where_the_paper_is_followed_to_the_letter():
    for recipe in ("difom-paper", "difom-published"):
        with pytest.raises(SettingsError, match="views that no teacher has seen"):
            change_config(read_recipe(recipe), ["data.fresh_views=true"])
    assert read_recipe("difom").data.fresh_views
    with pytest.raises(SettingsError, match="no-fresh-views"):
        change_config(read_recipe("baseline"), ["data.all_views=true"])


@pytest.mark.parametrize(("old", "learn"), [("features-only", "features"), ("logits-only", "masks")])
def test_a_recipe_that_became_an_option_is_read_under_its_old_name(old, learn, capsys):
    config = compose_keywords(recipe=old)
    assert config == compose_keywords(recipe="difom-multiscale", changes=[f"distill.learn={learn}"], out=config.run.out)
    assert f"--set distill.learn={learn}" in capsys.readouterr().err and old in config.run.out.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.lr=-1", "optimizer.lr is -1; it must be at least 0"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay is -1; it must be at least 0"),
        ("optimizer.warmup_frac=2", r"optimizer.warmup_frac is 2; it must be in \[0.*, 1.*\]"),
        ("optimizer.clip_norm=nan", "optimizer.clip_norm is nan; it must be a number, at least 0"),
        ("optimizer.ema_decay=1.5", r"optimizer.ema_decay is 1.5; it must be in \[0.*, 1.*\)"),
        ("optimizer.name=adan", "must be one of adam, adamw, sgd; did you mean 'adam'"),
        ("data.scales=[]", "data.scales is .*must be a list of at least 1"),
        ("data.scales=[0.0]", r"data.scales.0 is 0.0; it must be in \(0, 16\]"),
        ("data.batch_size=-3", "data.batch_size is -3; it must be at least 1"),
        ("data.input_px=0", "data.input_px is 0; it must be at least 1"),
        ("machine.precision=foo", "must be one of auto, float32, bfloat16"),
        ("phases.0.distillation=-1", "phases.0.distillation is -1; it must be at least 0"),
        ("seed=99999999999999999999", "seed is 99999999999999999999; it must be at most"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_in_one_line(change, message):
    with pytest.raises(SettingsError, match=message) as refused:
        change_config(read_recipe("difom"), [change])
    assert "\n" not in str(refused.value)


def test_the_old_name_of_a_section_is_read_with_a_line(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text("[optimiser]\nlr = 0.25\n")
    assert read_recipe(tmp_path / "mine.toml").optimizer.lr == 0.25
    assert change_config(read_recipe("difom"), ["optimiser.lr=0.5"]).optimizer.lr == 0.5
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in said] == ["[optimiser] is read as [optimizer], its name of today"] * 2


def test_a_run_folder_is_named_by_what_differs_from_its_recipe():
    def name(**options):
        return str(compose_keywords(**options).run.out)

    assert name(student="unet") == "runs/unet-difom-multiscale-seed0"
    assert name(
        student="unet", width=16, input_size=96, recipe="difom", labels=0.1, cache="elsewhere", device="cpu"
    ) == ("runs/unet-w16-96px-difom-labels0.1-seed0")
    changed = {
        "teachers": ("sam", "dinov2"),
        "changes": ("optimizer.ema_decay=0.9", "data.scales=[0.75,1.0]"),
        "seed": 3,
    }
    assert name(student="smp:unet/resnet18", recipe="baseline", **changed) == (
        "runs/smp-unet-resnet18-baseline-scales0.75+1.0-ema_decay0.9-sam+dinov2-seed3"
    )
    assert (
        name(student="unet++", seeds=(0, 1), labels_seed=2, labels=0.5)
        == "runs/unet++-difom-multiscale-labels0.5-masks2"
    )
    long = name(student="unet", changes=[f"distill.teachers=[{', '.join(repr(f'teacher{n}') for n in range(40))}]"])
    assert len(Path(long).name) == 120 and long != name(student="unet")


def test_differences_are_named_one_by_one():
    there = read_recipe("difom")
    here = change_config(there, ["optimizer.lr=0.001", "machine.device=cpu"])
    assert find_differences(there, here, ignore=["machine.device"]) == ["optimizer.lr: 0.0005 there, 0.001 here"]


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (lambda: OptimizerConfig(lr=-1), "lr is -1; it must be at least 0"),
        (lambda: TrainConfig(optimizer={"lr": -1}), "optimizer.lr is -1; it must be at least 0"),
        (lambda: TrainConfig(seed="x"), "seed is 'x'; it must be a whole number, at least 0"),
        (lambda: TrainConfig(sed=3), "there is no setting 'sed'; did you mean 'seed'? known: colour, data,"),
    ],
)
def test_a_config_that_is_built_in_python_is_refused_in_one_line(build, line):
    with pytest.raises(SettingsError) as refused:
        build()
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)
