"""Logs that other programs read hold every epoch, read back by those programs; one that fails ends nothing."""

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from difom_train.config import compose_keywords, write_settings
from difom_train.training import SecondLog, append_log

EPOCHS = [{"loss": 0.5, "val_dice": None}, {"loss": 0.25, "val_dice": 0.75}, {"loss": 0.125, "val_dice": 0.875}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a run that has its settings."""
    folder = tmp_path / "runs/one"
    folder.mkdir(parents=True)
    secret = tmp_path / "secret-place"
    first = f"imagenet:{secret}/first.safetensors"
    write_settings(
        compose_keywords(student="unet", student_weights=first, cache=secret, lr=0.125), folder / "settings.toml"
    )
    return folder


def log_epochs(kind: str, folder: Path, numbers: range) -> None:
    log = SecondLog(kind, folder)
    for epoch in numbers:
        append_log(folder, line := {"epoch": epoch, "phase": {"frozen": False}} | EPOCHS[epoch])
        log.add(line)
    log.close()


def read_wandb(file: Path) -> list[Any]:
    """Return the records of an offline run: frames of LevelDB's log format, with 7 bytes of the file's own in front."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts, records = file.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # no frame's head is torn by the end of a block
            place += 32768 - place % 32768
        size, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(Record.FromString(parts))
            parts = b""
    return records


def test_wandb_offline_holds_every_epoch_and_settings_without_paths(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd
):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    log_epochs("wandb", folder, range(2))
    log_epochs("wandb", folder, range(2, 3))  # a resumed run
    wandb.teardown()  # its process writes the file after a run has finished, and to the end when it is told to leave
    assert capfd.readouterr() == ("", "")
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    assert len(files) == 2
    for file, epochs in zip(files, (EPOCHS[:2], EPOCHS), strict=True):
        records = read_wandb(file)
        lines = [
            {item.key or item.nested_key[0]: json.loads(item.value_json) for item in r.history.item} for r in records
        ]
        kept = [{name: value for name, value in line.items() if not name.startswith("_")} for line in lines if line]
        assert kept == [{name: value for name, value in epoch.items() if value is not None} for epoch in epochs]
        (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert (run.project, run.display_name, config["optimizer"]["lr"]) == ("difom", "one", 0.125)
        assert "run" not in config and "secret-place" not in str(config)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, for MLflow
def test_mlflow_holds_every_epoch_and_settings_without_paths(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log_epochs("mlflow", folder, range(2))
    log_epochs("mlflow", folder, range(2, 3))  # a resumed run
    assert capfd.readouterr() == ("", "")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("difom")
    runs = client.search_runs([experiment.experiment_id], order_by=["start_time"])
    assert len(runs) == 2
    for run, losses in zip(runs, ([0.5, 0.25], [0.5, 0.25, 0.125]), strict=True):
        history = client.get_metric_history(run.info.run_id, "loss")
        assert [(point.step, point.value) for point in history] == list(enumerate(losses))
        assert (run.info.status, run.info.run_name, run.data.params["optimizer.lr"]) == ("FINISHED", "one", "0.125")
        assert "secret-place" not in str(run.data.params)
        assert run.data.params["student.weights"] == "imagenet:first.safetensors"


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_a_log_whose_package_is_missing_names_its_extra_once_and_ends_nothing(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    log_epochs(kind, folder, range(3))
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"WARNING: the {kind} log failed (") and f"pip install '.[{kind}]'" in said
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []


def test_wandb_without_a_key_is_offline_and_asks_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    log_epochs("wandb", folder, range(1))
    assert len(list(folder.glob("wandb/offline-run-*/*.wandb"))) == 1
