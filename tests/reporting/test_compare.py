"""Runs side by side: tables whose numbers can be checked by hand, intervals that hold what they promise."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from painted_frames import SIZES, paint_benchmark, paint_frame, save_small_student
from PIL import Image

from difom_cache.errors import RunError, SettingsError
from difom_train import compare, evaluate
from difom_train.evaluation import METRICS
from difom_train.reporting import (
    Comparison,
    choose_cases,
    compare_paired,
    encode_overlay,
    fit,
    load_entries,
    marks_of,
    published,
    read_published,
)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sets of four frames; Kvasir's frames 1 and 2 show the same; so do one of ColonDB and one training frame."""
    root = paint_benchmark(tmp_path_factory.mktemp("data"), frames=4)
    kvasir = root / "TestDataset" / "Kvasir" / "images"
    (kvasir / "2.png").write_bytes((kvasir / "1.png").read_bytes())
    for kind in ("image", "mask"):
        (root / "TrainDataset" / kind).mkdir(parents=True)
    for stem in range(900, 906):
        picture, mask = paint_frame(stem, 64, 48)
        Image.fromarray(picture).save(root / "TrainDataset" / "image" / f"{stem}.png")
        Image.fromarray(mask).save(root / "TrainDataset" / "mask" / f"{stem}.png")
    colon = root / "TestDataset" / "CVC-ColonDB" / "images" / "3.png"
    (root / "TrainDataset" / "image" / "900.png").write_bytes(colon.read_bytes())
    return root


@pytest.fixture(scope="module")
def runs(benchmark: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four evaluated runs: one setting with two seeds, then two settings of one seed."""
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for seed, name in enumerate(("wide-seed0", "wide-seed1", "narrow-seed0", "a&b_<i>-seed0")):
        made.append(save_small_student(folder / name, seed=seed))
        evaluate(made[-1], benchmark, workers=0)
    log = [{"epoch": n, "loss": 1 / (n + 1), "val_dice": n / 5, "distill/explained/sam": 0.1 * n} for n in range(4)]
    (made[0] / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return made


@pytest.fixture(scope="module")
def comparison(runs: list[Path], benchmark: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    out = tmp_path_factory.mktemp("out")
    return compare(runs, out=out, data=benchmark, cost=False, resamples=300, gallery_per_set=4)


def test_seeds_of_one_setting_are_one_row_of_their_means(comparison: Comparison, runs: list[Path]) -> None:
    measured = [row for row in comparison.table.rows if not row.published]
    assert [(row.name, row.seeds) for row in measured] == [("wide", 2), ("narrow", 1), ("a&b_<i>", 1)]
    single = [load_entries([run])[0].summarise()["Kvasir"]["fixed/dice"] for run in runs[:2]]
    assert measured[0].values["Kvasir"]["fixed/dice"] == pytest.approx(np.mean(single))


def test_published_rows_stand_beside_and_are_marked(comparison: Comparison) -> None:
    published = {row.name: row for row in comparison.table.rows if row.published}
    assert published["PraNet"].values["Kvasir"] == {
        "pranet/dice": 0.898,
        "pranet/iou": 0.840,
        "pranet/weighted_f": 0.885,
        "pranet/s_measure": 0.915,
        "pranet/max_e": 0.948,
        "pranet/mae": 0.030,
    }
    text = comparison.render()
    assert "PraNet †" in text and "† as published, not measured here." in text
    assert text.index("wide (2 seeds)") < text.index("PraNet †")


def test_set_inside_another_is_shown_and_left_out_of_the_mean(comparison: Comparison) -> None:
    values = comparison.table.rows[0].values
    outer = [values[name]["fixed/iou"] for name in ("Kvasir", "CVC-ColonDB")]
    assert values["mean without CVC-300"]["fixed/iou"] == pytest.approx(np.mean(outer))
    assert "CVC-300 (4)" in comparison.render()


def test_clean_table_leaves_out_repeated_and_leaked_frames(comparison: Comparison) -> None:
    assert comparison.clean is not None
    assert comparison.table.frames == dict.fromkeys(SIZES, 4)
    assert comparison.clean.frames == {"Kvasir": 3, "CVC-ColonDB": 3, "CVC-300": 4}
    assert comparison.clean.notes[0] == "1 frames repeat another test frame, 1 show a training picture."


def test_without_training_data_the_clean_table_says_what_was_not_looked_at(runs: list[Path], tmp_path: Path) -> None:
    found = compare(runs[:1], out=tmp_path, cost=False, resamples=10, gallery_per_set=0)
    assert found.clean is not None and found.clean.frames["CVC-ColonDB"] == 4
    assert "Training pictures were not looked at: pass --data." in found.clean.notes[0]
    assert not found.differences


def test_tables_agree_in_every_format(comparison: Comparison) -> None:
    value = comparison.table.rows[1].values["CVC-300"]["pranet/s_measure"]
    with (comparison.out / "table.csv").open(newline="") as file:
        [line] = [
            line
            for line in csv.DictReader(file)
            if (line["table"], line["test_set"], line["network"], line["protocol"], line["metric"])
            == ("All frames", "CVC-300", "narrow", "pranet", "s_measure")
        ]
    assert float(line["value"]) == value
    assert json.loads((comparison.out / "table.json").read_text())["scores"]
    for name in ("table.md", "table.tex"):
        text = (comparison.out / name).read_text()
        assert f"{value:.3f}" in text and "narrow" in text and "without equal frames" not in text


def test_names_are_escaped_in_latex_and_lines_have_equal_columns(comparison: Comparison) -> None:
    text = (comparison.out / "table.tex").read_text()
    assert r"a\&b\_<i>" in text and "PraNet $\\dagger$" in text
    for table in re.findall(r"\\toprule(.*?)\\bottomrule", text, flags=re.DOTALL):
        widths = {len(re.findall(r"(?<!\\)&", line)) for line in table.splitlines() if line.endswith(r"\\")}
        assert len(widths) == 1


def test_best_measured_value_of_a_block_is_bold_and_published_ones_never(comparison: Comparison) -> None:
    table = comparison.table
    mae = next(metric for metric in METRICS if metric.name == "fixed/mae")
    measured = [row for row in table.rows if not row.published]
    lowest = min(round(row.values["Kvasir"]["fixed/mae"], 3) for row in measured)
    assert table.best("Kvasir", mae) == lowest
    assert [row.name for row in table.rows if row.published and table.is_best(row, "Kvasir", METRICS[0])] == []


def test_difference_is_that_of_the_means_in_the_table(comparison: Comparison) -> None:
    first, second = comparison.table.rows[0].values, comparison.table.rows[1].values
    for metric in ("fixed/dice", "pranet/dice"):
        place = comparison.table.places[-1]
        assert comparison.differences["narrow"][metric].mean == pytest.approx(
            second[place][metric] - first[place][metric]
        )
    assert comparison.differences["narrow"]["fixed/dice"].seeds == (1, 2)


def test_interval_of_a_constant_difference_is_that_difference() -> None:
    first = {"a": np.random.default_rng(0).random((1, 40)), "b": np.random.default_rng(1).random((1, 7))}
    entry = {name: values + 0.05 for name, values in first.items()}
    groups = {"a": [str(n) for n in range(40)], "b": [str(n // 2) for n in range(7)]}
    found = compare_paired(entry, first, groups, resamples=500, seed=0)
    assert (found.mean, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))
    assert found.p == pytest.approx(2 / 501)  # no resample contradicts it


def test_interval_of_the_mean_has_the_width_that_theory_gives() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0.02, 0.1, 400)
    first = {"a": np.zeros((1, 400))}
    found = compare_paired({"a": noise[None]}, first, {"a": [str(n) for n in range(400)]}, resamples=4000, seed=1)
    error = noise.std() / 20
    assert found.low == pytest.approx(noise.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(noise.mean() + 1.96 * error, abs=0.1 * error)


def test_frames_of_one_video_widen_the_interval_as_one_frame_would() -> None:
    rng = np.random.default_rng(0)
    videos = rng.normal(0, 0.1, 20)
    frames = np.repeat(videos, 10)  # ten equal frames of each
    alone = compare_paired(
        {"a": videos[None]}, {"a": np.zeros((1, 20))}, {"a": [str(n) for n in range(20)]}, resamples=3000, seed=1
    )
    grouped = compare_paired(
        {"a": frames[None]},
        {"a": np.zeros((1, 200))},
        {"a": [str(n // 10) for n in range(200)]},
        resamples=3000,
        seed=1,
    )
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high), abs=1e-9)


def test_seeds_that_disagree_widen_the_interval() -> None:
    groups = {"a": [str(n) for n in range(50)]}
    first = {"a": np.zeros((2, 50))}
    agreed = compare_paired({"a": np.full((2, 50), 0.1)}, first, groups, resamples=2000, seed=0)
    apart = np.stack([np.zeros(50), np.full(50, 0.2)])
    disagreed = compare_paired({"a": apart}, first, groups, resamples=2000, seed=0)
    assert agreed.mean == pytest.approx(disagreed.mean) == pytest.approx(0.1)
    assert (agreed.low, agreed.high) == pytest.approx((0.1, 0.1))
    assert (disagreed.low, disagreed.high) == pytest.approx((0.0, 0.2))
    assert disagreed.p > 0.4  # both seeds of zero are drawn in a quarter of the resamples


def test_seeds_that_share_their_masks_are_drawn_together() -> None:
    """One seed's masks are better for both entries: of the difference that says nothing."""
    groups = {"a": [str(n) for n in range(50)]}
    first = {"a": np.stack([np.zeros(50), np.full(50, 0.3)])}
    entry = {"a": first["a"] + 0.1}
    paired = compare_paired(entry, first, groups, resamples=500, seed=0, paired_seeds=True)
    assert (paired.low, paired.high) == pytest.approx((0.1, 0.1))
    alone = compare_paired(entry, first, groups, resamples=500, seed=0)
    assert alone.low == pytest.approx(-0.2) and alone.high == pytest.approx(0.4)


def test_runs_of_the_same_seeds_are_paired_whatever_their_order(tmp_path: Path, benchmark: Path) -> None:
    """Both entries have a bad and a good seed of 0.3 apart; paired, their difference has no spread but that of frames."""
    made = {}
    for setting, seed in ((0.1, 1), (0.1, 0), (0.2, 0), (0.2, 1)):
        made[setting, seed] = run = save_small_student(tmp_path / f"lr{setting}-seed{seed}", seed=seed)
        (run / "settings.toml").write_text(
            f"seed = {seed}\n[optimizer]\nlr = {setting}\n[data]\nlabels_seed = {seed}\n"
        )
        evaluate(run, benchmark, workers=0)
    entries = load_entries(list(made.values()))
    assert [entry.runs for entry in entries] == [(made[lr, 0], made[lr, 1]) for lr in (0.1, 0.2)]
    assert entries[0].seeds_drawn == entries[1].seeds_drawn == ((0, 0), (1, 1))
    found = compare(list(made.values()), out=tmp_path / "report", resamples=300).differences["lr0.2"]["fixed/dice"]
    assert (found.low, found.high) == (0, 0), "each seed's two students are one and the same"
    assert load_entries([made[0.1, 0]])[0].seeds_drawn == ((0, 0),)


def test_gallery_shows_worst_median_best_and_quantiles_of_the_gain() -> None:
    dice = np.array([[0.1, 0.5, 0.9, 0.6, 0.7], [0.1, 0.5, 0.9, 0.62, 0.1]])
    by_gain = "quantiles of the gain"  # frames in its order: 4, 0, 1, 2, 3
    assert choose_cases(dice, 4) == {0: ["worst"], 1: ["median", by_gain], 2: ["best"]}
    assert {number for number, kinds in choose_cases(dice, 8).items() if by_gain in kinds} == {0, 2}
    assert {number for number, kinds in choose_cases(dice, 20).items() if by_gain in kinds} == {0, 1, 2, 3, 4}
    assert choose_cases(dice[:1], 4) == {0: ["worst"], 3: ["median"], 2: ["best"]}
    assert choose_cases(dice, 0) == {}


def test_overlay_is_small_and_pictures_are_never_enlarged() -> None:
    assert fit(1225, 966) == (384, 303) and fit(64, 48) == (64, 48)
    _, mask = paint_frame(1, 400, 300)
    assert len(encode_overlay(mask, (9, 9, 9), fit(400, 300))) < 4000


def test_runs_on_other_frames_are_refused_and_the_frames_named(
    runs: list[Path], benchmark: Path, tmp_path: Path
) -> None:
    other = save_small_student(tmp_path / "other", seed=9)
    evaluate(other, benchmark, limit=3, workers=0)
    with pytest.raises(RunError, match=r"scored 4 frames and .*other 3; only one of them has CVC-300/\d"):
        compare([runs[0], other], out=tmp_path / "out", cost=False)
    evaluate(other, benchmark / "TestDataset" / "Kvasir", workers=0, out=tmp_path / "kvasir")
    with pytest.raises(RunError, match="was evaluated on CVC-300, CVC-ColonDB, Kvasir"):
        compare([runs[0], tmp_path / "kvasir"], out=tmp_path / "out", cost=False)


def test_scores_of_another_protocol_version_are_refused(runs: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "old-seed0"
    shutil.copytree(runs[0], other)
    summary = other / "eval" / "summary.json"
    summary.write_text(summary.read_text().replace('"protocol_version": 1', '"protocol_version": 0'))
    with pytest.raises(RunError, match=r"different protocols .*old-seed0 has version 0, expected 1"):
        compare([runs[0], other], out=tmp_path / "out", cost=False)
    summary.write_text(summary.read_text().replace('"protocol_version": 0', '"protocol_version": 1'))
    summary.write_text(summary.read_text().replace('"source": "student"', '"source": "maps"'))
    with pytest.raises(RunError, match=r"old-seed0 has saved maps of version None, expected 3"):
        compare([runs[0], other], out=tmp_path / "out")


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("eval", "has not been evaluated"),
        ("eval/fixed/Kvasir.csv", "no scores under fixed"),
        ("eval/pranet/Kvasir.e-curves.npy", "is missing; evaluate the run again"),
    ],
)
def test_scores_that_are_gone_are_named(runs: list[Path], tmp_path: Path, gone: str, message: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(runs[0], broken)
    path = broken / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(RunError, match=message):
        compare([broken], out=tmp_path / "out", cost=False)


def test_bad_requests_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="name at least one run"):
        compare([], out=tmp_path)
    with pytest.raises(RunError, match="named twice"):
        compare([runs[0], runs[0]], out=tmp_path)
    with pytest.raises(SettingsError, match="resamples=0: must be at least 1"):
        compare(runs[:1], out=tmp_path, resamples=0)


def test_cost_of_each_entry_stands_in_the_answer(runs: list[Path], tmp_path: Path) -> None:
    found = compare(runs[2:], out=tmp_path, resamples=10, gallery_per_set=0, device="cpu", published=False)
    assert set(found.costs) == {"narrow", "a&b_<i>"}
    assert found.as_json()["costs"]["narrow"]["input_px"] == 32
    assert not [row for row in found.table.rows if row.published]


def test_a_run_that_was_taught_by_other_masks_is_marked(tmp_path: Path) -> None:
    for name, mark in (("own", ""), ("leaking", "taught by masks that it may not see")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"masks": {"mark": mark}}))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text("{}")
    assert marks_of([tmp_path / "own", tmp_path / "old", tmp_path / "maps"]) == []
    assert marks_of([tmp_path / "leaking", tmp_path / "leaking"]) == ["taught by masks that it may not see"]


def test_figures_of_the_authors_notebook_carry_their_remark() -> None:
    table, notes = read_published({"ETIS-LaribPolypDB": 3})
    assert table["U-Net++, Polyp-DiFoM's notebook"]["ETIS-LaribPolypDB"] == {"pranet/dice": 0.519, "pranet/iou": 0.399}
    assert "printed distillation loss is 0.0000" in notes[0] and "not PraNet's protocol" in notes[0]


def test_published_rows_stand_only_beside_whole_sets(real_count, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "count_published_frames", real_count)
    table, notes = read_published({"Kvasir": 100, "CVC-ClinicDB": 5})
    assert set(table["PraNet"]) == {"Kvasir"}
    assert notes[1] == "No published figures beside other frames: CVC-ClinicDB has 62 frames there and 5 here."
    assert read_published({"Kvasir": 99}) == (
        {},
        ["No published figures beside other frames: Kvasir has 100 frames there and 99 here."],
    )
    wanted = {"Kvasir": 100, "CVC-ClinicDB": 62, "CVC-300": 60, "CVC-ColonDB": 380, "ETIS-LaribPolypDB": 196}
    assert {name: real_count(name) for name in wanted} | {"CVC-ColonDB": 380} == wanted
    assert real_count("my own") is None


def test_what_makes_runs_unequal_is_said_on_the_terminal_and_on_the_page(runs: list[Path], tmp_path: Path) -> None:
    pair = []
    for number, (name, facts) in enumerate(
        {
            "a-seed0": {"status": "finished", "epochs_done": 9},
            "b-seed0": {"status": "running", "epochs_done": 4},
        }.items()
    ):
        shutil.copytree(runs[number], tmp_path / name)
        (tmp_path / name / "run.json").write_text(json.dumps(facts))
        pair.append(tmp_path / name)
    found = compare(pair, out=tmp_path / "out", cost=False, resamples=10, gallery_per_set=1, anonymous=True)
    page = (tmp_path / "out" / "report.html").read_text()
    for words in (
        "b-seed0 is not finished; its scores are those of the epoch kept so far.",
        "The runs have unequal numbers of epochs: a 9, b 4.",
        "One seed alone of a, b: the chance of training is in no interval and in no p.",
    ):
        assert words in found.render() and words in page, words
    assert ", one seed" in found.render()
    assert '"frame 1"' in page and "Kvasir/1" not in page


def test_runs_without_scores_are_scored_where_data_is_given(
    runs: list[Path], benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = save_small_student(tmp_path / "fresh-seed0", seed=1)
    options = {"cost": False, "resamples": 10, "gallery_per_set": 1}
    with pytest.raises(RunError, match=rf"difom-train evaluate {fresh} --data TESTS"):
        compare([runs[0], fresh], out=tmp_path / "out", **options)
    with pytest.raises(RunError, match="holds no test records"):
        compare([runs[0], fresh], out=tmp_path / "out", data=benchmark / "TrainDataset", **options)
    found = compare([runs[0], fresh], out=tmp_path / "out", data=benchmark, **options)
    assert f"{fresh} has no scores yet: it is evaluated on {benchmark}" in capsys.readouterr().err
    assert [row.name for row in found.table.rows if not row.published] == ["wide", "fresh"]
    assert (
        load_entries([fresh])[0].summarise() == load_entries([runs[1]])[0].summarise()
    )  # equal weights, by their seed


def test_an_out_that_is_no_folder_is_refused(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError, match="is a file"):
        compare(runs, out=tmp_path / "file", cost=False)
