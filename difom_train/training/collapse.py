"""Whether the distillation of a run is alive, epoch after epoch."""

from difom_train.distill.alive import find_collapse, find_unexplained
from difom_train.training.checkpoint import Progress

_YOUNG_EPOCHS, _YOUNG_FRAC = 3, 0.1  # epochs, share of the run: before that an explained fraction of zero is just young


def watch(progress: Progress, alive: dict[str, float], epochs: int) -> list[str]:
    """Take the figures of one more epoch into `progress`, and return one line for each that is newly found dead.

    What has collapsed once stays marked; what was unexplained and is explained now, does not.

    Args:
        progress: of the run, changed in place.
        alive: figures of the distiller after the epoch; empty where the epoch did not distil.
        epochs: of the whole run.
    """
    if not alive:
        return []
    progress.alive.append(alive)
    collapsed = find_collapse(progress.first_alive, alive)
    enough = max(_YOUNG_EPOCHS, round(_YOUNG_FRAC * epochs))
    unexplained = find_unexplained(progress.alive) if len(progress.alive) >= enough else []
    known = {_figure_of(line) for line in progress.warnings}
    now = {_figure_of(line) for line in collapsed}
    progress.collapsed = [*(line for line in progress.collapsed if _figure_of(line) not in now), *collapsed]
    progress.warnings = [*progress.collapsed, *unexplained]
    return [line for line in progress.warnings if _figure_of(line) not in known]


def _figure_of(line: str) -> str:
    """Return the key of the figure that a warning begins with."""
    return line.split()[0]
