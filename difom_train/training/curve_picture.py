"""The curves of several runs in one picture."""

from collections.abc import Sequence
from pathlib import Path

from difom_cache.errors import RunError
from difom_train.training.curves import draw_curves
from difom_train.training.run_folder import read_log


def curves(runs: Sequence[str | Path], out: str | Path = "curves.png") -> Path:
    """Draw loss, validation Dice, explained fractions and variances of runs, a row each.

    Args:
        runs: run folders.
        out: the PNG to write.

    Raises:
        RunError: a folder holds no finished epoch, or two have one name.
    """
    logs = {Path(run).name: read_log(Path(run)) for run in runs}
    for run in runs:
        if not logs[Path(run).name]:
            raise RunError(f"{run}: holds no finished epoch; give the folder of a run")
    if len(logs) < len(runs):
        raise RunError("two of the run folders have one name; rename one of them")
    draw_curves(logs, Path(out))
    return Path(out)
