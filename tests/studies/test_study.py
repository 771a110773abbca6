"""A study: every run is trained and scored once, with one row for all seeds of a setting."""

import csv
import hashlib
import json
import re
import shutil
from statistics import mean, stdev

import pytest
import torch
from painted_frames import paint_benchmark
from PIL import Image
from safetensors.torch import load_file, save_file

from difom_cache.base.options import build
from difom_cache.errors import DeviceError, RunError, SettingsError
from difom_cache.store import TapSpec
from difom_train import study, train
from difom_train.commands import StudyConfig
from difom_train.studies import list_cells

TAPS = {f"{name}/block@16": TapSpec(f"{name}/block@16", "feature", 6, 2, 16, "float16") for name in ("wide", "narrow")}
TINY = {"width": 4, "input_size": 32, "batch_size": 8, "epochs": 1, "device": "cpu", "changes": ["machine.logger=none"]}


@pytest.fixture
def run(make_cache, monkeypatch, tmp_path):
    """Return a study of a cache in memory on painted test sets."""
    cache = make_cache(records=20, views=2, picture_px=32, taps=TAPS)
    monkeypatch.setitem(train.__globals__, "open_cache", lambda path, **_: cache)
    data = paint_benchmark(tmp_path / "data")

    def run(out="study", **options):
        return study("memory", data, tmp_path / out, **(TINY | options))

    return run


def name(recipe, *, labels=1, seed=0, masks=None):
    return f"unet-{recipe}-labels{labels:g}-masks{seed if masks is None else masks}-seed{seed}"


def test_a_row_is_the_mean_over_seeds_and_leaves_cvc300_out_of_the_mean(run, tmp_path):
    table = run(recipes=["baseline", "difom-multiscale"], labels=[0.5, 1.0], seeds=[0, 1])
    assert [(row.key.recipe, row.key.labels, row.runs) for row in table.rows] == [
        ("baseline", 0.5, 2),
        ("difom-multiscale", 0.5, 2),
        ("baseline", 1.0, 2),
        ("difom-multiscale", 1.0, 2),
    ]
    folders = [tmp_path / "study" / name("baseline", seed=seed) for seed in (0, 1)]
    scores = [json.loads((folder / "eval" / "summary.json").read_text())["sets"] for folder in folders]
    means = [mean(of["scores"]["fixed/dice"] for name, of in each.items() if name != "CVC-300") for each in scores]
    row = table.rows[2]
    assert row.mean == pytest.approx(mean(means)) and row.spread == pytest.approx(stdev(means))
    assert row.val_dice == pytest.approx(
        mean(json.loads((each / "run.json").read_text())["best_val_dice"] for each in folders)
    )
    with (tmp_path / "study" / "study.csv").open() as file:
        assert [float(line["mean"]) for line in csv.DictReader(file)] == [row.mean for row in table.rows]
    assert len(table.render().splitlines()) == 5
    chart = (tmp_path / "study" / "study.svg").read_text()
    assert chart.count("<!-- difom-multiscale, 2 seeds -->") == 2 and "50 % of the masks" in chart
    assert len((tmp_path / "study" / "study.md").read_text().splitlines()) == 6
    assert (tmp_path / "study" / "study.html").read_text().count("<tr>") == 5


def test_rows_are_compared_with_the_first_of_their_share_of_the_masks(run):
    rows = run(recipes=["baseline", "difom-multiscale"], labels=[0.5, 1.0], seeds=[0]).rows
    assert [row.difference is None for row in rows] == [True, False, True, False]
    for first, row in ((rows[0], rows[1]), (rows[2], rows[3])):
        assert row.difference.mean == pytest.approx(row.mean - first.mean)
        assert row.difference.low <= row.difference.mean <= row.difference.high
        assert row.difference.seeds == (1, 1)


def test_every_set_of_teachers_is_a_row_of_the_recipes_that_learn_from_teachers(run, tmp_path):
    table = run(recipes=["baseline", "difom-multiscale"], teachers=["wide", "narrow,wide"], labels=[1.0], seeds=[0])
    assert [(row.key.recipe, row.key.teachers) for row in table.rows] == [
        ("baseline", ""),
        ("difom-multiscale", "wide"),
        ("difom-multiscale", "narrow,wide"),
    ]
    facts = json.loads(
        (tmp_path / "study" / "unet-difom-multiscale-narrow+wide-labels1-masks0-seed0" / "run.json").read_text()
    )
    assert facts["settings"]["distill"]["teachers"] == ["narrow", "wide"]


def cells_of(**options):
    return list_cells(build(StudyConfig, {"data": "data", "recipes": "difom-multiscale", "labels": 0.1, **options}))


def test_a_teacher_may_be_named_by_the_masks_that_it_learnt_from():
    cells = cells_of(teachers="dino,dino-probe-l{percent}-s{labels_seed}", seeds=[0, 3])
    assert [cell.own_teachers for cell in cells] == [("dino", "dino-probe-l10-s0"), ("dino", "dino-probe-l10-s3")]
    assert len({cell.row for cell in cells}) == 1 and len({cell.folder for cell in cells}) == 2
    with pytest.raises(SettingsError, match=r"\{percent\} and \{labels_seed\} can be filled in, found 'nothing'"):
        _ = cells_of(recipes="difom", teachers="a-{nothing}", seeds=0)[0].folder


def test_a_run_folder_has_a_readable_name_and_one_of_an_earlier_version_is_kept(tmp_path):
    (cell,) = cells_of(students=["smp:unet/timm-tf_efficientnet_lite0"], teachers="dino", seeds=0)
    name = "smp-unet-timm-tf_efficientnet_lite0-difom-multiscale-dino-labels0.1-masks0-seed0"
    assert cell.folder == name and cell.place(tmp_path) == tmp_path / name
    old = tmp_path / name.replace("smp-unet-", "smp%3Aunet%2F")
    old.mkdir()
    assert cell.place(tmp_path) == old


def test_the_masks_are_drawn_by_the_runs_seed_or_by_seeds_of_their_own():
    masks = [(cell.labels_seed, cell.seed) for cell in cells_of(seeds=[0, 1])]
    assert masks == [(0, 0), (1, 1)]
    masks = [(cell.labels_seed, cell.seed) for cell in cells_of(seeds=[0, 1], labels_seeds=[7, 8])]
    assert masks == [(7, 0), (8, 0), (7, 1), (8, 1)]


def test_a_later_command_adds_its_rows(run):
    run(recipes=["baseline"], labels=[1.0], seeds=[0])
    table = run(recipes=["difom-multiscale"], labels=[1.0], seeds=[0])
    assert [row.key.recipe for row in table.rows] == ["difom-multiscale", "baseline"]


def test_a_run_whose_teacher_saw_other_masks_is_marked(run, tmp_path):
    run(recipes=["baseline"], labels=[1.0], seeds=[0])
    facts = tmp_path / "study" / name("baseline") / "run.json"
    held = json.loads(facts.read_text())
    facts.write_text(json.dumps(held | {"masks": held["masks"] | {"mark": "taught by masks that it may not see"}}))
    row = run(recipes=["baseline"], labels=[1.0], seeds=[0]).rows[0]
    assert row.masks == "taught by masks that it may not see"
    assert "taught by masks" in (tmp_path / "study" / "study.md").read_text()


def test_what_is_finished_is_not_trained_or_scored_again(run, tmp_path):
    first = run(recipes=["baseline"], labels=[1.0], seeds=[0])
    folder = tmp_path / "study" / name("baseline")
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "cell.json"}
    more = run(recipes=["baseline"], labels=[1.0], seeds=[0], also=[str(folder)])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert more.rows[0] == first.rows[0]
    assert more.rows[1].mean == pytest.approx(first.rows[0].mean)


def test_a_finished_baseline_is_the_first_of_two_rounds(run, tmp_path, capsys):
    changes = ["machine.logger=none", "distill.rounds=2", "distill.probe=none"]
    alone = run(recipes=["baseline"], labels=[0.5], seeds=[0], changes=changes).rows[0]
    capsys.readouterr()
    both = run(recipes=["baseline", "pseudo-masks"], labels=[0.5], seeds=[0], changes=changes)
    assert "starts over" not in capsys.readouterr().err
    folder, baseline = (tmp_path / "study" / name(recipe, labels=0.5) for recipe in ("pseudo-masks", "baseline"))
    files = [(place / "student.safetensors").read_bytes() for place in (folder / "first", baseline, folder)]
    assert files[0] == files[1] != files[2] and not (folder / "first/eval").exists()
    logs = [(place / "log.jsonl").read_text() for place in (folder / "first", baseline)]
    assert logs[0] == logs[1], "with the seconds that it took: not trained again"
    assert both.rows[0] == alone
    spent_s = [json.loads((place / "run.json").read_text())["train_cpu_s"] for place in (folder, baseline)]
    assert spent_s[0] > spent_s[1], "what the first round cost is counted"
    options = TINY | {"cache": "memory", "recipe": "pseudo-masks", "labels": 0.5, "changes": changes}
    (again,) = train("unet", out=tmp_path / "again", **options)
    assert (again / "student.safetensors").read_bytes() == files[2]


def test_a_study_that_is_killed_while_it_takes_a_first_round_goes_on(run, tmp_path, monkeypatch):
    changes = ["machine.logger=none", "distill.rounds=2", "distill.probe=none"]
    run(recipes=["baseline"], labels=[0.5], seeds=[0], changes=changes)
    whole = shutil.copytree

    def stop(source, to, **options):
        whole(source, to, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", stop)
        with pytest.raises(KeyboardInterrupt):
            run(recipes=["baseline", "pseudo-masks"], labels=[0.5], seeds=[0], changes=changes)
    folder = tmp_path / "study" / name("pseudo-masks", labels=0.5)
    assert not (folder / "first").exists() and not (folder / "student.safetensors").exists()
    run(recipes=["baseline", "pseudo-masks"], labels=[0.5], seeds=[0], changes=changes)
    assert (folder / "first/student.safetensors").exists() and (folder / "student.safetensors").exists()


def test_a_row_says_what_it_costs_and_what_was_scored_beside_which_masks_it_saw(run, tmp_path):
    run(recipes=["baseline"], labels=[1.0], seeds=[0, 1])
    folders = [tmp_path / "study" / name("baseline", seed=seed) for seed in (0, 1)]
    masks = sorted((tmp_path / "data" / "TestDataset").glob("*/masks/*.png"))
    leaked = hashlib.sha256(masks[0].read_bytes()).hexdigest()
    other = shutil.copytree(folders[0], tmp_path / "leaky")
    shutil.rmtree(other / "eval")
    (other / "masks.json").write_text(json.dumps({"masks": [leaked]}))
    row, beside = run(recipes=["baseline"], labels=[1.0], seeds=[0, 1], also=[str(other)]).rows
    spent_s = [
        json.loads(line)["train_cpu_s"] for each in folders for line in (each / "log.jsonl").read_text().splitlines()
    ]
    frame_s = [json.loads((each / "eval" / "summary.json").read_text())["cpu_s_per_frame"] for each in folders]
    tensors = load_file(folders[0] / "student.safetensors")
    weights = sum(tensor.numel() for name, tensor in tensors.items() if not re.search("running|tracked", name))
    assert row.cost == pytest.approx((mean(spent_s), 1000 * mean(frame_s), weights)) and min(spent_s) > 0
    assert beside.cost.train_cpu_s is None and beside.cost.parameters == weights
    assert (row.masks, beside.masks) == ("", f"has learnt from 1 of the {len(masks)} masks that score it")


def test_a_finished_run_of_a_recipe_that_has_changed_is_refused(run, tmp_path):
    """Its row would be the mean of two recipes."""
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[optimizer]\nlr = 0.01\n\n[[phases]]\n")
    run(recipes=[str(recipe)], labels=[1.0], seeds=[0])
    recipe.write_text("[optimizer]\nlr = 0.02\n\n[[phases]]\n")
    with pytest.raises(RunError, match=r"was started with other settings: optimizer\.lr.*choose another --out"):
        run(recipes=["baseline", str(recipe)], labels=[1.0], seeds=[0])
    assert not (tmp_path / "study" / name("baseline")).exists(), "refused before anything is trained"


def test_changes_reach_every_run(run, tmp_path):
    run(recipes=["baseline"], labels=[1.0], seeds=[0], changes=["machine.logger=none", "optimizer.lr=0.0123"])
    facts = json.loads((tmp_path / "study" / name("baseline") / "run.json").read_text())
    assert facts["settings"]["optimizer"]["lr"] == 0.0123


def test_scores_are_taken_again_only_for_the_same_weights_frames_and_masks(run, tmp_path):
    cell = {"recipes": ["baseline"], "labels": [1.0], "seeds": [0]}
    summary = tmp_path / "study" / name("baseline") / "eval" / "summary.json"
    run(**cell, limit=2)
    frames = {name: of["frames"] for name, of in json.loads(summary.read_text())["sets"].items()}
    assert set(frames.values()) == {2}
    run(**cell)  # more frames
    assert all(of["frames"] > 2 for of in json.loads(summary.read_text())["sets"].values())
    weights = tmp_path / "study" / name("baseline") / "student.safetensors"
    tensors = load_file(weights)
    last_bias = [name for name, tensor in tensors.items() if tensor.shape == (1,)][-1]
    save_file(tensors | {last_bias: torch.tensor([50.0])}, weights)
    assert run(**cell).rows[0].mean > 0.05  # other weights, which call everything polyp
    mask = next((tmp_path / "data" / "TestDataset" / "Kvasir" / "masks").iterdir())
    with Image.open(mask) as picture:
        empty = Image.new("L", picture.size)
    empty.save(mask)  # another truth
    scored = run(**cell).rows[0].sets
    assert scored["Kvasir"] < min(scored[name] for name in ("CVC-300", "CVC-ColonDB"))


def test_a_later_run_may_have_other_test_sets(run, tmp_path):
    first = run(recipes=["baseline"], labels=[1.0], seeds=[0])
    shutil.rmtree(tmp_path / "data" / "TestDataset" / "CVC-300")
    second = run(recipes=["baseline"], labels=[1.0], seeds=[0, 1])
    assert set(first.rows[0].sets) - set(second.rows[0].sets) == {"CVC-300"}
    assert second.rows[0].runs == 2


def test_the_device_reaches_training_and_scoring(run):
    with pytest.raises(DeviceError, match="cuda"):
        run(recipes=["baseline"], labels=[1.0], seeds=[0], device="cuda")
    run(recipes=["baseline"], labels=[1.0], seeds=[0])
    with pytest.raises(DeviceError, match="cuda"):  # nothing is left to train
        run(recipes=["baseline"], labels=[1.0], seeds=[0], device="cuda")


def test_a_study_of_another_budget_and_runs_that_share_a_folder_are_refused(run, tmp_path):
    run(recipes=["baseline"], labels=[1.0], seeds=[0])
    with pytest.raises(RunError, match=r"epochs 1 there, 2 here; choose another --out"):
        run(recipes=["baseline"], labels=[1.0], seeds=[0], epochs=2)
    with pytest.raises(SettingsError, match=f"share {name('baseline')}"):
        run(recipes=["baseline"], labels=[1.0], seeds=[0, 0])
    (tmp_path / "study" / "study.json").write_text("[]")
    with pytest.raises(RunError, match=r"study\.json is damaged"):
        run(recipes=["baseline"], labels=[1.0], seeds=[0])


def test_results_of_another_machine_join_and_are_not_trained_again(run, tmp_path, monkeypatch):
    cells = {"recipes": ["baseline", "difom-multiscale"], "labels": [1.0]}
    both = run(**cells, seeds=[0, 1])
    run(out="there", recipes=["baseline"], labels=[1.0], seeds=[0, 1])
    monkeypatch.chdir(tmp_path)
    run(out="there", recipes=["difom-multiscale"], labels=[1.0], seeds=[0], also=[f"there/{name('baseline')}"])
    results = tmp_path / "there" / "results.json"
    held = json.loads(results.read_text())  # a run is known by what it is, not by how its folder was called
    results.write_text(json.dumps(held | {"runs": {f"old-{key}": each for key, each in held["runs"].items()}}))
    table = run(out="here", **cells, seeds=[0, 1], results=[results])
    trained = {path.parent.name for path in (tmp_path / "here").glob("*/run.json")}
    assert trained == {name("difom-multiscale", seed=1)}
    for ours, whole in zip(table.rows, both.rows, strict=False):
        assert ours.key == whole.key and ours.runs == 2
        assert (ours.mean, ours.spread, ours.val_dice) == pytest.approx(
            (whole.mean, whole.spread, whole.val_dice), abs=1e-4
        )
        assert ours.cost.parameters == whole.cost.parameters
    assert table.rows[1].difference.mean == pytest.approx(both.rows[1].difference.mean, abs=1e-2)
    assert [row.key.recipe for row in table.rows] == ["baseline", "difom-multiscale", f"there/{name('baseline')}"]
    assert str(tmp_path) not in results.read_text(), "no path of the machine that made it"


def test_results_that_do_not_fit_are_refused_before_anything_is_trained(run, tmp_path):
    cell = {"recipes": ["difom-multiscale"], "labels": [1.0], "seeds": [0]}
    run(out="there", **cell)
    results = tmp_path / "there" / "results.json"
    with pytest.raises(RunError, match="another budget: epochs 1 there, 2 here"):
        run(out="here", **cell, epochs=2, results=[results])
    held = json.loads(results.read_text())
    (only,) = held["runs"].values()
    only["settings"]["optimizer"]["lr"] = 0.5
    results.write_text(json.dumps(held))
    with pytest.raises(RunError, match=r"had other settings: optimizer\.lr: 0\.5 there"):
        run(out="here", **cell, results=[results])
    only["settings"]["optimizer"]["lr"] = 5e-4
    only["made"]["revision"] = 1
    results.write_text(json.dumps(held))
    with pytest.raises(RunError, match="revision 1 there"):
        run(out="here", **cell, results=[results])
    only["dice"]["Kvasir"].pop()
    results.write_text(json.dumps(held))
    with pytest.raises(RunError, match="is damaged"):
        run(out="here", **cell, results=[results])
    assert not list((tmp_path / "here").glob("*/run.json"))
    with pytest.raises(RunError, match="scored on other frames"):
        run(out="third", **cell | {"seeds": [1]}, limit=1, results=[_fresh(run, tmp_path, cell)])


def _fresh(run, tmp_path, cell):
    run(out="elsewhere", **cell)
    return tmp_path / "elsewhere" / "results.json"
