"""A model card says what its run's folder says, in words of the hub, and nothing of the machine."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from painted_frames import paint_benchmark, save_small_student

from difom_cache.errors import RunError
from difom_train import evaluate
from difom_train.cli import main
from difom_train.sharing import describe_run

FACTS = {
    "command": ["difom-train", "--cache", "/somewhere/feats"],
    "caches": ["../../somewhere/feats"],
    "seed": 3,
    "datasets": {"Kvasir": 900, "CVC-ClinicDB": 550, "ours|2024": 7},
    "masks": {"training": 130, "validation": 15, "taught_by": {}, "mark": "taught by masks that it may not see"},
    "taps": ["dinov2/block11@16", "radio/block31@16"],
    "teachers": {"dinov2": "dinov2:base", "radio": "radio:h"},
    "random_teachers": [],
    "groups_unknown": ["ours|2024 in /somewhere/feats: groups unknown"],
    "distillation": {"alive": True, "warnings": []},
    "epochs_done": 5,
    "best_val_dice": 0.7126,
    "versions": {"torch": "2.9"},
    "status": "finished",
}
SETTINGS = """seed = 3
[run]
cache = ["/somewhere/feats"]
[student]
weights = "/somewhere/first.safetensors"
[data]
labels = 0.1
labels_seed = 4
batch_size = 8
[optimizer]
name = "adamw"
lr = 0.0005
[distill]
learn = "both"
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = save_small_student(tmp_path / "unet-seed3")
    (folder / "run.json").write_text(json.dumps(FACTS))
    (folder / "settings.toml").write_text(SETTINGS)
    return folder


def row_of(card: str, first: str) -> list[str]:
    (line,) = [line for line in card.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_a_card_holds_settings_budget_seed_data_with_terms_and_teachers_with_licences(run: Path) -> None:
    card, unclear = describe_run(run)
    assert row_of(card, "label budget")[1] == "0.1 of the masks, chosen with seed 4: 130 train, 15 validate"
    assert row_of(card, "seed")[1] == "3" and row_of(card, "Dice on validation images")[1] == "0.713"
    assert row_of(card, "distillation")[1] == "unknown, from features and masks"  # a small student says no kind
    assert row_of(card, "Kvasir")[1:] == [
        "900",
        "research and education; the same images are in HyperKvasir, CC BY 4.0 "
        "(Kvasir-SEG, <https://datasets.simula.no/kvasir-seg/>)",
    ]
    assert row_of(card, "CVC-ClinicDB")[2].startswith("research and education, no commercial use (")
    assert row_of(card, r"ours\|2024")[1:] == ["7", "not known here: ask its publisher"]
    assert row_of(card, "dinov2")[1] == "Apache-2.0"
    assert row_of(card, "radio")[1].startswith("NVIDIA Open Model License: pass a copy")
    assert unclear == []
    assert "- Taught by masks that it may not see." in card and "No leak is known" not in card
    assert "no video or patient is known" in card
    assert card.count("Not a medical device") == 1 and card.count("not a medical device") == 1
    assert re.search(r"\nMade by difom [\d.]+\.\n\Z", card)
    assert "somewhere" not in card and str(run.parent) not in card


def test_the_hub_reads_the_head_of_a_card(run: Path) -> None:
    head = ModelCard(describe_run(run)[0]).data
    assert (head.license, head.license_name, head.library_name) == ("other", "research-only", "difom")
    assert head.pipeline_tag == "image-segmentation" and "non-commercial" in head.tags and head.eval_results is None
    assert ModelCard(describe_run(run, licence="cc-by-nc-4.0")[0]).data.license == "cc-by-nc-4.0"


def test_a_card_of_an_evaluated_run_has_its_scores_with_intervals_and_says_what_leaks(
    run: Path, tmp_path: Path
) -> None:
    """Of three frames without a video, each the only one drawn in 1 of 27 draws, the 95 % interval is from worst to best."""
    assert "Not evaluated yet" in describe_run(run)[0]
    scored = evaluate(run, paint_benchmark(tmp_path / "data"))
    with (run / "eval" / "fixed" / "Kvasir.csv").open() as file:
        lines = list(csv.DictReader(file))
    dice = sorted(float(line["dice"]) for line in lines)
    assert len(set(dice)) == 3 and not any(line["group"] for line in lines)
    card, _ = describe_run(run)
    fixed = card.partition("Fixed: one threshold")[2]
    assert row_of(fixed, "Kvasir")[1:3] == ["3", f"{sum(dice) / 3:.3f} [{dice[0]:.3f}, {dice[2]:.3f}]"]
    assert row_of(fixed, "mean without CVC-300")[1] == "6"
    assert "- CVC-300 is in no mean: its frames are frames of CVC-ColonDB." in card
    assert "- unet-seed3: training data unknown." in card
    results = {each.dataset_name: each.metric_value for each in ModelCard(card).data.eval_results}
    assert results == {
        name: round(values["fixed/dice"], 4) for name, values in scored.means().items() if name in results
    }
    assert set(results) == {"Kvasir", "CVC-ColonDB", "CVC-300"}


def test_frames_of_a_video_that_also_trained_are_counted_on_the_card(run: Path, tmp_path: Path) -> None:
    """Frames 2 and 3 of CVC-ClinicDB are of its first sequence, which trains as well; frame 2000 is of none."""
    data = paint_benchmark(tmp_path / "data") / "TestDataset"
    (data / "Kvasir").rename(data / "CVC-ClinicDB")
    for kind in ("images", "masks"):
        (data / "CVC-ClinicDB" / kind / "1.png").rename(data / "CVC-ClinicDB" / kind / "2000.png")
    evaluate(run, data)
    assert "- 2 frames of CVC-ClinicDB come from videos that also have training frames." in describe_run(run)[0]


def test_scores_of_other_weights_stand_on_no_card(run: Path, tmp_path: Path) -> None:
    evaluate(run, paint_benchmark(tmp_path / "data"), limit=1)
    assert "- Not scored: 2 frames of Kvasir: beyond --limit 1." in describe_run(run)[0]
    save_small_student(run, seed=1)
    with pytest.raises(RunError, match=r"scores other weights than .*difom-train evaluate .* again"):
        describe_run(run)


def test_a_run_of_an_earlier_version_names_teachers_by_its_taps_and_one_without_papers_says_so(tmp_path: Path) -> None:
    run = save_small_student(tmp_path / "small")
    card, unclear = describe_run(run)
    assert "does not say what it has learnt from" in card and "\nUnknown.\n" in card and unclear == []
    old = {key: value for key, value in FACTS.items() if key not in ("teachers", "datasets")}
    old |= {"taps": ["sam-vit_h/neck@16", "onnx-mine/logits@2", "sam2-tiny-random/neck16@16"]}
    old |= {"random_teachers": ["sam2-tiny-random"], "images": "images: 900 (Kvasir); 576 x 576 px"}
    (run / "run.json").write_text(json.dumps(old))
    card, unclear = describe_run(run)
    assert row_of(card, "sam-vit_h")[1] == "Apache-2.0" and row_of(card, "Kvasir")[1] == "unknown"
    assert row_of(card, "sam2-tiny-random")[1] == "none: its weights are random"
    assert unclear == ["onnx-mine (the file's own)"]


def test_the_command_writes_the_card_once(run: Path, monkeypatch, capsys) -> None:
    def call(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["difom-train", "card", str(run), *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    assert call() == 0 and capsys.readouterr().out.strip() == str(run / "README.md")
    assert call() == 2 and "exists" in capsys.readouterr().err
    assert call("--force", "--licence", "mit") == 0
    assert "The weights are passed on under mit." in (run / "README.md").read_text()
    assert call("--out", run.parent / "card.md") == 0 and "# unet-seed3" in (run.parent / "card.md").read_text()


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("/somewhere/first.safetensors", "first.safetensors; their licence was not judged"),
        ("imagenet", "imagenet; their licence was not judged"),
        ("auto", "random"),  # a U-Net's own default
    ],
)
def test_a_card_says_that_the_licence_of_first_weights_was_not_judged(run: Path, weights: str, said: str) -> None:
    settings = run / "settings.toml"
    settings.write_text(settings.read_text().replace("/somewhere/first.safetensors", weights))
    card = describe_run(run)[0]
    assert row_of(card, "first weights")[1] == said
    assert ("the licence of the first weights was not judged" in card) == (said != "random")


def test_a_card_of_a_run_that_was_stopped_does_not_say_that_no_image_validated(run: Path) -> None:
    known = {name: value for name, value in FACTS.items() if name not in ("epochs_done", "best_val_dice")}
    (run / "run.json").write_text(json.dumps(known | {"status": "running"}))
    card = describe_run(run)[0]
    assert row_of(card, "epochs")[1] == "unknown: the run was not finished"
    assert row_of(card, "Dice on validation images")[1] == "unknown"
