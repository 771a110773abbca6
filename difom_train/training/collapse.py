"""Collapse detection: a distillation that has collapsed has a loss that looks good and teaches nothing."""

from collections.abc import Mapping, Sequence

from difom_train.training.checkpoint import Progress

COLLAPSED_FRAC = 0.01  # of a variance's first value
UNEXPLAINED_FRAC = 0.01  # of the target's variance
VARIANCES = ("distill/target_var/", "distill/student_var/")
EXPLAINED, COSINE = "distill/explained/", "distill/cosine/"
ALIGNED_COSINE = 0.1  # targets are centred, so a map that says nothing of its target has a cosine of about 0
RISING_COSINE = 0.02  # a cosine that has come so far is on its way, however low it began
TERM = "distill/term/"
SILENT = 1e-4  # a mean loss below this moves nothing
LOGITS = "/logits@"
_YOUNG_EPOCHS, _YOUNG_FRAC = 3, 0.1  # epochs, share of the run: before that an explained fraction of zero is just young


def detect_collapse(progress: Progress, figures: dict[str, float], epochs: int) -> list[str]:
    """Take the figures of one more epoch into `progress`, and return one line for each that is newly found dead.

    What has collapsed once stays marked; what was unexplained and is explained now, does not.

    Args:
        progress: of the run, changed in place.
        figures: of the distiller after the epoch, and the mean of each of its terms in it; empty where the epoch did not distil.
        epochs: of the whole run.
    """
    if not figures:
        return []
    progress.alive.append(figures)
    collapsed = find_collapse(progress.first_alive, figures)
    enough = max(_YOUNG_EPOCHS, round(_YOUNG_FRAC * epochs))
    unexplained = find_unexplained(progress.alive) if len(progress.alive) >= enough else []
    silent = find_silent(progress.alive) if len(progress.alive) >= min(_YOUNG_EPOCHS, epochs) else []
    known = {_figure_of(line) for line in progress.warnings}
    now = {_figure_of(line) for line in collapsed}
    progress.collapsed = [*(line for line in progress.collapsed if _figure_of(line) not in now), *collapsed]
    progress.warnings = [*progress.collapsed, *unexplained, *silent]
    return [line for line in progress.warnings if _figure_of(line) not in known]


def find_collapse(first: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """Return one line for each variance that has fallen under 1 % of its first value.

    Args:
        first: `Distiller.summarise` before or after the first epoch with distillation.
        now: the same, later.
    """
    return [
        f"{key} collapsed from {first[key]:.3g} to {value:.3g}: the student matches a target that says nothing"
        for key, value in now.items()
        if key.startswith(VARIANCES) and key in first and value < COLLAPSED_FRAC * first[key]
    ]


def find_silent(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return one line for each term whose mean loss was next to nothing in every epoch of `history`."""
    keys = dict.fromkeys(key for epoch in history for key in epoch if key.startswith(TERM))
    return [
        f"{key} has stayed at zero (highest {_best(history, key):.2g}): this term teaches nothing"
        for key in keys
        if _best(history, key) < SILENT
    ]


def find_unexplained(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return one line for each target of which the student has explained nothing in any epoch of `history`.

    A teacher's logits are left out: the student answers them with its own mask, which the labels shape as well, so a
    squared error above the target's variance says that the two differ in confidence, not that nothing is learnt. So is a
    target whose direction the student has found, or comes nearer to: losses here ask for the cosine first, and the scale
    comes late.
    """
    keys = dict.fromkeys(key for epoch in history for key in epoch if key.startswith(EXPLAINED) and LOGITS not in key)
    return [
        f"{key} has stayed at zero (best {best:.3f}): the student learns nothing of this target"
        for key in keys
        if (best := _best(history, key)) < UNEXPLAINED_FRAC
        and _best(history, _cosine_key(key)) < ALIGNED_COSINE
        and _rise(history, _cosine_key(key)) < RISING_COSINE
    ]


def _best(history: Sequence[Mapping[str, float]], key: str) -> float:
    return max((epoch[key] for epoch in history if key in epoch), default=-1.0)


def _rise(history: Sequence[Mapping[str, float]], key: str) -> float:
    """Return how much a figure has risen from its first epoch to its last."""
    values = [epoch[key] for epoch in history if key in epoch]
    return values[-1] - values[0] if values else 0.0


def _cosine_key(explained: str) -> str:
    """Return the key of the cosine of the same tap; levels are not told apart."""
    return COSINE + explained.removeprefix(EXPLAINED).partition(":")[0]


def _figure_of(line: str) -> str:
    """Return the key of the figure that a warning begins with."""
    return line.split()[0]
