"""What a run says: a line an epoch, on the terminal and in train.log, and at the end what there is and what to type next."""

import json
import re
from importlib import import_module

import pytest
from memory_cache import MemoryCache

from difom_cache.store import TapSpec
from difom_train.training import TRAIN_LOG, SecondLog, append_log, format_losses

TAPS = {"wide/block@16": TapSpec("wide/block@16", "feature", 6, 2, 16, "float16")}
train_module = import_module("difom_train.training.run")
EPOCH = re.compile(
    r"epoch (\d)/3  loss (\d\.\d{4})(?: \((.*?)\))?  val Dice (\d\.\d{4})  kept (\d\.\d{4}) \(epoch (\d)\)  "
    r"(\d+\.\d) images/s  data wait \d+%  (\d+ s left|\d+ s in all)$"
)


@pytest.fixture
def train(monkeypatch, tmp_path):
    cache = MemoryCache(records=20, views=2, picture_px=32, taps=TAPS)
    monkeypatch.setattr(train_module, "open_cache", lambda path, **_: cache)
    common = {"student": "unet", "width": 4, "input_size": 32, "batch_size": 8, "device": "cpu"}

    def run(**options):
        (folder,) = train_module.train(
            **(common | {"epochs": 3} | options),
            cache="memory",
            out=tmp_path / "run",
            changes=["machine.logger=none", "optimizer.keep=best"],
        )
        return folder

    return run


def epochs_of(text):
    return [found for line in text.splitlines() if (found := EPOCH.search(line))]


def test_every_epoch_is_one_line_with_the_figures_of_the_log(train, capsys):
    folder = train(recipe="difom-multiscale")
    shown, kept = capsys.readouterr().err, (folder / TRAIN_LOG).read_text()
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(epochs_of(shown)) == len(epochs_of(kept)) == len(log) == 3
    best = -1.0
    for found, line in zip(epochs_of(kept), log, strict=True):
        best = max(best, line["val_dice"])
        losses = (
            f"segmentation {line['segmentation']:.4f}, feature {line['feature']:.4f}, relation {line['relation']:.4f}"
        )
        said = (line["epoch"] + 1, f"{line['loss']:.4f}", losses, f"{line['val_dice']:.4f}", f"{best:.4f}")
        assert (int(found[1]), *found.groups()[1:5]) == said
        # 16 train records in 2 steps of 8; the figure has one decimal
        assert float(found[7]) == pytest.approx(16 / line["train_s"], abs=0.051)


def test_terminal_and_file_say_the_same(train, capsys):
    folder = train(recipe="baseline")
    shown = capsys.readouterr().err.splitlines()
    kept = (folder / TRAIN_LOG).read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in kept] == shown
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in kept)


def test_the_end_names_the_best_epoch_the_student_and_what_to_type(train):
    folder = train(recipe="baseline")
    lines = (folder / TRAIN_LOG).read_text().splitlines()[-3:]
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    best = max(log, key=lambda line: line["val_dice"])
    assert f"best validation Dice {best['val_dice']:.4f} in epoch {best['epoch'] + 1}" in lines[0]
    assert f"student: {folder / 'student.safetensors'}" in lines[1]
    assert f"next: difom-train evaluate {folder} --data" in lines[2]


def test_a_finished_run_that_is_resumed_says_that_nothing_was_left(train):
    train(recipe="baseline")
    folder = train(recipe="baseline", resume=True)
    assert "3 of 3 epochs were done before; nothing was left to train" in (folder / TRAIN_LOG).read_text()


def test_a_run_out_of_patience_says_why_it_ended(train):
    folder = train(recipe="baseline", epochs=9, patience=1, lr=0.0)
    assert "stopped, as 1 epochs brought no better validation Dice" in (folder / TRAIN_LOG).read_text()


def test_every_phase_says_what_is_new(train):
    text = (train(recipe="difom-paper") / TRAIN_LOG).read_text()
    assert "phase 1 of 3: mask loss x 1, distillation x 0\n" in text
    assert "phase 3 of 3: mask loss x 0.6, distillation x 1, the encoder stands still\n" in text


def test_losses_are_named_where_there_are_several():
    line = {"epoch": 0, "phase": {}, "loss": 1.5, "segmentation": 1.5, "lr": 0.1, "train_s": 1.0}
    assert format_losses(line) == "loss 1.5000"
    line = {"epoch": 0, "phase": {}, "loss": 1.5, "segmentation": 1.0, "low": 0.5, "lr": 0.1, "train_s": 1.0}
    assert format_losses(line) == "loss 1.5000 (segmentation 1.0000, low 0.5000)"


def test_a_second_log_is_a_table_of_what_the_first_one_holds(tmp_path):
    log = SecondLog("csv", tmp_path)
    for epoch, figures in enumerate(({"loss": 0.5, "val_dice": None}, {"loss": 0.25, "val_dice": 0.75})):
        append_log(tmp_path, line := {"epoch": epoch, "phase": {"frozen": False}} | figures)
        log.add(line)
    assert (tmp_path / "csv" / "metrics.csv").read_text() == "step,loss,val_dice\n0,0.5,\n1,0.25,0.75\n"
    SecondLog("none", tmp_path).add({"epoch": 0})
