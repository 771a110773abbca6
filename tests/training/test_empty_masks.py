"""Masks without a polyp are counted before training, and a validation split of such alone chooses by its loss."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from memory_cache import MemoryCache

from difom_cache.store import SPLITS, TapSpec
from difom_train.training import TRAIN_LOG, Progress, read_checkpoint, write_checkpoint

TAPS = {"wide/block@16": TapSpec("wide/block@16", "feature", 6, 2, 16, "float16")}
train_module = import_module("difom_train.training.run")


def cache_with(empty: dict[str, int], records: int = 20) -> MemoryCache:
    """A cache in which so many records of each split, the first, have a mask without a polyp; the others have one."""
    cache = MemoryCache(records=records, views=2, picture_px=32, taps=TAPS)
    masks, table = cache._arrays["mask"], cache.table
    masks[:] = 0
    masks[:, 8:20, 8:24] = 1
    for split, count in empty.items():
        records_of = np.unique(table.record[table.split == SPLITS.index(split)])
        masks[np.isin(table.record, records_of[:count])] = 0
    return cache


def train(
    monkeypatch: pytest.MonkeyPatch, cache: MemoryCache, folder: Path, *, keep: str = "best", **options: object
) -> tuple[str, list[dict], dict]:
    """The log in words and in numbers, and run.json."""
    monkeypatch.setattr(train_module, "open_cache", lambda path, **_: cache)
    common = {
        "student": "unet",
        "width": 4,
        "input_size": 32,
        "batch_size": 8,
        "device": "cpu",
        "recipe": "baseline",
        "epochs": 3,
    }
    train_module.train(
        **(common | options), cache="memory", out=folder, changes=["machine.logger=none", f"optimizer.keep={keep}"]
    )
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return (folder / TRAIN_LOG).read_text(), log, json.loads((folder / "run.json").read_text())


def test_a_validation_split_without_a_polyp_chooses_by_its_loss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said, log, facts = train(monkeypatch, cache_with({"val": 99}), tmp_path / "run")
    assert "no validation mask shows a polyp, so Dice means nothing there (an empty answer has 1)" in said
    assert said.index("no validation mask shows a polyp") < said.index("epoch 1/3")
    assert [line["val_dice"] for line in log] == [None] * 3 and all(line["val_loss"] > 0 for line in log)
    best = min(log, key=lambda line: line["val_loss"])
    assert f"lowest validation loss {best['val_loss']:.4f} in epoch {best['epoch'] + 1}" in said
    assert "Dice 1.0000" not in said and facts["best_val_dice"] is None and facts["best_epoch"] == best["epoch"]
    val = facts["empty_masks"]["validation"]
    assert val[0] == val[1] == facts["rows"]["val_records"]


def test_of_few_images_without_a_polyp_the_last_epoch_is_kept_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said, log, facts = train(monkeypatch, cache_with({"val": 99}), tmp_path / "run", keep="auto")
    assert facts["best_epoch"] == 2 and f"the last epoch is kept, of validation loss {log[2]['val_loss']:.4f}" in said
    assert "lowest validation loss" not in said and "best epoch" not in said


def test_one_polyp_in_the_validation_split_is_enough_for_dice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = cache_with({"val": 1, "train": 3})
    said, log, facts = train(monkeypatch, cache, tmp_path / "run")
    assert "WARNING" not in said and all(line["val_dice"] is not None and "val_loss" not in line for line in log)
    assert "masks without a polyp: 3 of 16 looked at in training, 1 of 4 in validation" in said
    assert "images: 20 (memory); 32 x 32 px; 10 groups; splits: 16 train, 4 val (records.csv)" in said
    assert facts["best_val_dice"] == max(line["val_dice"] for line in log)


def test_most_training_masks_empty_is_said_before_the_first_epoch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said, *_ = train(monkeypatch, cache_with({"train": 9}), tmp_path / "run", epochs=1)
    assert said.index("WARNING: 9 of 16 training masks show no polyp") < said.index("epoch 1/1")


def test_the_lowest_loss_outlives_a_stop_and_old_checkpoints_open(tmp_path: Path) -> None:
    progress = Progress()
    progress.count_epoch(0, None, 0.5)
    write_checkpoint(tmp_path, progress, {})
    assert read_checkpoint(tmp_path)[0] == progress
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    del content["progress"]["best_loss"]
    torch.save(content, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path)[0].best_loss == float("inf")


def test_progress_counts_the_lowest_loss_as_the_best() -> None:
    progress = Progress()
    found = [progress.count_epoch(epoch, None, loss) for epoch, loss in enumerate([0.9, 0.5, 0.7, 0.4])]
    assert found == [True, True, False, True] and (progress.best_epoch, progress.best_loss, progress.best_dice) == (
        3,
        0.4,
        -1.0,
    )
    assert [Progress().count_epoch(0, None), Progress().count_epoch(0, 0.0)] == [True, True]
