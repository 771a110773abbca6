"""The state of a run on disk: written whole after every epoch, read back bit for bit."""

import io
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from difom_cache.base.atomic import write_atomic
from difom_cache.base.errors import RunError
from difom_cache.base.files import read_plain

CHECKPOINT = "last.ckpt"
FORMAT_VERSION = 1
_LARGEST_BYTES = 1 << 40


@dataclass
class Progress:
    """How far a run has come, beside its weights."""

    epochs_done: int = 0
    best_dice: float = -1.0
    "Of the epoch whose weights are kept."
    best_epoch: int = -1
    best_loss: float = math.inf
    "On the validation split, where no mask of it shows a polyp, so that `best_dice` says nothing."
    first_alive: dict[str, float] = field(default_factory=dict)
    "The distiller's figures of the first epoch that distilled, which later ones are compared with."
    alive: list[dict[str, float]] = field(default_factory=list)
    "The distiller's figures of every epoch that distilled."
    collapsed: list[str] = field(default_factory=list)
    "One line for each variance that collapsed in any epoch."
    warnings: list[str] = field(default_factory=list)
    "`collapsed`, and what is unexplained as of now."

    def count_epoch(self, epoch: int, dice: float | None, loss: float | None = None, *, last: bool = False) -> bool:
        """Count an epoch that is done; return whether its weights are kept: the best, or where `last` is true the newest."""
        self.epochs_done = epoch + 1
        better = dice > self.best_dice if dice is not None else loss is None or loss < self.best_loss
        if better or last:
            self.best_dice, self.best_epoch = -1.0 if dice is None else dice, epoch
            self.best_loss = math.inf if loss is None else loss
        return better or last

    def is_stale(self, patience_epochs: int) -> bool:
        """Whether so many epochs have passed since the best one; never where none has, or no patience was asked for."""
        stale = self.epochs_done - 1 - self.best_epoch
        return patience_epochs > 0 and self.epochs_done > 0 and stale >= patience_epochs


def write_checkpoint(folder: Path, progress: Progress, states: dict[str, Any]) -> None:
    """Write `last.ckpt` so that it is either the old one or the new one, whatever happens."""
    content = {"format": FORMAT_VERSION, "progress": asdict(progress), "states": states}
    written = io.BytesIO()  # PyTorch answers an error of the disk by one of its own
    torch.save(content, written)
    write_atomic(folder / CHECKPOINT, [written.getbuffer()])


def read_checkpoint(folder: Path) -> tuple[Progress, dict[str, Any]]:
    """Return the progress and the states of `last.ckpt`, on the CPU.

    Raises:
        RunError: there is none, it is damaged, or another version wrote it.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise RunError(
            f"{folder} holds no {CHECKPOINT}: the run was stopped before its first epoch ended; start it anew"
        )
    try:
        content = torch.load(
            io.BytesIO(read_plain(path, most_bytes=_LARGEST_BYTES)), map_location="cpu", weights_only=True
        )
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise RunError(f"{path} cannot be read ({error}); remove the folder and start the run anew") from error
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found != FORMAT_VERSION:
        raise RunError(f"{path} has format {found!r}, expected {FORMAT_VERSION}")
    try:
        return Progress(**content["progress"]), dict(content["states"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}); remove the folder and start the run anew") from error
