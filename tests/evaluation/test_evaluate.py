"""A student is scored on test sets: every frame, under both protocols, with nothing dropped on the way."""

import csv
import hashlib
import json
import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from painted_frames import SIZES, paint_benchmark, paint_frame, save_small_student
from PIL import Image

from difom_cache import load_records, read_image, read_mask, write_manifest
from difom_cache.errors import DataError, DeviceError, DifomError, DifomWarning, RunError, SettingsError
from difom_train import evaluate, load_student
from difom_train.evaluation import read_set, read_summary, score_fixed, score_pranet
from difom_train.inference import prob_at_size, render_picture


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_benchmark(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save_small_student(tmp_path / "run")


def save_maps(benchmark: Path, maps: Path) -> Path:
    """Save every mask as a probability map, which is a perfect answer."""
    for mask in (benchmark / "TestDataset").glob("*/masks/*.png"):
        path = maps / mask.parts[-3] / mask.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(read_mask(mask) * np.uint8(255)).save(path)
    return maps


def test_a_frames_scores_are_those_of_the_students_logits_at_ground_truth_size(run: Path, benchmark: Path) -> None:
    evaluation = evaluate(run, benchmark, workers=0)
    folder = benchmark / "TestDataset" / "Kvasir"
    with torch.inference_mode():
        pixels = render_picture(read_image(folder / "images" / "2.png"), 32)
        logits = load_student(run)(pixels[None])[0, 0].numpy()
    prob = prob_at_size(logits, 58, 70)
    truth = read_mask(folder / "masks" / "2.png").astype(bool)
    row = [frame.id for frame in evaluation.sets["Kvasir"].frames].index("Kvasir/2")
    columns = evaluation.sets["Kvasir"].columns
    # a batch of three may differ from a batch of one in the last bits
    assert columns["fixed/dice"][row] == pytest.approx(score_fixed(prob, truth).dice, abs=0.01)
    assert columns["pranet/dice"][row] == pytest.approx(score_pranet(prob, truth).dice, abs=1e-4)
    saved = np.asarray(Image.open(run / "eval" / "masks" / "Kvasir" / "2.png"))
    assert saved.dtype == bool and (saved != (prob >= 0.5)).mean() < 0.01


def test_maps_of_sixteen_bits_score_as_their_eight_bits_and_a_white_one_on_an_empty_frame_is_wrong(
    benchmark: Path, tmp_path: Path
) -> None:
    data = paint_benchmark(tmp_path / "data", frames=1)
    for mask in (data / "TestDataset").glob("*/masks/*.png"):
        levels = np.random.default_rng(0).integers(20, 200, (read_mask(mask).shape)).astype(np.uint8)
        for name, values in (("eight", levels), ("sixteen", levels.astype(np.uint16) * 257), ("white", levels | 255)):
            path = tmp_path / name / mask.parts[-3] / mask.name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    eight, sixteen = (evaluate(tmp_path / name, data, workers=0) for name in ("eight", "sixteen"))
    for name, values in eight.means().items():
        assert values == pytest.approx(sixteen.means()[name])
    for mask in (data / "TestDataset").glob("*/masks/*.png"):
        Image.new("1", Image.fromarray(read_mask(mask)).size).save(mask)
    with pytest.warns(DifomWarning, match="masks show no polyp"):
        white = evaluate(tmp_path / "white", data, workers=0)
    assert set(white.sets["Kvasir"].columns["pranet/s_measure"]) == {0.0}


def test_a_frames_line_holds_no_whole_path_no_formula_and_reads_back_the_same(run: Path, tmp_path: Path) -> None:
    data = paint_benchmark(tmp_path / "data", frames=1)
    for folder in ("images", "masks"):
        home = data / "TestDataset" / "Kvasir" / folder
        (home / "1.png").rename(home / "=1+1.png")
    evaluation = evaluate(run, data / "TestDataset", workers=0)
    text = (run / "eval" / "pranet" / "Kvasir.csv").read_text()
    assert str(tmp_path) not in text and "Kvasir/=1+1" in text
    assert read_set(run / "eval", "Kvasir").frames == evaluation.sets["Kvasir"].frames
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("data", "run"):
        (tmp_path / name).rename(moved / name)
    assert Path(read_set(moved / "run" / "eval", "Kvasir").frames[0].image).is_file()


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.01), (16, 0.02)])
def test_written_maps_score_as_the_network_that_wrote_them(
    run: Path, benchmark: Path, tmp_path: Path, bits: Literal[8, 16], tolerance: float
) -> None:
    live = evaluate(run, benchmark, workers=0, maps=tmp_path / "maps", map_bits=bits)
    saved = evaluate(tmp_path / "maps", benchmark, workers=0, out=tmp_path / "scores")
    with Image.open(tmp_path / "maps" / "Kvasir" / "1.png") as picture:
        assert picture.size == SIZES["Kvasir"] and picture.mode == ("L" if bits == 8 else "I;16")
    for name, values in live.means().items():
        for metric, value in values.items():
            # the narrow range of an untrained network is stretched: rounded to 8 bits it has a handful of levels
            if not metric.endswith("hd95_px") and (bits == 16 or metric.startswith("fixed")):
                assert saved.means()[name][metric] == pytest.approx(value, abs=tolerance), (name, metric)


def test_maps_are_never_written_onto_inputs_or_into_a_file(run: Path, tmp_path: Path) -> None:
    data = paint_benchmark(tmp_path / "data", frames=1)
    masks = data / "TestDataset" / "Kvasir" / "masks"
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "Kvasir").symlink_to(masks)
    before = (masks / "1.png").read_bytes()
    with pytest.raises(SettingsError, match="outside"):
        evaluate(run, data, workers=0, maps=tmp_path / "maps")
    (tmp_path / "file").write_text("x")
    for options in ({"maps": tmp_path / "file"}, {"out": tmp_path / "file" / "below"}):
        with pytest.raises(SettingsError, match="is a file"):
            evaluate(run, data, workers=0, **options)
    assert (masks / "1.png").read_bytes() == before


def test_table_shows_both_protocols_and_a_mean_without_the_set_inside_another(run: Path, benchmark: Path) -> None:
    evaluation = evaluate(run, benchmark, workers=0)
    means = evaluation.means()
    outer = [means[name]["fixed/dice"] for name in ("Kvasir", "CVC-ColonDB")]
    assert means["mean without CVC-300"]["fixed/dice"] == pytest.approx(np.mean(outer))
    text = evaluation.render()
    assert "pranet: mean over 256 thresholds" in text and "fixed: one threshold, 0.5" in text
    assert all(name in text for name in (*SIZES, "mean without CVC-300", "maxE", "HD95 px"))
    json.dumps(evaluation.as_json())


def test_every_frame_has_a_line_under_each_protocol_and_reads_back_the_same(run: Path, benchmark: Path) -> None:
    evaluation = evaluate(run, benchmark, workers=0)
    for protocol in ("pranet", "fixed"):
        with (run / "eval" / protocol / "CVC-300.csv").open(newline="") as file:
            assert [line["id"] for line in csv.DictReader(file)] == ["CVC-300/1", "CVC-300/2", "CVC-300/3"]
    again = read_set(run / "eval", "CVC-300")
    assert again.frames == evaluation.sets["CVC-300"].frames
    assert again.summarise() == evaluation.sets["CVC-300"].summarise()


def test_max_e_is_the_maximum_of_the_mean_curve(run: Path, benchmark: Path) -> None:
    scores = evaluate(run, benchmark, workers=0).sets["Kvasir"]
    assert scores.summarise()["pranet/max_e"] == pytest.approx(scores.e_curves.mean(axis=0).max(), abs=1e-6)
    assert scores.summarise()["pranet/max_e"] <= scores.columns["pranet/peak_e"].mean() + 1e-6


def test_a_network_that_learnt_from_masks_that_score_it_is_marked(run: Path, tmp_path: Path) -> None:
    data = paint_benchmark(tmp_path / "data")
    masks = sorted((data / "TestDataset" / "Kvasir" / "masks").glob("*.png"))[:2]
    seen = [hashlib.sha256(each.read_bytes()).hexdigest() for each in masks]
    frames = len(list((data / "TestDataset").glob("*/masks/*.png")))
    for held, mark in (
        (None, "training data unknown"),
        (seen, f"has learnt from 2 of the {frames} masks that score it"),
        ([64 * "0"], ""),
    ):
        (run / "masks.json").write_text(json.dumps({"masks": held}))
        found = evaluate(run, data, workers=0, reuse=True)
        assert found.mark == found.as_json()["mark"] == mark
        assert (f"NOTE: run: {mark}" in found.render()) == bool(mark)


def test_processes_give_the_scores_of_one_process(run: Path, benchmark: Path, tmp_path: Path) -> None:
    alone = evaluate(run, benchmark, workers=0, out=tmp_path / "alone")
    shared = evaluate(run, benchmark, workers=1, out=tmp_path / "shared")
    assert alone.means() == shared.means()


def test_limit_counts_frames_of_each_set(run: Path, benchmark: Path) -> None:
    evaluation = evaluate(run, benchmark, limit=2, workers=0)
    assert {name: len(scores.frames) for name, scores in evaluation.sets.items()} == dict.fromkeys(SIZES, 2)


def test_sets_evaluated_one_by_one_stand_in_one_summary_until_the_weights_change(benchmark: Path, run: Path) -> None:
    for name in ("Kvasir", "CVC-300"):
        evaluate(run, benchmark / "TestDataset" / name, workers=0)
    assert set(read_summary(run / "eval")["sets"]) == {"Kvasir", "CVC-300"}
    save_small_student(run, seed=1)
    evaluate(run, benchmark / "TestDataset" / "CVC-300", workers=0)
    assert set(read_summary(run / "eval")["sets"]) == {"CVC-300"}


def test_a_plain_folder_without_splits_is_scored_whole(run: Path, benchmark: Path, tmp_path: Path) -> None:
    plain = tmp_path / "clinic"
    plain.symlink_to(benchmark / "TestDataset" / "Kvasir")
    assert sum(len(scores.frames) for scores in evaluate(run, plain, workers=0).sets.values()) == 3


def test_saved_maps_are_scored_as_they_lie(benchmark: Path, tmp_path: Path) -> None:
    evaluation = evaluate(save_maps(benchmark, tmp_path / "maps"), benchmark, workers=0)
    for values in evaluation.means().values():
        assert (values["fixed/dice"], values["fixed/hd95_px"], values["fixed/mae"]) == (1, 0, 0)


def test_missing_maps_are_counted_and_named(benchmark: Path, tmp_path: Path) -> None:
    maps = save_maps(benchmark, tmp_path / "maps")
    for name in ("1", "3"):
        (maps / "Kvasir" / f"{name}.png").unlink()
    with pytest.raises(DataError, match="no map for 2 of 9 frames: Kvasir/1, Kvasir/3"):
        evaluate(maps, benchmark, workers=0)


def test_maps_of_another_size_are_named_with_both_sizes(benchmark: Path, tmp_path: Path) -> None:
    maps = save_maps(benchmark, tmp_path / "maps")
    Image.new("L", (8, 9)).save(maps / "CVC-300" / "2.png")
    with pytest.raises(DataError, match=r"1 maps .* CVC-300/2 \(8 x 9, its mask 64 x 48\)"):
        evaluate(maps, benchmark, workers=0)


def test_a_teacher_with_logits_is_scored_like_a_student(run: Path, benchmark: Path, tmp_path: Path) -> None:
    student = evaluate(run, benchmark, workers=0)
    teacher = evaluate(f"teacher:student:{run}", benchmark, workers=0, out=tmp_path / "teacher")
    for name, values in student.means().items():
        assert teacher.means()[name]["pranet/dice"] == pytest.approx(values["pranet/dice"], abs=1e-4)
    with pytest.raises(SettingsError, match="--out"):
        evaluate(f"teacher:student:{run}", benchmark, workers=0)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        ("no checkpoint", RunError, "holds no trained student"),
        ("no run", RunError, "is not a folder"),
        ("no frames", DataError, "empty"),
        ("no limit", SettingsError, "limit=0: must be at least 1"),
    ],
)
def test_bad_input_is_one_clear_line(
    damage: str, error: type[DifomError], message: str, run: Path, benchmark: Path, tmp_path: Path
) -> None:
    data, limit = benchmark, None
    if damage == "no checkpoint":
        (run / "student.safetensors").unlink()
    elif damage == "no run":
        run = tmp_path / "elsewhere"
    elif damage == "no frames":
        data = tmp_path / "empty"
        data.mkdir()
    else:
        limit = 0
    with pytest.raises(error, match=message) as caught:
        evaluate(run, data, limit=limit, workers=0)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there_is_refused(run: Path, benchmark: Path) -> None:
    with pytest.raises(DeviceError, match="--device cpu"):
        evaluate(run, benchmark, device="cuda")


@pytest.mark.slow
def test_all_real_test_frames_are_scored_within_eight_core_minutes(run: Path) -> None:
    benchmark = os.environ.get("DIFOM_BENCHMARK")
    if not benchmark:
        pytest.skip("DIFOM_BENCHMARK is not set: no real frames to score")
    before_s = spent_cpu_s()
    evaluation = evaluate(run, Path(benchmark), workers=2)
    assert sum(len(scores.frames) for scores in evaluation.sets.values()) == 797
    assert spent_cpu_s() - before_s < 2 * 240  # four minutes on two cores; processor time, as other jobs may run


def spent_cpu_s() -> float:
    """Return the processor time of this process and of its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def add_unknown_set(root: Path, frames: int = 4) -> Path:
    """Put a set beside the benchmark's that nobody has split, and return `root`."""
    for stem in range(frames):
        picture, mask = paint_frame(500 + stem, 64, 48)
        for part, pixels in (("images", picture), ("masks", mask)):
            (root / "TestDataset" / "Clinic" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / "TestDataset" / "Clinic" / part / f"{stem}.png")
    return root


def test_every_frame_is_scored_or_named_as_left_out_with_the_reason(run: Path, tmp_path: Path) -> None:
    known = paint_benchmark(tmp_path / "known")
    pictures = len(list(known.glob("TestDataset/*/images/*.png")))
    scored = evaluate(run, known, workers=0)
    assert scored.left_out == () and f"{pictures} frames scored, 0 left out" in scored.render()
    manifest = tmp_path / "records.csv"
    records = load_records(add_unknown_set(known), quiet=True)
    splits = {f"Clinic/{stem}": split for stem, split in enumerate(("train", "train", "val", "train"))}
    write_manifest([replace(each, split=splits.get(each.id, "test")) for each in records], manifest)
    beside = evaluate(run, manifest, workers=0)
    assert set(beside.sets) == set(SIZES)
    left = beside.as_json()["left_out"]
    assert [(each["dataset"], each["frames"]) for each in left] == [("Clinic", 3), ("Clinic", 1)]
    assert left == read_summary(run / "eval")["left_out"]
    text = beside.render()
    assert "left out: 3 frames of Clinic: train records of a set without test records; score it alone" in text
    assert text.splitlines()[-1].startswith(f"{pictures} frames scored, 4 left out; per frame: ")


def test_frames_beyond_the_limit_are_named_as_left_out(run: Path, benchmark: Path) -> None:
    left = evaluate(run, benchmark, limit=2, workers=0).left_out
    assert [(each.dataset, each.frames, each.reason) for each in left] == [
        (name, 1, "beyond --limit 2") for name in sorted(SIZES)
    ]


def test_maps_of_no_frame_are_named(benchmark: Path, tmp_path: Path) -> None:
    maps = save_maps(benchmark, tmp_path / "maps")
    (maps / "Elsewhere").mkdir()
    for path in (maps / "Elsewhere" / "1.png", maps / "Kvasir" / "one more.png"):
        Image.new("L", (8, 8)).save(path)
    left = evaluate(maps, benchmark, workers=0).left_out
    assert [(each.dataset, each.frames) for each in left] == [("Elsewhere", 1), ("Kvasir", 1)]
    limited = evaluate(maps, benchmark, workers=0, limit=2).left_out
    assert [each.reason for each in limited].count("maps of no frame of the data") == 2
