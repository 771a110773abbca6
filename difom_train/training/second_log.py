"""The log of a run that other programs read, beside log.jsonl: TensorBoard's events, a table, Weights & Biases, MLflow."""

import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import install_extra
from difom_cache.base.progress import say
from difom_cache.base.text import format_csv
from difom_train.training.run_folder import read_log, read_public_settings

EXTRAS = ("wandb", "mlflow")  # kinds that are extras of the same name


class Writer(NamedTuple):
    """What one kind of log does: add an epoch's numbers, and end."""

    log: Callable[[dict[str, float], int], object]
    close: Callable[[], object]


class SecondLog:
    """Adds epochs to a log; what fails there is said once, and ends no run.

    Args:
        kind: as `machine.logger` has it.
        folder: of the run.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self._writer: Writer | None = None  # opened by the first epoch: these libraries take seconds to load
        self._written, self._is_broken = 0, False
        if kind in EXTRAS and find_spec(kind) is None:
            self._give_up(f"{kind} is not installed: {install_extra(kind)}")

    def add(self, line: dict[str, Any]) -> None:
        """Add an epoch, which is in log.jsonl already."""
        self._try(lambda: self._add(line))

    def close(self) -> None:
        """End the log."""
        if self._writer is not None:
            self._try(self._writer.close)

    def _add(self, line: dict[str, Any]) -> None:
        if self._writer is None:
            self._writer = _OPENERS[self.kind](self.folder)
        # A resumed run is a new one to these two, so it gets the epochs before as well.
        lines = read_log(self.folder)[self._written :] if self.kind in EXTRAS else [line]
        for each in lines:
            self._writer.log({name: value for name, value in each.items() if isinstance(value, float)}, each["epoch"])
        self._written += len(lines)

    def _try(self, act: Callable[[], object]) -> None:
        if self.kind == "none" or (self._is_broken and self.kind != "csv"):
            return
        try:
            act()
        except Exception as error:  # of a disk, a network, a library or its thread
            hint = f"; {install_extra(self.kind)}" if isinstance(error, ImportError) else ""
            self._give_up(" ".join(str(error).split()) + hint)

    def _give_up(self, reason: str) -> None:
        if not self._is_broken:
            say(f"WARNING: the {self.kind} log failed ({reason}); log.jsonl has every epoch")
        self._is_broken = True


def _open_tensorboard(folder: Path) -> Writer:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))

    def log(values: dict[str, float], epoch: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    return Writer(log, writer.close)


def _open_csv(folder: Path) -> Writer:
    def log(*_: object) -> None:
        lines = read_log(folder)
        names = dict.fromkeys(name for line in lines for name, value in line.items() if isinstance(value, float))
        table = [{"step": line["epoch"]} | {name: line.get(name, "") for name in names} for line in lines]
        (folder / "csv").mkdir(exist_ok=True)
        write_atomic(folder / "csv" / "metrics.csv", format_csv(table).encode())

    return Writer(log, lambda: None)


def _open_wandb(folder: Path) -> Writer:
    import wandb

    silent = wandb.Settings(console="off", silent=True)
    wandb.setup(silent)
    is_said = "WANDB_MODE" in os.environ or wandb.login(prompt=False)  # else it asks for a key, and the run waits
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "difom"),
        name=folder.resolve().name,
        dir=os.environ.get("WANDB_DIR", folder),
        config=read_public_settings(folder),
        mode=None if is_said else "offline",
        reinit="create_new",
        settings=silent,
    )
    return Writer(lambda values, epoch: run.log(values, step=epoch), run.finish)


def _open_mlflow(folder: Path) -> Writer:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nobody asked for figures of use to be sent
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}")
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "difom")
    held = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if held is None else held.experiment_id
    run = client.create_run(experiment, run_name=folder.resolve().name).info.run_id
    for section, value in read_public_settings(folder).items():
        for key, setting in value.items() if isinstance(value, dict) else [("", value)]:
            client.log_param(run, f"{section}.{key}".rstrip("."), setting)

    def log(values: dict[str, float], epoch: int) -> None:
        for name, value in values.items():
            client.log_metric(run, name, value, step=epoch)

    return Writer(log, lambda: client.set_terminated(run))


_OPENERS = {"tensorboard": _open_tensorboard, "csv": _open_csv, "wandb": _open_wandb, "mlflow": _open_mlflow}
